"""The page of an evaluation: evaluation.html, one file without any link to the network."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from megatron_rl.evaluation.analyses import bounds, correlation
from megatron_rl.evaluation.figures import CSV_NAME, Figures, shown
from megatron_rl.evaluation.plots import boundary_plot, lengths_plot, pass_at_k_plot
from megatron_rl.evaluation.table import Result

PAGE_NAME = "evaluation.html"
STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0f1216; --card: #181c22; --ink: #e5e7eb; --soft: #9aa3b0; --line: #2a3039; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 16px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 15px; margin: 0; }
section > h2 { margin: 32px 0 6px; font-size: 18px; }
p { margin: 0; }
.soft, figcaption { color: var(--soft); font-size: 13px; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 12.5px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
        margin-top: 16px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 0 16px; }
figure { margin: 0; }
figure svg { width: 100%; max-width: 640px; height: auto; margin-top: 8px; color: var(--ink); display: block; }
figure svg text { font-family: inherit !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; min-width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th:not(:first-child), td.number { text-align: right; white-space: nowrap; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--card); max-width: 45vw; }
td.number small { color: var(--soft); display: block; font-size: 11px; }
ul { padding-left: 20px; }
a { color: inherit; }
"""


def page_of(figures: Figures) -> str:
    """The page as text."""
    policies = ", ".join(f"<b>{html.escape(title)}</b>" for title in figures.titles.values())
    parts = [_main_table(figures), _plots(figures), _boundary(figures), _lengths(figures), _paired(figures)]
    parts += [_novelty(figures), _notes(figures)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation: {html.escape(", ".join(figures.titles.values()))}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Evaluation</h1>
<p>Policies: {policies}</p>
<p class="soft">In %. An interval holds 95 % of what resampling the problems gives. Beside this page:
<a href="{CSV_NAME}">{CSV_NAME}</a> with every figure, and the samples and verdicts in <code>policies/</code>.</p>
{"".join(parts)}
</main>
</body>
</html>
"""


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A table whose cells are HTML; the first column holds names, the others numbers."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(
        f"<tr><td>{row[0]}</td>{''.join(f'<td class=number>{cell}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{titles}</tr>{body}</table></div>'


def _section(title: str, caption: str, content: str) -> str:
    return f'<section><h2>{title}</h2><p class="soft">{caption}</p><div class="card">{content}</div></section>'


def _figure(caption: str, plot: str) -> str:
    return f'<figure class="card"><figcaption>{caption}</figcaption>{plot}</figure>'


def _main_table(figures: Figures) -> str:
    """pass@1 of every benchmark and scorer: a column for each policy, and one for each model of the papers."""
    titles = [html.escape(title) for title in figures.titles.values()]
    columns = [one.benchmark.column for one in figures.results] + [mean.column for mean in figures.means]
    models = [model for model in figures.published if any(model in figures.figures_beside(c) for c in columns)]
    lines = list(dict.fromkeys((one.benchmark.name, one.scorer) for one in figures.results))
    several = {name for name, scorer in lines if scorer != "ours"}

    def rows() -> Iterator[list[str]]:
        for name, scorer in lines:
            mine = {one.policy: one for one in figures.results if (one.benchmark.name, one.scorer) == (name, scorer)}
            benchmark = next(iter(mine.values())).benchmark
            label = html.escape(benchmark.title) + (f" <span class=soft>{scorer}</span>" if name in several else "")
            papers = figures.figures_beside(benchmark.column)
            cells = [_cell(mine[policy]) if policy in mine else "" for policy in figures.titles]
            yield [label, *cells, *(f"{papers[model]:.2f}" if model in papers else "" for model in models)]
        for title, scorer in dict.fromkeys((mean.title, mean.scorer) for mean in figures.means):
            of = {mean.policy: mean for mean in figures.means if (mean.title, mean.scorer) == (title, scorer)}
            papers = figures.figures_beside(next(iter(of.values())).column)
            cells = [_estimate(shown(of[policy].pass_at_1, 2)) if policy in of else "" for policy in figures.titles]
            label = f"<b>{html.escape(title)}</b> <span class=soft>{scorer}</span>"
            yield [label, *cells, *(f"{papers[model]:.2f}" if model in papers else "" for model in models)]

    caption = "pass@1, the mean over all samples" + (", and the papers' figures beside it." if models else ".")
    return _section("Scores", caption, _table(["benchmark", *titles, *map(html.escape, models)], rows()))


def _cell(result: Result) -> str:
    return _estimate(shown(result.pass_at_1, 2))


def _estimate(text: str) -> str:
    value, _, interval = text.partition(" ")
    return f"{value}<small>{interval}</small>"


def _plots(figures: Figures) -> str:
    """pass@k over k, a panel for each benchmark."""
    ours = [one for one in figures.results if one.scorer == "ours"]
    panels = []
    for name in dict.fromkeys(one.benchmark.name for one in ours):
        mine = [one for one in ours if one.benchmark.name == name]
        if max(len(one.pass_at_k) for one in mine) > 1:
            title = html.escape(mine[0].benchmark.title)
            panels.append(
                f'<figure class="card"><h2>{title}</h2><figcaption>pass@k over k</figcaption>'
                f"{pass_at_k_plot(mine, dict(figures.titles))}</figure>"
            )
    if not panels:
        return ""
    caption = (
        "Unbiased, from all samples of a problem. Dotted: the most that mean and variance of the problems' pass@1 "
        "allow, 1 - ((1 - E)² + Var)^(k/2), by the same samples: where k is near their number, an unbiased pass@k may "
        "lie above it."
    )
    return f'<section><h2>pass@k</h2><p class="soft">{caption}</p><div class="plots">{"".join(panels)}</div></section>'


def _boundary(figures: Figures) -> str:
    """Where pass@128 stood and stands, and which of the paper's regimes that is."""
    if not figures.boundaries:
        return ""
    known = [(one.before, one.gain) for one in figures.boundaries]
    related = correlation(known)
    words = "" if related is None else f" Correlation of the gain with the first policy's boundary: {related:+.2f}."
    limits = {(one.policy, one.benchmark.name): bounds(one) for one in figures.results if one.scorer == "ours"}
    *_, last = figures.compared

    def rows() -> Iterator[list[str]]:
        for one in figures.boundaries:
            middle = "" if one.middle is None else f"{100 * one.middle:.2f}"
            limit = limits[last, one.benchmark].get(one.k)
            bound = "" if limit is None else f"{100 * limit:.2f}"
            numbers = [f"{100 * one.before:.2f}", middle, f"{100 * one.after:.2f}", f"{100 * one.gain:+.2f}", bound]
            yield [
                html.escape(one.benchmark),
                f"pass@{one.k}",
                *numbers,
                f"{100 * one.pass_at_1_gain:+.2f}",
                one.regime,
            ]

    head = ["benchmark", "boundary", "first", "between", "last", "gain", "bound", "pass@1 gain", "regime"]
    plot = _figure("gain over the boundary of the first policy", boundary_plot(figures.boundaries))
    first_title, last_title = (html.escape(figures.titles[one]) for one in (figures.compared[0], last))
    caption = (
        f"First: {first_title}. Last: {last_title}. Diminish: the boundary falls, or pass@1 rises and it does "
        "not. Plateau: the policy between has the whole gain. Sustained: the last one gains more. Grown: there is no "
        f"policy between to tell.{words}"
    )
    return _section("The boundary", caption, _table(head, rows())) + plot


def _lengths(figures: Figures) -> str:
    """What an answer costs in tokens."""
    ours = [one for one in figures.results if one.scorer == "ours"]

    def rows() -> Iterator[list[str]]:
        for one in ours:
            parts = one.lengths
            optional = [f"{v:.1f}" if v is not None else "" for v in (parts.right, parts.wrong, parts.per_right_answer)]
            place = (
                f"{html.escape(one.benchmark.title)} <span class=soft>{html.escape(figures.titles[one.policy])}</span>"
            )
            numbers = [f"{v:.1f}" for v in (parts.mean, parts.median, parts.p90)]
            yield [place, *numbers, *optional, f"{100 * parts.cut_share:.2f}"]

    head = ["benchmark", "mean", "median", "p90", "right", "wrong", "per right answer", "cut off, %"]
    caption = "Response tokens. Per right answer: the tokens of all samples over the number of right ones."
    plot = _figure("mean response tokens", lengths_plot(ours, dict(figures.titles)))
    return _section("Length", caption, _table(head, rows())) + plot


def _paired(figures: Figures) -> str:
    if not figures.paired:
        return ""

    def rows() -> Iterator[list[str]]:
        for name, test in figures.paired.items():
            numbers = [f"{100 * test.delta:+.2f}", f"{test.t:.2f}", f"{test.p_one_tailed:.2g}"]
            yield [html.escape(name), f"{test.num_problems:,}", *numbers]

    first, *_, last = (html.escape(figures.titles[one]) for one in figures.compared)
    caption = f"Paired t-test over problems, {last} against {first}; p that it is no better, one-tailed."
    return _section("Is it better?", caption, _table(["benchmark", "problems", "delta", "t", "p"], rows()))


def _novelty(figures: Figures) -> str:
    if not figures.novelty:
        return ""
    names = list(dict.fromkeys(benchmark for _, benchmark in figures.novelty))

    def rows() -> Iterator[list[str]]:
        for name in names:
            values = [figures.novelty.get((policy, name)) for policy in figures.titles]
            yield [html.escape(name), *("" if value is None else f"{value:.3f}" for value in values)]

    head = ["benchmark", *map(html.escape, figures.titles.values())]
    caption = "Creativity Index against the given corpus: 0 for a copy, 8 where no run of five words is in it."
    return _section("Novelty", caption, _table(head, rows()))


def _notes(figures: Figures) -> str:
    benchmarks = {one.benchmark.name: one.benchmark for one in figures.results}.values()
    notes = [f"{one.title}: {note}" for one in benchmarks for note in one.notes] + figures.notes
    if not notes:
        return ""
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in dict.fromkeys(notes))
    return f'<section><h2>What to know</h2><div class="card"><ul>{listed}</ul></div></section>'
