r"""Rows of programs: PRIME's validation rows and HumanEval+; what is published as source is parsed, never executed."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from megatron_rl.evaluation.benchmarks.columns import LeftOut, Row, need, shown, text
from megatron_rl.rewards import code

MAX_TESTS = 50  # chosen: of a problem; all of them share one time limit
MAX_TEST_BYTES = 8 << 20  # chosen: of a problem's tests together
HUMANEVAL_INSTRUCTION = (
    "Complete the following function. Write Python code, repeat everything that is given, and present the whole "
    "program in\n```python\nYour code\n```\nat the end.\n\n```python\n{prompt}```"
)
BROKEN_CHECKS = {"HumanEval/32": "its published check fails every program"}

Test = dict[str, Any]


def eurus_code(row: Row, number: int) -> dict[str, Any]:
    """`data_source`, `prompt` as messages, `reward_model.ground_truth` as JSON of inputs, outputs and maybe fn_name."""
    messages, reward = need(row, "prompt"), need(row, "reward_model")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "user":
        raise ValueError(f"column 'prompt' is {shown(messages)}; the published rows have messages, the user's last")
    if not isinstance(reward, dict):
        raise ValueError(f"column 'reward_model' is {shown(reward)}; the published rows have an object there")
    prompt, truth = text(last, "content"), text(reward, "ground_truth")
    item = item_of(_loaded(truth, "ground_truth"))
    name = hashlib.sha256(f"{prompt}\0{truth}".encode()).hexdigest()[:12]  # the rows have no ids
    return {"id": f"{text(row, 'data_source')}-{name}", "domain": "code", "prompt": prompt, "item": item}


def item_of(truth: Any) -> dict[str, Any]:
    """The code item of `{"inputs": .., "outputs": ..}`, with `fn_name` where a function is called.

    Raises ValueError where it is something else, LeftOut where no usable test is in it.
    """
    if not isinstance(truth, dict) or not {"inputs", "outputs"} <= truth.keys():
        raise ValueError(f"the tests are {shown(truth)}; the published rows have inputs and outputs")
    inputs, outputs, function = truth["inputs"], truth["outputs"], truth.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError(f"the tests have {shown(inputs)} and {shown(outputs)}; those are lists of one length")
    if function is None:
        pairs = [{"input": joined(one), "output": joined(other)} for one, other in zip(inputs, outputs, strict=True)]
        return {"tests": kept(pairs)}
    are_lists = all(isinstance(one, list) for one in inputs)
    are_wrapped = are_lists and all(isinstance(other, list) and len(other) == 1 for other in outputs)
    tests = []
    for one, other in zip(inputs, outputs, strict=True):
        arguments = one if are_lists else [_loaded(line, "input") for line in joined(one).split("\n")]
        returns = (other[0] if are_wrapped else other) if are_lists else _loaded(joined(other), "output")
        tests.append({"arguments": arguments, "returns": returns})
    return {"function": function, "tests": kept(tests)}


def joined(lines: Any) -> str:
    """Input or output of a program: a text, or a list of its lines."""
    if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
        return "\n".join(lines)
    if not isinstance(lines, str):
        raise ValueError(f"a test has {shown(lines)}; the published rows have a text, or a list of lines")
    return lines


def kept(tests: Sequence[Test]) -> list[Test]:
    """At most `MAX_TESTS` tests, taken evenly from the smallest to the largest, within `MAX_TEST_BYTES`.

    Raises LeftOut where none is left.
    """
    by_size = sorted(tests, key=lambda test: len(json.dumps(test)))
    fitting, size = [], 0
    for test in by_size:
        size += len(json.dumps(test))
        if size <= MAX_TEST_BYTES:
            fitting.append(test)
    count = min(MAX_TESTS, len(fitting))
    if not count:
        raise LeftOut("no test of a size that can be run")
    places = [round(place * (len(fitting) - 1) / max(count - 1, 1)) for place in range(count)]
    return [fitting[place] for place in places]


def humaneval_plus(row: Row, number: int) -> dict[str, Any]:
    """`task_id`, `prompt`, `entry_point`, `test`, a source whose literals `inputs` and `results` are the tests."""
    task, prompt = text(row, "task_id"), text(row, "prompt")
    if task in BROKEN_CHECKS:
        raise LeftOut(BROKEN_CHECKS[task])
    try:
        tree = ast.parse(text(row, "test"))
    except SyntaxError as error:
        raise ValueError(f"column 'test' is no Python: {error.msg}") from None
    lists = {
        target.id: node.value.elts
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("inputs", "results")
    }
    if "inputs" not in lists:
        raise ValueError("column 'test' has no list 'inputs'; the published rows have one")
    if "results" not in lists:
        raise LeftOut("its expected values come from a function")
    if len(lists["inputs"]) != len(lists["results"]):
        raise ValueError(f"column 'test' has {len(lists['inputs'])} inputs and {len(lists['results'])} results")
    tests = []
    for one, other in zip(lists["inputs"], lists["results"], strict=True):
        try:
            tests.append({"arguments": list(plain(ast.literal_eval(one))), "returns": plain(ast.literal_eval(other))})
        except (ValueError, TypeError):
            continue  # a set, a complex number, inf: what JSON has no word for
    return {
        "id": task,
        "domain": "code",
        "prompt": HUMANEVAL_INSTRUCTION.format(prompt=prompt if prompt.endswith("\n") else f"{prompt}\n"),
        "item": {"function": text(row, "entry_point"), "tests": kept(tests)},
    }


def plain(value: Any) -> Any:
    """A literal as JSON has it. Raises ValueError for what JSON has no word for.

    >>> plain([(1, 2.5), {"a": None}])
    [[1, 2.5], {'a': None}]
    """
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(inner) for key, inner in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and value - value == 0):
        return value
    raise ValueError(f"{type(value).__name__} is no value of JSON")


def _loaded(written: Any, what: str) -> Any:
    """JSON as a text; numbers that Python refuses leave the row out."""
    try:
        return json.loads(written, parse_constant=code._refuse)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the {what} {shown(written)} is no JSON ({error.msg}); the published rows have JSON"
        ) from None
    except RecursionError:
        raise ValueError(f"the {what} is JSON that nests too deep") from None
    except ValueError:
        raise LeftOut("a number that JSON or Python has no room for") from None
