"""Olmo 3 RL-Zero: GRPO without KL and without a standard deviation, its numbers on this family's model."""

from megatron_rl.config.publication import Publication
from megatron_rl.config.records import (
    Algorithm,
    Correction,
    DynamicSampling,
    Optimizer,
    Recipe,
    Sampling,
    Validation,
)
from recipes.domains import MATH
from recipes.models import R1_DISTILL_QWEN_1_5B

RECIPE = Recipe(
    name="olmo3_rl_zero",
    version="1.0.0",
    starts_from=None,  # OI: the base model
    model=R1_DISTILL_QWEN_1_5B,  # chosen: Olmo 3's shape is none that this project loads
    # OI trains on Dolci-RLZero-Math, whose size is not known here: the family's math problems.
    domains=(MATH,),
    num_steps=2000,  # OI: second-hand
    algorithm=Algorithm(
        advantage="group_mean",  # OI: centered, without a standard deviation
        statistics_over="samples",  # chosen: has no meaning here
        clip_low=0.2,  # OI: second-hand
        clip_high=0.272,  # OI
        dual_clip=None,  # OI names none
        loss_aggregation="token_mean",  # OI: second-hand
        updates_per_step=1,  # OI: one mini-batch
        kl=None,  # OI: beta 0
        correction=Correction(
            method="truncate",  # OI
            low=0.0,  # OI: a cap alone
            high=2.0,  # OI
        ),
        truncation=None,  # OI: no penalty for not stopping
        overlong=None,  # OI names none
        length=None,  # OI names none
        dynamic_sampling=DynamicSampling(
            keeps="reward_std_above_zero",  # OI: active sampling
            max_rounds=10,  # NR
        ),
        reference_reset=None,  # OI: no reference
        policy_loss="clip",  # OI: second-hand, DAPO's
        loss_divisor_tokens=None,  # OI: the mean is over tokens
        format_reward=None,  # OI names none
    ),
    sampling=Sampling(
        prompts_per_step=32,  # OI: second-hand, and in some of its scripts
        samples_per_prompt=8,  # OI: likewise
        temperature=1.0,  # OI
        top_p=1.0,  # chosen: the loss needs the full distribution
        max_prompt_tokens=1024,  # chosen: OI has 2,048, which with its responses is more than the scales' microbatches
        max_response_tokens=16384,  # OI: second-hand, and in some of its scripts
        difficulty=None,  # OI: dynamic sampling alone
    ),
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
    ),
    optimizer=Optimizer(
        learning_rate=1e-6,  # OI
        warmup_steps=0,  # OI: constant
        beta1=0.9,  # chosen: as VE
        beta2=0.999,  # chosen: as VE
        epsilon=1e-8,  # chosen: AdamW's usual value, no source states one
        weight_decay=0.01,  # chosen: as VE
        max_grad_norm=1.0,  # chosen: as OR and NR
    ),
    stages=(),
)

PAGE = Publication(
    title="Olmo 3 RL-Zero",
    lineage="Starts from DeepSeek-R1-Distill-Qwen-1.5B, with Olmo 3 RL-Zero's algorithm: what a public recipe of late "
    "2025 makes of the model that ProRL begins with.",
    checkpoint=None,
    branch=None,
    hardware="8 nodes of 8 GPUs for the 7B model (OI).",
    cost="Not known here.",
    deviations=(
        "Confidence: low to medium. The scripts are public and there are many versions of them; what is called "
        "second-hand here is from a note about the paper.",
        "Another model: Olmo 3's 7B base has a shape that this project does not load, and RL-Zero means no training "
        "before the reinforcement learning, which the distilled model has had.",
        "Other problems: ProRL's math instead of Dolci-RLZero-Math.",
        "One version of the script has 16 prompts of 16 samples and 12,000 tokens, and leaves truncated responses out "
        "of the loss; here it is 32 prompts of 8 and 16,384 tokens, and they stay in.",
        "The scripts generate up to four or eight steps ahead of the policy; here every step is on its own policy.",
        "Prompts that were solved in 0.875 or 0.9 of their samples are not met again in the scripts; here they are.",
        "1,024 prompt tokens instead of 2,048.",
        "Answers are judged by this repository's math verifier, not by the scripts' own.",
    ),
    results=(),
)
