"""ProRL v2: prolonged training of a 1.5B reasoning model, 3,000 steps at 8k response tokens."""

from megatron_rl.config import (
    Algorithm,
    CosineLength,
    Domain,
    DynamicSampling,
    Kl,
    Model,
    Optimizer,
    Recipe,
    ReferenceReset,
    Sampling,
    Validation,
)

RECIPE = Recipe(
    name="prorl_v2",
    version="2.0.0",
    model=Model(
        name="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",  # B2
        family="qwen2",  # HF
        num_layers=28,  # HF
        hidden_size=1536,  # HF
        num_heads=12,  # HF
        num_kv_heads=2,  # HF
        head_dim=128,  # HF: hidden_size / num_heads
        ffn_hidden_size=8960,  # HF
        vocab_size=151936,  # HF
        max_positions=131072,  # HF
        rope_theta=10000.0,  # HF
        norm_epsilon=1e-6,  # HF
        tied_embeddings=False,  # HF: unlike Qwen2.5-1.5B, of the same shape
        qkv_bias=True,  # HF: by the family, not a field of the file
        qk_norm=False,  # HF
    ),
    # B2 says "five domains"; their counts and rewards are version 1's.
    domains=(
        Domain(
            name="math",
            num_prompts=40_000,  # P1 Table 4
            source="agentica-org/DeepScaleR-Preview-Dataset",  # MC
            reward="binary",  # P1 Table 4
        ),
        Domain(
            name="code",
            num_prompts=24_000,  # P1 Table 4
            source="PRIME-RL/Eurus-2-RL-Data",  # MC
            reward="fraction",  # P1 Table 4
        ),
        Domain(
            name="stem",
            num_prompts=25_000,  # P1 Table 4
            source="EricLu/SCP-116K",  # MC
            reward="binary",  # P1 Table 4
        ),
        Domain(
            name="logic",
            num_prompts=37_000,  # P1 Table 4
            source="open-thought/reasoning-gym",  # MC
            reward="fraction",  # P1 Table 4
        ),
        Domain(
            name="instruct",
            num_prompts=10_000,  # P1 Table 4
            source="nvidia/Llama-Nemotron-Post-Training-Dataset",  # MC
            reward="fraction",  # P1 Table 4
        ),
    ),
    mixture="uniform_over_prompts",  # chosen: no source states sampling weights
    num_steps=3000,  # B2, MC
    algorithm=Algorithm(
        advantage="group_mean_then_batch",  # B2, RF eq. 6-7
        statistics_over="samples",  # B2, RF App. B.2; OR and NR take valid tokens
        clip_low=0.20,  # B2
        clip_high=0.28,  # B2, DL; OR and NR have 0.27
        loss_aggregation="token_mean",  # OR, NR
        updates_per_step=8,  # OR: 8192 / 1024 samples; DL: 512 / 64 prompts
        kl=Kl(
            estimator="k2",  # B2, RF eq. 8
            coefficient=1e-4,  # OR, NR
            log_ratio_clamp=10.0,  # B2
        ),
        length=CosineLength(
            eta_max=0.0,  # chosen: only weight * (eta_max - eta_min) survives the group mean
            eta_min=-1.0,  # chosen: makes `weight` the whole height of the cosine
            weight=0.5,  # chosen: the size of the only penalty that B2 names
            steps_on=100,  # B2
            steps_off=500,  # B2
            starts_on=False,  # chosen: the first step is then unshaped
        ),
        dynamic_sampling=DynamicSampling(
            keeps="reward_std_above_zero",  # NR; on 0/1 rewards the same as B2's rule
            max_rounds=10,  # NR
        ),
        reference_reset=ReferenceReset(
            period_steps=300,  # B2 gives 200-500; chosen: mid-range
            clears_optimizer=False,  # B2
        ),
    ),
    sampling=Sampling(
        prompts_per_step=512,  # BR Table 1
        samples_per_prompt=16,  # BR Table 1
        temperature=1.0,  # OR, DL
        top_p=1.0,  # NR
        max_prompt_tokens=1024,  # OR, DL
        max_response_tokens=8192,  # B2
    ),
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
    ),
    optimizer=Optimizer(
        learning_rate=1e-6,  # OR, DL
        warmup_steps=0,  # chosen: constant from the first step
        beta1=0.9,  # NR
        beta2=0.999,  # NR
        epsilon=1e-8,  # chosen: AdamW's usual value, no source states one
        weight_decay=0.01,  # NR
        max_grad_norm=1.0,  # OR, NR
    ),
    stages=(),
)
