"""servetune champion: show, promote and roll back the configuration in production."""

from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli import completion
from tuner.cli.arguments import STUDIES, Json, Studies, Study, TrackingUri, console, print_json, store_failures

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.retune.champion import Champion, Champions

champion = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""The configuration in production: show, promote or roll it back.

It is a registered model in MLflow, `servetune.EXPERIMENT`, whose alias `champion` points to one version. Each version
keeps config.yaml, the commands that start it, the experiment and its trial's run.

- `servetune champion promote gpt-oss-120b-b200-chat` takes the best trial of that study

- `servetune champion show gpt-oss-120b-b200-chat` tells what is in production, and how it came there

- `servetune champion rollback gpt-oss-120b-b200-chat` puts back what was there before
""",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="The experiment's name, as in its file's name.",
        autocompletion=completion.experiments,
    ),
]
Why = Annotated[str, typer.Option(help="The reason, for the audit.")]


@champion.command()
def show(
    experiment: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT", help="By default all.", autocompletion=completion.experiments)
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Show what is in production, and every promotion and rollback.

    Without an experiment, all that have a champion.

        servetune champion show gpt-oss-120b-b200-chat
    """
    champions = _champions(tracking_uri)
    out = console()
    with store_failures():
        names = champions.experiments() if experiment is None else [_stem(experiment)]
        if as_json:
            found = [_document(champions, champions.current(name)) for name in names]
            print_json(found if experiment is None else found[0])
            return
        if not names:
            out.print("No experiment has a champion yet: servetune champion promote STUDY", markup=False)
        for name in names:
            _show(out, champions, champions.current(name))


@champion.command()
def promote(
    study: Study,
    trial: Annotated[int | None, typer.Option(min=0, help="Which trial; by default the best.")] = None,
    why: Why = "",
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Make a finished study's best trial the champion of its experiment; of several studies, that of the last to end.

    The one before is kept, for a rollback.

        servetune champion promote gpt-oss-120b-b200-chat --why "first deployment"
    """
    from tuner.retune.champion import candidate_of
    from tuner.retune.lease import Lease, ModelTags
    from tuner.retune.registry import model_name
    from tuner.study.finished_study import newest_finished

    finished, others = newest_finished(studies, study)
    candidate = candidate_of(finished, trial)
    champions = _champions(tracking_uri)
    with store_failures():
        name = model_name(candidate.experiment)
        champions.store.make_model(name, {"servetune.experiment": candidate.experiment})
        with Lease(tags=ModelTags(champions.store, name)):
            made = champions.promote(candidate, why=why)
    if as_json:
        print_json(_document(champions, made))
        return
    out = console()
    if others:
        passed = f"the study of {candidate.experiment} that ended last; the others: {', '.join(others)}"
        out.print(f"From {finished.name}, {passed}", markup=False)
    before = f", in place of version {made.replaces}" if made.replaces else ""
    out.print(f"Promoted{before}:", markup=False)
    _show(out, champions, made)


@champion.command()
def rollback(
    experiment: Name,
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="By default the one before.")] = None,
    why: Why = "",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Put back the version that the champion replaced.

    The move stands in the history, with its reason.

        servetune champion rollback gpt-oss-120b-b200-chat --why "TTFT alarms since noon"
    """
    from tuner.retune.lease import Lease, ModelTags
    from tuner.retune.registry import model_name

    champions = _champions(tracking_uri)
    name = _stem(experiment)
    with store_failures():
        before = champions.current(name)
        with Lease(tags=ModelTags(champions.store, model_name(name))):
            made = champions.rollback(name, why=why, to=to)
    if as_json:
        print_json(_document(champions, made))
        return
    out = console()
    out.print(f"Rolled back from version {before.version} to version {made.version}:", markup=False)
    _show(out, champions, made)


def _champions(tracking_uri: str | None) -> "Champions":
    from tuner.retune.champion import Champions
    from tuner.retune.registry import Store

    with store_failures():
        return Champions(Store(tracking_uri))


def _stem(experiment: str) -> str:
    return experiment.rpartition("/")[2].removesuffix(".yaml")


def _document(champions: "Champions", made: "Champion") -> dict[str, object]:
    from tuner.retune.documents import champion_document

    return champion_document(made, champions.history(made.experiment))


def _show(out: "Console", champions: "Champions", made: "Champion") -> None:
    from tuner.retune.champion_view import champion_table

    out.print(champion_table(made, champions.history(made.experiment)))
