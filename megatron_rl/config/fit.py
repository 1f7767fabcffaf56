"""How a scale shortens a recipe: caps on sizes, and spans of steps divided for a miniature; never the algorithm."""

from __future__ import annotations

from dataclasses import replace

from megatron_rl.config.records import Algorithm, Caps, Model, Recipe, ReferenceReset, Sampling, Scale, Stage


def fitted(recipe: Recipe, model: Model, scale: Scale) -> Recipe:
    """The recipe at a scale. Counts of validations stay as they are, for those follow the steps by themselves."""
    caps, small = scale.caps, scale.miniature
    divisor = 1 if small is None else small.schedule_divisor
    sampling = _capped(recipe.sampling, caps)
    validation, optimizer = recipe.validation, recipe.optimizer
    optimizer = replace(optimizer, warmup_steps=span(optimizer.warmup_steps, divisor))
    return replace(
        recipe,
        model=model,
        num_steps=span(recipe.num_steps, divisor),
        algorithm=_algorithm(recipe.algorithm, caps, divisor, sampling.max_response_tokens / _limit(recipe)),
        sampling=sampling,
        validation=replace(
            validation, samples_per_prompt=cap(validation.samples_per_prompt, caps.validation_samples_per_prompt)
        ),
        optimizer=optimizer if small is None else replace(optimizer, learning_rate=small.learning_rate),
        stages=tuple(_stage(stage, caps, divisor) for stage in recipe.stages),
    )


def cap(value: int, limit: int | None) -> int:
    """The value, or the limit where there is one and it is smaller.

    >>> cap(16, None), cap(16, 4), cap(2, 4)
    (16, 4, 2)
    """
    return value if limit is None else min(value, limit)


def span(steps: int, divisor: int) -> int:
    """A number of steps divided, but not to nothing: what lasted at least a step still does.

    >>> [span(steps, 20) for steps in (0, 7, 300)]
    [0, 1, 15]
    """
    return max(1, steps // divisor) if steps > 0 else steps


def _limit(recipe: Recipe) -> int:
    return max(1, recipe.sampling.max_response_tokens)


def _capped(sampling: Sampling, caps: Caps) -> Sampling:
    return replace(
        sampling,
        prompts_per_step=cap(sampling.prompts_per_step, caps.prompts_per_step),
        samples_per_prompt=cap(sampling.samples_per_prompt, caps.samples_per_prompt),
        max_prompt_tokens=cap(sampling.max_prompt_tokens, caps.max_prompt_tokens),
        max_response_tokens=cap(sampling.max_response_tokens, caps.max_response_tokens),
    )


def _algorithm(algorithm: Algorithm, caps: Caps, divisor: int, shortening: float) -> Algorithm:
    overlong, length, reset = algorithm.overlong, algorithm.length, algorithm.reference_reset
    return replace(
        algorithm,
        updates_per_step=cap(algorithm.updates_per_step, caps.updates_per_step),
        # The buffer keeps its share of the response limit.
        overlong=overlong and replace(overlong, buffer_tokens=max(1, int(overlong.buffer_tokens * shortening))),
        length=length
        and replace(length, steps_on=span(length.steps_on, divisor), steps_off=span(length.steps_off, divisor)),
        reference_reset=reset and _reset(reset, divisor),
        # Else the losses of short responses would be so small that Adam's epsilon showed.
        loss_divisor_tokens=algorithm.loss_divisor_tokens and max(1, int(algorithm.loss_divisor_tokens * shortening)),
    )


def _reset(reset: ReferenceReset, divisor: int) -> ReferenceReset:
    spike = reset.kl_spike
    return replace(
        reset,
        period_steps=reset.period_steps and span(reset.period_steps, divisor),
        kl_spike=spike
        and replace(
            spike,
            window_steps=span(spike.window_steps, divisor),
            min_history_steps=span(spike.min_history_steps, divisor),
        ),
        min_steps_between=span(reset.min_steps_between, divisor),
    )


def _stage(stage: Stage, caps: Caps, divisor: int) -> Stage:
    samples, tokens = stage.samples_per_prompt, stage.max_response_tokens
    return replace(
        stage,
        from_step=span(stage.from_step, divisor),
        samples_per_prompt=samples and cap(samples, caps.samples_per_prompt),
        max_response_tokens=tokens and cap(tokens, caps.max_response_tokens),
    )
