"""DLER: ProRL v2 continued with a hard limit of 4,000 tokens, for answers that are 70 % shorter."""

from megatron_rl.config.publication import Publication, Table
from megatron_rl.config.records import (
    Algorithm,
    DynamicSampling,
    Kl,
    Optimizer,
    Recipe,
    Sampling,
    Truncation,
    Validation,
)
from recipes.domains import CODE, INSTRUCT, LOGIC, MATH, STEM
from recipes.models import R1_DISTILL_QWEN_1_5B

RECIPE = Recipe(
    name="dler",
    version="1.0.0",
    starts_from="prorl_v2",  # chosen: the end of this family; DL begins at the base model
    model=R1_DISTILL_QWEN_1_5B,  # DL
    # What DL trains on is not known here: the problems of the run that it continues.
    domains=(MATH, CODE, STEM, LOGIC, INSTRUCT),
    num_steps=300,  # chosen: a period of prorl_v2's resets; no source at hand states one
    algorithm=Algorithm(
        advantage="group_mean_then_batch",  # DL
        statistics_over="samples",  # B2, RF App. B.2: as the run that it continues
        clip_low=0.2,  # DL
        clip_high=0.28,  # DL
        dual_clip=3.0,  # VE: on by default, and DL ran in verl
        loss_aggregation="token_mean",  # VE: by default
        updates_per_step=8,  # DL: 512 / 64 prompts
        kl=Kl(
            estimator="k2",  # DL: verl's mse
            coefficient=5e-4,  # DL
            log_ratio_clamp=10.0,  # B2; verl's mse has none
            value_clamp=None,  # VE
            place="loss",  # DL
        ),
        correction=None,  # DL names none
        truncation=Truncation(
            how="multiply",  # DL: R' = R where the length is within the limit, else nothing
            value=0.0,  # DL
        ),
        overlong=None,  # DL names none
        length=None,  # DL: the limit alone
        dynamic_sampling=DynamicSampling(
            keeps="reward_std_above_zero",  # DL: verl's filter_groups
            max_rounds=10,  # NR
        ),
        reference_reset=None,  # DL names none
        policy_loss="clip",  # DL
        loss_divisor_tokens=None,  # VE: the mean is over tokens
        format_reward=None,  # DL names none
    ),
    sampling=Sampling(
        prompts_per_step=512,  # DL
        samples_per_prompt=16,  # DL
        temperature=1.0,  # DL
        top_p=1.0,  # chosen: the loss needs the full distribution
        max_prompt_tokens=1024,  # DL
        max_response_tokens=4000,  # DL
        difficulty=None,  # DL: dynamic sampling alone
    ),
    validation=Validation(
        samples_per_prompt=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
    ),
    optimizer=Optimizer(
        learning_rate=1e-6,  # DL
        warmup_steps=0,  # chosen: constant from the first step
        beta1=0.9,  # VE
        beta2=0.999,  # VE
        epsilon=1e-8,  # chosen: AdamW's usual value, no source states one
        weight_decay=0.01,  # VE
        max_grad_norm=1.0,  # chosen: as prorl_v2
    ),
    stages=(),
)

PAGE = Publication(
    title="DLER",
    lineage="Continues a run of prorl_v2, or its published checkpoint: --parent takes either. The paper begins at "
    "DeepSeek-R1-Distill-Qwen-1.5B; it is of the same group and about the same model, and the best public stand-in for "
    "what ProRL v2 leaves unsaid.",
    checkpoint=None,
    branch=None,
    hardware="Not known here.",
    cost="Not known here.",
    deviations=(
        "Confidence: high for what is tagged DL, which its Table 4 states; its data, steps and hardware are not known "
        "here, and chosen.",
        "It continues ProRL v2; the paper's runs begin at the base model.",
        "Groups are kept by the spread of their raw rewards, before truncation; verl filters by the reward that it "
        "pays, so that a group whose right answers were all cut off is dropped there and kept here.",
        "Its limit is 4,000 response tokens where ProRL v2 had 8,192, so that many answers are cut off, and paid "
        "nothing, in the first steps: that is the method.",
        "All five domains are judged by this repository's own verifiers.",
        "Norms and biases are not decayed, as Megatron has it; verl decays every parameter, over a run a relative "
        "difference of about 1e-4.",
        "The loss is one mean over an update; verl takes it within each microbatch and averages those.",
        "The optimizer begins with fresh moments: what is continued is a published policy, or a run's.",
    ),
    results=(
        Table(
            title="Output length, against the model it started from",
            columns=("model", "change, %"),
            rows=(
                ("DLER", -70),  # DL
            ),
        ),
    ),
)
