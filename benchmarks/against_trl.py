"""How long a step takes here and with TRL's GRPO trainer, in turn, on the same work; prints one line of JSON.

The same model folder, prompts, number of samples and updates, clips, and KL to a reference; two cores each, fp32; no
dynamic sampling, validation or save. TRL runs in an environment of its own, which this makes of trl.lock, and generates
with transformers: vLLM on a CPU is outside what TRL supports. Its rewards cost nothing; ours are verified. Where a side
fails, the line holds what was measured until then and says what failed, and the exit code is 1.

Not covered: GPUs, several machines, how well either learns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loop import DEMO_DATA, DEMO_MODEL, make_20m, say

from megatron_rl.commands.choose import REPOSITORY, build_run
from megatron_rl.config.run import Run
from megatron_rl.runtime.ranks import free_port

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "megatron-rl"
PROMPTS, SAMPLES, UPDATES, CORES = 16, 16, 2, 2  # of a step, of a prompt, of a step, of each side
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and how far its steps go."""

    name: str  # suffix of the figures
    response_tokens: int
    num_steps: int  # of each turn; the first is not counted
    turns: int


class Failed(Exception):
    """A side ended without its figures: which one, how, and its last words."""


TINY = Case(name="tiny", response_tokens=24, num_steps=9, turns=3)
TWENTY_MILLION = Case(name="20m", response_tokens=128, num_steps=2, turns=2)


def main() -> None:
    """Makes TRL's environment where it is not there yet, runs both sides in turn, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"folder of TRL's environment, 2 GB; {CACHE}")
    parser.add_argument("--model", choices=("both", TINY.name, TWENTY_MILLION.name), default="both")
    parser.add_argument("--turns", type=int, help="of both sides; 3, of the large model 2")
    parser.add_argument("--steps", type=int, help="of each turn, with one that is not counted; 9, of the large model 2")
    parser.add_argument("--limit", type=float, default=900, help="seconds of a side in a turn; 900")
    parser.add_argument("--trl-processes", type=int, choices=(1, 2), default=1, help="of TRL, with as many cores less")
    parser.add_argument("--trl-batch", type=int, default=64, help="sequences of a forward pass of TRL")
    parser.add_argument("--trl-continuous-batching", action="store_true", help="transformers' other way to generate")
    options = parser.parse_args()
    if options.steps is not None and options.steps < 2:
        parser.error(f"--steps={options.steps}: the first step is not counted; use 2 or more")
    if options.turns is not None and options.turns < 1:
        parser.error(f"--turns={options.turns}: nothing would be measured; use 1 or more")
    python = environment(options.cache)
    figures: Figures = {}
    failures: list[str] = []
    for case in (TINY, TWENTY_MILLION):
        if options.model in ("both", case.name):
            found, failure = measured(case, python, options)
            figures |= {f"{name}_{case.name}": value for name, value in found.items()}
            if failure is not None:
                failures.append(f"{case.name}: {failure}")
                say(failures[-1])
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    chosen = {name: value for name, value in vars(options).items() if name.startswith("trl_")}
    packages = dict(line.split("==") for line in (HERE / "trl.lock").read_text().splitlines() if "==" in line)
    versions = {name: packages[name] for name in ("trl", "transformers", "torch")}
    print(json.dumps({**rounded, **chosen, **versions, **({"failures": failures} if failures else {})}))
    sys.exit(1 if failures else 0)


def environment(cache: Path) -> Path:
    """The Python of TRL's environment, which is made where it is not there as the lock says."""
    lock = HERE / "trl.lock"
    folder = cache.resolve() / f"trl-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        say(f"making {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--requirement", str(lock)], check=True, stdout=sys.stderr)
        # --no-deps: where pip finds a build of torch for GPUs, the libraries that it needs are not there.
        subprocess.run([str(folder / "bin" / "python"), "-c", "import torch, trl"], check=True, stdout=sys.stderr)
        (folder / "complete").touch()
    return folder / "bin" / "python"


def measured(case: Case, python: Path, options: argparse.Namespace) -> tuple[Figures, str | None]:
    """All figures of one model, and what failed; each turn is a run of ours and then one of TRL's."""
    num_steps = options.steps or case.num_steps
    turns: list[tuple[Figures, Figures]] = []
    failure = None
    with tempfile.TemporaryDirectory(prefix="megatron-rl-trl-") as temporary:
        folder = Path(temporary)
        model = DEMO_MODEL if case is TINY else make_20m(folder / "model")
        settings = settings_of(case, num_steps)
        run = build_run(
            "prorl_v2", "cpu", [*settings, f"run.model_folder={model}"], folder / "no_run", needs_files=True
        )
        prompts = prompts_of(run, num_steps)
        for turn in range(options.turns or case.turns):
            try:
                ours = our_turn(folder / f"ours_{turn}", model, settings, options.limit)
                theirs = their_turn(folder / f"trl_{turn}", run, prompts, python, options)
            except Failed as error:
                failure = f"turn {turn + 1}: {error}"
                break
            turns.append((ours, theirs))
            say(
                f"{case.name}: {ours['seconds']:.4g} s a step, {ours['response_tokens']:.1f} tokens a response, "
                f"against {theirs['seconds']:.4g} s, {theirs['response_tokens']:.1f} tokens"
            )
    return (summary(turns) if turns else {}), failure


def summary(turns: list[tuple[Figures, Figures]]) -> Figures:
    """The figures of all turns that both sides ended."""
    ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in turns]
    return {
        "trl_ratio": statistics.median(ratios),
        "trl_ratio_least": min(ratios),
        "trl_ratio_most": max(ratios),
        "step_seconds": statistics.median(ours["seconds"] for ours, _ in turns),
        "trl_step_seconds": statistics.median(theirs["seconds"] for _, theirs in turns),
        "response_tokens": statistics.mean(ours["response_tokens"] for ours, _ in turns),
        "trl_response_tokens": statistics.mean(theirs["response_tokens"] for _, theirs in turns),
    }


def settings_of(case: Case, num_steps: int) -> list[str]:
    """What is set of ProRL v2 at scale cpu, so that both sides do the same."""
    settings = {
        "num_steps": num_steps,
        "algorithm.dynamic_sampling": "none",
        "algorithm.updates_per_step": UPDATES,
        "sampling.prompts_per_step": PROMPTS,
        "sampling.samples_per_prompt": SAMPLES,
        "sampling.max_response_tokens": case.response_tokens,
        "run.data_folder": DEMO_DATA,
        "run.max_validation_prompts": 2,  # at both ends, outside of the steps that count
        "run.validate_every_steps": 1000,
        "run.save_every_steps": 1000,
    }
    return [f"{name}={value}" for name, value in settings.items()]


def prompts_of(run: Run, num_steps: int) -> list[dict[str, Any]]:
    """The prompts of all steps, as our own run meets them."""
    from megatron_rl.data.items import read_items
    from megatron_rl.data.prompts import PromptStream, load_tokenizer

    items = {item.id: item for item in read_items(run.data_folder / "train.jsonl")}
    tokenizer, limit = load_tokenizer(run.model_folder), run.recipe.sampling.max_prompt_tokens
    weights = {domain.name: domain.weight for domain in run.recipe.domains if domain.weight is not None}
    stream = PromptStream(list(items.values()), tokenizer, seed=run.seed, max_prompt_tokens=limit, weights=weights)
    taken = stream.take(num_steps * PROMPTS, {domain.name for domain in run.recipe.domains}, run.recipe.sampling)
    # The demo's tokenizer has no chat template: a prompt is read as it stands.
    return [{"prompt": items[prompt.id].prompt, "token_ids": list(prompt.token_ids)} for prompt in taken]


def our_turn(directory: Path, model: Path, settings: list[str], limit_seconds: float) -> Figures:
    """A run of the real command: median seconds between the ends of its steps, and its responses' mean length."""
    words = [word for setting in [*settings, f"run.model_folder={model}"] for word in ("--set", setting)]
    command = [sys.executable, "-m", "megatron_rl", "train", "prorl_v2", "--scale", "cpu", *words]
    command += ["--directory", str(directory)]
    log = directory.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)
    ended("ours", [process], log, limit_seconds)
    lines = [json.loads(line) for line in (directory / "ledger.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "rollout/response_tokens_mean" in row]
    assert all(row["dynamic_sampling/trained_count"] == PROMPTS for row in steps), "all groups are trained on"
    return {
        "seconds": between([line["at"] for line in lines if line["event"] == "step"]),
        "response_tokens": statistics.mean(row["rollout/response_tokens_mean"] for row in steps),
    }


def ended(side: str, processes: list[subprocess.Popen[bytes]], log: Path, limit_seconds: float) -> None:
    """Waits for the processes of a side, none of which outlives another's failure. Raises Failed."""
    deadline, codes = time.monotonic() + limit_seconds, [0]
    try:
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            if time.monotonic() > deadline:
                raise Failed(f"{side} took longer than --limit={limit_seconds:g} s; {last_line(log)}")
            time.sleep(0.05)
    finally:
        for process in processes:  # ours ends its ranks
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if any(codes):
        raise Failed(f"{side} ended with {', '.join(map(str, codes))}; {last_line(log)}")


def last_line(log: Path) -> str:
    """What a side wrote last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def their_turn(
    folder: Path, run: Run, prompts: list[dict[str, Any]], python: Path, options: argparse.Namespace
) -> Figures:
    """The same of TRL."""
    folder.mkdir()
    kl = run.recipe.algorithm.kl
    assert kl is not None
    given = {
        "folder": str(folder),
        "result": str(folder / "result.json"),
        "model_folder": str(run.model_folder),
        "prompts": prompts,
        "num_steps": run.recipe.num_steps,
        "prompts_per_step": PROMPTS,
        "samples_per_prompt": SAMPLES,
        "updates_per_step": UPDATES,
        "max_response_tokens": run.recipe.sampling.max_response_tokens,
        "learning_rate": run.recipe.optimizer.learning_rate,
        "kl_coefficient": kl.coefficient,
        "clip_low": run.recipe.algorithm.clip_low,
        "clip_high": run.recipe.algorithm.clip_high,
        "threads": CORES // options.trl_processes,
        "batch": options.trl_batch,
        "continuous_batching": options.trl_continuous_batching,
    }
    (folder / "given.json").write_text(json.dumps(given))
    world = {"WORLD_SIZE": str(options.trl_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    variables = {**os.environ, "OMP_NUM_THREADS": str(given["threads"]), "HF_HUB_OFFLINE": "1"}
    variables.pop("PYTHONPATH", None)
    command = [str(python), "-W", "ignore", str(HERE / "trl_steps.py"), str(folder / "given.json")]
    log, ranks = folder / "log", []
    with log.open("ab") as output:
        for rank in range(options.trl_processes):
            place = {**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} if options.trl_processes > 1 else {}
            ranks.append(
                subprocess.Popen(command, env=variables | place, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
            )
    ended("TRL", ranks, log, options.limit)
    result = json.loads((folder / "result.json").read_text())
    return {"seconds": between(result["moments"][1:]), "response_tokens": result["response_tokens"]}


def between(moments: list[float]) -> float:
    """Median seconds between moments that follow each other."""
    return statistics.median(later - earlier for earlier, later in zip(moments, moments[1:], strict=False))


if __name__ == "__main__":
    main()
