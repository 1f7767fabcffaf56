"""Rows of LiveCodeBench, whose private tests are packed as base64 of zlib of a pickled text: read, never unpickled."""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from typing import Any

from megatron_rl.evaluation.benchmarks.code import joined, kept
from megatron_rl.evaluation.benchmarks.columns import LeftOut, Row, nested, shown, text

MAX_UNPACKED_BYTES = 256 << 20  # of a problem's private tests
# What the pickle of one text consists of; anything else could build, or call, something.
TEXT_OPCODES = frozenset({"BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"})
IDLE_OPCODES = frozenset({"PROTO", "FRAME", "MEMOIZE", "BINPUT", "STOP"})

# The benchmark's own ERRATA.md. Source: LC.
ERRATA = {
    "several right outputs": """abc311_c abc326_d abc327_b abc333_e abc343_e abc343_a abc362_c arc185_c
        find-words-containing-character find-the-peaks generate-binary-strings-without-adjacent-zeros""",
    "interactive": "abc337_e abc355_e",
    "wrong tests": "abc350_c apply-operations-to-make-string-empty most-frequent-ids arc189_a",
}
REASONS = {name: reason for reason, names in ERRATA.items() for name in names.split()}
STDIN_FORMAT = (
    "Read the inputs from stdin, solve the problem and write the answer to stdout. Enclose your code in\n"
    "```python\n# YOUR CODE HERE\n```"
)
STARTER_FORMAT = "Use the following starter code, and enclose your code in triple backticks.\n```python\n{starter}\n```"


def livecodebench(row: Row, number: int) -> dict[str, Any]:
    """`question_id`, `question_content`, `starter_code`, both kinds of tests, `metadata` with the function's name."""
    identifier = text(row, "question_id")
    for name in (identifier, text(row, "question_title").lower().replace(" ", "-")):
        if name in REASONS:
            raise LeftOut(f"errata: {REASONS[name]}")
    tests = [*_tests(nested(row, "public_test_cases")), *_tests(private_tests(text(row, "private_test_cases")))]
    kinds = {test["testtype"] for test in tests}
    if len(kinds) != 1:
        raise ValueError(f"the tests are of the kinds {sorted(kinds)}; the published rows have one kind each")
    starter, metadata = text(row, "starter_code", may_be_empty=True), nested(row, "metadata")
    if kinds == {"stdin"}:
        pairs = [{"input": joined(test["input"]), "output": joined(test["output"])} for test in tests]
        item: dict[str, Any] = {"tests": kept(pairs)}
        how = STDIN_FORMAT
    else:
        function = metadata.get("func_name") if isinstance(metadata, dict) else None
        if not isinstance(function, str):
            raise ValueError(f"column 'metadata' is {shown(metadata)}; functional tests need its func_name")
        item = {"function": function, "tests": kept([_call(test) for test in tests])}
        how = STARTER_FORMAT.format(starter=starter)
    prompt = f"### Question:\n{text(row, 'question_content').strip()}\n\n### Format:\n{how}\n\n### Answer:\n"
    return {"id": identifier, "domain": "code", "prompt": prompt, "item": item}


def private_tests(packed: str) -> Any:
    """The tests of `private_test_cases`: JSON, or base64 of zlib of the pickle of a JSON text.

    Raises ValueError where it is neither, LeftOut where it unpacks to more than `MAX_UNPACKED_BYTES`.
    """
    if packed.lstrip().startswith("["):
        return nested({"private_test_cases": packed}, "private_test_cases")
    try:
        data = base64.b64decode(packed, validate=True)
        unpacker = zlib.decompressobj()
        pickled = unpacker.decompress(data, MAX_UNPACKED_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"column 'private_test_cases' is neither JSON nor packed ({error})") from None
    if unpacker.unconsumed_tail:
        raise LeftOut(f"private tests of more than {MAX_UNPACKED_BYTES >> 20} MiB")
    return nested({"private_test_cases": pickled_text(pickled)}, "private_test_cases")


def pickled_text(pickled: bytes) -> str:
    r"""The text that a pickle of one text holds, read from its opcodes. Raises ValueError for any other pickle.

    >>> pickled_text(b"\x80\x04\x8c\x02hi\x94.")
    'hi'
    """
    texts, last = [], ""
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name not in TEXT_OPCODES | IDLE_OPCODES:
                raise ValueError(f"has the opcode {opcode.name}")
            if opcode.name in TEXT_OPCODES:
                texts.append(argument)
            last = opcode.name
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"column 'private_test_cases' is no pickle of one text: {error}; it is not read") from None
    if len(texts) != 1 or last != "STOP":
        raise ValueError(f"column 'private_test_cases' is a pickle of {len(texts)} texts, not of one; it is not read")
    return str(texts[0])


def _tests(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list):
        raise ValueError(f"the tests are {shown(found)}; the published rows have a list")
    for test in found:
        if not isinstance(test, dict) or test.keys() != {"input", "output", "testtype"}:
            raise ValueError(f"a test is {shown(test)}; the published ones have input, output and testtype")
        if test["testtype"] not in ("stdin", "functional"):
            raise ValueError(f"a test has testtype {test['testtype']!r}; the published ones are stdin or functional")
    return found


def _call(test: dict[str, Any]) -> dict[str, Any]:
    """A functional test: its input has one JSON value a line, a line an argument."""
    try:
        lines = [line for line in joined(test["input"]).split("\n") if line.strip()]
        return {"arguments": [json.loads(line) for line in lines], "returns": json.loads(joined(test["output"]))}
    except json.JSONDecodeError:
        raise ValueError(f"a functional test is {shown(test)}; its lines are JSON in the published rows") from None
    except ValueError:
        raise LeftOut("a number that JSON or Python has no room for") from None
