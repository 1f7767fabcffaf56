"""Runs an evaluation: problems, samples, verdicts, tables and page, going on where an earlier start left off."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from megatron_rl import device
from megatron_rl.config.checks import UserError
from megatron_rl.data.items import Item
from megatron_rl.data.prompts import load_tokenizer
from megatron_rl.evaluation import store
from megatron_rl.evaluation.benchmarks import problems
from megatron_rl.evaluation.generate import Asked, Generator, asked_of, prompts_of, samples_per_wave
from megatron_rl.evaluation.keeper import Keeper, Part
from megatron_rl.evaluation.plan import Ask, Evaluation, Policy
from megatron_rl.evaluation.store import SAMPLES, Wave
from megatron_rl.rewards.version import version
from megatron_rl.rollout.engine import Engine
from megatron_rl.runtime import parallel, rundir
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.parallel import Ranks
from megatron_rl.runtime.preempt import Preempted, Preemption
from megatron_rl.runtime.sole import only_one

PATIENCE_SECONDS = 86400.0  # engines that are done wait for the last one's waves


def answer_and_judge(evaluation: Evaluation) -> bool:
    """Makes what is missing of samples and verdicts; True on the rank that shows them. Collective over the world.

    Raises UserError where rows or an earlier start do not fit and where the directory is in use, RuntimeError where
    verifiers are broken, Preempted where the job has to leave and would go on if it were started again.
    """
    hardware = device.select(evaluation.scale)
    preemption = Preemption(evaluation.scale.time_limit_hours, evaluation.preemption_lead_seconds)
    ranks = parallel.start(evaluation.scale, hardware, PATIENCE_SECONDS)
    with (
        only_one(evaluation.directory, ranks, "--to"),
        rundir.clearing_shared_memory(evaluation.directory, is_first_of_machine=ranks.is_first_of_machine),
    ):
        asked = asked_by(evaluation, ranks)
        if _is_whole(evaluation, asked, ranks):
            parallel.barrier()
        else:
            # Started first, so that it imports what it needs while the engine does.
            with Keeper(evaluation) if ranks.engine_rank == 0 else nullcontext() as keeper:
                engine = Engine(evaluation, ranks, hardware)
                gc.enable()
                generator = Generator(evaluation, engine, ranks, preemption)
                _work(evaluation, asked, generator, keeper, ranks, preemption)
            parallel.barrier()
            engine.close()
    parallel.stop()
    return ranks.is_main


def items_of(evaluation: Evaluation, ask: Ask) -> tuple[Item, ...]:
    """The problems of a benchmark, stored by the first that needs them."""
    folder = store.problems_folder(evaluation.directory)
    return problems.stored(ask.benchmark, folder, evaluation.mirror).items


def asked_by(evaluation: Evaluation, ranks: Ranks) -> list[tuple[Policy, list[Asked]]]:
    """Every benchmark put to every policy; rank 0 notes them, and the others read what it noted."""
    sizes: dict[tuple[str, str], int] = {}
    tokenizer, trouble = load_tokenizer(evaluation.model_folder), None
    if ranks.is_main:
        try:
            sizes = noted(evaluation, tokenizer)
        except UserError as error:
            trouble = str(error)
    parallel.raise_together(trouble, UserError)
    sizes = parallel.gather(sizes)[0]
    prompts = {ask.name: prompts_of(ask, items_of(evaluation, ask), tokenizer) for ask in evaluation.asks}
    return [
        (
            policy,
            [
                asked_of(evaluation, policy, ask, prompts[ask.name], sizes[policy.name, ask.name])
                for ask in evaluation.asks
            ],
        )
        for policy in evaluation.policies
    ]


def noted(evaluation: Evaluation, tokenizer: Any) -> dict[tuple[str, str], int]:
    """Notes who is asked what, and returns the samples of a wave by policy and benchmark.

    Raises UserError. What is asked otherwise than before is refused before anything is noted, and binds no later start.
    """
    asks = evaluation.asks
    num_prompts = {ask.name: len(prompts_of(ask, items_of(evaluation, ask), tokenizer)) for ask in asks}
    notes, sizes = [], {}
    for policy in evaluation.policies:
        notes.append(store.note_of_policy(evaluation, policy))
        for ask in asks:
            size = samples_per_wave(num_prompts[ask.name] * ask.answering.samples_per_problem, evaluation)
            notes.append(store.note_of_ask(evaluation, policy, ask, size))
            sizes[policy.name, ask.name] = notes[-1][1]["samples_per_wave"]
    store.keep(notes)
    _put_aside_what_others_judged(evaluation)
    return sizes


def _put_aside_what_others_judged(evaluation: Evaluation) -> None:
    """Verdicts of other verifiers, on any policy of the folder: the table has all of them, side by side."""
    num_waves = sum(
        store.put_aside_other_verdicts(folder, scorer, version())
        for ask, folder in _benchmark_folders(evaluation)
        for scorer in ask.benchmark.scorers
    )
    if num_waves:
        get_logger().warning(
            "another version of the verifiers than this one, %s, has judged waves of this folder: %d; its verdicts are "
            "put beside, into SCORER_by_VERSION, and this one's take their place",
            *(version(), num_waves),
        )


def _benchmark_folders(evaluation: Evaluation) -> list[tuple[Ask, Path]]:
    """Where the benchmarks that are asked lie, of every policy in the folder that was asked them."""
    found = [
        (ask, store.folder_of(evaluation.directory, policy, ask.name))
        for policy, _ in store.policies_in(evaluation.directory)
        for ask in evaluation.asks
    ]
    return [(ask, folder) for ask, folder in found if folder.is_dir()]


def _unjudged(evaluation: Evaluation) -> list[tuple[Ask, Wave]]:
    """The waves that a scorer has yet to judge, of every policy in the folder."""
    return [
        (ask, wave)
        for ask, folder in _benchmark_folders(evaluation)
        for wave in store.waves_in(folder)
        if not all(wave.has(name) for name in ask.benchmark.scorers)
    ]


def _is_whole(evaluation: Evaluation, asked: Sequence[tuple[Policy, list[Asked]]], ranks: Ranks) -> bool:
    """Whether nothing is missing, as rank 0 sees it. Collective over the world."""
    waves = (wave for _, benchmarks in asked for one in benchmarks for wave, _ in one.waves)
    is_whole = ranks.is_main and all(wave.has(SAMPLES) for wave in waves) and not _unjudged(evaluation)
    return bool(parallel.gather(is_whole)[0])


def _work(
    evaluation: Evaluation,
    asked: Sequence[tuple[Policy, list[Asked]]],
    generator: Generator,
    keeper: Keeper | None,
    ranks: Ranks,
    preemption: Preemption,
) -> None:
    """Generates what is missing, and judges it in the background, with what earlier starts have left unjudged."""
    _judge_rest(evaluation, keeper, ranks)
    with _progress(asked, ranks) as progress:
        for policy, benchmarks in asked:
            task = progress.add_task(policy.title, total=sum(one.num_samples for one in benchmarks))
            done = sum(r.num_samples for one in benchmarks for w, part in one.waves for r in part if w.has(SAMPLES))
            progress.update(task, completed=done)
            factor = evaluation.scale.num_engines  # the others are about as far

            def advance(count: int, task: object = task, factor: int = factor) -> None:
                progress.advance(task, count * factor)  # type: ignore[arg-type]

            generator.answer(policy, benchmarks, tells=advance, keeps=keeper.keep if keeper else _nothing_kept)
            progress.update(task, completed=progress.tasks[task].total)
    is_judged = True
    if keeper is not None:
        keeper.wait(lambda: preemption.reason is not None)
        is_judged = keeper.num_owed == 0
    if reasons := [one for one in parallel.gather(None if is_judged else preemption.reason) if one]:
        raise Preempted(reasons[0])


def _judge_rest(evaluation: Evaluation, keeper: Keeper | None, ranks: Ranks) -> None:
    """Has the waves judged that are there and are not, each by one engine's keeper. Collective over the world."""
    unjudged = parallel.gather(_unjudged(evaluation) if ranks.is_main else None)[0]
    if keeper is not None:
        for ask, wave in unjudged[ranks.engine :: evaluation.scale.num_engines]:
            keeper.judge(ask, wave)


def _nothing_kept(ask: Ask, wave: Wave, parts: tuple[Part, ...]) -> None:
    raise AssertionError(f"wave {wave.number} of {ask.name} is for the engine's first rank to keep")


@contextmanager
def _progress(asked: Sequence[tuple[Policy, list[Asked]]], ranks: Ranks) -> Iterator[Progress]:
    """A bar on rank 0's terminal; without one, the log says when a policy is begun."""
    out = Console(stderr=True)
    is_shown = ranks.is_main and out.is_terminal
    if ranks.is_main and not is_shown:
        total = sum(one.num_samples for _, benchmarks in asked for one in benchmarks)
        get_logger().info("%d samples of %d policies", total, len(asked))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not is_shown) as progress:
        yield progress
