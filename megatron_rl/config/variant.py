"""Variants: a recipe with another model, or of fewer domains; it trains by its numbers and never counts as it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from megatron_rl.config.checks import OWN_DOMAIN, UserError, require
from megatron_rl.config.fit import cap
from megatron_rl.config.records import Caps, Domain, Model, Recipe, Scale, Stage
from megatron_rl.config.words import number_of

SUFFIX = "_variant"


def variant_of(recipe: Recipe, model: Model | None, domains: Mapping[str, float | None] | None) -> Recipe:
    """The recipe under another name, with the model and the domains, by name with their weights, that are not None.

    A stage of none of these domains trains on all of them. Raises UserError for a domain that the recipe has not.
    """
    known = [domain.name for domain in recipe.domains]
    for name in domains or ():
        if OWN_DOMAIN.fullmatch(name):
            continue
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        require(
            name in known,
            f"--domains {name}: {recipe.name} has {', '.join(known)}; did you mean '{nearest}'?",
        )
    if domains is None:
        stages, kept = recipe.stages, recipe.domains
    else:
        stages = tuple(_stage(stage, tuple(domains)) for stage in recipe.stages)
        kept = tuple(
            domain if domains[domain.name] is None else replace(domain, weight=domains[domain.name])
            for domain in recipe.domains
            if domain.name in domains
        )
        kept += tuple(_own(name, weight) for name, weight in domains.items() if name not in known)
    return replace(recipe, name=f"{recipe.name}{SUFFIX}", model=model or recipe.model, domains=kept, stages=stages)


def _own(name: str, weight: float | None) -> Domain:
    """A domain whose reward is a class in a file beside the data."""
    return Domain(
        name=name, num_prompts=0, source="of one's own", reward="fraction", accuracy="fraction", weight=weight
    )


def _stage(stage: Stage, domains: Sequence[str]) -> Stage:
    if stage.domains is None:
        return stage
    return replace(stage, domains=tuple(name for name in stage.domains if name in domains) or tuple(domains))


def domains_of(text: str) -> dict[str, float | None]:
    """The names in `math,logic`, or in `math=2,logic=1` with their weights. Raises UserError.

    >>> domains_of("math, logic"), domains_of("math=2,logic=0.5")
    ({'math': None, 'logic': None}, {'math': 2.0, 'logic': 0.5})
    """
    found: dict[str, float | None] = {}
    for word in text.split(","):
        name, equals, weight = (part.strip() for part in word.partition("="))
        require(bool(name), f"--domains {text}: write them as math,logic, or as math=2,logic=1")
        require(name not in found, f"--domains {text}: {name} is there twice; name each one once")
        try:
            found[name] = number_of(weight, float) if equals else None
        except ValueError:
            raise UserError(f"--domains {text}: the weight of {name} is '{weight}'; write a number") from None
    return found


def shortened(scale: Scale, recipe: Recipe) -> Scale:
    """The scale with caps under which prompt and response fit into the positions of the recipe's model.

    A quarter of them is for the prompt, where the recipe's own limits are too long.
    """
    caps, sampling, positions = scale.caps, recipe.sampling, recipe.model.max_positions
    longest = max([sampling.max_response_tokens, *(stage.max_response_tokens or 0 for stage in recipe.stages)])
    prompt, response = cap(sampling.max_prompt_tokens, caps.max_prompt_tokens), cap(longest, caps.max_response_tokens)
    if prompt + response <= positions:
        return scale
    prompt = min(prompt, max(1, positions // 4))
    changes = {"max_prompt_tokens": prompt, "max_response_tokens": min(response, positions - prompt)}
    return replace(scale, caps=Caps(**{**vars(caps), **changes}))
