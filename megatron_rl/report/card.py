"""The model card: README.md of an exported policy, with the hub's front matter, from the run's record; and the upload.

Not covered: where a recipe had to choose against its sources, which its page in docs/recipes tells.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from megatron_rl.config import lineage
from megatron_rl.config.checks import UserError
from megatron_rl.config.records import differences
from megatron_rl.config.sources import tags
from megatron_rl.report import provenance
from megatron_rl.report.curves import Curves
from megatron_rl.report.journal import FILE_NAME as JOURNAL
from megatron_rl.report.journal import Row, is_validation, read_rows
from megatron_rl.report.plots import write_png
from megatron_rl.runtime.files import replace_file

FILE_NAME, PICTURE_NAME = "README.md", "curves.png"
SCORES = Path("evaluation") / "table.csv"  # in a run directory; see docs/evaluation.md
SCORER = "ours"
MAX_DIFFERENCES = 40  # lines; a run with more is described by its recipe
MAX_ROWS = 12  # of the table of validations, the first and the last among them
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
Upload = Callable[[Path, str], str]


def write_card(folder: Path, directory: Path) -> None:
    """Writes README.md and the picture of the curves into an exported policy's folder, from its run's directory."""
    facts = provenance.read_run_file(directory)
    parent = lineage.read_parent(folder)[0]
    rows = [row for row in read_rows(directory / JOURNAL) if row["step"] <= parent.step]
    write_png(folder / PICTURE_NAME, Curves(rows), f"{facts['release']}, {parent.step} steps")
    scores = read_scores(directory, parent.step)
    text = card_of(facts, parent, rows, scores, has_picture=(folder / PICTURE_NAME).is_file())
    front = front_matter(directory.resolve().name, facts, scores, license_of(Path(facts["run"]["model_folder"])))
    replace_file(folder / FILE_NAME, f"---\n{front}\n---\n{text}".encode(), is_shared=True)


def front_matter(name: str, facts: Mapping[str, Any], scores: Sequence[Mapping[str, str]], licence: str | None) -> str:
    """The YAML that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    model = facts["run"]["recipe"]["model"]["name"]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=one["benchmark"],
            dataset_name=one["benchmark"],
            metric_type="pass@1",
            metric_value=float(one["value"]),
        )
        for one in scores
        if one["figure"] == "pass@1" and one["scorer"] == SCORER
    ]
    card = ModelCardData(
        base_model=model if HUB_NAME.fullmatch(model) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        license=licence,
        tags=["megatron-rl", "reinforcement-learning", facts["release"].split()[0]],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return card.to_yaml()


def license_of(base: Path) -> str | None:
    """What the card of the base model says of its licence; None where it has no card that says so."""
    if not (base / FILE_NAME).is_file():
        return None
    front = (base / FILE_NAME).read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    found = re.search(r"^license: *([\w.-]+) *$", front, re.MULTILINE)
    return found[1] if found and front.startswith("---") else None


def card_of(
    facts: Mapping[str, Any],
    parent: lineage.Parent,
    rows: Sequence[Row],
    scores: Sequence[Mapping[str, str]],
    *,
    has_picture: bool,
) -> str:
    """The card below its front matter."""
    run, attempt = facts["run"], facts["attempts"][-1]
    base = run["recipe"]["model"]["name"]
    made = [
        ("recipe", f"{facts['release']}, fingerprint `{facts['fingerprint']}`"),
        ("base model", base if HUB_NAME.fullmatch(base) else f"{base}, from a folder"),
        ("steps", f"{parent.step:,} of {run['recipe']['num_steps']:,}; {parent.samples_seen:,} samples"),
        ("scale", f"{facts['scale']}: {facts['batch']}"),
        ("seed", run["seed"]),
        ("megatron-rl", attempt["packages"].get("megatron-rl", "unknown")),
        ("commit", attempt["commit"] or "unknown"),
        ("policy digest", f"`{parent.policy_digest}`"),
    ]
    older = [ancestor(one) for one in parent.ancestors[1:]]
    path = [*reversed(older), f"this run, from {older[0] if older else base}"]
    sections = [
        f"# {facts['release']}, after {parent.step:,} steps",
        "A policy trained by reinforcement learning with verifiable rewards, on megatron-rl. This card was written "
        "from the run's own record.",
        table(("", ""), made),
        "## Where it comes from",
        "\n".join(f"{number}. {one}" for number, one in enumerate(path, 1)),
        "## What differs from the recipe as published",
        deviations(facts),
        "## Data",
        data_of(facts),
        "## Training",
        *([f"![reward and accuracy]({PICTURE_NAME})"] if has_picture else []),
        validations(rows),
        *(["## Evaluation", scores_table(scores)] if scores else []),
        "## Sources of the recipe's numbers",
        sources_of(facts["sources"]),
    ]
    return "\n" + "\n\n".join(sections) + "\n"


def sources_of(numbers: Sequence[tuple[str, str, str]]) -> str:
    """Every number of the recipe with its source, and what the tags of the sources stand for."""
    if not numbers:
        return "The recipe's file was not at hand."
    used = set(re.findall(r"\b[A-Z][A-Z0-9]\b", " ".join(source for *_, source in numbers)))
    legend = [f"- {tag}: {meaning}" for tag, meaning in tags().items() if tag in used]
    lines = [(f"`{name}`", f"`{value}`", source) for name, value, source in numbers]
    return "\n\n".join(["\n".join(legend), table(("number", "value", "source"), lines)])


def ancestor(one: lineage.Parent) -> str:
    """A run, or a published policy by the digest of its weights, on one line."""
    if one.is_published:
        weights = f", weights `{one.weights_digest}`" if one.weights_digest else ""
        return f"{one.policy_digest}, published{weights}"
    return f"{one.release}, step {one.step:,}, {one.scale}"


def deviations(facts: Mapping[str, Any]) -> str:
    """What was changed, by whom, and what that comes to, as a list."""
    run = facts["run"]
    found = [f"`--set {setting}`" for setting in facts["modified"]]
    if facts["variant_of"]:
        found.append(f"a variant of {facts['variant_of']}")
    lines = differences(run["published"], run["recipe"])
    found += [f"`{line}`" for line in lines[:MAX_DIFFERENCES]]
    found += [f"and {len(lines) - MAX_DIFFERENCES} more values"] * (len(lines) > MAX_DIFFERENCES)
    return "\n".join(f"- {one}" for one in found) or "Nothing."


def data_of(facts: Mapping[str, Any]) -> str:
    """The digests of the prompts and of the files that they lie in."""
    data = facts["data"]
    lines = [f"- digest of the training prompts: `{data['digest']}`"]
    manifest = data["manifest"] or {}
    if {"mixture", "fingerprint"} <= manifest.keys():
        lines.append(f"- mixture {manifest['mixture']}, fingerprint `{manifest['fingerprint']}`")
    files = manifest.get("files", {})
    for name, one in files.items() if isinstance(files, Mapping) else ():
        lines.append(f"- `{name}`: {one['rows']:,} rows, sha256 `{one['sha256']}`")
    lines += [f"- reward `{name}`: sha256 `{digest}`" for name, digest in data.get("rewards", {}).items()]
    return "\n".join(lines)


def validations(rows: Sequence[Row]) -> str:
    """Accuracy on the held-out prompts over the steps."""
    found = [row for row in rows if is_validation(row)]
    if not found:
        return "No validation was made."
    if len(found) > MAX_ROWS:
        found = [found[round(i * (len(found) - 1) / (MAX_ROWS - 1))] for i in range(MAX_ROWS)]
    names = sorted({name for row in found for name in row if name.startswith("validation/accuracy")})
    labels = ["step", *(name.removeprefix("validation/accuracy").strip("/") or "mean accuracy" for name in names)]
    lines = [(row["step"], *(f"{row[name]:.3f}" if name in row else "" for name in names)) for row in found]
    return table(labels, lines)


def read_scores(directory: Path, step: int) -> list[dict[str, str]]:
    """The lines of `evaluate`'s table that are of the policy after that step; none where it was not evaluated."""
    if not (directory / SCORES).is_file():
        return []
    with (directory / SCORES).open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["policy"] == f"step_{step:06d}"]


def scores_table(scores: Sequence[Mapping[str, str]]) -> str:
    """pass@1 and the largest pass@k of each benchmark and scorer, with intervals."""

    def lines() -> Iterator[tuple[str, str, str, str]]:
        for benchmark, scorer in dict.fromkeys((one["benchmark"], one["scorer"]) for one in scores):
            mine = [one for one in scores if (one["benchmark"], one["scorer"]) == (benchmark, scorer)]
            known = [one for one in mine if one["figure"].startswith("pass@") and one["low"]]
            for one in {known[0]["figure"]: known[0], known[-1]["figure"]: known[-1]}.values() if known else ():
                value, low, high = (100 * float(one[name]) for name in ("value", "low", "high"))
                yield benchmark, scorer, one["figure"], f"{value:.1f} ({low:.1f} to {high:.1f})"

    return table(("benchmark", "scorer", "figure", "percent, with its 95 % interval"), list(lines()))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown.

    >>> print(table(("a", "b"), [(1, "x|y")]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    """
    lines = [columns, *rows]
    cells = [" | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join([f"| {cells[0]} |", "|" + "---|" * len(columns), *(f"| {line} |" for line in cells[1:])])


def check_name(name: str) -> None:
    """Raises UserError where the hub could take no model of that name."""
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"--push {name}: must be OWNER/NAME, of letters, digits, '.', '_' and '-'")


def upload(folder: Path, name: str) -> str:
    """Uploads a folder to the hub, as a private model unless there is one of that name, and returns its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    address = api.create_repo(name, private=True, exist_ok=True)
    api.upload_folder(folder_path=folder, repo_id=name, commit_message=f"Upload by megatron-rl, from {folder.name}")
    return str(address)


def push(folder: Path, name: str, uploads: Upload = upload) -> str:
    """Uploads an exported policy and returns its address. Raises RuntimeError, in one line, where that fails."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # What its client of HTTP raises where nobody answers; which client that is differs between its versions.
    unanswered = cast("type[Exception]", HfHubHTTPError.__bases__[0])
    try:
        return uploads(folder, name)
    except (unanswered, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        text = " ".join(str(error).split())
        raise RuntimeError(
            f"--push {name}: {text}; {folder} is complete: mend that (`hf auth login`, HF_TOKEN, HF_HUB_OFFLINE), and "
            "give the same command again"
        ) from None
