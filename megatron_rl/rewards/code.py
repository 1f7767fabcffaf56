r"""The reward of a program: the fraction of its tests that it passes; evaluation counts a score of exactly 1.

The program is the last Python block in triple backticks, or the last unlabelled one where none is labelled. All tests
are run, each in a process of its own, and share one time limit: a program that exceeds it scores 0, as does one that
does not compile. Expected values stay in this process, which compares; see `is_same_output` and `is_same_value`.

An item is one of
    {"tests": [{"input": "3\n", "output": "6\n"}]}                              standard input and output
    {"function": "double", "tests": [{"arguments": [3], "returns": 6}]}         a function, or a method of Solution
with an optional "seconds", which can shorten the time limit. A function is looked for at the top of the program, then
in its class Solution; its program starts with the names that LeetCode's environment offers (List, deque, inf, ...).
Source: ProRL v1, arXiv 2505.24864, appendix E (continuous reward, all tests, 5 s in all).

Not covered: tests with several right outputs, interactive problems, values that JSON has no word for (sets, objects,
NaN), functions that answer by changing their arguments, other languages than Python.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from megatron_rl.rewards.response import after_thinking
from megatron_rl.rewards.sandbox.run import MAX_OUTPUT_BYTES, Execution, Sandbox
from megatron_rl.rewards.verdicts import judged, unanswered, wrong
from megatron_rl.types import Verdict

SECONDS = 5.0
MAX_PROGRAM_CHARACTERS = 100_000
MAX_FENCE_CHARACTERS = 200  # of the line that opens a block
MAX_NUMBER_CHARACTERS = 400
TOLERANCE = Decimal("1e-6")  # of floating-point numbers, relative, and absolute below 1
# Narrower, relative: of a whole number, which was counted and is often wrong by one, and where the expected one has so
# few decimals that no more was asked for, as of an amount of money; its last may be off by one.
SMALL_TOLERANCE, MAX_ROUNDED_DECIMALS = Decimal("1e-9"), 3

_OPENING = re.compile(r"([ \t]*)(`{3,})[ \t]*([^`\s]*)[^`]*")
_PYTHON = re.compile(r"\{?\.?(?:py(?:thon)?|pypy)[\d.]*\}?(?:[:,{].*)?", re.IGNORECASE)  # also python:main.py
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_KINDS = ({"input", "output"}, {"arguments", "returns"})


def check_item(item: Mapping[str, Any]) -> None:
    """Raises ValueError unless `item` is one of the two kinds above, with tests that doing nothing does not pass."""
    if not {"tests"} <= item.keys() <= {"tests", "function", "seconds"}:
        raise ValueError(f"a code item has 'tests', perhaps 'function' and 'seconds', not {sorted(item)}; mend the row")
    tests, seconds = item["tests"], item.get("seconds", SECONDS)
    if not isinstance(tests, list) or not tests:
        raise ValueError(f"the tests of a code item are a list with one test or more, not {tests!r}; drop the row")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"the seconds of a code item are a positive number, not {seconds!r}; leave the key out")
    is_called = "function" in item
    if is_called and not (isinstance(item["function"], str) and item["function"].isidentifier()):
        raise ValueError(f"the function of a code item is a Python name, not {item['function']!r}; mend the row")
    for number, test in enumerate(tests, start=1):
        if not isinstance(test, dict) or test.keys() != _KINDS[is_called]:
            wanted = " and ".join(f"'{key}'" for key in sorted(_KINDS[is_called]))
            kind = "with a function" if is_called else "without a function"
            raise ValueError(f"test {number} of a code item {kind} has {wanted} alone; mend or drop it")
        _check_function_test(number, test) if is_called else _check_program_test(number, test)
    if all(test["returns"] is None if is_called else not test["output"].strip() for test in tests):
        raise ValueError("a program that does nothing passes all tests of a code item; drop the row")


def _check_program_test(number: int, test: Mapping[str, Any]) -> None:
    for key in ("input", "output"):
        if not isinstance(test[key], str):
            raise ValueError(f"the {key} of test {number} is a text, not {test[key]!r}; join its lines")
        if len(test[key].encode(errors="replace")) > MAX_OUTPUT_BYTES:
            raise ValueError(f"the {key} of test {number} is longer than {MAX_OUTPUT_BYTES} bytes; drop the test")


def _check_function_test(number: int, test: Mapping[str, Any]) -> None:
    if not isinstance(test["arguments"], list):
        raise ValueError(f"the arguments of test {number} are a list, not {test['arguments']!r}; put them in one")
    try:
        json.dumps([test["arguments"], test["returns"]], allow_nan=False)
    except ValueError:
        raise ValueError(f"test {number} has a number that is not finite, which JSON cannot say; drop it") from None


def verify(response: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a response, in a sandbox made for it.

    >>> verify("```python\\nprint(2 * int(input()))\\n```", {"tests": [{"input": "3", "output": "6"}]}).score
    1.0
    """
    found = prepare(response, item)
    return found if isinstance(found, Verdict) else judge(found, item)


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where there is no program to run, else the program for `judge`; fast and safe on any text."""
    program = last_program(after_thinking(response))
    if program is None:
        return unanswered("no Python block in triple backticks after the thinking")
    if not program.strip():
        return unanswered("the Python block is empty")
    if len(program) > MAX_PROGRAM_CHARACTERS:
        return wrong(f"the program has more than {MAX_PROGRAM_CHARACTERS} characters")
    return program


def load() -> None:
    """Nothing: the sandbox is the worker's."""


def judge(
    program: str, item: Mapping[str, Any], sandbox: Sandbox | None = None, max_seconds: float = SECONDS
) -> Verdict:
    """The fraction of the tests that a program passes, within `max_seconds` for all of them.

    Raises SandboxError where it could not be run, which is no verdict.
    """
    if sandbox is None:
        with Sandbox() as own:
            return judge(program, item, own, max_seconds)
    seconds = remaining = min(max_seconds, item.get("seconds", max_seconds))
    num_passed, first_failure = 0, ""
    for number, test in enumerate(item["tests"], start=1):
        execution = _execute(sandbox, program, item.get("function"), test, remaining)
        if execution.ended == "time":
            return wrong(f"more than {seconds:g} s in all, at test {number} of {len(item['tests'])}")
        failure = _failure(execution, test)
        num_passed += not failure
        first_failure = first_failure or (failure and f"test {number}: {failure}")
        remaining -= execution.seconds
    detail = f"{num_passed} of {len(item['tests'])} tests passed"
    return judged(num_passed / len(item["tests"]), f"{detail}; {first_failure}" if first_failure else detail)


def last_program(text: str) -> str | None:
    r"""The last block labelled as Python, else the last one without a label; None where there is none or it is cut off.

    >>> last_program("```python\nprint(1)\n```\nprints\n```\n1\n```")
    'print(1)'
    """
    lines = text.replace("\r\n", "\n").split("\n")
    # A fence that someone forgot to close must not swallow the program: the label tells where that starts.
    labelled = _blocks(lines, lambda label: _PYTHON.fullmatch(label) is not None)
    found = labelled or [(label, block) for label, block in _blocks(lines, lambda _: True) if not label]
    return found[-1][1] if found else None


def _blocks(lines: Sequence[str], opens: Callable[[str], bool]) -> list[tuple[str, str | None]]:
    """Label and text of each block whose label `opens` one."""
    blocks = []
    remaining = iter(lines)
    for line in remaining:
        is_fence = len(line) <= MAX_FENCE_CHARACTERS and "```" in line
        opening = _OPENING.fullmatch(line) if is_fence else None
        if opening is not None and opens(opening[3]):
            blocks.append((opening[3], _block(remaining, opening[1], opening[2])))
    return blocks


def _block(lines: Iterator[str], indent: str, fence: str) -> str | None:
    """The lines up to the closing fence, without the opening's indent; None where there is no closing fence."""
    block: list[str] = []
    for line in lines:
        content, found, rest = line.rstrip().partition(fence)
        # A fence that is indented as code belongs to the code, as one in a docstring does.
        if found and not rest.strip("`") and (content.strip() or len(content) < len(indent) + 4):
            return "\n".join([*block, content.removeprefix(indent)] if content.strip() else block)
        block.append(line.removeprefix(indent))
    return None


def is_same_output(found: str, expected: str) -> bool:
    r"""Whether a program's output is the expected one, line by line.

    Whitespace at the end of a line and empty lines at both ends do not count. Where an expected line has a number among
    its words, its words are compared one by one, and numbers by value: exactly, or within `TOLERANCE` where the
    expected one is written with a point or an exponent. Source: LiveCodeBench compares likewise, without a tolerance.

    >>> is_same_output("0.5 \n", "0.500000"), is_same_output("yes", "YES"), is_same_output("1 2", "1\n2")
    (True, False, False)
    """
    lines, expected_lines = _lines(found), _lines(expected)
    return len(lines) == len(expected_lines) and all(map(_is_same_line, lines, expected_lines))


def is_same_value(found: Any, expected: Any) -> bool:
    """Whether two values of JSON are the same, in type too: neither True nor 1.0 is 1.

    Where a floating-point number is expected, an integer may stand, and `TOLERANCE` holds.

    >>> is_same_value([1, 2.0000001], [1, 2.0]), is_same_value([True], [1])
    (True, False)
    """
    if isinstance(expected, float):
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        return is_number and (found == expected or _is_near(Decimal(str(found)), Decimal(repr(expected))))
    if type(found) is not type(expected):
        return False
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_same_value, found, expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(is_same_value(found[key], expected[key]) for key in expected)
    return bool(found == expected)


def _execute(
    sandbox: Sandbox, program: str, function: str | None, test: Mapping[str, Any], seconds: float
) -> Execution:
    if function is None:
        return sandbox.run(program, stdin=test["input"].encode(errors="replace"), seconds=seconds)
    return sandbox.run(program, function=function, calls=[test["arguments"]], seconds=seconds)


def _failure(execution: Execution, test: Mapping[str, Any]) -> str:
    """Why a test is not passed; empty where it is."""
    if execution.ended == "output":
        return f"more than {MAX_OUTPUT_BYTES} bytes of output"
    if execution.status != 0:
        return f"ended with status {execution.status}"
    if "returns" not in test:
        output = execution.output.decode(errors="replace")
        return "" if is_same_output(output, test["output"]) else "another output"
    try:
        value = json.loads(execution.value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "no value that JSON has a word for"
    return "" if is_same_value(value, test["returns"]) else "another value"


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.rstrip().split("\n")]
    return lines[next((place for place, line in enumerate(lines) if line), 0) :]


def _is_same_line(found: str, expected: str) -> bool:
    if found == expected:
        return True
    words, expected_words = found.split(), expected.split()
    return (
        len(words) == len(expected_words)
        and any(map(_NUMBER.fullmatch, expected_words))
        and all(map(_is_same_word, words, expected_words))
    )


def _is_same_word(found: str, expected: str) -> bool:
    if found == expected:
        return True
    if not _NUMBER.fullmatch(found) or not _NUMBER.fullmatch(expected):
        return False
    if not any(mark in expected for mark in ".eE"):
        # An integer may have gained a point and zeros, but 007 is not 7: it may be a string of digits.
        whole, _, fraction = found.partition(".")
        return whole == expected and not fraction.strip("0")
    # Some digits are too many for decimal; no floating-point number has them.
    return len(found) <= MAX_NUMBER_CHARACTERS and _is_near(Decimal(found), Decimal(expected))


def _is_near(found: Decimal, expected: Decimal) -> bool:
    if found == expected:
        return True
    size, exponent = abs(expected), expected.as_tuple().exponent
    allowed = TOLERANCE * max(Decimal(1), size)
    if found == found.to_integral_value():
        allowed = min(allowed, max(TOLERANCE, SMALL_TOLERANCE * size))
    if isinstance(exponent, int) and -MAX_ROUNDED_DECIMALS <= exponent < 0:
        allowed = min(allowed, max(Decimal(1).scaleb(exponent), SMALL_TOLERANCE * size))
    return abs(found - expected) <= allowed
