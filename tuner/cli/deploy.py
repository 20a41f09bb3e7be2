"""servetune deploy: the winner of a study as files that start it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli import completion
from tuner.cli.arguments import STUDIES, Json, Quiet, Studies, Study, console, print_json

if TYPE_CHECKING:
    from tuner.deploy.plan import Files
    from tuner.study.finished_study import FinishedStudy


Target = Annotated[
    str,
    typer.Option(
        help="The engine's name for scripts, or docker-compose, kubernetes, dynamo or llm-d.",
        autocompletion=completion.targets,
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that holds other files too.")]
CheckpointName = Annotated[
    str | None,
    typer.Option(help="Checkpoint to load in place of the published: a name or a folder's absolute path."),
]
Draft = Annotated[str | None, typer.Option(help="EAGLE-3 draft to load, likewise.")]
SecretName = Annotated[
    str | None,
    typer.Option(help="Kubernetes Secret with the key HF_TOKEN, by default hf-token; only its name is written."),
]


def deploy(  # noqa: PLR0913, PLR0917 one for each option
    study: Study,
    target: Target,
    output: Output,
    force: Force = False,
    checkpoint: CheckpointName = None,
    draft: Draft = None,
    secret: SecretName = None,
    studies: Studies = STUDIES,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write files that start exactly the winner of a finished study, with the GPUs of its plan.

    Scripts for machines of your own, a compose file for one machine, or manifests for a cluster; each with bench.sh,
    which measures it, and the command that verifies it.

        servetune deploy gpt-oss-120b-b200-chat --target kubernetes -o deployment
    """
    from tuner.deploy.deploy import deployment, plan_of
    from tuner.deploy.folder import write_folder
    from tuner.deploy.plan import TOKEN_SECRET
    from tuner.deploy.targets import find_target
    from tuner.study.finished_study import open_finished

    finished = open_finished(studies, study)
    chosen = find_target(target, finished.winning_config.engine.name)
    plan = plan_of(finished, checkpoint=checkpoint, draft=draft, secret=secret or TOKEN_SECRET)
    files = deployment(finished, plan, chosen)
    about = {"made_by": "servetune", "study": finished.name, "target": chosen.name}
    write_folder(output, files, about=about, force=force)
    if as_json:
        held = plan.config.gpus
        found: dict[str, object] = {"gpus": held, "gpus_left_over": finished.scenario.left_over(held)}
        found |= {"config": str(plan.config), "start": chosen.start(plan)}
        print_json({**about, "folder": str(output), **found, "unfinished": finished.unfinished, "files": sorted(files)})
    elif quiet:
        typer.echo(str(output))
    else:
        _say(finished, f"{plan.config} on {plan.config.gpus} GPUs, written to {output}:", files, chosen.start(plan))


def _say(finished: "FinishedStudy", what: str, files: "Files", start: str) -> None:
    out = console()
    out.print(what, markup=False)
    out.print("\n".join(f"  {name}" for name in sorted(files)), markup=False)
    if finished.unfinished:
        out.print(f"The winner so far: {finished.unfinished}.", markup=False)
    out.print(f"Start: {start}", markup=False, soft_wrap=True)
