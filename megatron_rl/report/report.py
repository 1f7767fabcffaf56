"""The report: what the loop calls, and what rank 0 makes of it: journal, display, page and run file."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from megatron_rl.algorithms.shaping import length_term_is_on
from megatron_rl.config import lineage
from megatron_rl.config.records import Recipe
from megatron_rl.config.run import Run, batch_algebra
from megatron_rl.device import memory_in_use
from megatron_rl.report import journal, ledger, page, provenance
from megatron_rl.report.card import write_card
from megatron_rl.report.curves import Curves
from megatron_rl.report.measures import step_metrics, validation_metrics
from megatron_rl.report.metrics import Metrics
from megatron_rl.report.plots import write_png
from megatron_rl.report.progress import Progress
from megatron_rl.report.samples import Samples
from megatron_rl.report.sections import RunView
from megatron_rl.report.trace import SpanFile
from megatron_rl.report.track import STOP_SECONDS, Followers
from megatron_rl.runtime import spans
from megatron_rl.runtime.log import get_logger
from megatron_rl.runtime.preempt import Preempted
from megatron_rl.types import Batch, Collected, Example, PolicyView, State, Update

if TYPE_CHECKING:
    from megatron_rl.runtime.parallel import Ranks

PARTS_OF_VALIDATION = ("generate", "idle", "score")
PAGE_SECONDS = 120.0  # from one drawing of the page to the next, or more where drawing is dear
PAGE_SHARE = 0.02  # of the run's time that drawing the page may take; the first and the last drawing are not counted
PICTURE_NAME = "report.png"
FILES = (page.FILE_NAME, PICTURE_NAME, journal.FILE_NAME, ledger.FILE_NAME, provenance.FILE_NAME)


class Report:
    """Owns the run directory's record and the terminal while it is entered. Ranks other than 0 record spans alone."""

    def __init__(self, run: Run, ranks: Ranks) -> None:
        self.run, self.is_main = run, ranks.is_main
        self.journal, self.ledger = journal.Journal(run.directory), ledger.Ledger(run.directory)
        self.progress = Progress(f"{run.published.release} at scale {run.scale.name}", run.recipe.num_steps)
        self.samples, self.followers = Samples(run), Followers(run.directory, run.trackers)
        self.curves, self.span_file = Curves(), SpanFile(run.directory, ranks.rank)
        self.news: tuple[str, ...] = ()  # decided before the step under way
        self.facts: dict[str, Any] = {}
        self.phase_seconds: dict[str, float] = {}
        self.step_began = time.perf_counter()
        self.page_drawn, self.page_cost = -math.inf, 0.0

    def __enter__(self) -> Self:
        if self.is_main:
            self.ledger.begin()
            get_logger().info("%s", batch_algebra(self.run))
            get_logger().info("starting the engines")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.progress.stop()
        if not self.is_main:
            return
        try:
            self.ledger.end(why_ended(error), without_parts(spans.take()))
            self.followers.check(STOP_SECONDS)
            self._draw_page()
        except (RuntimeError, OSError) as trouble:
            if error is None:
                raise
            get_logger().warning("the page is not up to date: %s", trouble)  # what ended the run says more

    def start(self, state: State) -> None:
        """Begins, or goes on from a checkpoint's state."""
        if not self.is_main:
            return
        self.run.directory.mkdir(parents=True, exist_ok=True)
        self.facts = provenance.write_run_file(self.run, state.step)
        if state.step and (changed := provenance.changed_software(self.facts)):
            get_logger().warning(
                "goes on from step %d with other software than before, and may come to something else than it would "
                "have: %s",
                *(state.step, "; ".join(changed)),
            )
        self.journal.resume(state.step)
        self.samples.resume(state.step)
        self.ledger.resume(state.step)
        rows, self.news = self.journal.rows(), state.news
        self.curves = Curves(rows)
        self.progress.start(rows)
        self.followers.start()
        spans.take()
        self.step_began = time.perf_counter()

    def scores(self, state: State, examples: Sequence[Example] = ()) -> None:
        """Records the newest validation, and what the model said in some of it."""
        if not self.is_main:
            return
        taken = without_parts(spans.take())
        self._count(taken)
        self.ledger.add("validation", state.step, taken)
        found = state.scores[-1]
        self._add(state.step, validation_metrics(found))
        with spans.span("report"):
            self.samples.add_validation(state.step, examples)
        if not found.is_complete:
            missing = {domain: share for domain, share in found.unjudged.items() if domain not in found.accuracy}
            get_logger().warning(
                "step %d: this validation decides nothing, for too few verdicts were reached (unjudged: %s)",
                state.step, ", ".join(f"{share:.0%} of {domain}" for domain, share in missing.items()),
            )  # fmt: skip
        self._draw_page_if_due()

    def step(
        self, state: State, collected: Collected, batch: Batch, policy: PolicyView, updates: Sequence[Update]
    ) -> None:
        """Records the step that led to `state`, and what was decided in it."""
        self.span_file.add(state.step)
        if not self.is_main:
            return
        taken = with_mean_tail(spans.take(), collected.idle_tail_seconds)
        self._count(taken)
        self.ledger.add("step", state.step, taken)
        now = time.perf_counter()
        metrics = step_metrics(
            recipe=self.run.at_step(state.step - 1),
            state=state,
            collected=collected,
            policy=policy,
            updates=updates,
            phase_seconds=self.phase_seconds,
            step_seconds=now - self.step_began,
            verifier_timeout_seconds=self.run.verifier_timeout_seconds,
            num_devices=self.run.scale.num_devices,
            memory=memory_in_use(self.run.scale),
        )
        self.step_began, self.phase_seconds = now, {}
        self._add(state.step, metrics, [*self.news, *decisions(self.run.recipe, state)])
        self.news = ()
        with spans.span("report"):
            self.samples.add(state.step, collected, batch)
            self.followers.check()
        self._draw_page_if_due()

    def finish(self) -> None:
        """Draws the picture, writes the policy's card and says where all is; the page is drawn on the way out."""
        if not self.is_main:
            return
        with spans.span("report"):
            write_png(self.run.directory / PICTURE_NAME, self.curves, self._view().title)
            if ((model := lineage.model_folder_of(self.run.directory)) / lineage.FILE_NAME).is_file():
                write_card(model, self.run.directory)
        self.progress.summary(self.run.directory, FILES)

    def _count(self, seconds: dict[str, float]) -> None:
        for name, value in seconds.items():
            self.phase_seconds[name] = self.phase_seconds.get(name, 0.0) + value

    @spans.span("report")
    def _add(self, step: int, metrics: Metrics, decided: Sequence[str] = ()) -> None:
        row = {"step": step, **metrics, **({"decisions": list(decided)} if decided else {})}
        self.journal.append(row)
        self.curves.add(row)
        self.progress.add(row)

    def _view(self) -> RunView:
        return RunView(
            name=self.run.directory.resolve().name,
            facts=self.facts,
            curves=self.curves,
            attempts=ledger.read_attempts(self.run.directory),
            samples=self.samples.shown,
        )

    @spans.span("report")
    def _draw_page_if_due(self) -> None:
        if time.perf_counter() - self.page_drawn >= max(PAGE_SECONDS, self.page_cost / PAGE_SHARE):
            self._draw_page()

    def _draw_page(self) -> None:
        if not self.facts:  # nothing has begun
            return
        began = time.perf_counter()
        page.write_page(self.run.directory / page.FILE_NAME, [self._view()])
        self.page_drawn = time.perf_counter()
        self.page_cost = self.page_drawn - began


def without_parts(seconds: dict[str, float]) -> dict[str, float]:
    """The spans without those that lie within another: a validation generates and scores, too.

    No step lies between two looks of which one has seen a validation.

    >>> without_parts({"refit": 1.0, "validate": 5.0, "generate": 4.0}), without_parts({"generate": 4.0})
    ({'refit': 1.0, 'validate': 5.0}, {'generate': 4.0})
    """
    inner = PARTS_OF_VALIDATION if "validate" in seconds else ()
    return {name: value for name, value in seconds.items() if name not in inner}


def with_mean_tail(seconds: dict[str, float], idle_tail_seconds: float) -> dict[str, float]:
    """The spans of the first rank; what it generated and waited is shared out as the engines did on average.

    >>> with_mean_tail({"generate": 6.0, "idle": 4.0, "update": 1.0}, 3.0)
    {'generate': 7.0, 'idle': 3.0, 'update': 1.0}
    """
    if "idle" not in seconds:
        return seconds
    both = seconds.get("generate", 0.0) + seconds["idle"]
    idle = min(both, idle_tail_seconds)
    return seconds | {"generate": both - idle, "idle": idle}


def why_ended(error: BaseException | None) -> str:
    """How an attempt ended, in a few words."""
    if error is None:
        return "finished"
    if isinstance(error, Preempted):
        return f"left: {error}"
    return " ".join(f"failed: {type(error).__name__}: {error}".split())[:300]


def decisions(recipe: Recipe, state: State) -> list[str]:
    """What the step that led to `state` did beside training, each with its reason."""
    step, term, rule = state.step - 1, recipe.algorithm.length, recipe.algorithm.reference_reset
    decided = [f"stage from step {stage.from_step}: {stage.why}" for stage in recipe.stages if stage.from_step == step]
    if term is not None and (step == 0 or length_term_is_on(step, term) != length_term_is_on(step - 1, term)):
        phase = "on" if length_term_is_on(step, term) else "off"
        decided.append(f"length term {phase}: {term.steps_on} steps on and {term.steps_off} off in turn")
    what = "optimizer cleared" if rule is not None and rule.clears_optimizer else "optimizer kept"
    resets = [reset for reset in state.reference_resets if reset.step == state.step]
    return decided + [f"reference reset, {what}: {reset.reason}" for reset in resets]
