"""BroRL: ProRL v2 continued with 512 samples for each prompt instead of 16."""

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
    name="brorl",
    version="1.1.0",
    starts_from="prorl_v2",  # BR: its checkpoint of 3,000 steps
    model=R1_DISTILL_QWEN_1_5B,  # BR: through ProRL v2
    # BR names the five families of version 1; their counts and rewards are taken from there.
    domains=(MATH, CODE, STEM, LOGIC, INSTRUCT),
    num_steps=191,  # BR Table 1; BB goes on to 419
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
            period_steps=106,  # chosen: ProRL v2's 300 / sqrt(8), for the learning rate is that much larger
            kl_spike=None,  # BR: periodic
            stall=None,  # BR: periodic
            min_steps_between=106,  # chosen: the period is the only reason
            target="current",  # B2: inherited
            clears_optimizer=False,  # B2: inherited
        ),
        policy_loss="clip",  # BR
        loss_divisor_tokens=None,  # OR, NR: the mean is over tokens
        format_reward=None,  # BR names none
    ),
    sampling=Sampling(
        prompts_per_step=128,  # BR Table 1: counted after dynamic sampling
        samples_per_prompt=512,  # BR Table 1
        temperature=1.0,  # OR, DL
        top_p=1.0,  # NR
        max_prompt_tokens=1024,  # OR, DL
        max_response_tokens=16384,  # BR: the context
        difficulty=None,  # BR: dynamic sampling alone
    ),
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
    ),
    optimizer=Optimizer(
        learning_rate=2.83e-6,  # BR: eta_0 * sqrt(65,536 / 8,192 samples); eta_0 = 1e-6 of OR, DL
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
    title="BroRL",
    lineage="Continues ProRL v2's checkpoint of 3,000 steps: --parent takes the directory of a run of prorl_v2, or the "
    "branch on which NVIDIA published that checkpoint, nvidia/Nemotron-Research-Reasoning-Qwen-1.5B@main (MC).",
    checkpoint="nvidia/Nemotron-Research-Reasoning-Qwen-1.5B",  # MC
    branch="brorl",  # MC
    hardware="64 H100, with verl (BR).",
    cost="98.1 hours for 107 steps and 173.8 for 191 (BR Table 1), 6,278 and 11,123 GPU-hours: four and seven days; "
    "393.9 hours for 419 (BB), 25,210 GPU-hours: 16 days. GPU-hours are derived: hours times 64.",
    deviations=(
        "Clip bounds, KL, temperature, period of the resets and eta_0 are not stated: inherited from prorl_v2.",
        "Which of its steps the published branch `brorl` holds is not stated; its lineage is written down as 191.",
        "The cap of truncated importance sampling is verl's example.",
        "No length term: the paper does not list it.",
        "Context of 16,384 is read as response tokens, as in ProRL v2, with 1,024 prompt tokens beside them.",
        "Groups without a spread in their raw rewards are dropped; the paper keeps 0 < correct < N, which is the same "
        "on 0/1 rewards only.",
        "The optimizer begins with fresh moments: what is continued is a published policy, or a run's.",
        "Norms and biases are not decayed, as Megatron has it; verl decays every parameter, over a run a relative "
        "difference of about 1e-4.",
        "The loss is one mean over an update; verl takes it within each microbatch and averages those.",
        "All five domains are judged by this repository's own verifiers. Reasoning Gym's own scorers pay part of the "
        "mark for answers that are merely well-formed, so that scores of the two are not comparable.",
    ),
    results=(
        Table(
            title="Scores in % by steps and hours on 64 H100; samples in thousands, before dynamic sampling",
            columns=("method", "samples each", "steps", "samples", "hours", "math", "code", "Reasoning Gym"),
            rows=(
                ("ProRL v2", 16, 3000, "-", "-", 61.69, 52.00, 61.29),  # BR Table 1
                ("continued", 16, "+225", 4390, 56.3, 62.08, 52.26, 62.10),  # BR Table 1
                ("continued", 16, "+535", 10439, 133.8, 62.02, 52.74, 61.45),  # BR Table 1
                ("BroRL", 512, "+107", 11226, 98.1, 62.62, 53.31, 62.71),  # BR Table 1
                ("BroRL", 512, "+134", 14059, 122.8, 62.85, 53.48, 62.82),  # BR Table 1
                ("BroRL", 512, "+191", 20039, 173.8, 63.03, 54.20, 63.09),  # BR Table 1
                ("BroRL, blog", 512, "+419", "-", 393.9, 63.66, 56.64, 63.40),  # BB
                ("ProRL v1, blog", 16, 2000, "-", "-", 60.14, 51.43, 59.06),  # BB
            ),
        ),
        Table(
            title="Speed: what makes 512 samples cheaper each",
            columns=("samples each", "groups kept, %", "samples generated per second", "hours per step"),
            rows=(
                ("16", 41, 36.5, 0.25),  # BR Table 2; hours derived: 133.8 / 535 of Table 1
                ("512", 62, 72.4, 0.91),  # BR Table 2; hours derived: 173.8 / 191 of Table 1
            ),
        ),
        Table(
            title="Response length in tokens, before and after BroRL",
            columns=("domain", "ProRL v2", "BroRL"),
            rows=(
                ("math", 16506, 15760),  # BB
                ("code", 26808, 26090),  # BB
            ),
        ),
        Table(
            title="Math, pass@1 in %",
            columns=("steps", "AIME24", "AIME25", "AMC", "MATH", "Minerva", "Olympiad"),
            rows=(
                ("ProRL v2", 49.58, 36.04, 82.53, 92.49, 49.03, 60.44),  # BR Table 3
                ("BroRL +107", 56.10, 35.30, 81.76, 92.18, 48.92, 61.41),  # BR Table 3
                ("BroRL +134", 57.71, 35.63, 80.12, 92.06, 49.72, 61.87),  # BR Table 3
                ("BroRL +191", 57.50, 36.88, 81.02, 92.14, 49.08, 61.54),  # BR Table 3
            ),
        ),
        Table(
            title="Code in %, not to be set beside ProRL's own tables: the rule is another one, and not stated",
            columns=("steps", "apps", "codecontests", "codeforces", "taco"),
            rows=(
                ("ProRL v2", 58.52, 54.99, 58.64, 35.87),  # BR Table 4
                ("BroRL +107", 60.28, 55.84, 59.80, 37.31),  # BR Table 4
                ("BroRL +134", 60.19, 56.52, 60.04, 37.15),  # BR Table 4
                ("BroRL +191", 61.59, 56.62, 60.86, 37.74),  # BR Table 4
            ),
        ),
        Table(
            title="Reasoning Gym by category, in %",
            columns=(
                "category",
                "ProRL v2",
                "continued +225",
                "continued +535",
                "BroRL +107",
                "BroRL +134",
                "BroRL +191",
            ),
            rows=(
                ("algebra", 97.19, 97.01, 97.46, 97.55, 97.70, 97.59),  # BR Table 5
                ("algorithmic", 55.32, 58.22, 55.56, 59.11, 59.28, 59.65),  # BR Table 5
                ("arc", 4.98, 5.33, 4.79, 5.10, 5.31, 6.27),  # BR Table 5
                ("arithmetic", 85.74, 85.74, 85.70, 85.97, 85.95, 86.17),  # BR Table 5
                ("code", 48.20, 47.96, 48.43, 49.22, 49.30, 49.45),  # BR Table 5
                ("cognition", 45.91, 46.01, 46.33, 44.05, 44.53, 45.51),  # BR Table 5
                ("games", 25.68, 25.55, 25.71, 25.99, 25.88, 25.77),  # BR Table 5
                ("geometry", 91.62, 91.59, 92.56, 92.16, 92.88, 93.00),  # BR Table 5
                ("graphs", 70.25, 69.83, 70.40, 71.51, 72.01, 72.03),  # BR Table 5
                ("induction", 80.25, 80.31, 80.31, 80.40, 80.38, 80.94),  # BR Table 5
                ("logic", 82.25, 85.26, 85.29, 85.41, 85.29, 85.56),  # BR Table 5
            ),
        ),
    ),
)
