"""Makes tests/data/sources: problems that the demo's model can read, in exactly the layouts they are published in.

usage: python -m tests.data.make_sources

No row is one of a published data set. The mixture beside it, mixture.py, makes tests/data/five_domains of them:
megatron-rl data prepare tests/data/mixture.py --mirror tests/data/sources --to tests/data/five_domains
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

FOLDER = Path(__file__).parent / "sources"
Row = dict[str, Any]
SUFFIX = "\n\nWrite Python code to solve the problem. Present the code in \n```python\nYour code\n```\nat the end."
SYSTEM = "When tackling complex reasoning tasks, you have access to the following actions ... [ASSESS] ... [OUTPUT]"
PROGRAMS: Sequence[tuple[str, Row]] = (  # problem, ground truth
    ("Write Python that doubles 3.", {"inputs": ["3\n", "-1\n"], "outputs": ["6\n", "-2\n"]}),
    ("Write f(x), which adds 1 to x.", {"fn_name": "f", "inputs": ["1", "-1"], "outputs": ["2", "0"]}),
    ("Print hello in Python.", {"inputs": [""], "outputs": ["hello\n"]}),
    ("Print the sum of two numbers.", {"inputs": ["1 2\n", "5 7\n"], "outputs": ["3\n", "12\n"]}),
    ("Print the input in capitals.", {"inputs": [["abc", "d"]], "outputs": [["ABC", "D"]]}),
    ("Write g(s): s reversed.", {"fn_name": "g", "inputs": [["ab"], ["x"]], "outputs": [["ba"], ["x"]]}),
    ("Print 1 to n, one a line.", {"inputs": ["3\n"], "outputs": ["1\n2\n3\n"]}),
    ("Write h(n): is n even?", {"fn_name": "h", "inputs": ["2", "3"], "outputs": ["true", "false"]}),
)
HELD_OUT_PROGRAMS: Sequence[tuple[str, Row]] = (
    ("Write Python that halves 6.", {"inputs": ["6\n", "-2\n"], "outputs": ["3\n", "-1\n"]}),
    ("Write f(x), which takes 1 off.", {"fn_name": "f", "inputs": ["1", "-1"], "outputs": ["0", "-2"]}),
    ("Print bye in Python.", {"inputs": [""], "outputs": ["bye\n"]}),
    ("Print the larger number.", {"inputs": ["1 2\n", "9 7\n"], "outputs": ["2\n", "9\n"]}),
)
FACTS = (  # problem, worked solution, R1's answer
    ("Which gas do plants take up?", "Leaves take it up by day.\nThe answer is carbon dioxide.", "carbon dioxide"),
    (
        "Give the speed of light.",
        "By definition $c = 2.998 \\times 10^8\\ \\mathrm{m/s}$.",
        "2.998 \\times 10^8 \\text{ m/s}",
    ),
)


def main() -> None:
    """Writes all files anew."""
    medians = problems(random.Random(13))
    write_array("agentica-org/DeepScaleR-Preview-Dataset/deepscaler.json", deepscaler(medians))
    write_parquet("PRIME-RL/Eurus-2-RL-Data/train.parquet", eurus(PROGRAMS, medians))
    write_lines("EricLu/SCP-116K/SCP_116K_in_open_source_format.jsonl", scp(medians))
    folder = "nvidia/Llama-Nemotron-Post-Training-Dataset"
    write_lines(f"{folder}/RL/instruction_following/instruction_following.jsonl", nemotron(medians))
    write_parquet("HuggingFaceH4/aime_2024/data/train-00000-of-00001.parquet", aime(medians))
    write_parquet("PRIME-RL/Eurus-2-RL-Data/validation.parquet", eurus(HELD_OUT_PROGRAMS, medians))
    write_parquet("spawn99/GPQA-diamond-ClaudeR1/data/train-00000-of-00001.parquet", gpqa(medians))
    write_lines("google/IFEval/ifeval_input_data.jsonl", ifeval(medians))


def problems(generator: random.Random) -> Iterator[tuple[str, list[int], str]]:
    """Medians, each once: problem, numbers, answer."""
    met: set[str] = set()
    while True:
        numbers = generator.sample(range(10), generator.choice((5, 7)))
        problem = f"What is the median of {' '.join(map(str, numbers))}?"
        if problem not in met:
            met.add(problem)
            yield problem, numbers, str(sorted(numbers)[len(numbers) // 2])


def deepscaler(medians: Iterator[tuple[str, list[int], str]]) -> list[Row]:
    """One row has no answer, and one comes twice."""
    rows = []
    for number in range(8):
        problem, numbers, answer = next(medians)
        solution = f"In order {sorted(numbers)}, so $\\boxed{{{answer}}}$" if number % 2 else ""
        rows.append({"problem": problem, "answer": answer, "solution": solution})
    empty = {"problem": next(medians)[0], "answer": "", "solution": ""}
    return [*rows, empty, rows[0]]


def eurus(programs: Sequence[tuple[str, Row]], medians: Iterator[tuple[str, list[int], str]]) -> list[Row]:
    """Code rows, and one of mathematics."""
    rows = [_verl("codeforces", "code", problem + SUFFIX, json.dumps(truth)) for problem, truth in programs]
    problem, _, answer = next(medians)
    text = f"{problem}\n\nPresent the answer in LaTex format: \\boxed{{Your answer}}"
    return [*rows, _verl("numina_aops_forum", "math", text, answer)]


def _verl(source: str, ability: str, text: str, truth: str) -> Row:
    return {
        "data_source": source,
        "prompt": [{"content": SYSTEM, "role": "system"}, {"content": text, "role": "user"}],
        "ability": ability,
        "reward_model": {"ground_truth": truth, "style": "rule"},
        "extra_info": {"index": 0, "split": "dummy"},
    }


def scp(medians: Iterator[tuple[str, list[int], str]]) -> list[Row]:
    """The later layout; R1 is wrong once, and one row has no solution."""
    rows = [_scp(*fact) for fact in FACTS]
    for _ in range(6):
        problem, numbers, answer = next(medians)
        rows.append(_scp(problem, f"In order they are {sorted(numbers)}.\nThe median is = {answer}.", answer))
    wrong, _, answer = next(medians)
    return [*rows, _scp(wrong, f"The answer is {answer}.", f"{answer}1"), _scp(next(medians)[0], None, "5")]


def _scp(problem: str, solution: str | None, answer: str) -> Row:
    return {
        "domain": "Physics",
        "problem": problem,
        "extract_solution": solution,
        "r1_response": f"Therefore $\\boxed{{{answer}}}$",
        "r1_reasoning_content": "We need to think about this.",
    }


def _constraints(number: int, numbers: Sequence[int]) -> tuple[list[str], list[Row]]:
    names, given = ["punctuation:no_comma"], [{}]
    if number % 4 in (1, 3):
        names, given = [*names, "keywords:existence"], [*given, {"keywords": [str(numbers[0])]}]
    if number % 4 == 2:
        names, given = [*names, "length_constraints:number_words"], [*given, {"relation": "less than", "num_words": 3}]
    if number % 4 == 3:
        names, given = [*names, "keywords:forbidden_words"], [*given, {"forbidden_words": [str(numbers[-1])]}]
    return names, given


def nemotron(medians: Iterator[tuple[str, list[int], str]]) -> list[Row]:
    """Every object of arguments has all keys, most of them null; one row asks for an unknown instruction."""
    rows = []
    for number in range(9):
        problem, numbers, _ = next(medians)
        names, given = _constraints(number, numbers)
        keys = sorted({key for values in given for key in values})
        filled: list[Mapping[str, Any] | None] = [{key: values.get(key) for key in keys} or None for values in given]
        arguments = {
            "instruction_id_list": names if number < 8 else ["count:lowercase_counting"] * len(names),
            "instruction_kwargs": filled,
            "task": "instruction_following",
        }
        rows.append(
            {
                "input": [{"role": "user", "content": problem}],
                "args": arguments,
                "category": "instruction_following",
                "license": "odc-by",
                "reasoning": "off",
                "used_in_training": "Ultra, Super",
                "version": "v1",
                "system_prompt": "detailed thinking off",
            }
        )
    return rows


def aime(medians: Iterator[tuple[str, list[int], str]]) -> list[Row]:
    """Answers have three digits."""
    found = [next(medians) for _ in range(8)]
    return [
        {"id": number, "problem": problem, "solution": "...", "answer": answer.zfill(3), "url": "", "year": "2024"}
        for number, (problem, _, answer) in enumerate(found)
    ]


def gpqa(medians: Iterator[tuple[str, list[int], str]]) -> list[Row]:
    """The open copy, without options."""
    found = [("Symbol of gold?", "Au"), ("Is a whale a fish?", "no")]
    found += [(problem, answer) for problem, _, answer in (next(medians) for _ in range(6))]
    return [
        {
            "record_id": f"rec{number}",
            "question": question,
            "correct_answer": answer,
            "correct_explanation": "...",
            "model_responses": {"deepseek": {"full_response": "...", "answer": answer, "reasoning": "", "grade": True}},
            "metadata": {"subdomain": "Chemistry", "high_level_domain": "Chemistry", "difficulty": "..."},
        }
        for number, (question, answer) in enumerate(found)
    ]


def ifeval(medians: Iterator[tuple[str, list[int], str]]) -> list[Row]:
    """Each object of arguments has its own keys alone."""
    rows = []
    for number in range(8):
        problem, numbers, _ = next(medians)
        names, given = _constraints(number, numbers)
        rows.append({"key": 9000 + number, "prompt": problem, "instruction_id_list": names, "kwargs": given})
    return rows


def _path(name: str) -> Path:
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_array(name: str, rows: Sequence[Row]) -> None:
    _path(name).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def write_lines(name: str, rows: Sequence[Row]) -> None:
    _path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(name: str, rows: Sequence[Row]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), _path(name), compression="zstd")


if __name__ == "__main__":
    main()
