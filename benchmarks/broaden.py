"""Does broadening help a policy that has stalled? Trains, continues each way, and prints one line of JSON.

    python benchmarks/broaden.py [--seeds N] [--directory FOLDER] [--docs FOLDER] [--quick]

1. The demo's model learns medians of long rows and sums by ProRL v2 with 16 samples for each prompt, without room to
   work anything out, until it gains no more.
2. From there each seed goes on by `brorl_control_n16` and by `brorl`, at a sixteenth of the paper's sizes: 32 prompts
   of 16 samples, 8 prompts of 512 samples with a learning rate sqrt(8) times as large, and with the same one.
3. They are compared at as many generated samples and at as many seconds, on held-out problems; and what theorem 1 of
   BroRL (arXiv 2510.01180) expects of a step with 16 and with 512 samples is computed from the stalled policy's own
   probabilities.

Not covered: the papers' model, lengths and domains, and a training of thousands of steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broaden_answers import changes, expectations, figures_of, read_answers
from broaden_picture import write_picture
from broaden_problems import MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, NUM_HELD_OUT, write_problems, write_suite

from megatron_rl.report.journal import FILE_NAME, Row, is_validation, read_rows

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES_PER_PROBLEM = 128  # of each held-out problem, at temperature 1
STALL_STRETCH = 40  # steps; stalled is a stretch whose accuracies have a mean under STALL_GAIN above the one before
STALL_GAIN = 0.01
MOST_STRETCHES = 10
COMMON = {
    "sampling.max_prompt_tokens": MAX_PROMPT_TOKENS,
    "sampling.max_response_tokens": MAX_RESPONSE_TOKENS,
    "validation.samples_per_prompt": 4,  # the scale's one would leave a curve of noise
    "run.save_every_steps": 10**6,
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to go on: a recipe and its sizes, a sixteenth of the published ones."""

    recipe: str
    samples_per_prompt: int
    prompts_per_step: int
    num_steps: int  # by which all ways generate about as many samples
    validate_every: int  # steps
    learning_rate: float

    @property
    def settings(self) -> dict[str, Any]:
        """What `--set` is given."""
        return {
            "num_steps": self.num_steps,
            "sampling.samples_per_prompt": self.samples_per_prompt,
            "sampling.prompts_per_step": self.prompts_per_step,
            "optimizer.learning_rate": self.learning_rate,
            "run.validate_every_steps": self.validate_every,
        }


STALL = Way(
    recipe="prorl_v2",
    samples_per_prompt=16,
    prompts_per_step=32,
    num_steps=STALL_STRETCH,  # extended until it stalls
    validate_every=5,
    learning_rate=1e-4,  # three times the scale's: what is left to gain is gained in fewer steps
)
WAYS = {
    "n16": Way(
        recipe="brorl_control_n16",
        samples_per_prompt=16,
        prompts_per_step=32,
        num_steps=48,
        validate_every=4,
        learning_rate=1e-4,  # as before
    ),
    "n512": Way(
        recipe="brorl",
        samples_per_prompt=512,
        prompts_per_step=8,
        num_steps=12,
        validate_every=1,
        learning_rate=2.8e-4,  # times sqrt(4096 / 512 samples a step): BroRL's rule
    ),
    "n512_slow": Way(
        recipe="brorl",
        samples_per_prompt=512,
        prompts_per_step=8,
        num_steps=12,
        validate_every=1,
        learning_rate=1e-4,  # n16's: what the rate alone does
    ),
}


def main() -> None:
    """Trains the parent and every seed's ways, then prints the figures."""
    options = parsed_arguments()
    with tempfile.TemporaryDirectory(prefix="megatron-rl-broaden-") as temporary:
        directory = options.directory or Path(temporary)
        write_problems(directory / "data", 64 if options.quick else NUM_HELD_OUT)
        parent = directory / "stalled"
        train_to_stall(parent, directory, 1 if options.quick else MOST_STRETCHES)
        before = read_answers(asked(parent, directory))
        curves: dict[str, list[Curve]] = {name: [] for name in WAYS}
        by_seed: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        for seed in range(1, options.seeds + 1):
            for name, way in WAYS.items():
                run = directory / f"{name}_seed_{seed}"
                settings = {**way.settings, "run.seed": seed} | ({"num_steps": 2} if options.quick else {})
                train(way.recipe, run, settings, directory, parent)
                rows = list(read_rows(run / FILE_NAME))
                curves[name].append(Curve.of(rows))
                after = read_answers(asked(run, directory))
                by_seed[name].append(figures(rows) | changes(before, after, parent / "model", run / "model"))
                say(f"{name}, seed {seed}: {json.dumps(rounded(by_seed[name][-1]))}")
        compare_at_equal_cost(curves, by_seed)
        stalled = Curve.of(list(read_rows(parent / FILE_NAME)))
        found = {
            "stalled_at_step": stalled.steps[-1],
            "stalled_accuracy": stalled.accuracy[-1],
            "stalled_gain_of_last_stretch": gain_of_last_stretch(stalled),
            **{f"stalled_{key}": value for key, value in figures_of(before).items()},
            **expectations(before, parent / "model", sorted({way.samples_per_prompt for way in WAYS.values()})),
            **{f"{name}_{key}": value for name in WAYS for key, value in means(by_seed[name]).items()},
        }
        line = json.dumps({**rounded(found), "by_seed": {name: [rounded(x) for x in by_seed[name]] for name in WAYS}})
        if options.docs is not None:
            write_picture(options.docs / "broaden.png", stalled, curves)
            (options.docs / "broaden.json").write_text(line + "\n")
        print(line)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Held-out accuracy of a run, by what had been spent: a value for each validation."""

    steps: list[int]
    samples: list[float]  # generated, dropped groups included
    seconds: list[float]  # of the loop, without validating, saving and reporting
    accuracy: list[float]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Curve:
        """The curve of a journal."""
        spent, seconds = {0: (0.0, 0.0)}, 0.0
        for row in rows:
            if "time/step_seconds" in row:
                aside = sum(row.get(f"time/{name}_seconds", 0.0) for name in ("validate", "save", "report"))
                seconds += row["time/step_seconds"] - aside
                spent[row["step"]] = (row["run/samples_count"], seconds)
        found = [row for row in rows if is_validation(row)]
        return cls(
            steps=[row["step"] for row in found],
            samples=[spent[row["step"]][0] for row in found],
            seconds=[spent[row["step"]][1] for row in found],
            accuracy=[row["validation/accuracy"] for row in found],
        )


def train_to_stall(run: Path, directory: Path, most_stretches: int) -> None:
    """Trains by `STALL`, a stretch at a time, until a stretch gains less than `STALL_GAIN`."""
    for stretch in range(1, most_stretches + 1):
        if last_step(run) < stretch * STALL_STRETCH:  # a kept run has done some already
            train(STALL.recipe, run, {**STALL.settings, "num_steps": stretch * STALL_STRETCH}, directory, None)
        curve = Curve.of(list(read_rows(run / FILE_NAME)))
        if stretch > 1:
            gain = gain_of_last_stretch(curve)
            say(f"step {curve.steps[-1]}: accuracy {curve.accuracy[-1]:.3f}, {gain:+.3f} over the stretch before")
            if gain < STALL_GAIN:
                return
    say(f"not stalled after {most_stretches * STALL_STRETCH} steps; goes on from there")


def last_step(run: Path) -> int:
    """The last validated step of a run; -1 where there is none."""
    journal = run / FILE_NAME
    return Curve.of(list(read_rows(journal))).steps[-1] if journal.is_file() else -1


def gain_of_last_stretch(curve: Curve) -> float:
    """Mean accuracy of the last stretch above that of the one before."""

    def mean(first: int, last: int) -> float:
        return statistics.fmean(a for s, a in zip(curve.steps, curve.accuracy, strict=True) if first < s <= last)

    last = curve.steps[-1]
    return mean(last - STALL_STRETCH, last) - mean(last - 2 * STALL_STRETCH - 1, last - STALL_STRETCH)


def train(recipe: str, run: Path, settings: Mapping[str, Any], directory: Path, parent: Path | None) -> None:
    """One run by the command; ends this program with the run's own exit code."""
    words = ["train", recipe, "--scale", "cpu", "--directory", str(run), "--domains", "math"]
    words += ["--parent", str(parent)] if parent else []
    values = {**COMMON, "run.data_folder": directory / "data", **settings}
    call([*words, *(word for name, value in values.items() for word in ("--set", f"{name}={value}"))])


def asked(run: Path, directory: Path) -> Path:
    """The folder of the samples and verdicts of a run's policy on the held-out problems."""
    to = directory / "evaluated" / run.name
    suite = write_suite(directory, SAMPLES_PER_PROBLEM)
    call(["evaluate", str(run / "model"), "--suite", str(suite), "--scale", "cpu", "--to", str(to)])
    return to


def call(words: Sequence[str]) -> None:
    """One `megatron-rl` command; ends this program with its exit code where that is not 0."""
    say("megatron-rl " + " ".join(words))
    command = [sys.executable, "-m", "megatron_rl", *words]
    code = subprocess.run(command, cwd=REPOSITORY, stdout=sys.stderr, check=False).returncode
    if code:
        say(f"megatron-rl {words[0]}: ended with exit code {code}")
        raise SystemExit(code)


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """What a run's journal says: accuracy, keep rate, length, samples."""
    curve, steps = Curve.of(rows), [row for row in rows if "time/step_seconds" in row]
    tried = sum(row["dynamic_sampling/tried_count"] for row in steps)
    kept = sum(row["dynamic_sampling/keep_rate"] * row["dynamic_sampling/tried_count"] for row in steps)
    return {
        "accuracy_before": curve.accuracy[0],
        "accuracy_after": curve.accuracy[-1],
        "keep_rate": kept / tried,
        "tokens_per_response": steps[-1]["rollout/response_tokens_mean"],
        "samples_generated": curve.samples[-1],
        "seconds": curve.seconds[-1],
        "generated_per_second": curve.samples[-1] / sum(row["time/generate_seconds"] for row in steps),
    }


def compare_at_equal_cost(curves: Mapping[str, Sequence[Curve]], by_seed: Mapping[str, list[dict[str, float]]]) -> None:
    """Adds to each seed its accuracies at the samples and at the seconds that all ways of the seed have spent."""
    for seed in range(len(next(iter(curves.values())))):
        for kind in ("samples", "seconds"):
            budget = min(getattr(curves[name][seed], kind)[-1] for name in curves)
            for name in curves:
                curve = curves[name][seed]
                by_seed[name][seed][f"accuracy_at_equal_{kind}"] = at(budget, getattr(curve, kind), curve.accuracy)


def at(budget: float, spent: Sequence[float], accuracy: Sequence[float]) -> float:
    """The accuracy when so much was spent, in a line between the validations around.

    >>> at(3.0, [0.0, 2.0, 4.0], [0.0, 0.5, 0.75])
    0.625
    """
    for index in range(1, len(spent)):
        early, late = spent[index - 1], spent[index]
        if early <= budget <= late:
            low, high = accuracy[index - 1], accuracy[index]
            return low + (high - low) * (budget - early) / (late - early)
    raise ValueError(f"{budget}: the curve ends at {spent[-1]}")


def means(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every figure over the seeds."""
    return {name: statistics.fmean(one[name] for one in seeds) for name in seeds[0]}


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four significant digits."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def say(line: str) -> None:
    """Writes a line of progress; standard output is for the figures."""
    print(line, file=sys.stderr, flush=True)


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="run.seed is 1..N")
    parser.add_argument("--directory", type=lambda text: Path(text).resolve(), help="keeps the runs; goes on with them")
    parser.add_argument("--docs", type=lambda text: Path(text).resolve(), help="writes broaden.png and broaden.json")
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.seeds = 1
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: must be at least 1")
    if options.docs is not None and not options.docs.is_dir():
        parser.error(f"--docs {options.docs}: is no folder")
    return options


if __name__ == "__main__":
    main()
