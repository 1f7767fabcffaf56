"""What can be wrong with a recipe, found before torch is imported."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from megatron_rl.config.checks import DOMAINS, OWN_DOMAIN, above_zero, not_below_zero, require

if TYPE_CHECKING:
    from megatron_rl.config.records import Algorithm, Recipe

MOST_STEPS = 999_999  # a checkpoint's folder has six digits
MOST_SAMPLES = 1_000_000  # of a prompt


def check_recipe(recipe: Recipe) -> None:
    """Raises UserError where a recipe's values cannot be meant."""
    algorithm, sampling, optimizer = recipe.algorithm, recipe.sampling, recipe.optimizer
    above_zero(
        {
            "num_steps": recipe.num_steps,
            "algorithm.updates_per_step": algorithm.updates_per_step,
            "sampling.prompts_per_step": sampling.prompts_per_step,
            "sampling.temperature": sampling.temperature,
            "sampling.max_prompt_tokens": sampling.max_prompt_tokens,
            "sampling.max_response_tokens": sampling.max_response_tokens,
            "validation.samples_per_prompt": recipe.validation.samples_per_prompt,
            "optimizer.learning_rate": optimizer.learning_rate,
            "optimizer.epsilon": optimizer.epsilon,
            "optimizer.max_grad_norm": optimizer.max_grad_norm,
        }
    )
    check_sizes(recipe)
    not_below_zero(
        {
            "validation.temperature": recipe.validation.temperature,
            "optimizer.warmup_steps": optimizer.warmup_steps,
            "optimizer.weight_decay": optimizer.weight_decay,
        }
    )
    for name, value in {"optimizer.beta1": optimizer.beta1, "optimizer.beta2": optimizer.beta2}.items():
        require(0 <= value < 1, f"{name}={value}: must lie in [0, 1)")
    for name, value in {"sampling.top_p": sampling.top_p, "validation.top_p": recipe.validation.top_p}.items():
        require(0 < value <= 1, f"{name}={value}: must lie in (0, 1]")
    require(sampling.top_p == 1.0, f"sampling.top_p={sampling.top_p}: the loss needs the full distribution; use 1.0")
    require(
        sampling.prompts_per_step % algorithm.updates_per_step == 0,
        f"sampling.prompts_per_step={sampling.prompts_per_step} does not divide into "
        f"algorithm.updates_per_step={algorithm.updates_per_step}; use a multiple of it",
    )
    require(recipe.starts_from != recipe.name, f"starts_from='{recipe.starts_from}': a recipe cannot continue itself")
    check_algorithm(recipe)
    check_stages(recipe)
    for step in (None, *(stage.from_step for stage in recipe.stages)):
        check_in_force(
            recipe if step is None else recipe.at_step(step), "" if step is None else f"stage at step {step}: "
        )


def check_sizes(recipe: Recipe) -> None:
    """Raises UserError where a count is beyond anything that can be meant."""
    for name, value, most in (
        ("num_steps", recipe.num_steps, MOST_STEPS),
        ("sampling.samples_per_prompt", recipe.sampling.samples_per_prompt, MOST_SAMPLES),
        ("sampling.prompts_per_step", recipe.sampling.prompts_per_step, MOST_SAMPLES),
        ("validation.samples_per_prompt", recipe.validation.samples_per_prompt, MOST_SAMPLES),
    ):
        require(value <= most, f"{name}={value}: must be at most {most}")


def check_stages(recipe: Recipe) -> None:
    """Raises UserError where the stages are not a schedule of this recipe."""
    starts = [stage.from_step for stage in recipe.stages]
    require(
        all(early < late for early, late in zip(starts, starts[1:], strict=False)),
        f"stages: from_step {starts} must increase",
    )
    known = [domain.name for domain in recipe.domains]
    require(bool(known), "domains: there is none; a recipe needs one to train on")
    for name in known:
        require(
            name in DOMAINS or OWN_DOMAIN.fullmatch(name) is not None,
            f"domains: name='{name}': must be one of {', '.join(DOMAINS)}, or a class as my_rewards.py:Sum",
        )
    for stage in recipe.stages:
        where = f"stage at step {stage.from_step}"
        require(
            0 <= stage.from_step < recipe.num_steps,
            f"{where}: lies outside num_steps={recipe.num_steps}; raise num_steps, or write a recipe without it",
        )
        for field in ("samples_per_prompt", "max_response_tokens"):
            value = getattr(stage, field)
            require(value is None or value >= 1, f"{where}: {field}={value} must be at least 1, or none")
        if stage.temperature is not None:
            above_zero({f"{where}: temperature": stage.temperature})
        for name in stage.domains or ():
            require(name in known, f"{where}: domain '{name}' is none of the recipe's; it has {', '.join(known)}")
        require(stage.domains != (), f"{where}: domains=() leaves nothing to train on; name at least one")
        if stage.resets_reference:
            require(stage.from_step > 0, f"{where}: the reference is the policy there; leave resets_reference out")
            require(
                recipe.algorithm.reference_reset is not None,
                f"{where}: resets_reference needs algorithm.reference_reset, which says what becomes of the optimizer",
            )


def check_in_force(recipe: Recipe, where: str) -> None:
    """Raises UserError where what a stage can change does not fit; `where` begins the message."""
    sampling, truncation, overlong = recipe.sampling, recipe.algorithm.truncation, recipe.algorithm.overlong
    require(
        sampling.samples_per_prompt >= 2,
        f"{where}sampling.samples_per_prompt={sampling.samples_per_prompt}: a group needs at least 2 to have a spread",
    )
    needed = sampling.max_prompt_tokens + sampling.max_response_tokens
    require(
        needed <= recipe.model.max_positions,
        f"{where}sampling: {sampling.max_prompt_tokens} prompt + {sampling.max_response_tokens} response tokens do not "
        f"fit into the {recipe.model.max_positions} positions of model {recipe.model.name}; lower one of them",
    )
    require(
        truncation is None or overlong is None,
        f"{where}algorithm.truncation and algorithm.overlong both punish the same responses; set one of them to none",
    )
    if truncation is not None:
        name = f"{where}algorithm.truncation.value={truncation.value}"
        require(math.isfinite(truncation.value), f"{name}: must be finite")
        require(
            truncation.how == "replace" or 0 <= truncation.value <= 1,
            f"{name}: a factor must lie in [0, 1]; for a reward use how='replace'",
        )
        paid = recipe.algorithm.format_reward
        lowest = 0.0 if paid is None else min(paid.wrong, paid.unanswered)
        require(
            truncation.how == "replace" or truncation.value == 1 or lowest >= 0,
            f"{name}: a factor would pay a truncated response more than the {lowest:g} of algorithm.format_reward; use "
            "how='replace'",
        )
    if overlong is not None:
        require(
            1 <= overlong.buffer_tokens <= sampling.max_response_tokens,
            f"{where}algorithm.overlong.buffer_tokens={overlong.buffer_tokens}: must lie in "
            f"[1, max_response_tokens={sampling.max_response_tokens}]",
        )
        above_zero({f"{where}algorithm.overlong.factor": overlong.factor})


def check_algorithm(recipe: Recipe) -> None:
    """Raises UserError where a part of the algorithm has a value outside what it can mean, or two contradict."""
    algorithm = recipe.algorithm
    check_policy_loss(algorithm)
    require(
        algorithm.dual_clip is None or (algorithm.dual_clip > 1 and math.isfinite(algorithm.dual_clip)),
        f"algorithm.dual_clip={algorithm.dual_clip}: must be above 1, the ratio on policy; or none",
    )
    require(
        algorithm.statistics_over == "samples" or algorithm.advantage == "group_mean_then_batch",
        f"algorithm.statistics_over='tokens': advantage '{algorithm.advantage}' has no batch statistics; use 'samples'",
    )
    if (kl := algorithm.kl) is not None:
        not_below_zero({"algorithm.kl.coefficient": kl.coefficient})
        above_zero({"algorithm.kl.log_ratio_clamp": kl.log_ratio_clamp})
        if kl.value_clamp is not None:
            above_zero({"algorithm.kl.value_clamp": kl.value_clamp})
    if (correction := algorithm.correction) is not None:
        require(
            0 <= correction.low < correction.high < math.inf,
            f"algorithm.correction: low={correction.low}, high={correction.high} must satisfy 0 <= low < high",
        )
    if (length := algorithm.length) is not None:
        for name, value in {"on": length.steps_on, "off": length.steps_off}.items():
            require(
                value >= 1, f"algorithm.length.steps_{name}={value}: must be at least 1, or set algorithm.length=none"
            )
        etas = {"eta_max": length.eta_max, "eta_min": length.eta_min, "weight": length.weight}
        etas |= {f"wrong.{name}": value for name, value in (vars(length.wrong) if length.wrong else {}).items()}
        for name, eta in etas.items():
            require(math.isfinite(eta), f"algorithm.length.{name}={eta}: must be finite")
    if (paid := algorithm.format_reward) is not None:
        for name, reward in vars(paid).items():
            require(
                -math.inf < reward < 1, f"algorithm.format_reward.{name}={reward}: must be below 1, what right pays"
            )
    if algorithm.dynamic_sampling is not None:
        above_zero({"algorithm.dynamic_sampling.max_rounds": algorithm.dynamic_sampling.max_rounds})
    check_reset(recipe)


def check_policy_loss(algorithm: Algorithm) -> None:
    """Raises UserError where bounds, ratio and mean of the policy loss do not go together."""
    low, mean, is_cispo = algorithm.clip_low, algorithm.loss_aggregation, algorithm.policy_loss == "cispo"
    require(0 < low < 1 or is_cispo, f"algorithm.clip_low={low}: must lie in (0, 1)")
    require(0 < low <= 1, f"algorithm.clip_low={low}: must lie in (0, 1], where 1 is no bound")
    above_zero({"algorithm.clip_high": algorithm.clip_high})
    require(
        algorithm.dual_clip is None or not is_cispo,
        f"algorithm.dual_clip={algorithm.dual_clip}: policy_loss='cispo' cuts either sign; set dual_clip=none",
    )
    require(
        algorithm.policy_loss != "gspo" or mean == "sequence_mean",
        f"algorithm.loss_aggregation='{mean}': policy_loss='gspo' has one ratio a response; use 'sequence_mean'",
    )
    divisor = algorithm.loss_divisor_tokens
    require(
        (divisor is None) == (mean != "constant_length"),
        f"algorithm.loss_divisor_tokens={divisor}: loss_aggregation='{mean}' "
        + ("needs one, such as the limit of response tokens" if divisor is None else "divides by none; set it to none"),
    )
    if divisor is not None:
        above_zero({"algorithm.loss_divisor_tokens": divisor})


def check_reset(recipe: Recipe) -> None:
    """Raises UserError where the reference cannot be reset as asked."""
    reset, where = recipe.algorithm.reference_reset, "algorithm.reference_reset"
    if reset is None:
        return
    require(
        recipe.algorithm.kl is not None,
        f"{where}: without algorithm.kl nothing is held to a reference; set {where}=none too",
    )
    reasons = (reset.period_steps, reset.kl_spike, reset.stall)
    require(
        any(reason is not None for reason in reasons) or any(stage.resets_reference for stage in recipe.stages),
        f"{where}: has no reason to happen; give period_steps, kl_spike or stall, or set {where}=none",
    )
    above_zero({f"{where}.min_steps_between": reset.min_steps_between})
    if reset.period_steps is not None:
        above_zero({f"{where}.period_steps": reset.period_steps})
        require(
            reset.min_steps_between <= reset.period_steps,
            f"{where}.min_steps_between={reset.min_steps_between}: must not be above period_steps={reset.period_steps}",
        )
    if (spike := reset.kl_spike) is not None:
        require(spike.ratio > 1, f"{where}.kl_spike.ratio={spike.ratio}: must be above 1, the median itself")
        require(
            1 <= spike.min_history_steps <= spike.window_steps,
            f"{where}.kl_spike.min_history_steps={spike.min_history_steps}: must lie in "
            f"[1, window_steps={spike.window_steps}]",
        )
    if (stall := reset.stall) is not None:
        above_zero(
            {f"{where}.stall.patience_validations": stall.patience_validations, f"{where}.stall.drop": stall.drop}
        )
        not_below_zero({f"{where}.stall.min_gain": stall.min_gain})


def check_parent(recipe: Recipe, parent_release: str | None) -> None:
    """Raises UserError unless `parent_release`, of the run that is to be continued, is what the recipe starts from.

    A variant of that recipe, whose name begins with its name, will do.
    """
    wanted, name = recipe.starts_from, (parent_release or "").partition(" ")[0]
    if wanted is None:
        require(
            parent_release is None,
            f"recipe '{recipe.name}': starts from model {recipe.model.name}, not from a run of '{parent_release}'; "
            "leave --parent out",
        )
        return
    require(
        parent_release is not None,
        f"recipe '{recipe.name}': continues a run of '{wanted}'; give that run's directory, or the published "
        "policy's name, with --parent",
    )
    require(
        name == wanted or name.startswith(f"{wanted}_"),
        f"recipe '{recipe.name}': continues a run of '{wanted}', but the parent is one of '{parent_release}'; give "
        "another directory",
    )
