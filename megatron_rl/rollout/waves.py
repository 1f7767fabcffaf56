"""The wave store: finished waves on disk, so that a step broken off goes on where it stood, with the same samples.

A wave is a fixed list of requests. In fp32 on a CPU it has the same bits whatever is decoded beside it, and so has the
rest of a step that goes on from stored ones. Elsewhere, unless `scale.deterministic` gives each wave the engine to
itself, what is generated again may be another sample of the same distribution. A wave is found again by what it was
asked for, by what the run started from, and by the digest of the policy that answered, so that a run which went another
way, or started from other weights in the same directory, meets none of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_rl.runtime.files import replace_file
from megatron_rl.types import Request, Sample

FOLDER = "rollouts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveStore:
    """Where the waves of one step by one policy lie."""

    directory: Path  # of the run
    step: int
    start: Mapping[str, str]  # Run.identity: of the weights and the tokenizer before the first step
    policy_digest: str  # State.policy_digest of the policy: of all that came after them
    min_seconds: float  # a wave that was generated faster is cheaper to generate again

    def find(self, requests: Sequence[Request], options: Mapping[str, Any]) -> list[tuple[Sample, ...]] | None:
        """The samples of a wave as it was generated; None where it was not, or its file is damaged."""
        path = self._path(requests, options)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        head = json.loads(body[: (end := body.index(b"\n"))])
        lengths, cuts = head["lengths"], head["cuts"]
        tokens, logprobs = array("i"), array("f")
        middle = end + 1 + tokens.itemsize * sum(lengths)
        tokens.frombytes(body[end + 1 : middle])
        logprobs.frombytes(body[middle:])
        samples, start = [], 0
        for length, is_cut in zip(lengths, cuts, strict=True):
            samples.append(
                Sample(
                    token_ids=tokens[start : start + length],
                    logprobs=logprobs[start : start + length],
                    finish_reason="length" if is_cut else "stop",
                    policy_version=head["policy_version"],
                )
            )
            start += length
        return _grouped(samples, requests)

    def keep(
        self, requests: Sequence[Request], options: Mapping[str, Any], made: Sequence[Sequence[Sample]], seconds: float
    ) -> None:
        """Writes a wave to the disk itself, unless it was cheap."""
        if seconds < self.min_seconds:
            return
        samples = [sample for part in made for sample in part]
        head = {
            "policy_version": samples[0].policy_version,
            "lengths": [len(sample.token_ids) for sample in samples],
            "cuts": [sample.finish_reason == "length" for sample in samples],
        }
        body = json.dumps(head).encode() + b"\n" + b"".join(sample.token_ids.tobytes() for sample in samples)
        body += b"".join(sample.logprobs.tobytes() for sample in samples)
        path = self._path(requests, options)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, hashlib.sha256(body).digest() + body)

    def _path(self, requests: Sequence[Request], options: Mapping[str, Any]) -> Path:
        asked = [(one.prompt.id, one.prompt.token_ids, one.seed, one.num_samples) for one in requests]
        of = [dict(sorted(self.start.items())), self.policy_digest]
        key = json.dumps([of, asked, dict(sorted(options.items()))])
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        return self.directory / FOLDER / f"step_{self.step:06d}" / f"{name}.wave"


def _grouped(samples: Sequence[Sample], requests: Sequence[Request]) -> list[tuple[Sample, ...]]:
    remaining = iter(samples)
    return [tuple(next(remaining) for _ in range(request.num_samples)) for request in requests]


def clear(directory: Path, before_step: int) -> None:
    """Removes the waves of steps that a checkpoint has left behind."""
    for folder in (directory / FOLDER).glob("step_??????"):
        if int(folder.name.removeprefix("step_")) < before_step:
            shutil.rmtree(folder, ignore_errors=True)
