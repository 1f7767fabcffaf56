"""Where a recipe runs: hardware, layout and caps, never the algorithm."""

from megatron_rl.config.records import Caps, Miniature, Scale

GIB = 2**30  # bytes

LAPTOP_CAPS = Caps(
    prompts_per_step=6,  # under half a second of work on two cores
    samples_per_prompt=16,  # the recipe's own: a group's mean is what the advantage rests on
    updates_per_step=2,  # 48 sequences each
    max_prompt_tokens=32,  # the demo's longest problem has fewer
    max_response_tokens=24,  # room for a worked answer of the demo's problems
    validation_samples_per_prompt=1,  # greedy, so that a small set gives a steady curve
)
MINIATURE = Miniature(
    model_folder="demo/model",
    data_folder="demo/data",
    learning_rate=3e-5,  # a model of a third of a million weights learns little at 1e-6
    schedule_divisor=20,  # ProRL v2's 3,000 steps become 150, a reset every 15, the length term 5 on and 25 off
)

CPU = Scale(
    name="cpu",
    device="cpu",
    num_nodes=1,  # a laptop
    devices_per_node=2,  # for so small a model two ranks of one thread beat one rank of two
    tensor_parallel=1,  # the model fits anywhere
    pipeline_parallel=1,  # the model fits anywhere
    rollout_tensor_parallel=1,  # one engine per rank
    precision="fp32",
    device_memory_bytes=2 * GIB,  # half of a small laptop's 4 GB
    max_tokens_per_microbatch=2048,  # an update is 24 sequences of at most 56 tokens per rank: one pack
    kv_cache_bytes=GIB // 8,  # 256 sequences of 64 tokens at 4 KiB a token, twice
    max_requests_in_flight=256,  # more gains nothing on one thread
    sequences_per_wave=256,  # 32 prompts over two engines: nearly every round is one wave
    threads_per_process=1,  # see devices_per_node
    verifier_processes=1,  # two cores are busy already
    caps=LAPTOP_CAPS,
    miniature=MINIATURE,
)

CPU_TP2_PP2 = Scale(
    name="cpu_tp2_pp2",
    device="cpu",
    num_nodes=1,  # a laptop
    devices_per_node=4,  # the smallest world with both kinds of parallelism
    tensor_parallel=2,  # to show that it changes nothing but the place of the work
    pipeline_parallel=2,  # the same
    rollout_tensor_parallel=1,  # differs from the actor's, so that a refit has to reshard
    precision="fp32",
    device_memory_bytes=2 * GIB,  # as scale cpu
    max_tokens_per_microbatch=2048,  # as scale cpu: the layouts are compared
    kv_cache_bytes=GIB // 8,  # as scale cpu
    max_requests_in_flight=256,  # as scale cpu
    sequences_per_wave=256,  # as scale cpu
    threads_per_process=1,  # four processes on two cores
    verifier_processes=1,  # the cores are busy already
    caps=LAPTOP_CAPS,
    miniature=MINIATURE,
)

GPU1 = Scale(
    name="gpu1",
    device="cuda",
    num_nodes=1,  # one machine
    devices_per_node=1,  # one GPU of 80 GB
    tensor_parallel=1,  # one GPU
    pipeline_parallel=1,  # one GPU
    rollout_tensor_parallel=1,  # one GPU
    precision="bf16",
    device_memory_bytes=80 * 10**9,  # an H100 of 80 GB
    max_tokens_per_microbatch=4096,  # the whole optimizer is on this GPU: activations stay under 12 GiB
    fp32_logits="both",  # as scale h100x8
    kv_cache_bytes=16 * GIB,  # 600,000 tokens: 256 sequences of 2,300
    max_requests_in_flight=256,  # what the cache holds
    sequences_per_wave=256,  # what the cache holds
    threads_per_process=4,  # tokenising beside the GPU
    verifier_processes=4,  # a machine with one GPU has eight cores or more
    caps=Caps(
        prompts_per_step=32,  # a step takes a minute or two
        updates_per_step=4,  # 128 sequences each
        max_response_tokens=2048,  # a try-out, not the paper's 8k
        validation_samples_per_prompt=4,  # a try-out
    ),
)

H100X8 = Scale(
    name="h100x8",
    device="cuda",
    num_nodes=1,  # one DGX
    devices_per_node=8,  # one DGX
    tensor_parallel=1,  # a 1.5B model and its share of the optimizer take 12 GiB
    pipeline_parallel=1,  # the same
    rollout_tensor_parallel=1,  # the same
    precision="bf16",
    device_memory_bytes=80 * 10**9,  # an H100 of 80 GB
    max_tokens_per_microbatch=17408,  # the longest sequence, 1,024 + 16,384; two of ProRL v2's nearly fill it
    recomputes_activations=True,  # training takes 17 GiB; without, 63, to be tried where there is a GPU to measure it
    fp32_logits="both",  # rounded to bf16 they are 0.02 nats off at temperature 1.2; costs no memory
    kv_cache_bytes=40 * GIB,  # pinned, for vLLM's own estimate grows; 1.5 million tokens
    max_requests_in_flight=512,  # 2,900 tokens each when all are running
    sequences_per_wave=128,  # chosen: a quarter of what is in flight, so that a kill costs few finished samples
    threads_per_process=8,  # a node has 96 cores or more
    verifier_processes=8,  # as fast as eight engines answer
    time_limit_hours=4.0,  # the usual limit of a queue
)

H100X32 = Scale(
    name="h100x32",
    device="cuda",
    num_nodes=4,  # ProRL v1's hardware
    devices_per_node=8,  # DGX
    tensor_parallel=1,  # a 1.5B model fits
    pipeline_parallel=1,  # a 1.5B model fits
    rollout_tensor_parallel=1,  # a 1.5B model fits
    precision="bf16",
    device_memory_bytes=80 * 10**9,  # as scale h100x8
    max_tokens_per_microbatch=17408,  # as scale h100x8
    recomputes_activations=True,  # as scale h100x8
    fp32_logits="both",  # as scale h100x8
    kv_cache_bytes=40 * GIB,  # as scale h100x8
    max_requests_in_flight=512,  # as scale h100x8
    sequences_per_wave=128,  # as scale h100x8
    threads_per_process=8,  # as scale h100x8
    verifier_processes=8,  # as scale h100x8
    time_limit_hours=4.0,  # the usual limit of a queue
)

H100X64 = Scale(
    name="h100x64",
    device="cuda",
    num_nodes=8,  # BroRL's hardware
    devices_per_node=8,  # DGX
    tensor_parallel=1,  # a 1.5B model fits
    pipeline_parallel=1,  # a 1.5B model fits
    rollout_tensor_parallel=1,  # a 1.5B model fits
    precision="bf16",
    device_memory_bytes=80 * 10**9,  # as scale h100x8
    max_tokens_per_microbatch=17408,  # as scale h100x8
    recomputes_activations=True,  # as scale h100x8
    fp32_logits="both",  # as scale h100x8
    kv_cache_bytes=40 * GIB,  # as scale h100x8
    max_requests_in_flight=512,  # as scale h100x8
    sequences_per_wave=128,  # as scale h100x8
    threads_per_process=8,  # as scale h100x8
    verifier_processes=8,  # as scale h100x8
    time_limit_hours=4.0,  # the usual limit of a queue
)

H100X16_TP2 = Scale(
    name="h100x16_tp2",
    device="cuda",
    num_nodes=2,  # eight replicas of a 7B or 8B model
    devices_per_node=8,  # DGX
    tensor_parallel=2,  # 7B on one GPU would be 43 GiB of weights and gradients before its optimizer
    pipeline_parallel=1,  # two GPUs hold it
    rollout_tensor_parallel=1,  # 15 GiB of weights leave room for the cache, and no message for each token
    precision="bf16",
    device_memory_bytes=80 * 10**9,  # an H100 of 80 GB
    max_tokens_per_microbatch=17408,  # as scale h100x8
    sequence_parallel=True,  # norms and residuals are split, too
    recomputes_activations=True,  # as scale h100x8
    fp32_logits="both",  # as scale h100x8
    kv_cache_bytes=20 * GIB,  # 380,000 tokens of Qwen2.5-7B, beside the actor at rest
    max_requests_in_flight=256,  # 1,500 tokens each when all are running
    sequences_per_wave=128,  # as scale h100x8
    threads_per_process=8,  # as scale h100x8
    verifier_processes=8,  # as scale h100x8
    time_limit_hours=4.0,  # the usual limit of a queue
)

H100X64_TP8_PP2 = Scale(
    name="h100x64_tp8_pp2",
    device="cuda",
    num_nodes=8,  # four replicas of a 32B model
    devices_per_node=8,  # DGX
    tensor_parallel=8,  # within a node, where the wires are
    pipeline_parallel=2,  # 32B on eight GPUs would leave no room for the cache
    rollout_tensor_parallel=8,  # 8 GiB of weights a GPU
    precision="bf16",
    device_memory_bytes=80 * 10**9,  # an H100 of 80 GB
    max_tokens_per_microbatch=17408,  # as scale h100x8
    sequence_parallel=True,  # norms and residuals are split, too
    recomputes_activations=True,  # as scale h100x8
    fp32_logits="both",  # as scale h100x8
    kv_cache_bytes=30 * GIB,  # 980,000 tokens of Qwen2.5-32B in an engine of eight GPUs
    max_requests_in_flight=512,  # 1,900 tokens each when all are running
    sequences_per_wave=128,  # as scale h100x8
    threads_per_process=8,  # as scale h100x8
    verifier_processes=8,  # as scale h100x8
    time_limit_hours=4.0,  # the usual limit of a queue
)

ALL = (CPU, CPU_TP2_PP2, GPU1, H100X8, H100X32, H100X64, H100X16_TP2, H100X64_TP8_PP2)
SCALES = {scale.name: scale for scale in ALL}
