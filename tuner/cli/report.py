"""servetune report: a finished study as a page to forward, or as Markdown, JSON or CSV."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError, UnknownNameError
from tuner.cli import completion
from tuner.cli.arguments import STUDIES, Json, Studies, Study

FORMATS = ("html", "md", "json", "csv")


Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="File to write; html goes to STUDY.html by default, the others to stdout."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="html, md, json or csv; by default the output's suffix, else html.",
        autocompletion=completion.report_formats,
    ),
]
TokensPerMonth = Annotated[
    float | None, typer.Option(min=1, help="Tokens to be sold in a month; by default all that can be served.")
]
RevenuePerMillion = Annotated[
    float | None, typer.Option(min=0, help="Dollars for a million tokens sold, to work out revenue and return.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output file.")]


def report(
    study: Study,
    output: Output = None,
    format_: Format = None,
    as_json: Json = False,
    tokens_per_month: TokensPerMonth = None,
    revenue_per_million: RevenuePerMillion = None,
    force: Force = False,
    studies: Studies = STUDIES,
) -> None:
    """Make a report of a study: the verdict, the evidence for it, and what follows from it.

    The page needs no network, and can be mailed and printed. With --json the figures go to standard output, and a page
    is written only where --output names one.

        servetune report gpt-oss-120b-b200-chat -o report.html

        servetune report gpt-oss-120b-b200-chat --json | jq .shadow_prices

        servetune report gpt-oss-120b-b200-chat --tokens-per-month 2e12 --revenue-per-million 0.10
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = _format("json" if as_json and output is None else format_, output)
    from tuner.show.report.economics import Demand
    from tuner.show.report.render import FORMATS as RENDERERS
    from tuner.show.report.report import Report
    from tuner.study.finished_study import open_finished

    finished = open_finished(studies, study)
    if output is None and chosen == "html":
        output = Path(f"{finished.name}.html")
    _check_free(output, force=force)
    made = Report(
        finished=finished,
        demand=Demand(tokens_per_month=tokens_per_month, usd_per_million=revenue_per_million),
        command=shlex.join(["servetune", *sys.argv[1:]]) if sys.argv[1:2] == ["report"] else "",
    )
    text = RENDERERS[chosen](made)
    if output is None:
        sys.stdout.write(text)
        return
    _write(output, text)
    if as_json:
        sys.stdout.write(RENDERERS["json"](made))
    else:
        typer.echo(f"Written to {output}")


def _format(wanted: str | None, output: Path | None) -> str:
    suffix = output.suffix.removeprefix(".") if output else "html"
    if wanted is None and suffix not in FORMATS:
        raise InputError(f"{output}: unknown kind of report {suffix!r}; valid: {', '.join(FORMATS)}; see --format")
    chosen = wanted or suffix
    if chosen not in FORMATS:
        raise UnknownNameError("format", chosen, FORMATS)
    return chosen


def _check_free(output: Path | None, *, force: bool) -> None:
    if output is not None and output.is_dir():
        raise InputError(f"{output}: is a folder; name a file")
    if output is not None and output.exists() and not force:
        raise InputError(f"{output}: is there already; --force overwrites it")


def _write(output: Path, text: str) -> None:
    """Through a file beside it, so that a broken write leaves nothing half done."""
    partial = output.with_name(f"{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
