"""How fast `megatron-rl data prepare` is, what memory it takes, and which of the rows planted in its sources it finds.

usage: python benchmarks/data.py [--rows 136000] [--processes 2] [--keep FOLDER]

Rows are made up in the sources' layouts and proportions: 40 parts mathematics, 24 code with tests of 60 kB on average,
25 science with long reasoning beside them, 37 puzzles of reasoning-gym, 10 instructions. Of each written source 1 % are
near duplicates of an earlier row, 1 % have its words and other numbers, which makes them other problems, and 0.5 %
stand in an evaluation set. What it is doing goes to standard error; the last line is one JSON object.

Not covered: fetching from the hub; rows that the mixture does not take (Eurus-2's mathematics, which is passed
over, and SCP-116K's rows beyond the 25,000 that are drawn).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from megatron_rl.data.files import read_manifest

PARTS = {"deepscaler": 40, "eurus": 24, "scp": 25, "reasoning_gym": 37, "nemotron": 10}
NEAR_SHARE, OTHER_SHARE, OVERLAP_SHARE = 0.01, 0.01, 0.005
NUM_WORDS = {"deepscaler": 50, "eurus": 250, "scp": 60, "nemotron": 60}  # of a problem
TEST_BYTES, REASONING_BYTES = 60_000, 15_000
LOOK_SECONDS, TELL_SECONDS = 0.5, 30.0
_STARTS, _MIDDLES = ("ba", "ke", "li", "mo", "nu", "ra", "so", "tu"), ("da", "fe", "gi", "lo", "mu", "re")
WORDS = [
    first + middle + last for first in _STARTS for middle in _MIDDLES for last in ("n", "rt", "sh", "l", "x", "ng")
]
Row = dict[str, Any]


class Problems:
    """Texts of so many words, three of them numbers, and which of them were planted."""

    def __init__(self, number: int, num_words: int, generator: random.Random) -> None:
        self.generator, self.number, self.num_words = generator, number, num_words
        self.near: set[int] = set()  # rows, from 1
        self.other: set[int] = set()
        self.overlaps: set[int] = set()
        self.evaluation: list[str] = []

    def __iter__(self) -> Iterator[str]:
        made: list[list[str]] = []
        for row in range(1, self.number + 1):
            kind = self.generator.random()
            words = self.generator.choices(WORDS, k=self.num_words)
            for place in (5, 15, 25):
                words[place] = str(self.generator.randrange(2, 10_000))
            if kind < NEAR_SHARE and len(made) > 100:
                words = list(self.generator.choice(made))
                words[self.generator.choice((10, 20, 30))] = "changed"
                self.near.add(row)
            elif kind < NEAR_SHARE + OTHER_SHARE and len(made) > 100:
                words = list(self.generator.choice(made))
                words[15] = str(self.generator.randrange(10_000, 99_999))
                self.other.add(row)
            elif kind < NEAR_SHARE + OTHER_SHARE + OVERLAP_SHARE:
                self.overlaps.add(row)
                self.evaluation.append(" ".join(words[2:-2]))
            else:
                made.append(words)
            yield " ".join(words)


def write_sources(
    folder: Path, rows: int, generator: random.Random
) -> tuple[dict[str, list[Path]], dict[str, Problems]]:
    """The files of each source, and what was planted in them."""
    planted = {
        name: Problems(rows * part // sum(PARTS.values()), NUM_WORDS[name], generator)
        for name, part in PARTS.items()
        if name != "reasoning_gym"
    }
    answers = ("5", "\\frac{3}{4}", "2\\sqrt{3}", "x^2+1", "(1, 2)", "0.25")
    math = [
        {"problem": problem, "answer": generator.choice(answers), "solution": ""} for problem in planted["deepscaler"]
    ]
    (folder / "deepscaler.json").write_text(json.dumps(math))
    with ExitStack() as stack:
        science = stack.enter_context((folder / "scp.jsonl").open("w"))
        for problem in planted["scp"]:
            answer = str(generator.randrange(100))
            row = {"domain": "Physics", "problem": problem, "extract_solution": f"It follows that it is = {answer}."}
            row |= {
                "r1_response": f"So $\\boxed{{{answer}}}$",
                "r1_reasoning_content": "think " * (REASONING_BYTES // 6),
            }
            science.write(json.dumps(row) + "\n")
        instructions = stack.enter_context((folder / "nemotron.jsonl").open("w"))
        for problem in planted["nemotron"]:
            arguments = {"instruction_id_list": ["punctuation:no_comma"], "instruction_kwargs": [None]}
            row = {"input": [{"role": "user", "content": problem}], "args": arguments, "category": None}
            instructions.write(json.dumps(row) + "\n")
    write_programs(folder / "eurus.parquet", planted["eurus"], generator)
    with (folder / "evaluation.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"question": text}) + "\n" for problems in planted.values() for text in problems.evaluation
        )
    names = {
        "deepscaler": "deepscaler.json",
        "scp": "scp.jsonl",
        "nemotron": "nemotron.jsonl",
        "eurus": "eurus.parquet",
    }
    return {name: [folder / file] for name, file in names.items()}, planted


def write_programs(path: Path, problems: Problems, generator: random.Random) -> None:
    """Code rows, a few hundred at once: their tests are most of all bytes."""
    writer, held = None, []
    for problem in problems:
        sizes = [int(generator.expovariate(10 / TEST_BYTES)) for _ in range(10)]
        inputs = [
            f"{n} " + " ".join(str(generator.randrange(10**9)) for _ in range(size // 10))
            for n, size in enumerate(sizes)
        ]
        truth = json.dumps({"inputs": inputs, "outputs": [f"{n}\n" for n in range(len(sizes))]})
        prompt = [{"content": "Think.", "role": "system"}, {"content": problem, "role": "user"}]
        model = {"ground_truth": truth, "style": "rule"}
        held.append({"data_source": "taco", "prompt": prompt, "ability": "code", "reward_model": model})
        if len(held) == 256:
            writer = _written(writer, path, held)
            held = []
    if held:
        writer = _written(writer, path, held)
    if writer is not None:
        writer.close()


def _written(writer: Any, path: Path, rows: list[Row]) -> Any:
    table = pyarrow.Table.from_pylist(rows)
    writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
    writer.write_table(table)
    return writer


class Watch:
    """Memory and CPU time of a process and all under it, by /proc; shared pages count once for each."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._ticks: dict[int, int] = {}  # process -> as last seen: one that ends is not waited for by all parents

    def look(self, process: int) -> None:
        resident, waiting = 0, [process]
        while waiting:
            current = waiting.pop()
            try:
                status = Path(f"/proc/{current}/statm").read_text()
                spent = Path(f"/proc/{current}/stat").read_text().rpartition(")")[2].split()
                threads = list(Path(f"/proc/{current}/task").iterdir())
                children = [word for thread in threads for word in (thread / "children").read_text().split()]
            except OSError:  # it has ended
                continue
            resident += int(status.split()[1]) * os.sysconf("SC_PAGESIZE")
            self._ticks[current] = int(spent[11]) + int(spent[12])
            waiting += map(int, children)
        self.peak_bytes = max(self.peak_bytes, resident)

    @property
    def cpu_seconds(self) -> float:
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, rows: int, processes: int) -> dict[str, Any]:
    """Makes the sources, runs the command, and compares what it dropped with what was planted."""
    tell(f"making the sources of {rows:,} rows")
    files, planted = write_sources(folder, rows, random.Random(1))
    per_task = max(1, round(rows * PARTS["reasoning_gym"] / sum(PARTS.values()) / 96))
    (folder / "mixture.py").write_text(
        "from dataclasses import replace\nfrom recipes.mixtures.prorl import MIXTURE as PRORL\n"
        f"train = tuple(replace(s, rows_per_task={per_task}, max_prompts=None) if s.name == 'reasoning_gym' else s "
        "for s in PRORL.train)\n"
        "MIXTURE = replace(PRORL, name='synthetic', train=train, "
        "validation=tuple(s for s in PRORL.validation if s.name == 'graph_color'))\n"
    )
    command = [sys.executable, "-m", "megatron_rl", "data", "prepare", str(folder / "mixture.py")]
    command += ["--to", str(folder / "data"), "--processes", str(processes)]
    command += ["--evaluation", str(folder / "evaluation.jsonl")]
    command += [word for name, paths in files.items() for word in ("--from", f"{name}={paths[0]}")]
    began = time.monotonic()
    process, watch, told = subprocess.Popen(command, stdout=subprocess.DEVNULL), Watch(), began
    while process.poll() is None:
        watch.look(process.pid)
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            tell(f"{told - began:.0f} s, {watch.cpu_seconds:.0f} CPU s, at most {watch.peak_bytes / 2**30:.2f} GiB")
        time.sleep(LOOK_SECONDS)
    assert process.returncode == 0, f"the command ended with {process.returncode}"
    return figures(folder, planted, files, time.monotonic() - began, watch)


def tell(what: str) -> None:
    """On standard error, at once."""
    print(f"benchmark: {what}", file=sys.stderr, flush=True)


def figures(
    folder: Path,
    planted: dict[str, Problems],
    files: dict[str, list[Path]],
    seconds: float,
    watch: Watch,
) -> dict[str, Any]:
    """Speed and memory, and recall and precision of what was planted."""
    manifest = read_manifest(folder / "data")
    assert manifest is not None, "the command has finished"
    dropped: dict[str, set[tuple[str, int]]] = {"near_duplicate": set(), "overlap": set()}
    for line in (folder / "data" / "dropped.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["rule"] in dropped:
            dropped[row["rule"]].add((row["source"], row["row"]))
    near = {(name, row) for name, problems in planted.items() for row in problems.near}
    near |= {("eurus", row) for row in planted["eurus"].other}  # numbers do not tell programs apart
    overlaps = {(name, row) for name, problems in planted.items() for row in problems.overlaps}
    num_rows = sum(source["rows"] for source in manifest["sources"].values())
    tell("reading the data folder as a rank does")
    started = time.monotonic()
    reader = "from megatron_rl.data.items import read_data; import sys, pathlib; read_data(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", reader, str(folder / "data")], check=True)
    return {
        "items_per_second": round(num_rows / seconds, 1),
        "cpu_seconds_per_1000_items": round(1000 * watch.cpu_seconds / num_rows, 2),
        "peak_gib": round(watch.peak_bytes / 2**30, 2),
        "near_duplicates": scores(dropped["near_duplicate"], near),
        "overlaps": scores(dropped["overlap"], overlaps),
        "rows": num_rows,
        "kept": sum(source["kept"] for source in manifest["sources"].values()),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(watch.cpu_seconds, 1),
        "source_gib": round(sum(path.stat().st_size for paths in files.values() for path in paths) / 2**30, 2),
        "data_gib": round(sum(facts["bytes"] for facts in manifest["files"].values()) / 2**30, 2),
        "other_numbers_kept": all(
            (name, row) not in dropped["near_duplicate"]
            for name, problems in planted.items()
            if name != "eurus"
            for row in problems.other
        ),
        "seconds_to_read_at_start": round(time.monotonic() - started, 1),
        "dropped": {name: source["dropped"] for name, source in manifest["sources"].items()},
    }


def scores(found: set[tuple[str, int]], planted: set[tuple[str, int]]) -> dict[str, float]:
    """Of the planted how many were found, and of the found how many were planted."""
    both = len(found & planted)
    return {
        "planted": len(planted),
        "found": both,
        "recall": round(both / max(1, len(planted)), 4),
        "precision": round(both / max(1, len(found)), 4),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=136_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="make the files there and leave them")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(folder, arguments.rows, arguments.processes)), flush=True)


if __name__ == "__main__":
    main()
