"""Control: plain GRPO in one stage after JustRL, on the problems of the prolonged recipes."""

from megatron_rl.config.publication import Publication, Table
from megatron_rl.config.records import (
    Algorithm,
    Optimizer,
    Recipe,
    Sampling,
    Validation,
)
from recipes.domains import CODE, INSTRUCT, LOGIC, MATH, STEM
from recipes.models import R1_DISTILL_QWEN_1_5B

RECIPE = Recipe(
    name="grpo_control",
    version="1.1.0",
    starts_from=None,  # JR: the base model
    model=R1_DISTILL_QWEN_1_5B,  # JR
    # JR trains on DAPO-Math-17k alone. A control has to meet the problems that the others meet: version 1's.
    domains=(MATH, CODE, STEM, LOGIC, INSTRUCT),
    num_steps=2000,  # chosen: as prorl_v1; JR goes beyond 4,000
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
    # JR validates with 32 samples at 0.7; a comparison needs what the others have.
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
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
    title="GRPO, as a control",
    lineage="Starts from DeepSeek-R1-Distill-Qwen-1.5B, as ProRL v1 does. It is no paper's recipe: JustRL's numbers on "
    "ProRL's problems, to see what resets, KL, dynamic sampling and length terms add.",
    checkpoint=None,
    branch=None,
    hardware="4 nodes of 8 GPUs (JustRL's training script).",
    cost="Not stated for these problems; it has the steps of ProRL v1, so weeks on 32 GPUs.",
    deviations=(
        "Five domains instead of DAPO-Math-17k, and their verifiers instead of string matching.",
        "2,000 steps instead of more than 4,000.",
        "Norms and biases are not decayed, as Megatron has it; verl decays every parameter, over a run a relative "
        "difference of about 1e-4.",
        "The loss is one mean over an update; verl takes it within each microbatch and averages those.",
        "The warm-up begins with a tenth of the learning rate; verl's first step has none.",
        "The standard deviation of a group is the population's; verl divides by n - 1.",
        "Validation as in ProRL: 16 samples at 0.6 instead of 32 at 0.7.",
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
