"""The command `evaluate`: what its words mean is said by evaluate.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megatron_rl.commands.errors import number_between, path_of

if TYPE_CHECKING:
    from megatron_rl.evaluation.plan import Evaluation


def _instead(option: str, high: int, more: str = ".") -> Any:
    """An option that puts a whole number up to `high` in place of a suite's."""
    return typer.Option(
        option, parser=number_between(1, high, int), metavar="NUMBER", help="Instead of the suite's" + more
    )


SuiteNames = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME", help="mini, prorl, a benchmark, or a file of your own; repeatable."),
]
SamplesPerProblem = Annotated[int | None, _instead("--samples", 65536)]
ResponseTokens = Annotated[int | None, _instead("--max-response-tokens", 1 << 24)]
PromptTokens = Annotated[int | None, _instead("--max-prompt-tokens", 1 << 24, "; longer prompts are left out.")]
Mirror = Annotated[
    Path | None,
    typer.Option("--mirror", parser=path_of, metavar="FOLDER", help="Downloads as OWNER/NAME/FILE; else the hub."),
]
Corpus = Annotated[
    list[Path] | None,
    typer.Option("--corpus", parser=path_of, metavar="PATH", help="Texts to measure novelty against; repeatable."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change scale.NAME, or run.seed; repeatable."),
]
AllowUnsafeSandbox = Annotated[
    bool, typer.Option("--allow-unsafe-sandbox", help="Run programs though a layer of the sandbox is missing.")
]


def evaluate(
    target: Annotated[
        Path,
        typer.Argument(parser=path_of, metavar="RUN|CHECKPOINT|MODEL", help="Whose policies: a run's first and last."),
    ],
    suites: SuiteNames = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=path_of, metavar="FOLDER", help="For the results; RUN/evaluation if not given."),
    ] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", metavar="NAME", help="Where; the run's own if not given, gpu1 or cpu.")
    ] = None,
    settings: Settings = None,
    samples: SamplesPerProblem = None,
    max_response_tokens: ResponseTokens = None,
    max_prompt_tokens: PromptTokens = None,
    mirror: Mirror = None,
    corpus: Corpus = None,
    allow_unsafe_sandbox: AllowUnsafeSandbox = False,
) -> None:
    """Answer benchmarks, and show pass@1 and pass@k beside the papers' figures. Goes on where it stopped."""
    from megatron_rl.commands.cli import console
    from megatron_rl.commands.evaluate import Wanted, export_missing, figures_of, show
    from megatron_rl.commands.start import on_every_rank

    wanted = Wanted(
        target=target,
        suites=tuple(suites or ()),
        to=to,
        scale=scale,
        settings=tuple(settings or ()),
        samples=samples,
        max_response_tokens=max_response_tokens,
        max_prompt_tokens=max_prompt_tokens,
        mirror=mirror,
        corpus=tuple(corpus or ()),
        allows_unsafe_sandbox=allow_unsafe_sandbox,
    )

    def action(evaluation: Evaluation) -> None:
        from megatron_rl.evaluation.page import PAGE_NAME
        from megatron_rl.evaluation.run import answer_and_judge

        export_missing(evaluation)
        if answer_and_judge(evaluation):
            show(figures_of(evaluation), evaluation.directory / PAGE_NAME, console())

    on_every_rank(wanted.plan, lambda _: wanted.words(), action, owns_directory=True)
