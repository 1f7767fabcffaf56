"""A reward of one's own: a class in a file beside the data, named as the domain of its problems, `my_rewards.py:Sum`.

The class has the four functions of `Verifier`. All of it runs in the confined worker processes and nowhere else, the
file's own first lines too: it has no network, files or other processes, and is killed when it takes too long. It may
import what the environment has, but no file of its own.

Covered: a file that hangs, crashes, forks or prints, a class that lacks a function, a score that is none.
Not covered: a reward that pays for wrong answers; what one case leaves behind in the class for the next.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import math
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from megatron_rl.rewards.verdicts import judged
from megatron_rl.rewards.workers import OWN, Workers
from megatron_rl.types import Verdict

FUNCTIONS = {"check_item": 1, "prepare": 2, "load": 0, "judge": 2}  # name -> number of arguments
MAX_SOURCE_BYTES = 1 << 20
ITEMS_AT_ONCE = 512

_NAME = re.compile(r"([A-Za-z_]\w*\.py):([A-Za-z_]\w*)")
_loaded: dict[tuple[str, str], Any] = {}  # of this worker process


def is_own(domain: str) -> bool:
    """Whether a domain names a class in a file.

    >>> is_own("my_rewards.py:Sum"), is_own("math"), is_own("../rewards.py:Sum")
    (True, False, False)
    """
    return _NAME.fullmatch(domain) is not None


def read_sources(folder: Path, domains: Iterable[str]) -> dict[str, str]:
    """The text of the file of each of these domains that is one's own. Nothing of it is run.

    Raises ValueError where a file is missing, is no Python, or has no such class with the four functions.
    """
    return {domain: _read(folder, domain) for domain in sorted(domains) if is_own(domain)}


def _read(folder: Path, domain: str) -> str:
    name, _, wanted = domain.partition(":")
    path = folder / name
    if not path.is_file():
        raise ValueError(f"domain '{domain}': {path} is not there; put the file beside the data")
    if path.stat().st_size > MAX_SOURCE_BYTES:
        raise ValueError(f"domain '{domain}': {path} is longer than {MAX_SOURCE_BYTES} bytes; shorten it")
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"domain '{domain}': {path} is no Python ({error}); mend it") from None
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if wanted not in [node.name for node in classes]:
        known = ", ".join(node.name for node in classes) or "none"
        raise ValueError(f"domain '{domain}': {path} has no class {wanted}; it has {known}")
    return text


def digests(sources: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of the file of each domain."""
    return {domain: hashlib.sha256(text.encode()).hexdigest() for domain, text in sources.items()}


def packed(domain: str, source: str, item: Mapping[str, Any], *, is_check: bool = False) -> dict[str, Any]:
    """The item by which a worker knows what to do for a domain of one's own."""
    return {"domain": domain, "source": source, "item": item, "is_check": is_check}


def judge(answer: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict of the class, or what it says of an item; runs the file. For confined workers alone.

    Raises TypeError or ValueError where the class is no verifier or its verdict is none, and what the file raises.
    """
    verifier = _load(item["domain"], item["source"])
    if item["is_check"]:
        verifier.check_item(item["item"])
        return judged(1.0, "")
    found = verifier.prepare(answer, item["item"])
    if isinstance(found, str):
        found = verifier.judge(found, item["item"])
    return _verdict(found)


def _load(domain: str, source: str) -> Any:
    if (domain, source) not in _loaded:
        name, _, wanted = domain.partition(":")
        module = types.ModuleType(name.removesuffix(".py"))
        exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102 - this process is confined
        verifier = getattr(module, wanted)()
        for function, number in FUNCTIONS.items():
            try:
                inspect.signature(getattr(verifier, function)).bind(*range(number))
            except (AttributeError, TypeError):
                raise TypeError(f"{wanted} needs a function {function} of {number} arguments") from None
        verifier.load()
        _loaded[domain, source] = verifier
    return _loaded[domain, source]


def _verdict(found: Any) -> Verdict:
    """A verdict, or a number from 0 to 1."""
    score, detail = (found.score, found.detail) if isinstance(found, Verdict) else (found, "")
    if not isinstance(score, int | float) or not math.isfinite(score) or not 0 <= score <= 1:
        raise ValueError(f"the score is {score!r}; a number from 0 to 1 is needed")
    return judged(float(score), str(detail)[:300])


def check_items(
    sources: Mapping[str, str], items: Iterable[tuple[str, str, Mapping[str, Any]]], seconds: float
) -> None:
    """Asks each class about its items (id, domain, item), in a confined process.

    Raises ValueError for the first that it refuses, or cannot answer for within `seconds`.
    """
    mine = [(name, domain, item) for name, domain, item in items if domain in sources]
    if not mine:
        return
    workers = Workers(1, seconds, allows_unsafe_sandbox=False)
    try:
        for start in range(0, len(mine), ITEMS_AT_ONCE):
            some = mine[start : start + ITEMS_AT_ONCE]
            cases = [(OWN, "", packed(domain, sources[domain], item, is_check=True)) for _, domain, item in some]
            for (name, domain, _), verdict in zip(some, workers.judge(cases), strict=True):
                if verdict.outcome != "judged":
                    raise ValueError(f"domain '{domain}': item '{name}': {verdict.outcome}: {verdict.detail}; mend it")
    finally:
        workers.close()
