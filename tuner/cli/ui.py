"""servetune ui: a study in the browser."""

import signal
import sys
from contextlib import ExitStack, suppress
from threading import Event
from typing import Annotated

import typer

from tuner.cli.arguments import STUDIES, Json, Studies, Study, TrackingUri, console, print_json


def ui(
    study: Study,
    optuna: Annotated[bool, typer.Option("--optuna", help="The Optuna dashboard instead of MLflow's UI.")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on 127.0.0.1; else a free one.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    studies: Studies = STUDIES,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Open a study in MLflow's UI: its trials by cost, with the charts that compare them. Ctrl-C ends it.

    The page is served on 127.0.0.1 only.

        servetune ui gpt-oss-120b-b200-chat

        servetune ui gpt-oss-120b-b200-chat --optuna
    """
    from tuner.study.finished_study import find_study, open_finished
    from tuner.tracking.store import check_tracking_uri, default_tracking_uri
    from tuner.tracking.ui import mlflow_page, optuna_page

    signal.signal(signal.SIGTERM, _end)
    out = console(errors=as_json)
    if optuna:
        page = optuna_page(find_study(studies, study), port=port)
    else:
        uri = tracking_uri or default_tracking_uri()
        check_tracking_uri(uri)
        finished = open_finished(studies, study)
        page = mlflow_page(uri, finished.scenario, finished.name, port=port)
    with ExitStack() as stack:
        with out.status("Starting"):
            address = stack.enter_context(page)
        if as_json:
            print_json({"study": study, "address": address})
            sys.stdout.flush()
        else:
            typer.echo(f"Study: {address}")
            typer.echo("Ctrl-C ends it")
        if browser and sys.stdout.isatty():
            typer.launch(address)
        with suppress(KeyboardInterrupt):
            Event().wait()


def _end(_signal: int, _frame: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)
