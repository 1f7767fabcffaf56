"""The loop's view of the report: what stands in the run directory after which call."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_rl.report import provenance
from megatron_rl.report.ledger import read_attempts
from megatron_rl.report.metrics import MEASURED
from megatron_rl.report.report import FILES, PAGE_SECONDS, PAGE_SHARE, Report, decisions
from megatron_rl.runtime import spans
from megatron_rl.runtime.preempt import Preempted
from megatron_rl.types import Reset, Scores, State
from recipes import prorl_v1, prorl_v2
from tests.report.records import POLICY, batch, collected, update
from tests.report.runs import make_run

MAIN: Any = SimpleNamespace(is_main=True, rank=0)
OTHER: Any = SimpleNamespace(is_main=False, rank=1)


def validated(state: State, accuracy: float) -> State:
    return dataclasses.replace(state, scores=(*state.scores, Scores(step=state.step, accuracy={"math": accuracy})))


def stepped(state: State) -> State:
    return dataclasses.replace(state, step=state.step + 1, samples_seen=state.samples_seen + 6)


def play(report: Report, state: State, last: int) -> State:
    """The loop's calls, from `state` to step `last`."""
    report.start(state)
    while True:
        if state.step % 2 == 0 or state.step == last:
            with spans.span("validate"), spans.span("generate"):
                pass
            state = validated(state, state.step / 10)
            report.scores(state)
        if state.step == last:
            return state
        for phase in ("refit", "generate", "score", "logprob", "update"):
            with spans.span(phase):
                pass
        state = stepped(state)
        report.step(state, collected(), batch(), POLICY, [update()])


def rows_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def repeatable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in rows]


def test_a_run_leaves_all_its_files_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Report(make_run(tmp_path), MAIN) as report:
        play(report, State.fresh(), 4)
        report.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "heartbeat.json", "spans"])
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1, 2, 2, 3, 4, 4]
    said = capsys.readouterr().out
    assert "accuracy" in said and "0.000 -> 0.400" in said
    assert all(name in said for name in FILES)


def test_a_resumed_run_has_the_metrics_of_one_never_interrupted(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with Report(make_run(whole), MAIN) as report:
        play(report, State.fresh(), 6)
    with Report(make_run(broken), MAIN) as report:
        play(report, State.fresh(), 5)
    saved = dataclasses.replace(State.fresh(), step=2, samples_seen=12)
    with Report(make_run(broken), MAIN) as report:
        play(report, saved, 6)
    assert repeatable(rows_of(broken)) == repeatable(rows_of(whole))


def test_a_run_that_goes_on_with_other_software_says_so_and_one_that_begins_anew_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, saved = make_run(tmp_path), dataclasses.replace(State.fresh(), step=2, samples_seen=12)
    with Report(run, MAIN) as report:
        report.start(State.fresh())
        report.start(saved)
        assert "WARNING" not in capsys.readouterr().err
        monkeypatch.setattr(provenance, "version_of_verifiers", lambda: "others")
        report.start(State.fresh())
        assert "WARNING" not in capsys.readouterr().err
        monkeypatch.setattr(provenance, "version_of_verifiers", lambda: "third")
        report.start(saved)
    (line,) = capsys.readouterr().err.splitlines()
    assert "WARNING goes on from step 2 with other software than before" in line
    assert line.endswith(": verifiers: others -> third")


def test_other_ranks_say_nothing_and_write_spans_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Report(make_run(tmp_path / "run"), OTHER) as report:
        play(report, State.fresh(), 4)
        report.finish()
    assert [path.name for path in (tmp_path / "run").rglob("*.*")] == ["rank_00001.jsonl"]
    assert capsys.readouterr() == ("", "")


def test_validation_is_not_counted_as_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter(
        [{}, {"refit": 1.0, "validate": 5.0, "generate": 4.0, "score": 0.5}, {"generate": 2.0, "save": 1.0}, {}]
    )
    monkeypatch.setattr(spans, "take", lambda: next(taken))
    with Report(make_run(tmp_path), MAIN) as report:
        state = State.fresh()
        report.start(state)
        report.scores(validated(state, 0.5))
        report.step(stepped(state), collected(), batch(), POLICY, [update()])
    row = rows_of(tmp_path)[-1]
    seconds = {name: row[f"time/{name}_seconds"] for name in ("refit", "validate", "generate", "save")}
    assert seconds == {"refit": 1.0, "validate": 5.0, "generate": 2.0, "save": 1.0}
    assert "time/score_seconds" not in row


def test_a_run_that_leaves_its_validation_counts_no_second_of_it_twice(tmp_path: Path) -> None:
    with contextlib.suppress(Preempted), Report(make_run(tmp_path), MAIN) as report:
        report.start(State.fresh())
        with spans.span("validate"), spans.span("generate"):
            time.sleep(0.02)
            raise Preempted("SIGUSR1 was received")
    (attempt,) = read_attempts(tmp_path)
    assert attempt.parts["validate"] >= 0.02 and attempt.parts["other"] >= 0
    assert "generate" not in attempt.parts


def test_the_page_costs_a_small_share_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    last = validated(dataclasses.replace(State.fresh(), step=6), 0.5)
    with Report(make_run(tmp_path), MAIN) as report:
        monkeypatch.setattr(report, "_draw_page", lambda: drawn.append(len(report.curves)))
        report.page_drawn = time.perf_counter()
        play(report, State.fresh(), 6)  # in an instant: no time for a page
        assert drawn == []
        report.page_drawn -= PAGE_SECONDS
        report.scores(last)
        assert len(drawn) == 1
        report.page_cost = PAGE_SECONDS * PAGE_SHARE * 2
        report.scores(last)
        assert len(drawn) == 1  # a dear page is drawn more seldom
        report.page_drawn -= PAGE_SECONDS
        report.scores(last)
        assert len(drawn) == 2
    assert len(drawn) == 3


def test_there_is_a_page_from_the_first_step_on_and_on_every_way_out(tmp_path: Path) -> None:
    for error, why in (
        (None, "finished"),
        (RuntimeError("a disk\nis full"), "failed: RuntimeError: a disk is full"),
        (Preempted("SIGUSR1 was received"), "left: SIGUSR1 was received"),
        (KeyboardInterrupt(), "failed: KeyboardInterrupt:"),
    ):
        directory = tmp_path / str(error)
        with (
            contextlib.suppress(RuntimeError, Preempted, KeyboardInterrupt),
            Report(make_run(directory), MAIN) as report,
        ):
            report.start(State.fresh())
            report.step(stepped(State.fresh()), collected(), batch(), POLICY, [update()])
            assert "1 of 3000" in (directory / "report.html").read_text()
            report.step(stepped(stepped(State.fresh())), collected(), batch(), POLICY, [update()])
            assert "2 of 3000" not in (directory / "report.html").read_text()
            if error is not None:
                raise error
        assert "2 of 3000" in (directory / "report.html").read_text()
        (attempt,) = read_attempts(directory)
        assert attempt.why == why and attempt.to_step == 2


def test_a_page_that_cannot_be_drawn_does_not_hide_what_ended_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the real reason"), Report(make_run(tmp_path), MAIN) as report:
        report.start(State.fresh())
        report.step(stepped(State.fresh()), collected(), batch(), POLICY, [update()])
        (tmp_path / ".report.html.partial").mkdir()
        raise RuntimeError("the real reason")


def test_the_terminal_is_given_back_when_the_loop_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []
    with pytest.raises(KeyboardInterrupt), Report(make_run(tmp_path), MAIN) as report:  # noqa: PT012
        monkeypatch.setattr(report.progress, "stop", lambda: stopped.append(True))
        raise KeyboardInterrupt
    assert stopped == [True]


def test_what_a_step_decided_is_told_once_with_its_reason() -> None:
    def at(step: int, *resets: Reset) -> State:
        return dataclasses.replace(State.fresh(), step=step, reference_resets=resets)

    v1, v2 = prorl_v1.RECIPE, prorl_v2.RECIPE  # v2's length term: 500 steps off, then 100 on
    assert decisions(v1, at(257)) == decisions(v1, at(259)) == []
    assert decisions(v1, at(258)) == [f"stage from step 257: {v1.stages[1].why}"]
    turns = "100 steps on and 500 off in turn"
    told = {step: found for step in range(1, 1202) if (found := decisions(v2, at(step)))}
    phases = {1: "off", 501: "on", 601: "off", 1101: "on", 1201: "off"}
    assert told == {step: [f"length term {phase}: {turns}"] for step, phase in phases.items()}
    resets = Reset(step=501, reason="period"), Reset(step=700, reason="KL spike")
    assert decisions(v2, at(501, *resets))[1:] == ["reference reset, optimizer kept: period"]
    assert decisions(v2, at(700, *resets)) == ["reference reset, optimizer kept: KL spike"]
    assert decisions(v1, at(700, *resets)) == ["reference reset, optimizer cleared: KL spike"]
