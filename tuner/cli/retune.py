"""servetune retune: after a release, keep, switch, upgrade or stay."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InputError, UnknownNameError
from tuner.cli.arguments import EXIT_INTERRUPTED, STUDIES, Studies, TrackingUri, console, store_failures

if TYPE_CHECKING:
    from search_spaces.config import EngineName
    from tuner.retune.job import Job


class Kind(StrEnum):
    """Schedules that can be written."""

    github = "github"
    kubernetes = "kubernetes"
    systemd = "systemd"
    cron = "cron"


def retune(  # noqa: PLR0913, PLR0917 one for each option
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT|FOLDER", help="A YAML file, a shipped name, or a folder of files.")
    ],
    engine: Annotated[str | None, typer.Option(help="Whose release; by default the champion's engine.")] = None,
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="The release; by default the newest.")] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="The release that an image's tag names.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only tell what changed; 10 where a retune is due.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Make what should be served the champion.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Measure what was judged before, or did not change.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait while another retune is at it.")] = 0.0,
    index: Annotated[bool, typer.Option(help="Ask pip's package index for newer releases.")] = True,
    emit: Annotated[Kind | None, typer.Option(help="Print a schedule that runs this command, and stop.")] = None,
    schedule: Annotated[str, typer.Option(metavar="CRON", help="When, for --emit: five fields.")] = "17 5 * * *",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the summaries.")] = Path("retunes"),
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
) -> None:
    """Measure the champion on the old and the new release in turn, search the new one, and say what to do.

    The champion is what `servetune champion promote` put into MLflow. The verdict stands in one line, its effect in
    dollars per million tokens and a month; Markdown and HTML go to retunes/, and a run to MLflow.

        servetune retune gpt-oss-120b-b200-chat --engine trtllm --to 1.3.0rc23
        servetune retune experiments/ --check
        servetune retune experiments/ --emit cron >> my-crontab

    Exit codes: 0 keep, 10 a switch of configuration or release is recommended, 20 a regression, 1 failed (another
    retune is at it, or MLflow does not answer), 2 unusable input, 130 interrupted. Of a folder: 1 before 20 before 10.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if emit is not None:
        _emit(emit, schedule, experiment, engine=engine, to=to, image=image, promote=promote, tracking_uri=tracking_uri)
        return
    from tuner.retune.job import Asked, Job
    from tuner.retune.registry import Store
    from tuner.retune.release import pip_index

    if to and image:
        raise InputError("give --to or --image, not both")
    asked = Asked(
        engine=_known_engine(engine),
        to=to,
        image=image,
        promote=promote,
        force=force,
        wait_s=wait,
        studies=studies,
        output=output,
        check=check,
        index=pip_index if index else None,
    )
    names = _names(experiment)
    with store_failures():
        job = Job(Store(tracking_uri), asked, console())
        if check:
            raise typer.Exit(_check(job, names))
        raise typer.Exit(_run(job, names, many=Path(experiment).is_dir()))


def _names(experiment: str) -> list[str]:
    """The experiment, or every experiment of a folder. Raises InputError for a folder without one."""
    folder = Path(experiment)
    if not folder.is_dir():
        return [experiment]
    found = sorted(str(path) for path in folder.glob("*.yaml"))
    if not found:
        raise InputError(f"{folder}: holds no experiment (*.yaml)")
    return found


def _known_engine(name: str | None) -> "EngineName | None":
    from search_spaces.engine import engines

    if name is not None and name not in engines():
        raise UnknownNameError("engine", name, engines())
    return name  # type: ignore[return-value]


def _check(job: "Job", names: list[str]) -> int:
    from tuner.retune.job import check_code, check_table, worst

    codes = []
    for name in names:
        try:
            due = job.due(name)
        except InputError as error:
            if len(names) == 1:
                raise
            job.console.print(f"{Path(name).stem}: {error}", markup=False)
            continue
        job.console.print(check_table(due))
        codes.append(check_code(due))
    return worst(codes)


def _run(job: "Job", names: list[str], *, many: bool) -> int:
    from tuner.retune.job import run_all, table, worst
    from tuner.retune.retune import InterruptedRetuneError

    def told(one: object) -> None:
        del one

    try:
        if many:
            ended = run_all(job, names, told)
            job.console.print(table(ended))
            return worst([one.code for one in ended])
        one = job.run(names[0])
    except InterruptedRetuneError as error:
        job.console.print(f"Interrupted, no verdict; the trials are in study {error}", markup=False)
        return EXIT_INTERRUPTED
    job.console.print(one.line, markup=False, soft_wrap=True)
    if one.retuned is not None:
        from tuner.retune.view import show_retuned

        show_retuned(job.console, one.retuned, job.asked.output, job.asked.studies)
    return one.code


def _emit(kind: Kind, schedule: str, experiment: str, **options: object) -> None:
    from tuner.retune.schedule import Scheduled, render

    given = [part for name, value in options.items() for part in _option(name, value)]
    typer.echo(render(kind.value, Scheduled(when=schedule, experiment=experiment, options=tuple(given))), nl=False)


def _option(name: str, value: object) -> list[str]:
    if value is None or value is False:
        return []
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]
