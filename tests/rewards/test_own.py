"""Rewards of one's own: judged in confined workers alone; what is wrong with one is a line, or a counted failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_rl.rewards.own import check_items, digests, read_sources
from megatron_rl.rewards.score import Case, Scorer
from megatron_rl.types import Verdict
from tests.rewards import attacks
from tests.rewards.light import plant

EXAMPLE = Path(__file__).parents[2] / "demo" / "own_reward"
DOMAIN = "my_rewards.py:Sum"
ITEM = {"numbers": [2, 3]}
FINE = "check_item = lambda self, item: None\n    load = lambda self: None\n    prepare = lambda self, text, item: text"


@pytest.fixture(scope="module", autouse=True)
def _light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A dozen of workers are started here."""
    with pytest.MonkeyPatch.context() as patch:
        plant(tmp_path_factory.mktemp("modules"), patch)
        yield


def class_of(judge: str, first: str = "") -> str:
    return f"{first}\nclass Sum:\n    {FINE}\n    def judge(self, text, item):\n        {judge}\n"


def test_the_example_pays_by_nearness_and_its_file_has_a_digest() -> None:
    sources = read_sources(EXAMPLE, {DOMAIN, "math"})
    with Scorer(1, 5.0, own_rewards=sources) as scorer:
        texts = ("\\boxed{5}", "\\boxed{4}", "<think>\\boxed{5}</think>no", "\\boxed{x}")
        verdicts = scorer.score([Case(DOMAIN, text, ITEM) for text in texts])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.8, 0.0, 0.0]
    assert all(verdict.outcome == "judged" for verdict in verdicts)
    assert list(digests(sources)) == [DOMAIN] and len(digests(sources)[DOMAIN]) == 64


FAULTS = [  # source, outcome, what its detail says
    (class_of("while True: pass"), "timeout", ""),
    (class_of("return 1.0", first="while True: pass"), "timeout", ""),
    (class_of("raise KeyError('x')"), "crashed", "KeyError"),
    (class_of("return 1.0", first="1 / 0"), "crashed", "ZeroDivisionError"),
    (class_of("import os; os._exit(3)"), "crashed", "the process ended"),
    (class_of("import os; return float(os.fork() >= 0)"), "crashed", "Error"),
    (class_of("return float(len(open('/etc/passwd').read()) > 0)"), "crashed", "Error"),
    (class_of("import socket; socket.socket(); return 1.0"), "crashed", "Error"),
    (class_of("return 2.0"), "crashed", "the score is 2.0; a number from 0 to 1"),
    (class_of("return float('nan')"), "crashed", "the score is nan"),
    (class_of("return 'right'"), "crashed", "the score is 'right'"),
    (class_of("return None"), "crashed", "the score is None"),
    ("class Sum: pass", "crashed", "Sum needs a function check_item of 1 arguments"),
    (class_of("return 1.0").replace("self, text, item):", "self, text):"), "crashed", "judge of 2 arguments"),
    (class_of("return True"), "judged", ""),
]


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    """Of one response by each of the faulty rewards, all judged by the same processes."""
    sources = {f"fault_{number}.py:Sum": source for number, (source, _, _) in enumerate(FAULTS)}
    with Scorer(2, 1.0, own_rewards=sources) as scorer:
        return scorer.score([Case(domain, "", ITEM) for domain in sources])


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_reward_that_fails_or_lies_is_a_counted_failure(number: int, verdicts: list[Verdict]) -> None:
    _, outcome, detail = FAULTS[number]
    assert verdicts[number].outcome == outcome and detail in verdicts[number].detail
    assert verdicts[number].score == (1.0 if outcome == "judged" else 0.0)


def test_the_workers_go_on_after_a_reward_that_ends_them() -> None:
    sources = {DOMAIN: class_of("import os; os._exit(3)"), "b.py:B": class_of("return 1.0").replace("Sum", "B")}
    with Scorer(1, 5.0, own_rewards=sources) as scorer:
        cases = [Case(DOMAIN, "x", ITEM), Case("b.py:B", "x", ITEM), Case("math", "\\boxed{5}", {"answer": "5"})]
        assert [verdict.score for verdict in scorer.score(cases)] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "domain", "pattern"),
    [
        (None, DOMAIN, "my_rewards.py is not there; put the file beside the data"),
        ("class Sum(\n", DOMAIN, "is no Python"),
        ("class Product: pass\n", DOMAIN, "has no class Sum; it has Product"),
        ("x" * (2 << 20), DOMAIN, "longer than"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line(text: str | None, domain: str, pattern: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "my_rewards.py").write_text(text)
    with pytest.raises(ValueError, match=pattern):
        read_sources(tmp_path, {domain})


def test_an_item_that_the_class_refuses_is_named_before_a_run() -> None:
    sources = read_sources(EXAMPLE, {DOMAIN})
    check_items(sources, [("a", DOMAIN, ITEM), ("b", "math", {})], 5.0)
    with pytest.raises(ValueError, match="item 'b': crashed: ValueError: numbers is 'x'; write a list"):
        check_items(sources, [("a", DOMAIN, ITEM), ("b", DOMAIN, {"numbers": "x"})], 5.0)
    with pytest.raises(ValueError, match="item 'a': timeout"):
        check_items({DOMAIN: "while True: pass\n" + sources[DOMAIN]}, [("a", DOMAIN, ITEM)], 1.0)


def test_the_attacks_on_the_sandbox_do_not_succeed_from_a_reward() -> None:
    """The harmless ones: of memory, threads and time a verifier has more than a program, and its own two pipes."""
    escaped: list[str] = []
    with attacks.targets() as values:
        report = 'def escaped(*what): os.write(1, f"ESCAPED {what}\\n".encode())'
        sources = {}
        chosen = {name: source for name, source in attacks.HARMLESS.items() if name != "inherited descriptors"}
        for number, source in enumerate(chosen.values()):
            program = attacks.filled(source, values)
            assert report in program, "how the attacks report is known"
            program = program.replace(report, "ESCAPES = []\ndef escaped(*what): ESCAPES.append(what)")
            judge = f"space = {{}}; exec({json.dumps(program)}, space); return float(bool(space['ESCAPES']))"
            sources[f"a{number}.py:Sum"] = class_of(judge)
        with Scorer(1, 0.5, own_rewards=sources) as scorer:
            for name, domain in zip(chosen, sources, strict=True):
                verdict = scorer.score([Case(domain, "x", ITEM)])[0]
                harm = attacks.damage(Path(str(values["FOLDER"])), values["victim"])
                if verdict.score or harm:
                    escaped.append(f"{name}: {verdict.outcome} {verdict.detail} {harm}")
    assert escaped == []
