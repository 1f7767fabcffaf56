"""Sections: what the page says of a run in words and tables, as HTML that needs no script."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_rl.config.records import differences
from megatron_rl.report import ledger
from megatron_rl.report.curves import Curves
from megatron_rl.report.ledger import Attempt
from megatron_rl.report.metrics import METRICS
from megatron_rl.report.progress import duration

COLOURS = (
    *("#94a3b8", "#06b6d4", "#3b82f6", "#93c5fd", "#eab308", "#f59e0b", "#8b5cf6", "#10b981"),
    *("#e11d8f", "#64748b", "#a8b0bb", "#cbd5e1", "#ef4444", "#f87171", "#57534e"),
)  # of the ledger's parts, in order
NOT_THE_RECIPE = ("name", "version")


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What the page knows of a run."""

    name: str  # of its directory
    facts: Mapping[str, Any]  # what run.json holds
    curves: Curves
    attempts: Sequence[Attempt]
    samples: Sequence[Mapping[str, Any]] = ()

    @property
    def title(self) -> str:
        """The run in one line."""
        return f"{self.facts['release']} at scale {self.facts['scale']}" + ", modified" * bool(self.facts["modified"])

    @property
    def label(self) -> str:
        """What tells it from the runs beside it."""
        return f"{self.name} (seed {self.facts['run']['seed']})"

    @property
    def ending(self) -> str:
        """How the newest attempt ended, or that it has not."""
        return self.attempts[-1].why if self.attempts else "without a ledger"


def escaped(text: object) -> str:
    """Text that can stand anywhere in HTML."""
    return html.escape(str(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: int = 0) -> str:
    """A table that scrolls by itself; its last `numbers` columns stand to the right."""

    def line(tag: str, cells: Sequence[object]) -> str:
        first = len(cells) - numbers
        kinds = ['class="number"' if i >= first else "" for i in range(len(cells))]
        return "".join(f"<{tag} {kind}>{escaped(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{line("th", columns)}</tr>{body}</table></div>'


def folded(title: str, content: str, *, is_open: bool = False) -> str:
    """Content that is shown when its title is clicked."""
    return f'<details class="card"{" open" * is_open}><summary>{escaped(title)}</summary>{content}</details>'


def tiles(run: RunView) -> str:
    """The numbers that stand on top."""
    curves, found = run.curves, []
    found.append(("step", f"{curves.last_step} of {run.facts['run']['recipe']['num_steps']}"))
    for name, label in (("validation/accuracy", "validation accuracy"), ("rollout/reward_mean", "reward")):
        if values := curves.values(name):
            found.append((label, f"{values[0]:.3f} → {values[-1]:.3f}"))
    if seconds := curves.values("time/step_seconds"):
        found.append(("seconds per step", f"{sum(seconds) / len(seconds):.2f}"))
        found.append(("time training", duration(sum(seconds))))
    if samples := curves.values("run/samples_count"):
        found.append(("samples generated", f"{int(samples[-1]):,}"))
    if run.attempts:
        parts = ledger.in_all(run.attempts)
        found.append(("goodput", f"{ledger.goodput(parts):.0%} of {duration(sum(parts.values()))}"))
    cards = "".join(
        f'<div class="card"><span class="soft">{name}</span><b>{escaped(text)}</b></div>' for name, text in found
    )
    return f'<section class="tiles">{cards}</section>'


def key() -> str:
    """What the marks in the charts are."""
    return (
        '<p class="key soft">In the charts:<i class="reset"></i>reference reset<i class="stage"></i>stage<i '
        'class="attempt"></i>new attempt<i class="shaped"></i>length term on. Point at one to read its reason, drag to '
        "zoom, double-click for the whole run, click a name to hide its curve.</p>"
    )


def marks(run: RunView) -> list[tuple[int, str, str]]:
    """Step, kind and reason of all that happened to the run beside training, in order."""
    kinds = {"reference reset": "reset", "stage": "stage"}
    found = []
    for step, text in run.curves.decisions:
        kind = next((kind for beginning, kind in kinds.items() if text.startswith(beginning)), None)
        if kind is not None:
            found.append((step, kind, text))
    for before, attempt in zip(run.attempts, run.attempts[1:], strict=False):
        found.append((attempt.from_step, "attempt", f"attempt {attempt.number} went on; the one before: {before.why}"))
    return sorted(found)


def events(run: RunView) -> str:
    """The same as a table, with the phases of the length term."""
    found = [(step, text) for step, _, text in marks(run)]
    found += [(step, text) for step, text in run.curves.decisions if text.startswith("length term")]
    if not found:
        return ""
    return folded(f"What happened: {len(found)} events", table(("step", "what and why"), sorted(found)))


def sample_browser(run: RunView) -> str:
    """Where the page's script shows what the model said."""
    if not run.samples:
        return ""
    return (
        '<section><h2>Samples</h2><p class="soft">Drawn before anything was dropped: the newest, those of validations, '
        "and those whose prompt an earlier policy answered with another reward. All of them: "
        '<a href="samples.jsonl">samples.jsonl</a>.'
        '</p><div id="samples"></div></section>'
    )


def goodput(run: RunView) -> str:
    """Where the wall time of every attempt went."""
    if not run.attempts:
        return ""
    everything = ledger.in_all(run.attempts)
    shown = [name for name in ledger.PARTS if everything[name] > 0]
    colours = dict(zip(ledger.PARTS, COLOURS, strict=True))

    def bar(parts: Mapping[str, float]) -> str:
        whole = sum(parts.values()) or 1.0
        pieces = "".join(
            f'<i style="width:{100 * parts.get(name, 0.0) / whole:.3f}%;background:{colours[name]}" '
            f'title="{escaped(ledger.PARTS[name])}: {duration(parts.get(name, 0.0))}"></i>'
            for name in shown
        )
        return f'<div class="share">{pieces}</div>'

    legend = "".join(f'<span><i style="background:{colours[name]}"></i>{ledger.PARTS[name]}</span>' for name in shown)
    rows = [
        (
            f"{attempt.number}: step {attempt.from_step} to {attempt.to_step}; {attempt.why}",
            *(f"{attempt.parts.get(name, 0.0):.1f}" for name in shown),
            f"{sum(attempt.parts.values()):.1f}",
        )
        for attempt in run.attempts
    ]
    total = sum(everything.values())
    rows.append(("all", *(f"{everything[name]:.1f}" for name in shown), f"{total:.1f}"))
    rows.append(("share", *(f"{everything[name] / (total or 1):.1%}" for name in shown), "100.0%"))
    columns = ("attempt", *(ledger.PARTS[name] for name in shown), "in all")
    bars = "".join(
        f'<div class="soft">attempt {attempt.number}: step {attempt.from_step} to {attempt.to_step}, '
        f"{duration(sum(attempt.parts.values()))}; {escaped(attempt.why)}</div>{bar(attempt.parts)}"
        for attempt in run.attempts[-8:]
    )
    earlier = f'<p class="soft">The last 8 of {len(run.attempts)} attempts:</p>' if len(run.attempts) > 8 else ""
    return (
        f'<section><h2>Where the time went</h2><div class="card"><p>{ledger.goodput(everything):.1%} of '
        f"{duration(total)} led to the policy there is now: generating, scoring, training, refit.</p>"
        f'{bar(everything)}<div class="legend">{legend}</div>{earlier}{bars if len(run.attempts) > 1 else ""}'
        f"{table(columns, rows, numbers=len(columns) - 1)}<p class='soft'>Seconds of wall time, as the first rank "
        "spent them; each is counted once.</p></div></section>"
    )


def recipe(run: RunView) -> str:
    """The recipe's numbers with their sources, and what this run changed of the published one."""
    facts = run.facts
    lines = [line.partition(": ") for line in differences(facts["run"]["published"], facts["run"]["recipe"])]
    changed = [(path, *change.split(" -> ", 1)) for path, _, change in lines]
    found = '<section><h2>The recipe</h2><p class="soft">'
    found += (
        f"{len(changed)} values differ from {escaped(facts['release'])} as published, by the scale's caps and by "
        "settings:</p>" + table(("value", "published", "in this run"), changed)
        if changed
        else f"As published: {escaped(facts['release'])}.</p>"
    )
    if sources := facts.get("sources"):
        found += folded(
            f"{len(sources)} numbers as published, and their sources", table(("value", "published", "source"), sources)
        )
    return found + "</section>"


def lineage(run: RunView) -> str:
    """Which runs the policy came from, newest first."""
    rows, older = [], run.facts["run"].get("parent")
    while older:
        where = f"branch {older['branch']}, commit {older['commit'][:12]}" if older.get("branch") else older["scale"]
        rows.append((older["release"], where, older["step"], f"{older['samples_seen']:,}", older["fingerprint"]))
        older = older.get("parent")
    model = f"<p>Starts from <code>{escaped(run.facts['run']['model_folder'])}</code>.</p>"
    found = table(("release", "scale", "steps", "samples", "recipe"), rows) if rows else ""
    return f"<section><h2>Lineage</h2>{model}{found}</section>"


def last_values(run: RunView) -> str:
    """Every metric with its newest value, unit and meaning."""
    last = run.curves.last_values
    rows = [
        (name, f"{last[name]:.6g}", metric.unit, metric.meaning)
        for base, metric in METRICS.items()
        for name in sorted(name for name in last if name == base or name.rpartition("/")[0] == base)
    ]
    return folded("Newest value of every metric", table(("metric", "value", "unit", "meaning"), rows))


def resolved(run: RunView) -> str:
    """The run as it was resolved, and what it was made with."""
    facts = run.facts
    attempt = facts["attempts"][-1]
    versions = ", ".join(f"{name} {version}" for name, version in attempt["packages"].items())
    text = json.dumps(facts["run"], indent=2, default=str)
    return folded("The run as it was resolved", f"<pre>{escaped(text)}</pre>") + (
        f'<p class="soft" style="margin-top:16px">{escaped(versions)}; Python {escaped(attempt["python"])}; commit '
        f"<code>{escaped(attempt['commit'])}</code>; {len(facts['attempts'])} attempt(s), the last from step "
        f"{attempt['from_step']}, {escaped(attempt['started'])}. Beside this page: "
        '<a href="metrics.jsonl">metrics.jsonl</a>, <a href="run.json">run.json</a>.</p>'
    )


def overview(runs: Sequence[RunView]) -> str:
    """What each of several runs is, and what it came to."""
    rows = []
    for run in runs:
        accuracy, seconds = run.curves.values("validation/accuracy"), run.curves.values("time/step_seconds")
        reward, parts = run.curves.values("rollout/reward_mean"), ledger.in_all(run.attempts)
        rows.append(
            (
                run.name,
                run.title,
                run.ending,
                run.facts["run"]["seed"],
                f"{run.curves.last_step} of {run.facts['run']['recipe']['num_steps']}",
                f"{accuracy[0]:.3f} → {accuracy[-1]:.3f}" if accuracy else "–",
                f"{reward[0]:.3f} → {reward[-1]:.3f}" if reward else "–",
                f"{sum(seconds) / len(seconds):.2f}" if seconds else "–",
                f"{ledger.goodput(parts):.0%}" if run.attempts else "–",
            )
        )
    columns = ("run", "recipe", "state", "seed", "step", "accuracy", "reward", "s/step", "goodput")
    return f'<div class="card">{table(columns, rows, numbers=6)}</div>'


def final_scores(runs: Sequence[RunView]) -> str:
    """What each run's validation ended with, by domain, what it gained on its own start, and what that took."""
    domains = sorted({domain for run in runs for domain in run.curves.domains})
    rows = []
    for run in runs:
        last, accuracy = run.curves.last_values, run.curves.values("validation/accuracy")
        older = run.facts["run"].get("parent")
        scores = [last.get(f"validation/accuracy/{domain}") for domain in domains]
        hours = sum(run.curves.values("time/step_seconds")) / 3600
        rows.append(
            (
                run.name,
                f"{older['release']}, step {older['step']}" if older else "the model",
                f"{accuracy[-1]:.3f}" if accuracy else "–",
                f"{accuracy[-1] - accuracy[0]:+.3f}" if accuracy else "–",
                *("–" if score is None else f"{score:.3f}" for score in scores),
                f"{last.get('run/samples_count', 0):,.0f}",
                f"{last.get('run/tokens_count', 0):,.0f}",
                f"{hours:.2f}",
            )
        )
    columns = ("run", "goes on from", "accuracy", "gained", *domains, "samples", "tokens", "hours")
    return f'<div class="card"><h2>Final scores</h2>{table(columns, rows, numbers=len(columns) - 2)}</div>'


def recipe_differences(runs: Sequence[RunView]) -> str:
    """Where the recipes of several runs, as they ran, are not the same."""
    first = runs[0].facts["run"]["recipe"]
    paths = sorted({line.partition(": ")[0] for run in runs for line in differences(first, run.facts["run"]["recipe"])})

    def value(run: RunView, path: str) -> str:
        found: Any = run.facts["run"]["recipe"]
        for part in path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return json.dumps(found, default=str)

    rows = [(path, *(value(run, path) for run in runs)) for path in paths if path not in NOT_THE_RECIPE]
    if not rows:
        return '<p class="note">All of them ran the same recipe.</p>'
    return folded(
        "One value of the recipe differs" if len(rows) == 1 else f"{len(rows)} values of the recipe differ",
        table(("value", *(run.name for run in runs)), rows),
        is_open=len(rows) <= 12,
    )
