"""The page: report.html, one file without any link to the network, readable in light and in dark."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_rl.report.journal import Row, is_validation
from megatron_rl.report.metrics import METRICS
from megatron_rl.report.plots import PLOTS, events_of, has_points, svg_of, write_png
from megatron_rl.report.progress import duration
from megatron_rl.runtime.files import replace_file

FILE_NAME, PICTURE_NAME = "report.html", "report.png"
STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0f1216; --card: #181c22; --ink: #e5e7eb; --soft: #9aa3b0; --line: #2a3039; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 15px; margin: 0; }
p { margin: 0; }
.soft, figcaption { color: var(--soft); font-size: 13px; }
code, pre, td { font-variant-numeric: tabular-nums; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 12.5px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 24px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.facts .card b { display: block; font-size: 18px; white-space: nowrap; font-variant-numeric: tabular-nums; }
.modified { margin: 16px 0 0; border-left: 3px solid #f97316; padding-left: 10px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; }
figure svg { width: 100%; height: auto; margin-top: 8px; color: var(--ink); display: block; }
figure svg text { font-family: inherit !important; }
.key { margin: 28px 0 12px; }
.key i { display: inline-block; vertical-align: middle; margin: 0 6px 0 14px; }
.key .reset { height: 14px; border-left: 2px dotted currentColor; }
.key .shaped { width: 18px; height: 12px; background: #eab30833; }
details { margin-top: 16px; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin-top: 8px; width: 100%; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
a { color: inherit; }
"""


def write_page(directory: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Writes report.html and report.png; `rows` are the journal's, `facts` what run.json holds.

    Each file is replaced as a whole, so that a reader never meets half a page.
    """
    if not rows:
        return
    replace_file(directory / FILE_NAME, page_of(rows, facts).encode())
    write_png(directory / PICTURE_NAME, rows, title_of(facts))


def page_of(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """The page as text."""
    events = events_of(rows)
    figures = "\n".join(
        f'<figure class="card"><h2>{plot.title}</h2><figcaption>{plot.caption}</figcaption>'
        f"{svg_of(rows, plot, events)}</figure>"
        for plot in PLOTS
        if has_points(rows, plot)
    )
    cards = "\n".join(
        f'<div class="card"><span class="soft">{name}</span><b>{value}</b></div>' for name, value in tiles(rows, facts)
    )
    attempt = facts["attempts"][-1]
    versions = ", ".join(f"{name} {version}" for name, version in attempt["packages"].items())
    modified = "".join(f"<code>{html.escape(one)}</code> " for one in facts["modified"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title_of(facts))}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{html.escape(facts["release"])}</h1>
<p>at scale <b>{html.escape(facts["scale"])}</b>, seed {facts["run"]["seed"]}, recipe
<code>{facts["fingerprint"]}</code></p>
<p class="soft">{html.escape(facts["batch"])}</p>
{f'<p class="modified">modified: {modified}</p>' if modified else ""}
<section class="facts">
{cards}
</section>
<p class="key soft">Along the steps:<i class="reset"></i>reference reset<i class="shaped"></i>length term on.
A bold curve is the mean over neighbouring steps.</p>
<section class="plots">
{figures}
</section>
<details class="card"><summary>Last value of every metric</summary>{table_of(rows)}</details>
<details class="card"><summary>The run as it was resolved</summary>
<pre>{html.escape(json.dumps(facts["run"], indent=2, default=str))}</pre></details>
<p class="soft" style="margin-top:16px">{html.escape(versions)}; Python {attempt["python"]}; commit
<code>{html.escape(str(attempt["commit"]))}</code>; {len(facts["attempts"])} attempt(s), the last from step
{attempt["from_step"]}, {attempt["started"]}.
Beside this page: <a href="metrics.jsonl">metrics.jsonl</a>, <a href="run.json">run.json</a>,
<a href="{PICTURE_NAME}">{PICTURE_NAME}</a>.</p>
</main>
</body>
</html>
"""


def title_of(facts: Mapping[str, Any]) -> str:
    """The run in one line."""
    return f"{facts['release']} at scale {facts['scale']}" + ", modified" * bool(facts["modified"])


def tiles(rows: Sequence[Row], facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of the numbers that stand on top."""
    found = [("step", f"{rows[-1]['step']} of {facts['run']['recipe']['num_steps']}")]
    for name, label in (("validation/accuracy", "validation accuracy"), ("rollout/reward_mean", "reward")):
        if values := [row[name] for row in rows if name in row]:
            found.append((label, f"{values[0]:.3f} → {values[-1]:.3f}"))
    if steps := [row for row in rows if not is_validation(row)]:
        seconds = sum(row["time/step_seconds"] for row in steps)
        found.append(("seconds per step", f"{seconds / len(steps):.2f}"))
        found.append(("time", duration(seconds)))
        found.append(("samples", f"{int(steps[-1]['run/samples_count']):,}"))
    return found


def table_of(rows: Sequence[Row]) -> str:
    """Every metric with its last value, unit and meaning."""
    last: dict[str, float] = {}
    for row in rows:
        last |= {name: value for name, value in row.items() if name != "step"}
    lines = []
    for base, metric in METRICS.items():
        for name in [name for name in last if name == base or name.rpartition("/")[0] == base]:
            lines.append(
                f'<tr><td><code>{html.escape(name)}</code></td><td class="number">{last[name]:.6g}</td>'
                f"<td>{metric.unit}</td><td>{html.escape(metric.meaning)}</td></tr>"
            )
    return f"<table><tr><th>metric</th><th>value</th><th>unit</th><th>meaning</th></tr>{''.join(lines)}</table>"
