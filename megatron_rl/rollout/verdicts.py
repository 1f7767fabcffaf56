"""Whether enough verdicts were reached: what of a round, and of a domain, could not be judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from megatron_rl.types import OUTCOMES, Groups


def check_verifiers(rounds: Sequence[Groups], step: int, limit: float) -> None:
    """Raises RuntimeError where more than `limit` of the last round's samples, or of a domain's, were not judged.

    A domain's are counted over all `rounds` of the step, for a round may have few of them. One prompt that fails among
    several of its domain has itself to blame: it is counted, and ends nothing.
    """
    prompts = [prompt for groups in rounds for prompt in groups.prompts]
    unjudged = torch.cat([~groups.judged for groups in rounds])
    newest = unjudged[len(prompts) - len(rounds[-1]) :]
    if (share := float(newest.double().mean())) > limit:
        raise RuntimeError(_broken(step, share, f"{newest.numel()} samples", rounds[-1:], limit))
    for domain in sorted({prompt.domain for prompt in prompts}):
        rows = unjudged[[i for i, prompt in enumerate(prompts) if prompt.domain == domain]]
        share, num_failing = float(rows.double().mean()), int(rows.any(1).sum())
        if share > limit and (num_failing > 1 or bool(rows.all())):
            raise RuntimeError(_broken(step, share, f"{rows.numel()} samples of {domain}", rounds, limit))


def failures(rounds: Sequence[Groups]) -> str:
    """How many samples were not judged, by outcome and domain, for a message."""
    counts = Counter(
        f"{OUTCOMES[outcome]} in {prompt.domain}"
        for groups in rounds
        for prompt, row in zip(groups.prompts, groups.outcomes.tolist(), strict=True)
        for outcome in row
        if outcome
    )
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def _broken(step: int, share: float, samples: str, rounds: Sequence[Groups], limit: float) -> str:
    return (
        f"step {step}: {share:.0%} of {samples} could not be judged ({failures(rounds)}), more than "
        f"run.max_unjudged_share={limit:g}; mend the verifiers, or raise that share"
    )
