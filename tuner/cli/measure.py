"""servetune measure: a real deployment under an experiment's load."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from search_spaces.errors import InputError
from tuner.cli import completion
from tuner.cli.arguments import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SLA_MISSED,
    Json,
    Load,
    Quiet,
    Settings,
    console,
    print_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from runners.load.load import LoadReport
    from runners.measurement import Measurement
    from tuner.scenario.scenario import Scenario
    from tuner.search.deployment_load import Deployment, Sending


Target = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Whose workload, SLA and price: a YAML file, or a shipped name.",
        autocompletion=completion.experiments,
    ),
]
Urls = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="A server that is up; may be given many times for replicas, used in turn."),
]
ModelName = Annotated[
    str | None, typer.Option(help="The model's name there; by default the first that /v1/models lists.")
]
Gpus = Annotated[
    int | None, typer.Option(min=1, help="GPUs that the deployment holds, all charged; by default the experiment's.")
]
Requests = Annotated[int | None, typer.Option(min=1, help="Requests measured at each load.")]
Chat = Annotated[bool, typer.Option("--chat", help="Send chats, not completions.")]
ApiKeyEnv = Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable that holds the API key.")]
SenderName = Annotated[
    Literal["servetune", "vllm-bench", "aiperf"],
    typer.Option("--with", help="Who sends the load; the others must be installed, and need --load."),
]
Tokenizer = Annotated[str | None, typer.Option(help="Tokenizer of the other senders; by default the model's name.")]
TimeLimit = Annotated[float, typer.Option(min=1, help="Seconds for each load.")]


def measure(  # noqa: PLR0913, PLR0917 one for each option
    experiment: Target,
    url: Urls = None,
    model_name: ModelName = None,
    load: Load = None,
    gpus: Gpus = None,
    requests: Requests = None,
    chat: Chat = False,
    api_key_env: ApiKeyEnv = None,
    sender: SenderName = "servetune",
    tokenizer: Tokenizer = None,
    time_limit: TimeLimit = 1800,
    as_json: Json = False,
    settings: Settings = None,
    quiet: Quiet = False,
) -> None:
    """Load a deployment that is already running, and hold it against an experiment's SLA and price.

    Without --url, one configuration is started here with the engine of the experiment's `serve`, loaded and ended: the
    engine's default on this experiment's GPUs, with your settings changed.

        servetune measure my-experiment.yaml --set batching.max_sequences=256 --load 16

    At a given --load all requests are sent; the search for the highest load needs at most 7 loads, each ended once
    its SLOs are surely met or missed. Ctrl-C shows the best of the loads so far.

        servetune measure gpt-oss-120b-b200-chat --url http://127.0.0.1:8000 --load 16

        servetune measure gpt-oss-120b-b200-chat --url http://10.0.0.1:8000 --url http://10.0.0.2:8000 --gpus 8 --quiet
    """
    from tuner.search.deployment_load import Deployment, Sending, server_of
    from tuner.search.deployment_load import model_name as found_model

    if not url:
        given = (model_name, gpus, requests, chat or None, api_key_env, tokenizer)
        if any(value is not None for value in given) or sender != "servetune":
            raise InputError("without --url only --load, --set and --json are taken: the experiment says the rest")
        _measure_here(experiment, settings or [], load, as_json=as_json, quiet=quiet)
        return
    if settings:
        raise InputError("--set changes what is started here; a server that is up (--url) is as it is")
    scenario = _scenario(experiment, requests, gpus)
    server = server_of(scenario)
    deployment = Deployment(
        urls=tuple(url),
        model_name=found_model(url, model_name, api_key_env, server),
        gpus=scenario.gpus,
        endpoint="chat" if chat else "completions",
        server=server,
        api_key_env=api_key_env,
    )
    sending = Sending(load=load, sender=sender, tokenizer=tokenizer, time_limit_s=time_limit)
    _measure_there(deployment, scenario, sending, as_json=as_json, quiet=quiet)


def _scenario(experiment: str, requests: int | None, gpus: int | None) -> "Scenario":
    """The experiment's, with as many requests and GPUs as are asked for."""
    from dataclasses import replace

    from tuner.scenario.experiment.files import find_experiment
    from tuner.scenario.experiment.reading import read_experiment

    scenario = read_experiment(find_experiment(experiment)).scenario()
    if requests is not None:
        scenario = replace(scenario, workload=scenario.workload.with_requests(requests))
    return replace(scenario, gpus=gpus or scenario.gpus)


def _measure_there(
    deployment: "Deployment", scenario: "Scenario", sending: "Sending", *, as_json: bool, quiet: bool
) -> None:
    """Loads what is up."""
    from runners.runner import RunFailedError
    from tuner.search.deployment_load import measure_deployment
    from tuner.show.terminal import show_experiment, show_level

    where = ", ".join(deployment.urls)
    out, spoken = console(), console(errors=as_json, quiet=quiet)
    show_experiment(spoken, scenario)
    levels: list[Measurement] = []

    def on_load(report: "LoadReport") -> None:
        levels.append(report.measurement)
        _show_load(spoken, scenario, report)

    interrupted = False
    try:
        level = measure_deployment(deployment, scenario, sending, on_load=on_load)
    except RunFailedError as error:
        typer.echo(f"servetune: {where}: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        if not levels:
            raise
        interrupted, level = True, _best(scenario, levels)
    if as_json:
        about = {"urls": deployment.urls, "model_name": deployment.model_name, "sender": sending.sender}
        _print_json(scenario, level, {**about, "interrupted": interrupted})
    else:
        out.print(f"Deployment of {deployment.model_name} at {where}", markup=False)
        show_level(out, scenario, level)
        out.print(_provenance(level, sending.sender), style="dim", markup=False)
    if interrupted:
        typer.echo(f"Interrupted: shown is the best of the loads so far, {len(levels)}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if not scenario.sla.met_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)


def _measure_here(experiment: str, settings: list[str], load: float | None, *, as_json: bool, quiet: bool) -> None:
    """Starts one configuration for real, measures it and ends it."""
    from runners.runner import RunFailedError
    from search_spaces.errors import InfeasibleError
    from tuner.scenario.experiment.files import find_experiment
    from tuner.scenario.experiment.reading import read_experiment
    from tuner.search.session import Session
    from tuner.show.figures import config_figures
    from tuner.show.terminal import show_experiment, show_measurement

    session = Session(experiment=read_experiment(find_experiment(experiment), runner="served"))
    scenario = session.scenario
    config = session.changed(settings)
    spoken = console(errors=as_json, quiet=quiet)
    show_experiment(spoken, scenario)
    try:
        with spoken.status(f"Starting and loading {config}"):
            level = session.measure(config, load)
    except InfeasibleError as error:
        raise InputError(f"{config} cannot be served: {error}") from None
    except RunFailedError as error:
        typer.echo(f"servetune: {config}: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    if as_json:
        _print_json(scenario, level, {"config": config_figures(config)})
    else:
        show_measurement(console(), scenario, config, level)
    if not scenario.sla.met_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)


def _print_json(scenario: "Scenario", level: "Measurement", about: dict[str, object]) -> None:
    from tuner.show.figures import level_figures

    print_json({"experiment": scenario.name, **about, **level_figures(scenario, level)})


def _best(scenario: "Scenario", levels: "Sequence[Measurement]") -> "Measurement":
    """The highest load that meets the SLA, or the one that misses it least."""
    meeting = [level for level in levels if scenario.sla.met_by(level)]
    if meeting:
        return max(meeting, key=lambda level: level.load)
    return min(levels, key=lambda level: max(scenario.sla.excess(level).values()))


def _show_load(out: "Console", scenario: "Scenario", report: "LoadReport") -> None:
    """One line for each load, as it ends."""
    from search_spaces.wording import plural
    from tuner.scenario.amounts import milliseconds, rate

    level = report.measurement
    verdict = "met" if scenario.sla.met_by(level) else "missed"
    parts = [
        f"load {level.load:,.4g} {scenario.workload.load_unit}: SLA {verdict}",
        f"{plural(level.requests, 'request')} ({report.ended})",
        f"{rate(level.output_rate)} output tokens/s",
        f"TTFT p99 {milliseconds(level.ttft.at(99))}",
        f"TPOT p99 {milliseconds(level.tpot.at(99))}",
    ]
    if report.failures:
        parts.append("failed: " + ", ".join(f"{count} {cause}" for cause, count in report.failures.items()))
    if report.send_delays is not None:
        parts.append(f"sent late by {milliseconds(report.send_delays.at(99))} at p99")
    if report.by_server:
        means = (
            f"{metric.upper()} {milliseconds(seconds)} (here {milliseconds(level.latency(metric).mean)})"
            for metric, seconds in report.by_server.items()
        )
        parts.append("means by the server's own histograms: " + ", ".join(means))
    out.print("; ".join(parts), markup=False, soft_wrap=True)


def _provenance(level: "Measurement", sender: str) -> str:
    return (
        f"Source: {level.source}, by {sender}: {level.requests:,} requests in {level.duration_s:.1f} s, "
        f"{level.failed_requests} failed."
    )
