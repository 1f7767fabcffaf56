"""The journal survives kills, and a resumed one equals one that was never interrupted."""

from pathlib import Path

import pytest

from megatron_rl.report.journal import Journal, is_validation
from tests.report.records import step_row, validation_row


def play(journal: Journal, first: int, last: int, every: int = 2) -> None:
    """What the loop writes from a checkpoint of step `first` on: validation first, then steps."""
    for step in range(first, last + 1):
        if step % every == 0:
            journal.append(validation_row(step, step / 100 + 1 / 3))
        if step < last:
            journal.append(step_row(step + 1, 0.1 * step))


def without_step(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step"}


def test_a_line_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"step": 1, "actor/loss": 1 / 3, "actor/gradient_norm": 1e-300})
    assert journal.rows() == [{"step": 1, "actor/loss": 1 / 3, "actor/gradient_norm": 1e-300}]


def test_a_full_disk_is_one_line_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RuntimeError, match=r"metrics.jsonl: could not be written \(No space left on device\); mend"):
        Journal(tmp_path).append({"step": 1})


@pytest.mark.parametrize(("saved_at", "killed_after"), [(s, k) for k in range(7) for s in range(k + 1)])
def test_a_resumed_journal_equals_an_uninterrupted_one(tmp_path: Path, saved_at: int, killed_after: int) -> None:
    whole, broken = Journal(tmp_path), Journal(tmp_path / "broken")
    broken.path.parent.mkdir()
    play(whole, 0, 7)
    play(broken, 0, killed_after)
    broken.resume(saved_at)
    play(broken, saved_at, 7)
    assert broken.path.read_bytes() == whole.path.read_bytes()


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    play(journal, 0, 3)
    whole = journal.path.read_bytes()
    for torn in range(1, 40):
        journal.path.write_bytes(whole[:-torn])
        journal.resume(2)
        assert [row["step"] for row in journal.rows()] == [0, 1, 2]
        assert journal.path.read_bytes().endswith(b"\n")


def test_a_damaged_line_before_the_last_is_an_error_that_names_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.path.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(RuntimeError, match="line 2"):
        journal.rows()


def test_a_fresh_start_forgets_what_was_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    play(journal, 0, 3)
    journal.resume(0)
    assert journal.rows() == []


def test_a_resume_without_a_file_makes_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.resume(5)
    assert journal.rows() == []
    assert not journal.path.exists()


def test_not_a_number_never_enters_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ValueError):
        journal.append({"step": 1, "actor/loss": float("nan")})
    assert journal.rows() == []


def test_validations_and_steps_are_told_apart() -> None:
    assert is_validation(validation_row(1, 0.5))
    assert is_validation({"step": 1, "validation/accuracy": 0.5}), "as runs wrote it before verdicts were counted there"
    assert is_validation({"step": 1, "validation/unjudged_fraction": 1.0}), "no verdict, and so no accuracy"
    assert not is_validation(step_row(1))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "a JSON list, and no object"),
        ("{}", "it has no step"),
        ('{"step": null}', "step is 'None'"),
        ('{"step": "2"}', "step is '2'"),
        ('{"step": NaN}', "NaN is no number"),
        ('{"step": 1, "reward/mean": "x"}', "reward/mean is 'x', and no number"),
        ('{"step": 1, "reward/mean": 1e999}', "reward/mean is 'inf', and no number"),
        ("[" * 100_000, "maximum recursion depth"),
        ("9" * 5000, "Exceeds the limit"),
    ],
)
def test_a_line_that_no_run_writes_is_an_error_that_names_it(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 0}}\n{line}\n')
    with pytest.raises(RuntimeError, match="metrics.jsonl, line 2: .*; something else changed the file") as caught:
        Journal(tmp_path).rows()
    assert said in str(caught.value)
