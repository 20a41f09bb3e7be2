"""servetune retune: after a release, keep, switch, upgrade or stay."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InputError
from tuner.cli import completion
from tuner.cli.arguments import (
    EXIT_INTERRUPTED,
    STUDIES,
    Json,
    Quiet,
    Studies,
    TrackingUri,
    console,
    print_json,
    store_failures,
)

if TYPE_CHECKING:
    from tuner.retune.job import Ended, Job


class Kind(StrEnum):
    """Schedules that can be written."""

    github = "github"
    kubernetes = "kubernetes"
    systemd = "systemd"
    cron = "cron"


Target = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT|FOLDER",
        help="A YAML file, a shipped name, or a folder of files.",
        autocompletion=completion.experiments,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(help="Whose release; by default the champion's engine.", autocompletion=completion.engines),
]
Release = Annotated[str | None, typer.Option(metavar="VERSION", help="The release; by default the newest.")]
Image = Annotated[str | None, typer.Option(metavar="IMAGE", help="The release that an image's tag names.")]
Check = Annotated[bool, typer.Option("--check", help="Only tell what changed; 10 where a retune is due.")]
Promote = Annotated[bool, typer.Option("--promote", help="Make what should be served the champion.")]
Force = Annotated[bool, typer.Option("--force", help="Measure what was judged before, or did not change.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait while another retune is at it.")]
Index = Annotated[bool, typer.Option(help="Ask pip's package index for newer releases.")]
Emit = Annotated[Kind | None, typer.Option(help="Print a schedule that runs this command, and stop.")]
Schedule = Annotated[str, typer.Option(metavar="CRON", help="When, for --emit: five fields.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of the summaries.")]


def retune(  # noqa: PLR0913, PLR0917 one for each option
    experiment: Target,
    engine: Engine = None,
    to: Release = None,
    image: Image = None,
    check: Check = False,
    promote: Promote = False,
    force: Force = False,
    wait: Wait = 0.0,
    index: Index = True,
    emit: Emit = None,
    schedule: Schedule = "17 5 * * *",
    output: Output = Path("retunes"),
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    quiet: Quiet = False,
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
        engine=engine,
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
        job = Job(Store(tracking_uri), asked, console(errors=as_json, quiet=quiet))
        many = Path(experiment).is_dir()
        if check:
            raise typer.Exit(_check(job, names, many=many, as_json=as_json))
        raise typer.Exit(_run(job, names, many=many, as_json=as_json))


def _names(experiment: str) -> list[str]:
    """The experiment, or every experiment of a folder. Raises InputError for a folder without one."""
    folder = Path(experiment)
    if not folder.is_dir():
        return [experiment]
    found = sorted(str(path) for path in folder.glob("*.yaml"))
    if not found:
        raise InputError(f"{folder}: holds no experiment (*.yaml)")
    return found


def _check(job: "Job", names: list[str], *, many: bool, as_json: bool) -> int:
    from tuner.retune.job import check_code, check_table, worst

    codes, found = [], []
    for name in names:
        try:
            due = job.due(name)
        except InputError as error:
            if not many:
                raise
            found.append({"experiment": Path(name).stem, "error": str(error)})
            typer.echo(f"{Path(name).stem}: {error}", err=as_json)
            continue
        codes.append(check_code(due))
        if as_json:
            from tuner.retune.documents import due_document

            found.append(due_document(due))
        else:
            console().print(check_table(due))
    if as_json:
        print_json(found if many else found[0])
    return worst(codes)


def _run(job: "Job", names: list[str], *, many: bool, as_json: bool) -> int:
    from tuner.retune.job import run_all, worst
    from tuner.retune.search_release import InterruptedRetuneError

    try:
        ended = run_all(job, names) if many else [job.run(names[0])]
    except InterruptedRetuneError as error:
        typer.echo(f"Interrupted, no verdict; the trials are in study {error}", err=as_json)
        return EXIT_INTERRUPTED
    if as_json:
        from tuner.retune.documents import ended_document

        documents = [ended_document(one) for one in ended]
        print_json(documents if many else documents[0])
    else:
        _show(job, ended, many=many)
    return worst([one.code for one in ended]) if many else ended[0].code


def _show(job: "Job", ended: "list[Ended]", *, many: bool) -> None:
    from tuner.retune.job import table
    from tuner.retune.view import show_retuned

    if many:
        console().print(table(ended))
        return
    one = ended[0]
    console().print(one.line, markup=False, soft_wrap=True)
    if one.retuned is not None:
        show_retuned(job.console, one.retuned, job.asked.output, job.asked.studies)


def _emit(kind: Kind, schedule: str, experiment: str, **options: object) -> None:
    from tuner.retune.schedule import Scheduled, render

    given = [part for name, value in options.items() for part in _option(name, value)]
    typer.echo(render(kind.value, Scheduled(when=schedule, experiment=experiment, options=tuple(given))), nl=False)


def _option(name: str, value: object) -> list[str]:
    if value is None or value is False:
        return []
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]
