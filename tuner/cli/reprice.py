"""servetune reprice: finished studies under another price or SLA."""

from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli import completion
from tuner.cli.arguments import EXIT_SLA_MISSED, STUDIES, Json, Studies, console, print_json

if TYPE_CHECKING:
    from tuner.study.reprice import Repriced


StudiesNamed = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDY]...",
        help="Studies, or experiments that have just one; by default all.",
        autocompletion=completion.studies,
    ),
]
Price = Annotated[
    str | None, typer.Option(help="hyperscaler, neocloud, rental, or dollars per GPU-hour; by default as it was.")
]
Date = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="The price list in force on this day.")]
Sla = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=MS", help="An SLO in place of the study's, or KEY=none; may be given many times."),
]


def reprice(
    studies_named: StudiesNamed = None,
    price: Price = None,
    date: Date = None,
    sla: Sla = None,
    studies: Studies = STUDIES,
    as_json: Json = False,
) -> None:
    """Score finished studies again for another price or SLA, from the loads that were measured.

    Nothing is run. Where what was measured does not suffice, that is said, with what is missing.

        servetune reprice --price neocloud --date 2026-07-31
        servetune reprice gpt-oss-120b-b200-chat --sla ttft_ms_p99=1500 --sla tpot_ms_p99=15

    Exit codes: 0 scored, 2 unusable input, 3 no measured load of some study meets the SLA.
    """
    from search_spaces.errors import InputError
    from tuner.show.reprice_view import document, show_repriced, table
    from tuner.study.finished_study import open_finished
    from tuner.study.reprice import read_terms
    from tuner.study.reprice import reprice as run

    terms = read_terms(price, date, sla or ())
    out = console()
    names = studies_named or sorted(path.stem for path in studies.glob("*.journal"))
    if not names:
        raise InputError(f"{studies}: there are no studies; begin one with `servetune tune`, or see --studies")
    found: list[Repriced] = []
    for name in names:
        try:
            found.append(run(open_finished(studies, name), terms))
        except InputError as error:
            if len(names) == 1:
                raise
            typer.echo(f"{name}: {error}", err=as_json)
    if not found:
        raise InputError("none of the studies can be scored")
    if as_json:
        documents = [document(one) for one in found]
        print_json(documents[0] if len(names) == 1 else documents)
    elif len(found) == 1:
        show_repriced(out, found[0])
    else:
        out.print(table(found))
    if any(one.best is None for one in found):
        raise typer.Exit(EXIT_SLA_MISSED)
