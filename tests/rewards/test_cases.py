"""`megatron-rl verify`: verdicts on stored responses of all domains, and the one line an unusable file ends in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands.cli import app
from megatron_rl.rewards import cases
from megatron_rl.rewards.cases import check_cases, score_cases
from megatron_rl.rewards.score import Scorer
from tests.rewards.light import plant

ROOT = Path(__file__).parents[2]
ENTRY = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
OPEN = {"opens_thought": True}
LANGUAGE = {"instruction_id_list": ["punctuation:no_comma", "keywords:existence"], "kwargs": [{}, {"keywords": ["a"]}]}
TESTS = {"tests": [{"input": "3", "output": "6"}, {"input": "4", "output": "8"}]}
CASES: list[tuple[str, str, dict[str, Any], float]] = [
    ("math", r"\boxed{5}", {"answer": "5"}, 1.0),
    ("math", r"\boxed{1+x}", {"answer": "x+1"}, 1.0),
    ("math", "5", {"answer": "5"}, 0.0),
    ("code", "```python\nprint(2 * int(input()))\n```", TESTS, 1.0),
    ("code", "```python\nprint(6)\n```", TESTS, 0.5),
    ("stem", "The answer is (C).", {"answer": "C"}, 1.0),
    ("logic", "<answer>olleh</answer>", {"task": "spell_backward", "entry": ENTRY}, 1.0),
    ("instruct", "One, a two", LANGUAGE, 0.5),
]


def line(number: int, domain: str, response: str, item: Any) -> str:
    return json.dumps({"id": f"case-{number}", "domain": domain, "response": response, "item": item}) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(line(number, *case[:3]) for number, case in enumerate(CASES)))
    return path


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start in half a second; for cases that math-verify is not asked about."""
    plant(tmp_path, monkeypatch)


def verify(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "megatron_rl", "verify", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_every_case_has_one_line_in_the_order_of_the_file(path: Path) -> None:
    done = verify(str(path), "--processes", "1", "--timeout-seconds", "30", "--allow-unsafe-sandbox")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [set(row) for row in rows] == [{"id", "score", "outcome", "detail"}] * len(CASES)
    assert [row["id"] for row in rows] == [f"case-{number}" for number in range(len(CASES))]
    assert [(row["outcome"], row["score"]) for row in rows] == [("judged", case[3]) for case in CASES]


@pytest.mark.usefixtures("light")
def test_a_case_says_whether_its_prompt_has_opened_a_thought(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    case = {"id": "a", "domain": "math", "response": r"\boxed{5}, but", "item": {"answer": "5"}}
    path.write_text("".join(json.dumps(case | more) + "\n" for more in ({}, OPEN, {"opens_thought": False})))
    with Scorer(1, 30.0) as scorer:
        found = [json.loads(row)["score"] for row in score_cases(path, scorer)]
    assert found == [1.0, 0.0, 1.0]


@pytest.mark.usefixtures("light")
def test_batches_of_bounded_size_give_what_one_gives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        sizes: list[int] = []

        def score(self, batch: list[Any]) -> list[Any]:
            self.sizes.append(len(batch))
            return scorer.score(batch)

    path.write_text("".join(line(7, "math", rf"\boxed{{{number % 2}}}", {"answer": "1"}) for number in range(10)))
    with Scorer(1, 30.0) as scorer:
        whole = list(score_cases(path, scorer))
        monkeypatch.setattr(cases, "CASES_AT_ONCE", 4)
        assert list(score_cases(path, Plain())) == whole  # type: ignore[arg-type]
    assert Plain.sizes == [4, 4, 2]
    assert [json.loads(row)["score"] for row in whole] == [0.0, 1.0] * 5, "and the same id throughout"


@pytest.mark.usefixtures("light")
def test_verdicts_go_to_a_file_and_never_over_the_cases(path: Path) -> None:
    path.write_text(line(0, "math", r"\boxed{5}", {"answer": "5"}))
    before, output = path.read_text(), path.with_name("verdicts.jsonl")
    done = CliRunner().invoke(app, ["verify", str(path), "--processes", "1", "--output", str(output)])
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert json.loads(output.read_text()) == {"id": "case-0", "score": 1.0, "outcome": "judged", "detail": "right"}
    for wrong in (path, path.parent, path.parent / "none" / "verdicts.jsonl"):
        result = CliRunner().invoke(app, ["verify", str(path), "--output", str(wrong)])
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert f"output {wrong}: " in result.stderr
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("text", "number", "what"),
    [
        ("", 1, "the file is empty; write one case a line"),
        ("{\n", 1, "not JSON"),
        ("[" * 100_000 + "\n", 1, "nests too deep"),
        (line(0, "math", "", {"answer": "5"}) + "\n", 2, "an empty line; write one JSON object a line"),
        (line(0, "maths", "", {"answer": "5"}), 1, "unknown domain 'maths'; use one of math, code"),
        (line(0, "math", "", {"answer": ""}), 1, "the answer of a math item is a text, not ''; drop the row"),
        (line(0, "math", "", "5"), 1, "item is a JSON str; write an object"),
        ('{"id": "a", "domain": "math", "item": {"answer": "5"}}\n', 1, "key 'response' is missing; a line has id, d"),
        ('{"id": "a", "opens_thought": 1}\n', 1, "key 'domain' is missing"),
        (line(0, "math", "", {"answer": "5"})[:-2] + ', "opens_thought": 1}\n', 1, "opens_thought is 1; write true or"),
        (line(0, "math", "", {"answer": "5"})[:-2] + ', "thought": 1}\n', 1, "item, and perhaps opens_thought"),
        ('{"id": "a", "domain": "math", "response": 5, "item": {"answer": "5"}}\n', 1, "response is 5; write a text"),
    ],
)
def test_a_bad_line_ends_in_one_line_before_anything_is_judged(
    text: str, number: int, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    result = CliRunner().invoke(app, ["verify", str(path)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"error: {path}:{number}: ")
    assert what in result.stderr
    with pytest.raises(ValueError, match="no such file; "):
        check_cases(tmp_path / "none.jsonl", None)


def test_verifying_imports_no_engine(path: Path) -> None:
    path.write_text(line(0, "math", r"\boxed{5}", {"answer": "5"}))
    program = (
        "import sys\nfrom megatron_rl.commands.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print([name for name in ('torch', 'vllm', 'numpy', 'sympy', 'math_verify') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program, "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
