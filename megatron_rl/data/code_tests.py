"""Tests of code problems as they are published, as tests of an item: of a program, or of a function.

A ground truth is an object, or its JSON text, of `inputs` and `outputs`, and perhaps `fn_name`. Texts are what a
program reads and prints; where a function is called, a text has one JSON value a line, a line an argument, and a list
has the arguments themselves, its output then often wrapped in a list of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_rl.config.mixture import Rules
from megatron_rl.data.drafts import LeftOut

_SEVERAL = re.compile(
    r"if there (?:are|is) (?:multiple|several|many|more than one)[^.\n]{0,80}(?:print|output|return|choose|find) any\b"
    r"|(?:print|output|return|find|choose|give|report) any (?:one )?(?:of (?:them|these|those)|(?:valid"
    r"|suitable|possible|correct|such|appropriate|optimal|acceptable)\b)"
    r"|(?:multiple|several) (?:possible |correct |valid |optimal )?(?:answers|solutions|outputs)"
    r"(?: (?:exist|are possible))?[^.\n]{0,60}\bany\b"
    r"|any (?:valid |correct |optimal )?(?:answer|solution|order|output) (?:is|will be|would be)"
    r" (?:accepted|allowed|fine)"
    r"|any (?:one )?of them (?:is|will be|would be) accepted|you (?:may|can) (?:print|output|return) any\b"
    r"|(?:answer|output|result) (?:may|can) be (?:returned |printed |given )?in any order|(?:return|print|output)"
    r"[^.\n]{0,60} in any order\b",
    re.IGNORECASE,
)
_INTERACTIVE = re.compile(
    r"this is an interactive (?:problem|task)|interactive (?:problem|task)\b|\binteractor\b"
    r"|flush (?:the )?(?:output|stdout|standard output)|fflush|\bcout\.flush|stdout\.flush",
    re.IGNORECASE,
)
_FILES = re.compile(r"(?:read|input)[^.\n]{0,40}\bfrom (?:the )?file\b|\binput\.txt\b|\boutput\.txt\b", re.IGNORECASE)


def check_statement(problem: str) -> None:
    """Raises LeftOut where the words of a problem say that it has several right outputs, a judge to talk to, or files.

    >>> check_statement("Print the sum.")
    """
    if found := _INTERACTIVE.search(problem):
        raise LeftOut("interactive", f"the problem says '{found[0]}'")
    if found := _FILES.search(problem):
        raise LeftOut("interactive", f"the problem says '{found[0]}'")
    if found := _SEVERAL.search(problem):
        raise LeftOut("several_outputs", f"the problem says '{found[0]}'")


def item_of(truth: Any, rules: Rules) -> tuple[dict[str, Any], int]:
    """The item of a ground truth, and how many of its tests were left out for their size. Raises LeftOut.

    Of equal tests one is kept; two with one input and different outputs have several right ones.
    """
    truth = _object(truth)
    inputs, outputs, function = truth.get("inputs"), truth.get("outputs"), truth.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise LeftOut("malformed", "inputs and outputs of the tests are not two lists of equal length")
    if not inputs:
        raise LeftOut("no_answer", "there are no tests")
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise LeftOut("malformed", f"fn_name is {function!r}; a name is needed")
    tests = _of_program(inputs, outputs) if function is None else _of_function(inputs, outputs)
    distinct: dict[str, dict[str, Any]] = {}
    for test in tests:
        key = json.dumps(test["input"] if function is None else test["arguments"], sort_keys=True)
        if distinct.setdefault(key, test) != test:
            raise LeftOut("several_outputs", "two tests have one input and different outputs")
    kept = _small(list(distinct.values()), rules)
    if not kept:
        raise LeftOut("tests_too_large", f"the smallest of {len(distinct)} tests is larger than the rules allow")
    return {"tests": kept} | ({} if function is None else {"function": function}), len(distinct) - len(kept)


def _object(truth: Any) -> Mapping[str, Any]:
    if truth is None or isinstance(truth, str) and not truth.strip():
        raise LeftOut("no_answer", "the ground truth is empty")
    if isinstance(truth, str):
        truth = _value(truth, "the ground truth")
    if not isinstance(truth, Mapping):
        raise LeftOut("malformed", f"the ground truth is a {type(truth).__name__}, not an object of inputs and outputs")
    return truth


def _value(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits is a ValueError too
        raise LeftOut("malformed", f"{what} is no JSON ({str(error)[:80]})") from None


def _of_program(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"input": _lines(given), "output": _lines(wanted)} for given, wanted in zip(inputs, outputs, strict=True)]


def _lines(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise LeftOut("malformed", f"a program reads and prints texts, and a test has a {type(value).__name__}")
    return value.replace("\r\n", "\n")


def _of_function(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[dict[str, Any]]:
    if all(isinstance(given, list) for given in inputs):
        # The APPS convention wraps each value; where only some are wrapped, none is: the value itself is a list.
        is_wrapped = all(isinstance(wanted, list) and len(wanted) == 1 for wanted in outputs)
        values = [wanted[0] for wanted in outputs] if is_wrapped else list(outputs)
        return [{"arguments": given, "returns": value} for given, value in zip(inputs, values, strict=True)]
    if all(isinstance(value, str) for value in (*inputs, *outputs)):
        return [
            {
                "arguments": [_value(line, "an argument") for line in given.splitlines() if line.strip()],
                "returns": _value(wanted, "a returned value"),
            }
            for given, wanted in zip(inputs, outputs, strict=True)
        ]
    raise LeftOut("malformed", "arguments are neither lists nor texts with one JSON value a line")


def _small(tests: list[dict[str, Any]], rules: Rules) -> list[dict[str, Any]]:
    """As many as the rules allow, the shortest first chosen, in their own order."""
    sizes = [len(json.dumps(test, ensure_ascii=False).encode(errors="replace")) for test in tests]
    total, chosen = 0, []
    for place in sorted(range(len(tests)), key=lambda place: (sizes[place], place))[: rules.max_tests]:
        if sizes[place] <= rules.max_test_bytes and total + sizes[place] <= rules.max_tests_bytes:
            total += sizes[place]
            chosen.append(place)
    return [tests[place] for place in sorted(chosen)]
