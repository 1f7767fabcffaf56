"""The papers' 96 logic tasks, and how their rows are made: reasoning-gym's entries, stored, of seeds that never meet.

usage: PYTHONHASHSEED=0 python -m megatron_rl.data.logic_tasks --split train --per-task 386 --out train.jsonl

Entry i of a reasoning-gym dataset is drawn with seed + i, so datasets with near seeds share entries. Each split has
therefore its own span of seeds, and a row is named after its seed. What a seed gives depends on reasoning-gym's
version and on PYTHONHASHSEED; `codeio` runs programs that draw for themselves, and `time_intervals` counts from today,
so that both are given a seed and a day here.

Not covered: tasks that draw from a fixed stock (`rush_hour`, `codeio`, `arc_agi`) meet an entry twice by chance; see
`without_shared`.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

from megatron_rl.config.words import lack, whole_number
from megatron_rl.rewards import logic
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.orphans import die_with_parent

# The registrations of reasoning-gym at the commit that the papers' task counts and averages fit, 2025-03-04; inferred,
# as the papers give no list. `palindrome` has become `palindrome_generation`.
TASKS: Mapping[str, tuple[str, ...]] = {
    category: tuple(names.split())
    for category, names in {
        "algebra": """complex_arithmetic intermediate_integration polynomial_equations polynomial_multiplication
            simple_equations simple_integration""",
        "algorithmic": """ab base_conversion binary_alternation binary_matrix caesar_cipher count_primes cryptarithm
            game_of_life graph_color group_anagrams isomorphic_strings jugs letter_counting letter_jumble
            manipulate_matrix number_filtering number_sorting palindrome_generation palindrome_partitioning pool_matrix
            ransom_note rotate_matrix rotten_oranges sentence_reordering spell_backward spiral_matrix string_insertion
            string_manipulation string_splitting string_synthesis word_ladder word_sequence_reversal word_sorting""",
        "arc": "arc_1d arc_agi rearc",
        "arithmetic": """basic_arithmetic bitwise_arithmetic calendar_arithmetic chain_sum count_bits
            decimal_arithmetic decimal_chain_sum dice fraction_simplification gcd gsm_symbolic lcm leg_counting
            number_format power_function prime_factorization products time_intervals""",
        "code": "bf codeio",
        "cognition": """color_cube_rotation figlet_font needle_haystack number_sequence rectangle_count rubiks_cube""",
        "games": """countdown emoji_mystery futoshiki knight_swap mahjong_puzzle maze mini_sudoku n_queens rush_hour
            sokoban sudoku tower_of_hanoi tsumego""",
        "geometry": "advanced_geometry simple_geometry",
        "graphs": "course_schedule family_relationships largest_island quantum_lock shortest_path",
        "induction": "list_functions",
        "logic": """aiw circuit_logic knights_knaves propositional_logic self_reference syllogism zebra_puzzles""",
    }.items()
}
OUT_OF_DISTRIBUTION = ("acre", "boxnet", "game_of_life_halting", "puzzle24")  # evaluated, never trained on

SEEDS: Mapping[str, range] = {"train": range(10**9), "held_out": range(10**9, 2 * 10**9)}
PART = 20  # seeds that a process makes at a time: a tenth of the tasks takes nine tenths of the time
INSTRUCTION = "\n\nPut your final answer between <answer> and </answer>."


def make_rows(task: str, split: str, first: int, number: int, part: range | None = None) -> list[dict[str, Any]]:
    """The rows of seeds `first` to `first + number - 1` of a split, counted from the start of its span.

    With a `part` of range(number) those alone, as they are among all: an entry does not depend on which others are
    drawn, but says which of its dataset it is. Fewer where an entry has no usable answer: an empty one, or one that its
    own scorer does not call right. Raises ValueError for seeds outside the split's span, or a task that it may not
    have; RuntimeError unless PYTHONHASHSEED is 0.
    """
    if task not in logic.ACCEPTED:
        raise ValueError(f"logic task '{task}' is not accepted; see TASKS in rewards/puzzles/tasks.py")
    if split not in SEEDS:
        raise ValueError(f"split '{split}' is none of {', '.join(SEEDS)}")
    if split == "train" and task in OUT_OF_DISTRIBUTION:
        raise ValueError(f"logic task '{task}' is kept for evaluation; make it for the split held_out")
    span = SEEDS[split]
    if number < 1 or not 0 <= first <= len(span) - number:
        raise ValueError(f"split '{split}': seeds {first} to {first + number - 1}: must lie in 0 to {len(span) - 1}")
    if os.environ.get("PYTHONHASHSEED") != "0":
        raise RuntimeError("the questions depend on Python's hash seed; start Python with PYTHONHASHSEED=0")
    from reasoning_gym import create_dataset

    rows = []
    with _one_day(), redirect_stdout(io.StringIO()):  # the compiler of `bf` prints points, among rows on stdout
        dataset = create_dataset(task, seed=span[first], size=number)
        for index in range(number) if part is None else part:
            random.seed(span[first + index])
            rows.append(_row(task, span[first + index], dataset[index]))
    return [row for row in rows if _is_usable(row["item"])]


def without_shared(rows: Iterable[dict[str, Any]], others: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose prompt none of the others has, and each prompt once."""
    taken = {row["prompt"] for row in others}
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["prompt"] not in taken:
            kept.setdefault(row["prompt"], row)
    return list(kept.values())


def stored_answer(item: Mapping[str, Any]) -> str | None:
    """An answer that the entry itself calls right; None where it has none."""
    entry, metadata = item["entry"], item["entry"]["metadata"]
    if entry["answer"] is not None:
        return str(entry["answer"])
    if item["task"] == "graph_color":
        return json.dumps(metadata["possible_answer"])
    found = {"propositional_logic": "example_answer", "rubiks_cube": "example_correct_answer"}.get(item["task"])
    return str(metadata[found]) if found else None


def main() -> None:
    """Writes the rows of all tasks of a split as JSON lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--split", choices=tuple(SEEDS), required=True)
    parser.add_argument("--per-task", type=whole_number, required=True, help="seeds; unusable entries are left out")
    parser.add_argument("--first", type=whole_number, default=0, help="the first seed, from the start of the span")
    parser.add_argument("--tasks", nargs="+", help="these alone; all of the split if not given")
    parser.add_argument("--out", type=Path, required=True)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=whole_number, default=cores, help="all cores if not given")
    arguments = parser.parse_args()
    for name, least in (("per_task", 1), ("processes", 1), ("first", 0)):
        if (value := getattr(arguments, name)) < least:
            parser.error(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    known = [task for names in TASKS.values() for task in names] + [*OUT_OF_DISTRIBUTION] * (
        arguments.split == "held_out"
    )
    if others := [task for task in arguments.tasks or () if task not in known]:
        parser.error(f"--tasks {others[0]}: is none of the {arguments.split} split; they are {', '.join(known)}")
    if not arguments.out.parent.is_dir() or arguments.out.is_dir():
        folder = arguments.out.parent
        why = lack(arguments.out, "file") if folder.is_dir() else f"{folder}: {lack(folder, 'folder')}"
        parser.error(f"--out {arguments.out}: {why}; name another")
    tasks: list[str] = list(dict.fromkeys(arguments.tasks or [task for names in TASKS.values() for task in names]))
    if arguments.split == "held_out" and not arguments.tasks:
        tasks += OUT_OF_DISTRIBUTION
    with arguments.out.open("w", encoding="utf-8") as file:
        made = _shared(tasks, arguments.split, arguments.first, arguments.per_task, arguments.processes)
        for number, (task, rows) in enumerate(zip(tasks, made, strict=True), 1):
            kept = without_shared(rows, ())
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            get_logger().info("task %d of %d, %s: %d rows", number, len(tasks), task, len(kept))


def _shared(
    tasks: Sequence[str], split: str, first: int, number: int, processes: int
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each task, made by several processes. Raises BrokenProcessPool where one of them was killed."""
    parts = [
        (task, split, first, number, range(start, min(start + PART, number)))
        for task in tasks
        for start in range(0, number, PART)
    ]
    context, count = multiprocessing.get_context("spawn"), min(processes, len(parts))
    with ProcessPoolExecutor(count, context, initializer=_begin, initargs=(os.getpid(),)) as pool:
        try:
            found = pool.map(make_rows, *zip(*parts, strict=True))
            for _, made in groupby(zip(parts, found, strict=True), key=lambda one: one[0][0]):
                yield [row for _, rows in made for row in rows]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; these end with the one that made them


@contextmanager
def _one_day() -> Iterator[None]:
    """Makes today the same day whenever rows are made."""
    from reasoning_gym.arithmetic import time_intervals

    class Day(date):
        @classmethod
        def today(cls) -> Day:
            return cls(2025, 3, 4)

    before, time_intervals.date = time_intervals.date, Day
    try:
        yield
    finally:
        time_intervals.date = before


def _row(task: str, seed: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    # Through JSON, so that a row is the same before and after it was stored; gsm_symbolic's metadata has fractions.
    stored = json.loads(json.dumps({key: entry[key] for key in ("question", "answer", "metadata")}, default=str))
    prompt = stored["question"].rstrip() + INSTRUCTION
    return {"id": f"{task}-{seed}", "domain": "logic", "prompt": prompt, "item": {"task": task, "entry": stored}}


def _is_usable(item: Mapping[str, Any]) -> bool:
    try:
        logic.check_item(item)
    except ValueError:
        return False
    answer = stored_answer(item)
    return answer is None or logic.verify(f"<answer>{answer}</answer>", item).score == 1.0


if __name__ == "__main__":
    main()
