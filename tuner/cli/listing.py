"""servetune list: what is known."""

from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError, UnknownNameError
from tuner.cli import completion
from tuner.cli.arguments import Json, console, print_json


def list_known(
    what: Annotated[
        str, typer.Argument(metavar="models|systems|engines|experiments|recordings", autocompletion=completion.lists)
    ],
    write: Annotated[
        Path | None,
        typer.Option(help="With recordings: a folder to write the experiment of each into, to be changed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is known: models, systems, engines, experiments, or recordings that can be replayed.

    Any of them is a word that experiments and options take.

        servetune list experiments

        servetune list recordings --write my-experiments

        servetune list systems --json | jq '.[] | {name, gpus}'
    """
    from tuner.show.catalogue import CATALOGUES, FACTS

    if what not in CATALOGUES:
        raise UnknownNameError("list", what, CATALOGUES)
    if write is not None and what != "recordings":
        raise InputError(f"--write goes with recordings only, but got {what}")
    out = console(errors=as_json)
    if as_json:
        print_json(list(FACTS[what]()))
    else:
        out.print(CATALOGUES[what]())
    if write is not None:
        from tuner.scenario.recorded import write_experiments

        out.print(f"{write_experiments(write)} experiments written to {write}", markup=False)
