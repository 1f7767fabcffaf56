"""The page: report.html, one file that loads nothing, of one run or of several beside each other.

Its charts are drawn in the reader's browser by uPlot (MIT, in web/) from numbers that stand in the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from megatron_rl.report import ledger, provenance, sections
from megatron_rl.report.curves import Curves
from megatron_rl.report.journal import FILE_NAME as JOURNAL
from megatron_rl.report.journal import OF_A_SAMPLE, read_rows
from megatron_rl.report.panels import PANELS, SECTIONS
from megatron_rl.report.samples import FILE_NAME as SAMPLES
from megatron_rl.report.samples import shown_of
from megatron_rl.report.sections import RunView, escaped
from megatron_rl.runtime.files import replace_file

FILE_NAME = "report.html"
SMOOTHING = 4  # of the slider's 40, for a run of many steps
MANY_STEPS = 100
WEB = files("megatron_rl.report") / "web"


def read_run(directory: Path) -> RunView:
    """What the page shows of a run, from the files in its directory. Raises RuntimeError where one is damaged."""
    return RunView(
        name=directory.resolve().name,
        facts=provenance.read_run_file(directory),
        curves=Curves(read_rows(directory / JOURNAL)),
        attempts=ledger.read_attempts(directory),
        samples=shown_of(read_rows(directory / SAMPLES, OF_A_SAMPLE)),
    )


def write_page(path: Path, runs: Sequence[RunView]) -> None:
    """Writes the page of one run, or of several; the file is replaced as a whole. Nothing where no run has a step."""
    if any(len(run.curves) for run in runs):
        replace_file(path, page_of(runs).encode())


def page_of(runs: Sequence[RunView]) -> str:
    """The page as text."""
    title = runs[0].title if len(runs) == 1 else f"{len(runs)} runs"
    charts = "\n".join(
        f'<section><h2>{heading}</h2><div class="plots" id="plots-{name}"></div></section>'
        for name, heading in SECTIONS.items()
    )
    before, after = (one_run(runs[0]) if len(runs) == 1 else several_runs(runs)).split("<!-- charts -->")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>{web("uplot.min.css")}
{web("page.css")}</style>
</head>
<body>
<main>
{before}
<div class="bar" id="controls"></div>
<noscript><p class="note">The charts need JavaScript, which this browser does not run.</p></noscript>
{charts}
{after}
</main>
<script type="application/json" id="data">{embedded(drawn(runs))}</script>
<script>/* uPlot {web("uplot.LICENSE").replace("*/", "")} */
{web("uplot.min.js")}</script>
<script>{web("page.js")}</script>
</body>
</html>
"""


def one_run(run: RunView) -> str:
    """The page of one run, without its frame; a comment stands where the charts go."""
    facts = run.facts
    modified = "".join(f"<code>{escaped(one)}</code> " for one in facts["modified"])
    return f"""<h1>{escaped(facts["release"])}</h1>
<p>at scale <b>{escaped(facts["scale"])}</b>, seed {facts["run"]["seed"]}, recipe <code>{facts["fingerprint"]}</code>;
{escaped(run.ending)}</p>
<p class="soft">{escaped(facts["batch"])}</p>
{f'<p class="note">modified: {modified}</p>' if modified else ""}
{variant_of(facts)}
{sections.tiles(run)}
{sections.key()}
<!-- charts -->
{sections.sample_browser(run)}
{sections.goodput(run)}
{sections.events(run)}
{sections.recipe(run)}
{sections.lineage(run)}
{sections.last_values(run)}
{sections.resolved(run)}
"""


def several_runs(runs: Sequence[RunView]) -> str:
    """The page of a comparison, without its frame; a comment stands where the charts go."""
    return f"""<h1>{len(runs)} runs</h1>
{sections.overview(runs)}
{sections.final_scores(runs)}
{sections.recipe_differences(runs)}
<!-- charts -->
"""


def drawn(runs: Sequence[RunView]) -> dict[str, Any]:
    """What the page's script reads."""
    names = [name for panel in PANELS for name in panel.curves]
    panels = [
        {
            "section": panel.section,
            "title": panel.title,
            "caption": panel.caption,
            "curves": list(panel.curves.items()),
            "per_domain": panel.per_domain,
            "fraction": panel.fraction,
            "log": panel.log,
            "stacked": panel.stacked,
            "lines": limits_of(panel.limits, runs[0].facts["run"]["recipe"]) if len(runs) == 1 else [],
        }
        for panel in PANELS
    ]
    is_long = max(run.curves.last_step for run in runs) >= MANY_STEPS
    return {
        "panels": panels,
        "runs": [
            {
                "label": run.label if len(runs) > 1 else run.name,
                "group": run.facts["fingerprint"] + run.facts["scale"],
                "group_label": run.title,
                "domains": run.curves.domains,
                "marks": sections.marks(run),
                "spans": run.curves.length_term_spans,
                **run.curves.drawn(names, len(runs)),
            }
            for run in runs
        ],
        "samples": list(runs[0].samples) if len(runs) == 1 else [],
        "smooth": SMOOTHING if is_long else 0,
    }


def limits_of(limits: Mapping[str, str], recipe: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Value and label of the lines that a panel is read against, where the recipe has such a value."""
    found = []
    for path, label in limits.items():
        value: Any = recipe
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found.append((float(value), f"{label} {value:g}"))
    return found


def web(name: str) -> str:
    """A file that is put into the page."""
    return (WEB / name).read_text(encoding="utf-8")


def embedded(content: Any) -> str:
    """JSON that cannot end the element that it stands in, whatever text of a model is in it."""
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def variant_of(facts: Mapping[str, Any]) -> str:
    """A paragraph on what the run is a variant of, and how; empty where it is none."""
    if not facts.get("variant_of"):
        return ""
    how = "<br>".join(escaped(line) for line in facts["differences"])
    return f'<p class="note">a variant of {escaped(facts["variant_of"])}, not that recipe:<br>{how}</p>'
