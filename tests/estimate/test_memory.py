import dataclasses
from pathlib import Path

import pytest

from megatron_rl.actor import vocabulary
from megatron_rl.config.records import Recipe, Scale
from megatron_rl.config.run import Run
from megatron_rl.estimate.memory import RESERVED_BYTES, VOCABULARY_AT_ONCE, estimate
from recipes.prorl_v2 import RECIPE
from recipes.scales import H100X8, H100X16_TP2, H100X64_TP8_PP2

GIB = 2**30
PLAIN = dataclasses.replace(H100X8, recomputes_activations=False)


def run_at(scale: Scale, recipe: Recipe = RECIPE) -> Run:
    return Run(
        recipe=recipe,
        published=RECIPE,
        scale=scale,
        directory=Path("runs/x"),
        model_folder=Path("model"),
        data_folder=Path("data"),
    )


def test_parts_of_the_published_model_on_eight_gpus() -> None:
    # 1,777,088,000 weights, worked out by hand from the formulas; 8,192-token activations of this shape are published
    # as 15.6 GiB with a fused SwiGLU.
    memory = estimate(run_at(dataclasses.replace(PLAIN, max_tokens_per_microbatch=9216, fuses_swiglu=True)))
    assert memory.weights == memory.reference == memory.rollout_weights == 2 * 1_777_088_000
    assert memory.gradients == 4 * 1_777_088_000
    assert memory.optimizer == 12 * 1_777_088_000 // 8
    assert memory.kv_cache == 40 * GIB
    assert abs(memory.activations / (9216 / 8192) / GIB - 15.6) < 0.1
    assert memory.logits == 9216 * (6 * 4096 + 8 * 1536) + 2 * 151936 * 1536  # whole logits would be 12.9 GiB


def test_the_blocks_are_those_of_the_actor() -> None:
    assert VOCABULARY_AT_ONCE == vocabulary.VOCABULARY_AT_ONCE


def test_the_cluster_scales_fit_80_gb_beside_a_sleeping_engine() -> None:
    memory = estimate(run_at(H100X8))
    assert memory.training < (74 - 8) * GIB
    assert memory.generation < (74 - 8) * GIB


def test_recomputing_keeps_one_input_per_layer_and_one_layer() -> None:
    plain = estimate(run_at(PLAIN)).activations
    short = estimate(run_at(H100X8)).activations
    tokens = H100X8.max_tokens_per_microbatch
    assert short == plain // 28 + 2 * tokens * 1536 * 28


def test_tensor_parallelism_halves_what_it_shards() -> None:
    whole = estimate(run_at(PLAIN))
    half = estimate(run_at(dataclasses.replace(PLAIN, tensor_parallel=2, sequence_parallel=True)))
    for part in ("weights", "gradients", "activations"):
        assert getattr(half, part) * 2 == getattr(whole, part), part
    # Half the weights over half the data-parallel ranks.
    assert half.optimizer == whole.optimizer
    unsplit = estimate(run_at(dataclasses.replace(PLAIN, tensor_parallel=2)))
    assert half.activations < unsplit.activations < whole.activations


def test_context_parallelism_halves_what_grows_with_tokens_and_nothing_else() -> None:
    whole = estimate(run_at(PLAIN))
    half = estimate(run_at(dataclasses.replace(PLAIN, context_parallel=2)))
    assert half.activations * 2 == whole.activations
    embedding = 2 * 151936 * 1536  # the gradient of the head
    assert (half.logits - embedding) * 2 == whole.logits - embedding
    for part in ("weights", "gradients", "optimizer", "set_aside", "rollout_weights", "kv_cache"):
        assert getattr(half, part) == getattr(whole, part), part


def test_the_fullest_pipeline_stage_counts() -> None:
    whole = estimate(run_at(PLAIN))
    half = estimate(run_at(dataclasses.replace(PLAIN, pipeline_parallel=2)))
    embedding = 151936 * 1536
    assert half.weights == 2 * ((1_777_088_000 - 2 * embedding) // 2 + embedding)
    # The first stage holds a microbatch for itself and one for the second, each of half the layers.
    assert half.activations == whole.activations
    interleaved = estimate(run_at(dataclasses.replace(PLAIN, pipeline_parallel=2, virtual_pipeline=2)))
    assert interleaved.activations == whole.activations * (28 + 7) // 28


def test_in_fp32_the_optimizer_keeps_no_second_copy_of_the_weights() -> None:
    memory = estimate(run_at(dataclasses.replace(H100X8, precision="fp32")))
    assert memory.weights == 4 * 1_777_088_000
    assert memory.optimizer == 8 * 1_777_088_000 // 8
    assert memory.everything == memory.training + memory.generation - memory.resting


# Qwen2.5-7B and -32B as their config.json files have them.
SHAPES = {
    "7B": dataclasses.replace(
        RECIPE.model, name="7B", num_layers=28, hidden_size=3584, num_heads=28, num_kv_heads=4, ffn_hidden_size=18944,
        vocab_size=152064,
    ),
    "32B": dataclasses.replace(
        RECIPE.model, name="32B", num_layers=64, hidden_size=5120, num_heads=40, num_kv_heads=8, ffn_hidden_size=27648,
        vocab_size=152064,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "scale", "fits"),
    [
        ("7B", H100X16_TP2, True),
        ("32B", H100X64_TP8_PP2, True),
        ("7B", H100X8, False),
        ("32B", H100X16_TP2, False),
    ],
)
def test_larger_models_fit_the_scales_that_are_made_for_them_and_no_smaller_ones(
    shape: str, scale: Scale, fits: bool
) -> None:
    recipe = dataclasses.replace(RECIPE, model=SHAPES[shape])
    memory = estimate(run_at(scale, recipe))
    assert scale.device_memory_bytes is not None
    room = scale.device_memory_bytes - RESERVED_BYTES["cuda"]
    assert (max(memory.training, memory.generation) < room) is fits


def test_the_shapes_have_the_published_number_of_weights() -> None:
    # 7.62 and 32.76 billion, by the two models' own pages.
    assert round(SHAPES["7B"].num_parameters / 1e9, 2) == 7.62
    assert round(SHAPES["32B"].num_parameters / 1e9, 2) == 32.76


def test_what_is_offloaded_makes_room_for_the_engine_and_none_for_the_update() -> None:
    scales = {name: dataclasses.replace(H100X16_TP2, offloads=name) for name in ("nothing", "gradients", "optimizer")}
    stays, gradients, optimizer = (estimate(run_at(scale)) for scale in scales.values())
    everything = estimate(run_at(dataclasses.replace(H100X16_TP2, offloads="weights")))
    assert stays.generation - gradients.generation == stays.gradients
    assert gradients.generation - optimizer.generation == stays.optimizer
    assert optimizer.generation - everything.generation == stays.weights  # which are less than the cache
    assert {memory.training for memory in (stays, gradients, optimizer, everything)} == {stays.training}
    # While the engine takes the weights they are there twice, whatever leaves afterwards.
    tight = estimate(run_at(dataclasses.replace(H100X16_TP2, offloads="weights", kv_cache_bytes=GIB)))
    assert tight.generation == tight.weights + tight.rollout_weights


def test_fp8_halves_the_engines_linear_layers_and_costs_the_actor_two_copies() -> None:
    fp8 = dataclasses.replace(H100X8, fp8_actor="blockwise", fp8_rollout=True)
    plain, quantized = estimate(run_at(H100X8)), estimate(run_at(fp8))
    # 26 of 28 layers: queries, keys, values, output, and the three matrices of the MLP.
    linear = 26 * (2 * (12 + 2) * 128 * 1536 + 3 * 1536 * 8960)
    assert plain.rollout_weights - quantized.rollout_weights == linear
    assert quantized.training - plain.training == quantized.quantized == 2 * linear
    assert (plain.weights, plain.optimizer) == (quantized.weights, quantized.optimizer)
    sharded = dataclasses.replace(H100X16_TP2, fp8_actor="blockwise", fp8_rollout=True)
    assert estimate(run_at(sharded)).quantized == linear
