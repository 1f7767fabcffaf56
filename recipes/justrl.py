"""JustRL: plain GRPO in one stage on its own problems, the control that the prolonged recipes have to beat."""

from megatron_rl.config.publication import Publication, Table
from megatron_rl.config.records import (
    Algorithm,
    Optimizer,
    Recipe,
    Sampling,
    Validation,
)
from recipes.domains import DAPO_MATH
from recipes.models import R1_DISTILL_QWEN_1_5B

RECIPE = Recipe(
    name="justrl",
    version="1.0.0",
    starts_from=None,  # JR: the base model
    model=R1_DISTILL_QWEN_1_5B,  # JR
    domains=(DAPO_MATH,),
    num_steps=4000,  # JR: "over 4,000 steps"; the last one is not stated at hand
    algorithm=Algorithm(
        advantage="group_mean_and_std",  # JR: verl's grpo
        statistics_over="samples",  # chosen: has no meaning here
        clip_low=0.2,  # JR
        clip_high=0.28,  # JR
        dual_clip=10.0,  # JR
        loss_aggregation="token_mean",  # VE: by default
        updates_per_step=4,  # JR: batch 256, mini-batch 64
        kl=None,  # JR
        correction=None,  # JR names none
        truncation=None,  # JR: no length penalty
        overlong=None,  # JR: disabled
        length=None,  # JR: no length penalty
        dynamic_sampling=None,  # JR
        reference_reset=None,  # JR: no reference
        policy_loss="clip",  # JR
        loss_divisor_tokens=None,  # VE: the mean is over tokens
        format_reward=None,  # JR
    ),
    sampling=Sampling(
        prompts_per_step=256,  # JR
        samples_per_prompt=8,  # JR
        temperature=1.0,  # JR
        top_p=1.0,  # chosen: the loss needs the full distribution
        max_prompt_tokens=1024,  # JR
        max_response_tokens=15360,  # JR
        difficulty=None,  # JR: none
    ),
    validation=Validation(
        samples_per_prompt=32,  # JR
        temperature=0.7,  # JR
        top_p=0.9,  # JR
    ),
    optimizer=Optimizer(
        learning_rate=1e-6,  # JR
        warmup_steps=10,  # JR
        beta1=0.9,  # VE
        beta2=0.999,  # VE
        epsilon=1e-8,  # chosen: AdamW's usual value, no source states one
        weight_decay=0.1,  # JR
        max_grad_norm=1.0,  # JR
    ),
    stages=(),
)

PAGE = Publication(
    title="JustRL",
    lineage="Starts from DeepSeek-R1-Distill-Qwen-1.5B, as ProRL v1 does. One stage of plain GRPO on DAPO-Math-17k: no "
    "KL, no resets, no dynamic sampling, no length term. grpo_control is the same algorithm on ProRL's five domains.",
    checkpoint="hbx/JustRL-DeepSeek-1.5B",  # JR
    branch="main",  # JR
    hardware="4 nodes of 8 GPUs (JR's training script).",
    cost="Half of ProRL v2's compute, by its authors' count (JR).",
    deviations=(
        "Confidence: high, for the training script is public; the number of its last step is read as 4,000.",
        "Answers are judged by this repository's math verifier, by value; JustRL's compares strings, as DAPO's does, "
        "so that it pays fewer of the right ones.",
        "The prompts ask for a box in JustRL's words, without DAPO's own before them, which ask for another form "
        "(`megatron-rl data prepare justrl`); of its three validation sets, AIME 2024 alone.",
        "verl divides a group's deviation by n - 1, here by n.",
        "Norms and biases are not decayed, as Megatron has it; verl decays every parameter, over a run a relative "
        "difference of about 1e-4.",
        "The loss is one mean over an update; verl takes it within each microbatch and averages those.",
        "The warm-up begins with a tenth of the learning rate; verl's first step has none.",
    ),
    results=(
        Table(
            title="JustRL on its own problems: math, pass@1 in %",
            columns=("model", "AIME24", "AIME25", "AMC23", "MATH-500", "Minerva", "Olympiad", "mean of nine"),
            rows=(
                ("DeepSeek-R1-Distill-Qwen-1.5B", 29.90, 22.40, 63.82, 84.90, 34.65, 45.95, 37.65),  # JR
                ("ProRL v2, measured there", 51.87, 35.73, 88.75, 92.00, 49.03, 67.84, 53.08),  # JR
                ("JustRL-DeepSeek-1.5B", 52.60, 38.75, 91.02, 91.65, 51.47, 67.99, 54.87),  # JR
            ),
        ),
    ),
)
