"""The scorer: verdicts in order, hanging and dying verifiers, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_rl.rewards import workers
from megatron_rl.rewards.score import Case, Scorer
from tests.rewards.interpreters import readable_python
from tests.rewards.light import plant

ROOT = Path(__file__).parents[2]
HANG = Case("math", r"\boxed{h}", {"answer": r"\nabla h"})  # no grammar of ours: math-verify is asked
FAIL = Case("math", r"\boxed{f}", {"answer": r"\nabla f"})
RIGHT = Case("math", r"\boxed{1+x}", {"answer": "x+1"})
WRONG = Case("math", r"\boxed{2+x}", {"answer": "x+1"})


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    with pytest.MonkeyPatch.context() as patch:
        plant(tmp_path_factory.mktemp("modules"), patch)
        with Scorer(num_processes=1, timeout_seconds=2.0) as scorer:
            yield scorer


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for modules that verifiers import instead of the real ones, with a math-verify that can hang."""
    return plant(tmp_path, monkeypatch)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing planted."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


def spelled(text: str) -> Case:
    entry = {"question": "", "answer": "olleh", "metadata": {"word": "hello"}}
    return Case("logic", f"<answer>{text}</answer>", {"task": "spell_backward", "entry": entry})


def test_verdicts_come_in_the_order_of_the_cases(scorer: Scorer) -> None:
    cases = [
        WRONG,
        spelled("olleh"),
        Case("math", r"\boxed{5}", {"answer": "5"}),
        spelled("x"),
        RIGHT,
        Case("logic", "", {}),
    ] * 20
    assert [verdict.score for verdict in scorer.score(cases)] == [0.0, 1.0, 1.0, 0.0, 1.0, 0.0] * 20


def test_no_cases_have_no_verdicts(scorer: Scorer) -> None:
    assert scorer.score([]) == []


def test_an_answer_that_is_computed_without_end_is_wrong_and_the_other_cases_are_still_judged(scorer: Scorer) -> None:
    verdicts = scorer.score([RIGHT, HANG, WRONG, spelled("olleh"), RIGHT])
    assert [(verdict.outcome, verdict.score) for verdict in verdicts] == [
        ("judged", score) for score in (1.0, 0.0, 0.0, 1.0, 1.0)
    ]
    assert verdicts[1].detail == "no verdict within 2 s of computing"
    assert verdicts[1].seconds >= 2, "which counts as overtime"


@pytest.mark.parametrize("is_let_go", [False, True])
def test_an_answer_is_not_to_blame_for_a_process_that_does_not_get_to_compute(is_let_go: bool, light: Path) -> None:
    with Scorer(num_processes=1, timeout_seconds=0.5) as scorer:
        scorer.score([RIGHT])  # returns when the process is ready
        (process,) = scorer.workers.process_ids
        os.kill(process, signal.SIGSTOP)
        if is_let_go:
            threading.Timer(0.8, os.kill, (process, signal.SIGCONT)).start()  # later than the limit
        (verdict,) = scorer.score([spelled("olleh")])
    assert (verdict.outcome, verdict.score) == (("judged", 1.0) if is_let_go else ("timeout", 0.0)), verdict.detail


def test_a_verifier_that_raises_is_a_crash_and_no_wrong_answer(scorer: Scorer) -> None:
    (verdict,) = scorer.score([FAIL])
    assert (verdict.outcome, verdict.detail) == ("crashed", "ArithmeticError: planted")


def test_a_killed_process_costs_only_the_case_in_hand(light: Path) -> None:
    with Scorer(num_processes=1, timeout_seconds=60.0) as scorer:
        scorer.score([RIGHT])  # returns when the process is ready
        (process,) = scorer.workers.process_ids
        threading.Timer(0.5, os.kill, (process, signal.SIGKILL)).start()
        verdicts = scorer.score([HANG, RIGHT, spelled("olleh"), WRONG])
    assert [verdict.outcome for verdict in verdicts] == ["crashed", "judged", "judged", "judged"]
    assert [verdict.score for verdict in verdicts] == [0.0, 1.0, 1.0, 0.0]


def test_a_process_that_died_idle_costs_no_case(scorer: Scorer) -> None:
    scorer.score([RIGHT])
    (process,) = scorer.workers.process_ids
    os.kill(process, signal.SIGKILL)
    while is_running(process):
        time.sleep(0.01)
    assert [verdict.outcome for verdict in scorer.score([RIGHT, WRONG])] == ["judged", "judged"]


def test_a_call_after_an_interrupted_one_gets_its_own_verdicts(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    scorer.score([RIGHT])  # returns when the process is ready, so that the next call hands cases over
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scorer.workers, "_wait", interrupt)
        scorer.score([spelled(f"olle{i}") for i in range(50)])
    assert [verdict.score for verdict in scorer.score([WRONG, RIGHT])] == [0.0, 1.0]


def test_several_processes_share_the_cases(light: Path) -> None:
    with Scorer(num_processes=2, timeout_seconds=2.0) as scorer:
        assert len(set(scorer.workers.process_ids)) == 2
        verdicts = scorer.score([HANG] + [spelled(f"olle{i}") for i in range(100)] + [spelled("olleh")])
    assert [verdict.score for verdict in verdicts] == [0.0] * 101 + [1.0]


def test_a_short_case_costs_the_trainer_less_than_a_millisecond(scorer: Scorer) -> None:
    cases = [spelled(f"olle{i}") for i in range(256)]
    scorer.score(cases)
    seconds = min(timed(scorer, cases) for _ in range(5))
    assert seconds < 0.256, "of CPU; 0.03 on an idle core, so this holds on a busy one"


def test_a_slow_case_keeps_one_process_and_delays_no_other_case(light: Path) -> None:
    with Scorer(num_processes=2, timeout_seconds=20.0) as scorer:
        while not all(worker.is_ready for worker in scorer.workers._workers):
            scorer.score([RIGHT])
        verdicts = scorer.submit([HANG, *(spelled(f"olle{i}") for i in range(200))])
        deadline = time.monotonic() + 10.0
        num_seen = 0
        while num_seen < 20:  # in a row: with cases waiting, no process would stay idle
            is_idle = [not worker.in_hand for worker in scorer.workers._workers]
            num_seen = num_seen + 1 if sum(is_idle) == 1 else 0
            assert time.monotonic() < deadline, "the short cases wait for the slow one"
            time.sleep(0.01)
        assert not verdicts.done(), "200 short cases are done, one process is idle, and the other still hangs"


def test_verdicts_can_be_had_later(light: Path) -> None:
    right, wrong = doubled("print(6)"), doubled("print(7)")
    with Scorer(num_processes=1, timeout_seconds=20.0) as scorer:
        first, second = scorer.submit([right, wrong]), scorer.submit([wrong])
        assert [verdict.score for verdict in scorer.score([right])] == [1.0]
        assert first.done() and second.done(), "in the order of the calls"
        assert [verdict.score for verdict in first.result() + second.result()] == [1.0, 0.0, 0.0]


def test_closing_ends_a_call_that_is_under_way(light: Path) -> None:
    scorer = Scorer(num_processes=1, timeout_seconds=60.0)
    scorer.score([doubled("print(6)")])
    verdicts = scorer.submit([doubled("while True: pass")])
    scorer.close()
    with pytest.raises(RuntimeError, match="stopped"):
        verdicts.result()


def test_a_failed_sandbox_costs_one_verdict_and_no_score(light: Path) -> None:
    with Scorer(num_processes=1, timeout_seconds=20.0) as scorer:
        assert scorer.score([doubled("print(2 * int(input()))")])[0].score == 1.0
        (process,) = scorer.workers.process_ids
        (zygote,) = children(process)
        os.kill(zygote, signal.SIGKILL)
        verdicts = scorer.score([doubled(program) for program in ("print(2 * 3)", "print(6)", "print(0)")])
    assert [verdict.outcome for verdict in verdicts] == ["sandbox_failed", "judged", "judged"]
    assert [verdict.score for verdict in verdicts] == [0.0, 1.0, 0.0]


def test_code_is_refused_where_it_can_not_be_run_safely(light: Path) -> None:
    (light / "sitecustomize.py").write_text("""
import sys
if any("rewards.worker" in word for word in sys.orig_argv):
    from megatron_rl.rewards.sandbox.run import Sandbox
    start = Sandbox._start
    Sandbox._start = lambda self, *words: start(self, *words) | {"seccomp": "planted"}
""")
    with Scorer(1, 20.0) as scorer, pytest.raises(RuntimeError, match=r"the sandbox lacks seccomp \(planted\)"):
        scorer.score([doubled("print(6)")])
    with Scorer(1, 20.0, allows_unsafe_sandbox=True) as scorer:
        assert scorer.score([doubled("print(6)")])[0].score == 1.0
        assert scorer.workers.levels["code"].lacking == "seccomp (planted)"


def test_a_verifier_that_is_made_to_execute_code_gets_nowhere(light: Path) -> None:
    attempts = [
        "open('/etc/passwd')",
        "open('/tmp/escaped', 'w')",
        f"open({str(Path(__file__))!r})",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "socket.socket()",
        "__import__('resource').setrlimit(9, (-1, -1))",
    ]
    (light / "math_verify.py").write_text(f"""
import os, socket
class LatexExtractionConfig: pass
def parse(text, *_, **__): return [text]
def verify(gold, value, **_):
    number = value[0][7:-1] if "nabla" in gold[0] else -1
    return bool(eval([*{attempts!r}, "True"][int(number)]))
""")
    with Scorer(1, 20.0) as scorer:
        cases = [Case("math", f"\\boxed{{{number}}}", {"answer": r"\nabla"}) for number in range(len(attempts) + 1)]
        *verdicts, last = scorer.score(cases)
        assert last.score == 1.0, "it is executed"
        for attempt, verdict in zip(attempts, verdicts, strict=True):
            assert verdict.outcome == "crashed", f"{attempt}: {verdict}"
        assert {"rlimits", "seccomp"} <= set(scorer.workers.levels["verifiers"].present)
        assert {"uid", "landlock"} & set(scorer.workers.levels["verifiers"].present)


def test_the_libraries_of_the_verifiers_work_in_a_confined_process(real: None) -> None:
    by_math_verify = Case("math", r"\boxed{\frac{2}{4}}", {"answer": r"\int_0^1 x dx"})
    italian = Case("instruct", "Il gatto dorme sul tavolo della cucina.", language("it"))
    with Scorer(1, 60.0) as scorer:
        verdicts = scorer.score([by_math_verify, italian, italian._replace(item=language("de"))])
    assert [verdict.outcome for verdict in verdicts] == ["judged"] * 3, verdicts
    assert [verdict.score for verdict in verdicts] == [1.0, 1.0, 0.0]


def test_no_process_is_left_after_close(light: Path) -> None:
    scorer = Scorer(num_processes=2, timeout_seconds=1.0)
    scorer.score([doubled("print(6)")])
    workers = scorer.workers.process_ids
    zygotes = [zygote for worker in workers for zygote in children(worker)]
    scorer.close()
    wait_for_the_end_of([*workers, *zygotes])


@pytest.mark.parametrize("slow", ["hang", "program"])
def test_the_processes_die_with_a_killed_parent_even_in_the_middle_of_a_hang(slow: str, light: Path) -> None:
    case = HANG if slow == "hang" else doubled("import time; time.sleep(60)")
    ready = RIGHT if slow == "hang" else doubled("print(6)")
    program = f"""
from megatron_rl.rewards.score import Case, Scorer
scorer = Scorer(num_processes=1, timeout_seconds=60.0)
scorer.score([{ready!r}])
print(*scorer.workers.process_ids, flush=True)
scorer.score([{case!r}])
"""
    root = str(Path(__file__).parents[2])
    light.chmod(0o755)
    python = sys.executable if slow == "hang" else readable_python()  # with a user of its own, where it can have one
    environment = os.environ | {"PYTHONPATH": f"{root}:{light}"}
    with subprocess.Popen([python, "-c", program], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.5)
        (zygote,) = children(worker)
        processes = [worker, zygote, *children(zygote)]
        parent.kill()
    assert len(processes) == (2 if slow == "hang" else 3)
    wait_for_the_end_of(processes)


def test_a_worker_imports_neither_torch_nor_vllm(real: None) -> None:
    program = (
        "import sys; from megatron_rl.rewards import worker\n"
        "for verifier in worker.VERIFIERS.values(): verifier.load()\n"
        "print(sorted({'torch', 'vllm', 'transformers', 'megatron'} & sys.modules.keys()))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).strip() == "[]"


def test_processes_that_do_not_start_are_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with Scorer(1, 1.0) as scorer, pytest.raises(RuntimeError, match="do not start"):
        scorer.score([RIGHT])


def test_a_verifier_that_can_not_be_imported_is_an_error_and_no_verdict(light: Path) -> None:
    (light / "reasoning_gym.py").touch()
    with Scorer(1, 2.0) as scorer:
        assert scorer.score([RIGHT])[0].score == 1.0
        with pytest.raises(
            RuntimeError, match="the logic verifier cannot be loaded: .*word lists are missing; install it"
        ):
            scorer.score([spelled("olleh")])


def language(code: str) -> dict:
    return {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": code}]}


def doubled(program: str) -> Case:
    return Case("code", f"```python\n{program}\n```", {"tests": [{"input": "3\n", "output": "6\n"}]})


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_for_the_end_of(processes: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(is_running(process) for process in processes):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.02)


def timed(scorer: Scorer, cases: list) -> float:
    started = time.process_time()
    scorer.score(cases)
    return time.process_time() - started


def is_running(process: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
