"""The verdicts on stored samples, by one or several scorers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron_rl.config.suites import Scorer as ScorerName
from megatron_rl.data.items import Item
from megatron_rl.evaluation import store
from megatron_rl.evaluation.store import SAMPLES, Line, Wave
from megatron_rl.rewards.score import AS_PUBLISHED, Case, Scorer
from megatron_rl.runtime.spans import span


@span("score")
def judge(wave: Wave, name: ScorerName, items: Mapping[str, Item], scorer: Scorer) -> None:
    """Judges a wave that is there and has no verdicts of that scorer yet.

    Raises RuntimeError where it answers a problem that is not among the items.
    """
    samples = store.read_lines(wave.path(SAMPLES))
    if strange := next((sample["id"] for sample in samples if sample["id"] not in items), None):
        raise RuntimeError(
            f"{wave.path(SAMPLES)}: answers problem {strange!r}, which the stored benchmark lacks; "
            f"remove {wave.folder}, and it is asked again"
        )
    opened = {problem: items[problem].opened() for problem in dict.fromkeys(sample["id"] for sample in samples)}
    verdicts = scorer.score([case_of(one, items[one["id"]].domain, opened[one["id"]], name) for one in samples])
    lines = [
        {
            "id": sample["id"],
            "sample": sample["sample"],
            "score": verdict.score,
            "outcome": verdict.outcome,
            "detail": verdict.detail,
        }
        for sample, verdict in zip(samples, verdicts, strict=True)
    ]
    store.write_lines(wave.path(name), lines)


def case_of(sample: Line, domain: str, item: Mapping[str, Any], name: ScorerName) -> Case:
    """What the verifier reads of a stored sample."""
    judge_of = AS_PUBLISHED[domain] if name == "as_published" else domain
    return Case(judge_of, sample["response"], item, sample["opens_thought"])
