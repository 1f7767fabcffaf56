"""BroRL's control: ProRL v2 continued at 16k with its own 16 samples for each prompt."""

from megatron_rl.config.publication import Publication, Table
from megatron_rl.config.records import (
    Algorithm,
    Correction,
    DynamicSampling,
    Kl,
    Optimizer,
    Recipe,
    ReferenceReset,
    Sampling,
    Validation,
)
from recipes.domains import CODE, INSTRUCT, LOGIC, MATH, STEM
from recipes.models import R1_DISTILL_QWEN_1_5B

RECIPE = Recipe(
    name="brorl_control_n16",
    version="1.0.0",
    starts_from="prorl_v2",  # BR: its checkpoint of 3,000 steps
    model=R1_DISTILL_QWEN_1_5B,  # BR: through ProRL v2
    # BR names the five families of version 1; their counts and rewards are taken from there.
    domains=(MATH, CODE, STEM, LOGIC, INSTRUCT),
    num_steps=535,  # BR Table 1: its last row of N=16
    algorithm=Algorithm(
        advantage="group_mean_then_batch",  # BR
        statistics_over="samples",  # B2, RF App. B.2
        clip_low=0.20,  # B2: inherited, BR states none
        clip_high=0.28,  # B2: inherited, BR states none
        dual_clip=None,  # OR, NR
        loss_aggregation="token_mean",  # OR, NR
        updates_per_step=8,  # BR: as many as ProRL v2; OR, DL for their number
        kl=Kl(
            estimator="k2",  # B2: inherited
            coefficient=1e-4,  # OR, NR
            log_ratio_clamp=10.0,  # B2: inherited
            value_clamp=None,  # B2: inherited
            place="loss",  # B2: inherited
        ),
        correction=Correction(
            method="truncate",  # BR: truncated importance sampling
            low=0.0,  # NR
            high=2.0,  # VE: its example; BR states none
        ),
        truncation=None,  # BR names none
        overlong=None,  # BR names none
        length=None,  # BR names none
        dynamic_sampling=DynamicSampling(
            keeps="reward_std_above_zero",  # NR; on 0/1 rewards the same as BR's 0 < correct < N
            max_rounds=10,  # NR
        ),
        reference_reset=ReferenceReset(
            period_steps=300,  # B2 gives 200-500; chosen: mid-range, as prorl_v2
            kl_spike=None,  # BR: periodic
            stall=None,  # BR: periodic
            min_steps_between=300,  # chosen: the period is the only reason
            target="current",  # B2: inherited
            clears_optimizer=False,  # B2: inherited
        ),
        policy_loss="clip",  # BR
        loss_divisor_tokens=None,  # OR, NR: the mean is over tokens
        format_reward=None,  # BR names none
    ),
    sampling=Sampling(
        prompts_per_step=512,  # BR Table 1: counted after dynamic sampling
        samples_per_prompt=16,  # BR Table 1
        temperature=1.0,  # OR, DL
        top_p=1.0,  # NR
        max_prompt_tokens=1024,  # OR, DL
        max_response_tokens=16384,  # BR: the context of all continued phases
        difficulty=None,  # BR: dynamic sampling alone
    ),
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
    ),
    optimizer=Optimizer(
        learning_rate=1e-6,  # BR: eta_0, not stated; OR, DL
        warmup_steps=0,  # chosen: constant from the first step
        beta1=0.9,  # VE, in which it ran (BR); NR
        beta2=0.999,  # VE; NR
        epsilon=1e-8,  # chosen: AdamW's usual value, no source states one
        weight_decay=0.01,  # VE; NR
        max_grad_norm=1.0,  # OR, NR
    ),
    stages=(),
)

PAGE = Publication(
    title="BroRL's control: ProRL goes on with N = 16",
    lineage="Continues ProRL v2's checkpoint of 3,000 steps, as BroRL does; --parent takes the same.",
    checkpoint=None,
    branch=None,
    hardware="64 H100, with verl (BR).",
    cost="133.8 hours for 535 steps (BR Table 1), 8,563 GPU-hours: five and a half days. GPU-hours are derived: hours "
    "times 64.",
    deviations=(
        "What BroRL's page says of clip bounds, KL, importance sampling, context, the groups dropped, fresh moments, "
        "the decay of norms, the loss's mean and verifiers holds here too. Only samples, prompts, steps, learning rate "
        "and the period of the resets differ between the two.",
        "eta_0 and the period of the resets are not stated: prorl_v2's.",
    ),
    results=(
        Table(
            title="Scores in % by steps and hours on 64 H100; samples in thousands, before dynamic sampling",
            columns=("method", "samples each", "steps", "samples", "hours", "math", "code", "Reasoning Gym"),
            rows=(
                ("ProRL v2", 16, 3000, "-", "-", 61.69, 52.00, 61.29),  # BR Table 1
                ("continued", 16, "+225", 4390, 56.3, 62.08, 52.26, 62.10),  # BR Table 1
                ("continued", 16, "+535", 10439, 133.8, 62.02, 52.74, 61.45),  # BR Table 1
                ("BroRL", 512, "+134", 14059, 122.8, 62.85, 53.48, 62.82),  # BR Table 1
            ),
        ),
        Table(
            title="Math, pass@1 in %",
            columns=("steps", "AIME24", "AIME25", "AMC", "MATH", "Minerva", "Olympiad"),
            rows=(
                ("ProRL v2", 49.58, 36.04, 82.53, 92.49, 49.03, 60.44),  # BR Table 3
                ("continued +225", 54.58, 36.25, 80.95, 91.93, 48.25, 60.52),  # BR Table 3
                ("continued +535", 54.38, 35.83, 80.42, 92.15, 48.55, 60.77),  # BR Table 3
            ),
        ),
        Table(
            title="Code in %, not to be set beside ProRL's own tables: the rule is another one, and not stated",
            columns=("steps", "apps", "codecontests", "codeforces", "taco"),
            rows=(
                ("ProRL v2", 58.52, 54.99, 58.64, 35.87),  # BR Table 4
                ("continued +225", 58.83, 54.58, 59.27, 36.36),  # BR Table 4
                ("continued +535", 59.67, 55.09, 59.13, 37.06),  # BR Table 4
            ),
        ),
    ),
)
