"""ProRL v2: prolonged training of a 1.5B reasoning model, 3,000 steps at 8k response tokens."""

from megatron_rl.config.publication import Publication, Table
from megatron_rl.config.records import (
    Algorithm,
    CosineLength,
    DynamicSampling,
    Kl,
    KlSpike,
    Optimizer,
    Recipe,
    ReferenceReset,
    Sampling,
    Stall,
    Validation,
)
from recipes.domains import CODE, INSTRUCT, LOGIC, MATH, STEM
from recipes.models import R1_DISTILL_QWEN_1_5B

RECIPE = Recipe(
    name="prorl_v2",
    version="2.1.0",
    starts_from=None,  # B2: the base model; MC and JR: version 1's step 2,000, see the variant prorl_v2_after_v1
    model=R1_DISTILL_QWEN_1_5B,  # B2
    # B2 says "five domains"; their counts and rewards are version 1's.
    domains=(MATH, CODE, STEM, LOGIC, INSTRUCT),
    num_steps=3000,  # B2, MC
    algorithm=Algorithm(
        advantage="group_mean_then_batch",  # B2, RF eq. 6-7
        statistics_over="samples",  # B2, RF App. B.2; OR and NR take valid tokens
        clip_low=0.20,  # B2
        clip_high=0.28,  # B2, DL; OR and NR have 0.27
        dual_clip=None,  # OR, NR
        loss_aggregation="token_mean",  # OR, NR
        updates_per_step=8,  # OR: 8192 / 1024 samples; DL: 512 / 64 prompts
        kl=Kl(
            estimator="k2",  # B2, RF eq. 8
            coefficient=1e-4,  # OR, NR
            log_ratio_clamp=10.0,  # B2
            value_clamp=None,  # B2 has none; OR and NR cut at 10
            place="loss",  # B2
        ),
        correction=None,  # B2 names none; BR says its framework had TIS, which is younger than these weights
        truncation=None,  # B2 names none; OR and NR pay truncated responses nothing
        overlong=None,  # OR, NR
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
            kl_spike=KlSpike(
                ratio=5.0,  # chosen: k2 of a steady drift grows with its square, below 4 times its median
                window_steps=100,  # chosen: half of the shortest period
                min_history_steps=50,  # chosen: half a window
            ),
            stall=Stall(
                patience_validations=10,  # chosen: 100 steps at the usual interval
                min_gain=0.005,  # chosen: about the noise of 1,024 prompts with 16 samples each
                drop=0.02,  # chosen: four times that noise
            ),
            min_steps_between=200,  # B2: the shortest of its periods
            target="current",  # B2's section on resets; its summary and MC have the best checkpoint
            clears_optimizer=False,  # B2
        ),
        policy_loss="clip",  # B2
        loss_divisor_tokens=None,  # OR, NR: the mean is over tokens
        format_reward=None,  # B2 has one as an example only, see the variants
    ),
    sampling=Sampling(
        prompts_per_step=512,  # BR Table 1; JR has 256
        samples_per_prompt=16,  # BR Table 1
        temperature=1.0,  # OR, DL
        top_p=1.0,  # NR
        max_prompt_tokens=1024,  # OR, DL
        max_response_tokens=8192,  # B2
        difficulty=None,  # B2: dynamic sampling alone
    ),
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
    ),
    optimizer=Optimizer(
        learning_rate=1e-6,  # OR, DL
        warmup_steps=0,  # chosen: constant from the first step
        beta1=0.9,  # VE, in which this line of runs continued (BR); NR
        beta2=0.999,  # VE; NR
        epsilon=1e-8,  # chosen: AdamW's usual value, no source states one
        weight_decay=0.01,  # VE; NR
        max_grad_norm=1.0,  # OR, NR
    ),
    stages=(),
)

PAGE = Publication(
    title="ProRL v2",
    lineage="The released weights continue ProRL v1's 2,000 steps by 1,000 (MC, JR). The blog describes one recipe of "
    "3,000 steps from the base model, and so does this one; the variant prorl_v2_after_v1 is the other reading. BroRL "
    "continues the result.",
    checkpoint="nvidia/Nemotron-Research-Reasoning-Qwen-1.5B",  # MC
    branch="main",  # MC
    hardware="Not stated; BroRL continued it on 64 H100 (BR).",
    cost="Over 20,000 H100 GPU-hours (GG, RV): 26 days on 32 GPUs, derived. By BR Table 1, "
    "0.25 hours a step on 64 H100, 3,000 steps are 48,000 GPU-hours: 31 days on 64, 62 on 32, derived.",
    deviations=(
        "k2 uses the current policy; the blog prints pi_old, which has no gradient (RF has the current one).",
        "Advantage statistics count samples, as the blog's formula does; OpenRLHF, NeMo-RL and verl count tokens "
        "(variant prorl_v2_token_statistics).",
        "The upper clip bound is the blog's 0.28; the public configurations have 0.27 (variant prorl_v2_clip27).",
        "The reference becomes the current policy; the blog's summary says the best checkpoint.",
        "Groups without a spread in their raw rewards are dropped; the sources say all right or all wrong, which is "
        "the same on 0/1 rewards only.",
        "Length is controlled by the blog's cosine term, not by the public configurations' stop-properly (variant "
        "prorl_v2_stop_properly) nor with their IcePop (variant prorl_v2_icepop).",
        "Wrong answers are paid 0, and no less where the form is wrong too. The blog's examples are 0 / 1 / -0.5 and "
        "-1 / 1 / -0.5 (variants prorl_v2_format_reward and prorl_v2_signed_rewards). Among answers of the right form "
        "the second is 2 R - 1 of the first: the group mean takes away the 1 and the batch's deviation the 2, so that "
        "the advantages are equal. Where the form is wrong they are not: -0.5 is the worst of the first scheme, and "
        "better than a wrong answer in the second.",
        "No source gives the height of the length term, nor what a KL spike or a stall is: chosen.",
        "The length term is the formula that the blog prints, one pair of values for right and wrong answers alike, so "
        "that a short wrong answer gains over a long wrong one. The paper that the blog links for it (CL) has two "
        "pairs: right answers earn more when short, wrong ones lose less when long (variant prorl_v2_two_cosines).",
        "The length term's limit T is read as the limit of response tokens.",
        "The cycle of 100 on and 500 off is counted in steps. The blog says updates there, and steps for the resets; "
        "with 8 updates a step, the letter of it would be a cycle of 12.5 and 62.5 steps.",
        "A run that continues another one by --parent begins with fresh moments of the optimizer.",
        "Norms and biases are not decayed, as Megatron has it; verl decays every parameter, over a run a relative "
        "difference of about 1e-4.",
        "The loss is one mean over an update; verl takes it within each microbatch and averages those.",
        "All five domains are judged by this repository's own verifiers. Reasoning Gym's own scorers pay part of the "
        "mark for answers that are merely well-formed, so that scores of the two are not comparable.",
        "The published policy is read as step 3,000 on the repository's branch `main`. A branch may move, and what "
        "`main` holds today could not be confirmed: --parent wants the revision named, and writes down commit "
        "and digest.",
        "512 prompts a step (BroRL's Table 1); JustRL's table, a third party's, has 256.",
    ),
    results=(
        Table(
            title="Math, pass@1 in % (16 samples, temperature 0.6, 32k tokens)",
            columns=("model", "AIME24", "AIME25", "AMC", "MATH", "Minerva", "Olympiad", "mean"),
            rows=(
                ("DeepSeek-R1-Distill-Qwen-1.5B", 28.54, 22.71, 62.58, 82.90, 26.38, 43.58, 44.45),  # P1 Table 1
                ("ProRL v1", 48.13, 33.33, 79.29, 91.89, 47.98, 60.22, 60.14),  # P1 Table 1
                ("ProRL v2", 49.58, 36.04, 82.53, 92.49, 49.03, 60.44, 61.69),  # MC
            ),
        ),
        Table(
            title="Code, pass@1 in %; BroRL measures the same weights otherwise: 58.52, 54.99, 58.64, 35.87",
            columns=("model", "APPS", "CodeContests", "Codeforces", "TACO", "HumanEval+", "LiveCodeBench", "mean"),
            rows=(
                ("DeepSeek-R1-Distill-Qwen-1.5B", 20.95, 16.79, 14.13, 8.03, 61.77, 16.80, 23.08),  # P1 Table 2
                ("ProRL v1", 41.99, 31.80, 34.50, 20.81, 72.05, 23.81, 37.49),  # P1 Table 2
                ("ProRL v2", 46.39, 35.59, 40.75, 22.89, 72.89, 27.69, 41.03),  # MC
            ),
        ),
        Table(
            title="Output length on math, against the model it started from",
            columns=("model", "change, %"),
            rows=(
                ("ProRL v2", -17.54),  # B2 Fig. 4: its alternative text says 3,000 steps, its caption 2,000
            ),
        ),
        Table(
            title="Other domains in %; Reasoning Gym with every task alike, and with every category alike",
            columns=("model", "GPQA diamond", "IFEval", "Reasoning Gym", "Reasoning Gym, categories alike"),
            rows=(
                ("DeepSeek-R1-Distill-Qwen-1.5B", 15.86, 44.05, 4.24, "-"),  # P1 Table 3
                ("ProRL v1", 41.78, 66.02, 59.06, "-"),  # P1 Table 3
                ("ProRL v2", 41.32, 70.85, 61.29, 62.49),  # MC, whose 62.49 is over categories; 61.29: BR Table 1
            ),
        ),
    ),
)
