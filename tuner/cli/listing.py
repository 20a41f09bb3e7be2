"""servetune list: what is known."""

from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError, UnknownNameError
from tuner.cli.arguments import console


def list_known(
    what: Annotated[str, typer.Argument(metavar="models|systems|engines|experiments|recordings")],
    write: Annotated[
        Path | None,
        typer.Option(help="With recordings: a folder to write the experiment of each into, to be changed."),
    ] = None,
) -> None:
    """Show what is known: models, systems, engines, experiments, or recordings that can be replayed.

    servetune list recordings --write my-questions
    """
    from tuner.catalogue import CATALOGUES

    if what not in CATALOGUES:
        raise UnknownNameError("list", what, CATALOGUES)
    if write is not None and what != "recordings":
        raise InputError(f"--write goes with recordings only, but got {what}")
    out = console()
    out.print(CATALOGUES[what]())
    if write is not None:
        from tuner.recorded_scenario import write_questions

        out.print(f"{write_questions(write)} experiments written to {write}", markup=False)
