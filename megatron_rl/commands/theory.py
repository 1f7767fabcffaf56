"""What `megatron-rl theory` does: BroRL's section 2 checked by arithmetic, its Figure 3 run and drawn."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from megatron_rl.algorithms.broadening import expected_unsampled_squares, logit_change, mass_change
from megatron_rl.algorithms.simulator import (
    OPEN,
    PUBLISHED_NUM_SAMPLES,
    Curves,
    Simulation,
    simulate,
    starting_logits,
)
from megatron_rl.report.simulation import write_png

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[Iterator[Curves]], Iterable[Curves]]
REWARDS = ((1.0, -1.0), (1.0, 0.0), (0.0, -1.0), (0.3, -2.0))  # of correct and of incorrect tokens
NUM_SAMPLES = (1, 4, 16, 64)  # of theorem 1's check
LARGEST_LOGIT_CHANGE = 1e-5  # of a finite difference: curvature and rounding both stay small
WEIGHT_DECAYS = (0.01, 0.0)  # the first is what fits the published axes
ANCHORS_ARE_CORRECT = (True, False)  # likewise


def simulations(*, with_variants: bool, seed: int) -> list[Simulation]:
    """The five curves of Figure 3; with variants also those without weight decay, and with an incorrect anchor.

    >>> len(simulations(with_variants=False, seed=0)), len(simulations(with_variants=True, seed=0))
    (5, 20)
    """
    num_variants = None if with_variants else 1
    return [
        Simulation(num_samples=n, weight_decay=decay, epsilon=1e-8, anchor_is_correct=anchor_is_correct, seed=seed)
        for decay in WEIGHT_DECAYS[:num_variants]
        for anchor_is_correct in ANCHORS_ARE_CORRECT[:num_variants]
        for n in PUBLISHED_NUM_SAMPLES
    ]


def reproduce(directory: Path, chosen: Sequence[Simulation], *, progress: Progress = iter) -> dict[str, Any]:
    """The figures by name, ready for JSON, after running the simulations and drawing them to `directory`/theory.png.

    `progress` is told of each that is done, in order.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[int, Curves]] = {}
    settings = []
    for simulation, curves in zip(chosen, progress(all_curves(chosen)), strict=True):
        anchor = "correct" if simulation.anchor_is_correct else "incorrect"
        title = f"weight decay {simulation.weight_decay:g}, anchor {anchor}"
        rows.setdefault(title, {})[simulation.num_samples] = curves
        settings.append(_figures(simulation, curves))
    write_png(directory / "theory.png", rows)
    return {
        "theorem_1_max_relative_error": theorem_error(),
        "corollary_3_max_relative_error": corollary_error(),
        "left_open_and_chosen": OPEN,
        "settings": settings,
        "picture": str(directory / "theory.png"),
    }


def all_curves(chosen: Sequence[Simulation]) -> Iterator[Curves]:
    """The curves of each simulation, in order; as many at once as there are processors, each the same as alone."""
    with one_thread():
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield from pool.map(simulate, chosen)
        finally:
            pool.shutdown(cancel_futures=True)


def _figures(simulation: Simulation, curves: Curves) -> dict[str, Any]:
    start, _ = starting_logits(simulation)
    unsampled = expected_unsampled_squares(start.softmax(0), simulation.num_samples).sum()
    return {
        "num_samples": simulation.num_samples,
        "weight_decay": simulation.weight_decay,
        "anchor_is_correct": simulation.anchor_is_correct,
        "seed": simulation.seed,
        "num_steps": simulation.num_steps,
        "expected_unsampled_squares_start": unsampled.item(),
        "q_pos_start": curves.correct_mass[0].item(),
        "q_pos_end": curves.correct_mass[-1].item(),
        "improved_fraction_end": curves.improved_fraction[-1].item(),
        "worst_change_end": curves.worst_change[-1].item(),
        "worst_change_of_all_steps": curves.worst_change.min().item(),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread: a second gains nothing on vectors this short, and costs tenfold on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def theorem_error() -> float:
    """How far theorem 1 is from finite differences of Q_pos: the largest error, relative to the sum of its |terms|.

    Over ten random cases of logits, correct tokens and draws for each of `REWARDS` and `NUM_SAMPLES`.
    """
    generator = torch.Generator().manual_seed(0)
    cases = itertools.product(REWARDS, NUM_SAMPLES, range(10))
    return max(_theorem_error(rewards, num_samples, generator) for rewards, num_samples, _ in cases)


def _theorem_error(reward: tuple[float, float], num_samples: int, generator: torch.Generator) -> float:
    logits = 2 * torch.randn(50, generator=generator, dtype=torch.float64)
    probabilities = logits.softmax(0)
    is_correct = torch.rand(50, generator=generator) < 0.3
    is_sampled = torch.zeros(50, dtype=torch.bool)
    is_sampled[torch.multinomial(probabilities, num_samples, replacement=True, generator=generator)] = True
    rewards = torch.zeros_like(logits)
    rewards[is_correct & is_sampled], rewards[~is_correct & is_sampled] = reward
    change = logit_change(probabilities, rewards, num_samples, 1.0)
    if not change.any():  # no drawn token has a reward
        return 0.0
    scale = LARGEST_LOGIT_CHANGE / change.abs().max()
    after, before = ((logits + sign * scale * change).softmax(0)[is_correct].sum() for sign in (1, -1))
    correct, incorrect = reward
    terms = mass_change(
        probabilities,
        is_correct,
        is_sampled,
        reward_correct=correct,
        reward_incorrect=incorrect,
        num_samples=num_samples,
        step_size=1.0,
    )
    error = (after - before) / (2 * scale) - sum(terms)
    return float(abs(error) / sum(abs(term) for term in terms))


def corollary_error() -> float:
    """How far corollary 3 is from the mean over every possible draw of 5 from 4 tokens; relative."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    mean = torch.zeros((), dtype=torch.float64)
    for draws in itertools.product(range(4), repeat=5):
        unsampled = [token for token in range(4) if token not in draws]
        mean += probabilities[list(draws)].prod() * probabilities[unsampled].square().sum()
    return float(abs(expected_unsampled_squares(probabilities, 5).sum() / mean - 1))


def show(figures: dict[str, Any], out: Console) -> None:
    """Prints what `reproduce` found, for a reader."""
    from rich.table import Table

    out.print(f"theorem 1 against finite differences: relative error {figures['theorem_1_max_relative_error']:.0e}")
    out.print(f"corollary 3 against every draw: relative error {figures['corollary_3_max_relative_error']:.0e}")
    table = Table(box=None, pad_edge=False, title="Figure 3", title_justify="left")
    for column in ("N", "decay", "anchor", "Q_pos", "at the end", "improved", "worst change", "worst of all steps"):
        table.add_column(column, justify="right")
    for setting in figures["settings"]:
        table.add_row(
            f"{setting['num_samples']:,}",
            f"{setting['weight_decay']:g}",
            "correct" if setting["anchor_is_correct"] else "incorrect",
            f"{setting['q_pos_start']:.4f}",
            f"{setting['q_pos_end']:.4f}",
            f"{setting['improved_fraction_end']:.1%}",
            f"{setting['worst_change_end']:.1e}",
            f"{setting['worst_change_of_all_steps']:.1e}",
        )
    out.print(table)
    out.print("left open by the paper, and chosen:")
    for name, choice in figures["left_open_and_chosen"].items():
        out.print(f"  {name}: {choice}", style="dim", soft_wrap=True)
    out.print(f"picture: {figures['picture']}", soft_wrap=True)
