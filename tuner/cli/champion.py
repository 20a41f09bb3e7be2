"""servetune champion: show, promote and roll back the configuration in production."""

from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.arguments import STUDIES, Studies, TrackingUri, console, store_failures

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

Name = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="The experiment's name, as in its file's name.")]
Why = Annotated[str, typer.Option(help="The reason, for the audit.")]


@champion.command()
def show(
    experiment: Annotated[str | None, typer.Argument(metavar="EXPERIMENT", help="By default all.")] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show what is in production, and every promotion and rollback."""
    champions = _champions(tracking_uri)
    out = console()
    with store_failures():
        if experiment is not None:
            _show(out, champions, champions.current(_stem(experiment)))
            return
        names = champions.experiments()
        if not names:
            out.print("No experiment has a champion yet: servetune champion promote STUDY", markup=False)
        for name in names:
            _show(out, champions, champions.current(name))


@champion.command()
def promote(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study, or an experiment: then its study that ended last.")
    ],
    trial: Annotated[int | None, typer.Option(min=0, help="Which trial; by default the best.")] = None,
    why: Why = "",
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make a finished study's best trial the champion of its experiment.

    servetune champion promote gpt-oss-120b-b200-chat --why "first deployment"
    """
    from tuner.finished import newest_finished
    from tuner.retune.champion import candidate_of
    from tuner.retune.lease import Lease, ModelTags
    from tuner.retune.registry import model_name

    finished, others = newest_finished(studies, study)
    candidate = candidate_of(finished, trial)
    champions = _champions(tracking_uri)
    with store_failures():
        name = model_name(candidate.experiment)
        champions.store.make_model(name, {"servetune.experiment": candidate.experiment})
        with Lease(tags=ModelTags(champions.store, name)):
            made = champions.promote(candidate, why=why)
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
) -> None:
    """Put back the version that the champion replaced.

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


def _show(out: "Console", champions: "Champions", made: "Champion") -> None:
    from tuner.retune.champion_view import champion_table

    out.print(champion_table(made, champions.history(made.experiment)))
