"""Rows of the sets that the published mixtures were made of: MATH, OlympiadBench, APPS, TACO, CodeContests, Codeforces.

A mixture of one's own can train on them. Not covered: LiveCodeBench and HumanEval+, which are there to evaluate with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_rl.config.mixture import Rules, Source
from megatron_rl.data.code_tests import item_of
from megatron_rl.data.drafts import Draft, LeftOut, answer_of, boxed, last_box, text_of

Row = Mapping[str, Any]

_DOLLARS = re.compile(r"\$([^$]+)\$")
_CUT = "..."  # ends what the judge's page did not show whole
_PYTHON = ("Python 3", "PyPy 3")
_TESTS = ("public_tests", "private_tests", "generated_tests")


def math(row: Row, source: Source, rules: Rules) -> Draft:
    """MATH, MATH-500 and Minerva: `problem` or `question`; `answer`, or a `solution` whose last box holds it."""
    problem = text_of(row, "problem", "question")
    if "answer" in row:
        answer = answer_of(row, "answer")
    else:
        try:
            answer = last_box(text_of(row, "solution"))
        except ValueError as error:
            raise LeftOut("no_short_answer", str(error)) from None
    return Draft(problem=problem, item={"answer": answer}, proof=boxed(answer))


def olympiad(row: Row, source: Source, rules: Rules) -> Draft:
    """OlympiadBench: `question`, `final_answer` with one text, which holds several answers where it says so."""
    found = row.get("final_answer")
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], str):
        raise LeftOut("malformed", "final_answer is no list of one text")
    if row.get("error"):
        raise LeftOut("several_outputs", f"an answer may be off by {row['error']}")
    if row.get("modality") not in (None, "Text-only"):
        raise LeftOut("malformed", "the problem needs an image")
    parts = [part.strip() for part in _DOLLARS.findall(found[0])] or [found[0].strip().rstrip(".")]
    is_set = row.get("is_multiple_answer") is True and len(parts) > 1
    whole = parts[0] if len(parts) == 1 else found[0].replace("$", "").strip()
    answer = answer_of({"final_answer": "\\{" + ", ".join(parts) + "\\}" if is_set else whole}, "final_answer")
    return Draft(problem=text_of(row, "question"), item={"answer": answer}, proof=boxed(answer))


def apps(row: Row, source: Source, rules: Rules) -> Draft:
    """APPS and TACO: `question`, `input_output` and `solutions` as JSON texts, `starter_code` where one is called."""
    problem, starter = text_of(row, "question"), row.get("starter_code")
    item, left_out = item_of(row.get("input_output"), rules)
    if row.get("source") == "geeksforgeeks" and "function" not in item:
        raise LeftOut("refused", "asks for a function, and its tests are what a program shows")
    if isinstance(starter, str) and starter.strip():
        problem += f"\n\nStart from this:\n```python\n{starter.strip()}\n```"
    return Draft(problem=problem, item=item, proof=first_program(row), tests_left_out=left_out)


def codecontests(row: Row, source: Source, rules: Rules) -> Draft:
    """CodeContests: `description`, and three columns of tests with lists of `input` and `output`."""
    problem = text_of(row, "description")
    if row.get("input_file") or row.get("output_file"):
        raise LeftOut("interactive", "the program reads or writes a file")
    if "<image>" in problem:
        raise LeftOut("malformed", "the statement needs an image")
    inputs: list[Any] = []
    outputs: list[Any] = []
    for column in _TESTS:
        tests = row.get(column) or {"input": [], "output": []}
        if not isinstance(tests, Mapping) or not all(isinstance(tests.get(key), list) for key in ("input", "output")):
            raise LeftOut("malformed", f"{column} is no object with lists of input and output")
        inputs += tests["input"]
        outputs += tests["output"]
    item, left_out = item_of({"inputs": inputs, "outputs": outputs}, rules)
    return Draft(problem=problem, item=item, proof=None, tests_left_out=left_out)


def codeforces(row: Row, source: Source, rules: Rules) -> Draft:
    """Codeforces' submissions: the parts of a statement, `test_cases`, and a program that may have been accepted.

    A problem has many rows, of which one is kept, as an exact duplicate of no other.
    """
    problem = text_of(row, "problem-description")
    for column, head in (("input-specification", "Input"), ("output-specification", "Output")):
        if isinstance(row.get(column), str) and row[column].strip():
            problem += f"\n\n{head}\n\n{row[column].strip()}"
    tests = row.get("test_cases")
    if not isinstance(tests, list) or not all(isinstance(test, Mapping) for test in tests):
        raise LeftOut("malformed", "test_cases is no list of objects")
    whole = [test for test in tests if not any(str(test.get(key)).rstrip().endswith(_CUT) for key in test)]
    if tests and not whole:
        raise LeftOut("tests_too_large", f"all of {len(tests)} tests are cut off")
    truth = {"inputs": [test.get("input") for test in whole], "outputs": [test.get("output") for test in whole]}
    item, left_out = item_of(truth, rules)
    is_right = row.get("verdict") == "OK" and str(row.get("programmingLanguage")).startswith(_PYTHON)
    proof = fenced(row.get("code")) if is_right else None
    return Draft(problem=problem, item=item, proof=proof, tests_left_out=left_out + len(tests) - len(whole))


def first_program(row: Row) -> str | None:
    """A published solution, as a response; Eurus-2 has none, but the sets that it is made from do."""
    found = row.get("solutions")
    if isinstance(found, str) and found.strip():
        try:
            found = json.loads(found)
        except ValueError:
            return None
    is_list = isinstance(found, Sequence) and not isinstance(found, str) and len(found) > 0
    return fenced(found[0]) if is_list and found is not None else None


def fenced(program: Any) -> str | None:
    """A program as a response; None where it is no text."""
    return f"```python\n{program}\n```" if isinstance(program, str) and program.strip() else None
