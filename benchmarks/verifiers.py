"""How fast answers are scored; prints one line of JSON. Rates are per second of CPU, so that a busy machine will do.

CPU time is that of this process, of its verifier processes and of what those started; a verifier process is charged
from its first case on, not for loading. Per second and process, save where a figure's name says otherwise.
Not covered: waiting, which on idle cores is small; memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_rl.rewards.sandbox.run import Sandbox
from megatron_rl.rewards.score import VERIFIERS, Case, Scorer

BRORL_ANSWERS = 65_536  # 128 prompts with 512 samples each: one step
HARD_PROCESSES = 2
TICKS = os.sysconf("SC_CLK_TCK")
HARD = (  # answer, reference: what takes an evaluation, the last by math-verify
    (r"\frac{{{0}x+1}}{{x^2}}", r"\frac{{1+{0}x}}{{x^2}}"),
    (r"\sqrt{{{0}}}+\sqrt{{8}}", r"2\sqrt{{2}}+\sqrt{{{0}}}"),
    (r"({0}, \frac{{\pi}}{{2}})", r"({0}, \pi/2)"),
    (r"\{{\sqrt{{12}},{0}\}}", r"\{{{0},2\sqrt{{3}}\}}"),
    (r"y={0}x^2+\ln 4", r"y=2\ln 2+{0}x^2"),
    (r"[{0}e^2, \infty)", r"[{0}e\cdot e,\infty)"),
    (r"{0}\sin(2x)", r"{0}\cdot 2\sin x\cos x"),
    (r"\frac{{{0}}}{{2}}", r"\int_0^1 {0}x dx"),
)
PROGRAM = "n = int(input())\nprint(sum(map(int, input().split())))"


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the answers: shows that it runs")
    share = 10 if parser.parse_args().quick else 1
    with Scorer(HARD_PROCESSES, timeout_seconds=30.0) as scorer:
        warm_up(scorer)
        integers = integer_answers(BRORL_ANSWERS // share)
        brorl_seconds = share * cpu_seconds(scorer, integers)
        hard = hard_answers(800 // share)
        instruct = instruct_answers(2_000 // share)
        figures = {
            "math_integer_per_second": BRORL_ANSWERS / brorl_seconds,
            "math_hard_per_second": HARD_PROCESSES * len(hard) / cpu_seconds(scorer, hard),
            "code_cpu_milliseconds": 1e3 * code_seconds(500 // share),
            "instruct_per_second": len(instruct) / cpu_seconds(scorer, instruct),
            "brorl_scoring_seconds": brorl_seconds,
            "brorl_share_of_an_hour": brorl_seconds / 3600,
        }
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({**rounded, "hard_processes": HARD_PROCESSES, "quick": share > 1}))


def integer_answers(count: int) -> list[Case]:
    """Short responses with an integer in the box, half of them right, none equal to another."""
    draw = random.Random(0)
    answers = [draw.randrange(10**6) for _ in range(count)]
    return [
        Case("math", f"<think>{i} it is</think>So it is \\boxed{{{answer + i % 2}}}.", {"answer": str(answer)})
        for i, answer in enumerate(answers)
    ]


def hard_answers(count: int) -> list[Case]:
    """Responses that a verifier process judges, none equal to another."""
    pairs = [(HARD[i % len(HARD)], i + 2) for i in range(count)]
    cases: list[Case] = [
        Case("math", f"\\boxed{{{answer.format(number)}}}", {"answer": reference.format(number)})
        for (answer, reference), number in pairs
    ]
    plain = [case for case in cases if not isinstance(VERIFIERS["math"].prepare(case.response, case.item), str)]
    assert not plain, f"not hard any more: {plain[:3]}"
    return cases


def instruct_answers(count: int) -> list[Case]:
    """Responses of 200 words under two instructions."""
    item = {
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "at least", "num_words": 20}],
    }
    return [Case("instruct", f"Answer {i}: " + "word " * 200, item) for i in range(count)]


def code_seconds(count: int) -> float:
    """CPU seconds of one execution of a small program, its process and the supervisor's part included."""
    with Sandbox() as sandbox:
        sandbox.run(PROGRAM, stdin=b"3\n1 2 3\n", seconds=10.0)
        began = time.process_time() + tree_seconds(os.getpid(), own=False)
        for i in range(count):
            execution = sandbox.run(PROGRAM, stdin=f"3\n1 2 {i}\n".encode(), seconds=10.0)
            assert execution.output == f"{3 + i}\n".encode(), execution
        spent = time.process_time() + tree_seconds(os.getpid(), own=False) - began
    say(f"code: {1e3 * spent / count:.2f} ms")
    return spent / count


def cpu_seconds(scorer: Scorer, cases: Sequence[Case]) -> float:
    """CPU seconds of scoring the cases: in this process, and in the verifier processes."""
    workers = scorer.workers.process_ids

    def now() -> float:
        return time.process_time() + sum(tree_seconds(worker) for worker in workers)

    began = now()
    verdicts = scorer.score(cases)
    spent = now() - began
    judged = sum(verdict.outcome == "judged" for verdict in verdicts)
    assert scorer.workers.process_ids == workers, "a verifier process was replaced: its time is lost"
    say(f"{cases[0][0]}: {len(cases)} cases, {judged} judged, {spent:.2f} s of CPU")
    return spent


def warm_up(scorer: Scorer) -> None:
    """Returns when every verifier process is ready."""
    wait_until(lambda: all(worker.is_ready for worker in scorer.workers._workers), scorer)


def wait_until(is_done: Callable[[], bool], scorer: Scorer) -> None:
    """Gives the scorer small things to do until it is so."""
    number = 0
    while not is_done():
        number += 1
        scorer.score([Case("math", f"\\boxed{{{number}x}}", {"answer": "x"})])


def tree_seconds(process: int, *, own: bool = True) -> float:
    """CPU seconds of a process, if `own`, and of all below it, those that have ended included, in ticks of 10 ms."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    spent = sum(map(int, fields[11:15] if own else fields[13:15])) / TICKS
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return spent + sum(tree_seconds(int(child)) for child in children)


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
