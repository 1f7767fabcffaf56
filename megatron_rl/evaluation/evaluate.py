"""Validation: how well the policy answers held-out prompts, per domain."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_rl.algorithms.groups import counted
from megatron_rl.config.run import Run
from megatron_rl.rollout.collect import Rollouts
from megatron_rl.rollout.examples import chosen, examples_of, first_of
from megatron_rl.runtime.spans import span
from megatron_rl.types import Prompt, Scores, Validated

VALIDATION_STEP = -1  # its seeds are the same at every validation, and no training step's


@span("validate")
def evaluate(rollouts: Rollouts, prompts: Sequence[Prompt], run: Run, step: int) -> Validated:
    """Mean verdict score per domain over the samples that could be judged. Collective over the world.

    A domain of which more than `run.max_unjudged_share` could not be judged has none: the rest is no fair sample.

    One sample per prompt is taken greedily; several are drawn at the validation temperature. A score counts as
    `Domain.accuracy` says, also in a domain that no stage has trained on yet.

    The samples to read are of the same prompts each time.

    Source: ProRL v1 arXiv 2505.24864v1, section 3.4, which ProRL v2 and BroRL keep.
    """
    recipe, how = run.at_step(step), {domain.name: domain.accuracy for domain in run.recipe.domains}
    validation = recipe.validation
    is_greedy = validation.samples_per_prompt == 1
    readable = chosen(
        prompts, validation.samples_per_prompt, seed=run.seed, step=VALIDATION_STEP, per_domain=run.samples_per_domain
    )
    groups = rollouts.answer(
        prompts,
        VALIDATION_STEP,
        samples_per_prompt=validation.samples_per_prompt,
        max_response_tokens=recipe.sampling.max_response_tokens,
        temperature=0.0 if is_greedy else validation.temperature,
        top_p=1.0 if is_greedy else validation.top_p,
        readable=readable,
    )
    accuracy, unjudged = {}, {}
    for domain in sorted({prompt.domain for prompt in prompts}):
        rows = [i for i, prompt in enumerate(prompts) if prompt.domain == domain]
        judged, scores = groups.judged[rows], counted(groups.rewards[rows], how[domain])
        unjudged[domain] = float((~judged).double().mean())
        if judged.any() and unjudged[domain] <= run.max_unjudged_share:
            accuracy[domain] = float(scores[judged].mean())
    return Validated(
        scores=Scores(step=step, accuracy=accuracy, unjudged=unjudged),
        examples=first_of(examples_of(groups, readable, groups.texts, rollouts.tokenizer), run.samples_per_domain),
    )
