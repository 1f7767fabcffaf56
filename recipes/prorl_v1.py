"""ProRL v1: GRPO prolonged to 2,000 steps in eight runs, with hard resets of reference and optimizer."""

from megatron_rl.config.publication import Publication, Table
from megatron_rl.config.records import (
    Algorithm,
    DynamicSampling,
    Kl,
    Optimizer,
    Recipe,
    ReferenceReset,
    Sampling,
    Stage,
    Stall,
    Truncation,
    Validation,
)
from recipes.domains import CODE, INSTRUCT, LOGIC, MATH, STEM
from recipes.models import R1_DISTILL_QWEN_1_5B

RECIPE = Recipe(
    name="prorl_v1",
    version="1.2.0",
    starts_from=None,  # P1: the base model
    model=R1_DISTILL_QWEN_1_5B,  # P1
    domains=(MATH, CODE, STEM, LOGIC, INSTRUCT),
    num_steps=2000,  # MC; P1 "more than 2k", JR 2,450
    algorithm=Algorithm(
        advantage="group_mean_and_std",  # P1 eq. 2
        statistics_over="samples",  # P1 eq. 2
        clip_low=0.2,  # P1 section 3.2
        clip_high=0.4,  # P1 section 3.2
        dual_clip=3.0,  # VE: on by default
        loss_aggregation="token_mean",  # VE: by default
        updates_per_step=4,  # P1: batch 256, mini-batch 64
        kl=Kl(
            estimator="k3",  # VE: low_var_kl by default; SU prints pi_theta/pi_ref, verl has the inverse
            coefficient=1e-4,  # SU; P1 states none
            log_ratio_clamp=20.0,  # VE
            value_clamp=10.0,  # VE
            place="loss",  # P1 eq. 4
        ),
        correction=None,  # P1 names none
        truncation=None,  # P1 App. E: from Run 4 on
        overlong=None,  # P1 names none
        length=None,  # P1 names none
        dynamic_sampling=DynamicSampling(
            keeps="reward_std_above_zero",  # VE; P1 has accuracy 0 or 1, undefined for fractions
            max_rounds=10,  # NR
        ),
        reference_reset=ReferenceReset(
            period_steps=None,  # P1 section 2.3.1: validation decides
            kl_spike=None,  # P1 section 2.3.1
            stall=Stall(
                patience_validations=40,  # chosen: 400 steps; by simulation at most one reset beyond P1's three
                min_gain=0.0,  # chosen: any new best counts, for slow gains drown in the noise of one validation
                drop=0.03,  # chosen: seven times the noise of 1,024 prompts with 16 samples each
            ),
            min_steps_between=100,  # chosen: ten validations, before which a drop may be what the reset itself cost
            target="current",  # P1 section 2.3.1: a recent snapshot of the policy
            clears_optimizer=True,  # P1 section 2.3.1
        ),
        policy_loss="clip",  # P1 eq. 1
        loss_divisor_tokens=None,  # VE: the mean is over tokens
        format_reward=None,  # P1 names none
    ),
    sampling=Sampling(
        prompts_per_step=256,  # P1 section 3.2, in verl's unit
        samples_per_prompt=16,  # P1 section 3.2
        temperature=1.2,  # P1 section 3.2
        top_p=1.0,  # chosen: not stated; the loss needs the full distribution
        max_prompt_tokens=1024,  # OR, DL
        max_response_tokens=8192,  # P1 "8k"; section 3.2 prints 8096
        difficulty=None,  # P1: dynamic sampling alone
    ),
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
    ),
    optimizer=Optimizer(
        learning_rate=2e-6,  # P1 section 3.2
        warmup_steps=0,  # P1: constant
        beta1=0.9,  # VE
        beta2=0.999,  # VE
        epsilon=1e-8,  # chosen: AdamW's usual value, no source states one
        weight_decay=0.01,  # VE
        max_grad_norm=1.0,  # chosen: as OR and NR; P1 states none
    ),
    # P1 draws where a run ends (Fig. 2) and states it nowhere. Runs 1 to 7 share the steps before Run 8 alike.
    stages=(
        Stage(
            from_step=0,  # P1 App. E
            why="Run 1: instruction following was not there yet",
            domains=("math", "code", "stem", "logic"),
        ),
        Stage(
            from_step=257,  # chosen: 1/7 of the 1,800 steps before Run 8
            why="Run 2: hard reset after instability and falling validation",
            resets_reference=True,
        ),
        Stage(
            from_step=514,  # chosen: 2/7
            why="Run 3: instruction following joins",
            domains=("math", "code", "stem", "logic", "instruct"),
        ),
        Stage(
            from_step=771,  # chosen: 3/7
            why="Run 4: responses that do not stop are punished",
            truncation=Truncation(
                how="multiply",
                value=0.0,  # chosen: as DL, OR and NR; P1 App. E has a penalty without its size
            ),
        ),
        Stage(
            from_step=1029,  # chosen: 4/7
            why="Run 5: goes on as Run 4",
        ),
        Stage(
            from_step=1286,  # chosen: 5/7
            why="Run 6: more samples, and a hard reset",
            samples_per_prompt=32,  # P1 App. E
            resets_reference=True,
        ),
        Stage(
            from_step=1543,  # chosen: 6/7
            why="Run 7: a second hard reset",
            resets_reference=True,
        ),
        Stage(
            from_step=1800,  # P1 section 3.3: the last 200 steps
            why="Run 8: the context of 16k",
            samples_per_prompt=16,  # P1 App. E
            max_response_tokens=16384,  # P1 section 3.3
        ),
    ),
)

PAGE = Publication(
    title="ProRL v1",
    lineage="Starts from DeepSeek-R1-Distill-Qwen-1.5B. ProRL v2 goes on from its step 2,000 (MC, JR).",
    checkpoint="nvidia/Nemotron-Research-Reasoning-Qwen-1.5B",  # MC
    branch="v1",  # MC
    hardware="4 nodes of 8 H100 80GB, with verl (P1 section 3.2).",
    cost="About 16,000 GPU-hours (P1 section 3.2): three weeks on the 32 GPUs, derived.",
    deviations=(
        "Runs begin at chosen steps: the paper draws them (Fig. 2) and states none but Run 8's 200 steps.",
        "The paper resets when validation degrades or plateaus, without thresholds, and names three resets; here Runs "
        "2, 6 and 7 begin with one, and the rule's thresholds are chosen so that it adds at most one more in the "
        "median (simulated for gains of 0 to 0.013 in a hundred steps and a noise of 0.004).",
        "Learning rate and moments begin anew after a hard reset without a warm-up: no source has one.",
        "Run 2's text names only the reference; the optimizer is cleared there too, as section 2.3.1 says of a reset.",
        "The KL coefficient is second-hand (SU), its estimator verl's default: the paper states neither.",
        "The penalty of Runs 4 and 5 pays a truncated response nothing, and stays in force: its size and its end are "
        "not stated.",
        "A group is dropped where its raw rewards have no spread: accuracy 0 or 1 is undefined for fractions.",
        "The standard deviation of a group is the population's; verl divides by n - 1.",
        "8,192 response tokens: section 3.2 prints 8096, all else says 8k.",
        "Norms and biases are not decayed, as Megatron has it; verl decays every parameter, over a run a relative "
        "difference of about 1e-4.",
        "The loss is one mean over an update; verl takes it within each microbatch and averages those.",
        "All five domains are judged by this repository's own verifiers. Reasoning Gym's own scorers pay part of the "
        "mark for answers that are merely well-formed, so that scores of the two are not comparable.",
    ),
    results=(
        Table(
            title="Math, pass@1 in % (16 samples, temperature 0.6, 32k tokens)",
            columns=("model", "AIME24", "AIME25", "AMC", "MATH", "Minerva", "Olympiad", "mean"),
            rows=(
                ("DeepSeek-R1-Distill-Qwen-1.5B", 28.54, 22.71, 62.58, 82.90, 26.38, 43.58, 44.45),  # P1 Table 1
                ("DeepSeek-R1-Distill-Qwen-7B", 53.54, 40.83, 82.83, 93.68, 50.60, 57.66, 63.19),  # P1 Table 1
                ("ProRL v1", 48.13, 33.33, 79.29, 91.89, 47.98, 60.22, 60.14),  # P1 Table 1
            ),
        ),
        Table(
            title="Code, pass@1 in %",
            columns=("model", "APPS", "CodeContests", "Codeforces", "TACO", "HumanEval+", "LiveCodeBench", "mean"),
            rows=(
                ("DeepSeek-R1-Distill-Qwen-1.5B", 20.95, 16.79, 14.13, 8.03, 61.77, 16.80, 23.08),  # P1 Table 2
                ("DeepSeek-R1-Distill-Qwen-7B", 42.08, 32.76, 33.08, 19.08, 83.32, 38.04, 41.39),  # P1 Table 2
                ("ProRL v1", 41.99, 31.80, 34.50, 20.81, 72.05, 23.81, 37.49),  # P1 Table 2
            ),
        ),
        Table(
            title="Other domains, and three tasks it was not trained on, in %",
            columns=("model", "GPQA diamond", "IFEval", "Reasoning Gym", "acre", "boxnet", "game_of_life_halting"),
            rows=(
                ("DeepSeek-R1-Distill-Qwen-1.5B", 15.86, 44.05, 4.24, 5.99, 0.00, 3.49),  # P1 Table 3
                ("DeepSeek-R1-Distill-Qwen-7B", 35.44, 58.01, 28.55, 20.21, 1.71, 12.94),  # P1 Table 3
                ("ProRL v1", 41.78, 66.02, 59.06, 58.57, 7.91, 52.29),  # P1 Table 3
            ),
        ),
        Table(
            title="Reasoning Gym by category, in %",
            columns=("category", "DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-R1-Distill-Qwen-7B", "ProRL v1"),
            rows=(
                ("algebra", 0.73, 45.80, 97.21),  # P1 Table 5
                ("algorithmic", 3.56, 21.75, 53.90),  # P1 Table 5
                ("arc", 1.53, 3.42, 2.52),  # P1 Table 5
                ("arithmetic", 5.36, 55.43, 82.81),  # P1 Table 5
                ("code", 1.22, 7.84, 29.84),  # P1 Table 5
                ("cognition", 6.47, 30.46, 40.16),  # P1 Table 5
                ("games", 2.34, 5.15, 26.38),  # P1 Table 5
                ("geometry", 1.05, 17.38, 89.84),  # P1 Table 5
                ("graphs", 6.64, 33.29, 66.49),  # P1 Table 5
                ("induction", 1.32, 29.31, 73.50),  # P1 Table 5
                ("logic", 10.90, 34.96, 82.94),  # P1 Table 5
            ),
        ),
    ),
)
