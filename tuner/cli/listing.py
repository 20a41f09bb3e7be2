"""servetune list: what is known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InputError, UnknownNameError
from tuner.cli import completion
from tuner.cli.arguments import Json, console, print_json

if TYPE_CHECKING:
    from search_spaces.engines.facts import EngineFacts


def list_known(
    what: Annotated[
        str,
        typer.Argument(metavar="models|systems|engines|knobs|experiments|recordings", autocompletion=completion.lists),
    ],
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="[EXPERIMENT]",
            help="With engines: an experiment whose own are shown, too.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="With recordings: a folder to write the experiment of each into, to be changed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is known: models, systems, engines, knobs, experiments, or recordings that can be replayed.

    Any of them is a word that experiments and options take.

        servetune list experiments

        servetune list recordings --write my-experiments

        servetune list engines my-experiment.yaml

        servetune list systems --json | jq '.[] | {name, gpus}'
    """
    from tuner.show.catalogue import CATALOGUES, FACTS, engine_facts, engine_table

    if what not in CATALOGUES:
        raise UnknownNameError("list", what, CATALOGUES)
    for option, given, goes_with in (("EXPERIMENT", experiment, "engines"), ("--write", write, "recordings")):
        if given is not None and what != goes_with:
            raise InputError(f"{option} goes with {goes_with} only, but got {what}")
    own = _own_engines(experiment) if experiment is not None else ()
    out = console(errors=as_json)
    if as_json:
        print_json(list(engine_facts(own) if own else FACTS[what]()))
    else:
        out.print(engine_table(own) if own else CATALOGUES[what]())
    if write is not None:
        from tuner.scenario.recorded import write_experiments

        out.print(f"{write_experiments(write)} experiments written to {write}", markup=False)


def _own_engines(experiment: str) -> "tuple[EngineFacts, ...]":
    """Of the folders that an experiment names."""
    from search_spaces.engines.engine import facts_of
    from tuner.scenario.experiment.files import find_experiment
    from tuner.scenario.experiment.reading import read_experiment

    used = read_experiment(find_experiment(experiment)).used_engines
    return tuple(facts_of(engine) for engine in used if engine.folder)
