"""servetune list: what is known."""

from typing import Annotated

import typer

from search_spaces.errors import UnknownNameError
from tuner.cli.arguments import console


def list_known(
    what: Annotated[str, typer.Argument(metavar="models|systems|engines|experiments|recordings")],
) -> None:
    """Show what is known: models, systems, engines, experiments, or recordings that can be replayed."""
    from tuner.catalogue import CATALOGUES

    if what not in CATALOGUES:
        raise UnknownNameError("list", what, CATALOGUES)
    console().print(CATALOGUES[what]())
