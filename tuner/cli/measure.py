"""servetune measure: a real deployment under an experiment's load."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from search_spaces.errors import InputError
from tuner.cli.arguments import EXIT_FAILED, EXIT_SLA_MISSED, Settings, console

if TYPE_CHECKING:
    from rich.console import Console

    from runners.load import LoadReport
    from runners.measurement import Measurement
    from tuner.scenario import Scenario


def measure(  # noqa: PLR0913, PLR0917 one for each option
    experiment: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT", help="Whose workload, SLA and price: a YAML file, or a shipped name."),
    ],
    url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A server that is up; may be given many times for replicas, used in turn."),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="The model's name there; by default the first that /v1/models lists.")
    ] = None,
    load: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1_000_000,
            help="Load (requests in flight, requests/s or pace); by default the highest that keeps the SLA.",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs that the deployment holds; by default the experiment's.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests measured at each load.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send chats, not completions.")] = False,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that holds the API key.")
    ] = None,
    sender: Annotated[
        Literal["servetune", "vllm-bench", "aiperf"],
        typer.Option("--with", help="Who sends the load; the others must be installed, and need --load."),
    ] = "servetune",
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of the other senders; by default the model's name.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds for each load.")] = 1800,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurement as JSON.")] = False,
    settings: Settings = None,
) -> None:
    """Load a deployment that is already running, and hold it against an experiment's SLA and price.

    Without --url, one configuration is started here with the engine of the experiment's `serve`, loaded and ended: the
    engine's default on this experiment's GPUs, with your settings changed.

        servetune measure my-experiment.yaml --set batching.max_sequences=256 --load 16

    At a given --load all requests are sent; the search for the highest load needs at most 7 loads, each ended once
    its promises are surely kept or missed.

        servetune measure gpt-oss-120b-b200-chat --url http://127.0.0.1:8000 --load 16
    """
    from dataclasses import replace

    from runners.runner import RunFailedError
    from tuner.console import show_level, show_question
    from tuner.deployment_load import Deployment, Sending, measure_deployment
    from tuner.deployment_load import model_name as found_model
    from tuner.experiment import find_experiment, read_experiment

    if not url:
        given = (
            model_name,
            gpus,
            requests,
            chat or None,
            api_key_env,
            tokenizer,
            None if sender == "servetune" else sender,
        )
        if any(value is not None for value in given):
            raise InputError("without --url only --load, --set and --json are taken: the experiment says the rest")
        _measure_here(experiment, settings or [], load, as_json=as_json)
        return
    if settings:
        raise InputError("--set changes what is started here; a server that is up (--url) is as it is")
    scenario = read_experiment(find_experiment(experiment)).scenario()
    if requests is not None:
        scenario = replace(scenario, workload=scenario.workload.with_requests(requests))
    deployment = Deployment(
        urls=tuple(url),
        model_name=found_model(url, model_name, api_key_env),
        gpus=gpus or scenario.gpus,
        endpoint="chat" if chat else "completions",
        api_key_env=api_key_env,
    )
    out = console()
    if not as_json:
        show_question(out, scenario)
    sending = Sending(load=load, sender=sender, tokenizer=tokenizer, time_limit_s=time_limit)
    try:
        level = measure_deployment(
            deployment, scenario, sending, told=lambda report: None if as_json else _tell(out, scenario, report)
        )
    except RunFailedError as error:
        sys.stderr.write(f"servetune: {', '.join(url)}: {error}\n")
        raise typer.Exit(EXIT_FAILED) from None
    if as_json:
        out.print_json(json.dumps(_labelled(level)))
    else:
        out.print(f"Deployment of {deployment.model_name} at {', '.join(url)}", markup=False)
        show_level(out, scenario, level)
        out.print(_provenance(level, sender), style="dim", markup=False)
    if not scenario.sla.kept_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)


def _measure_here(experiment: str, settings: list[str], load: float | None, *, as_json: bool) -> None:
    """Starts one configuration for real, measures it and ends it."""
    from runners.runner import RunFailedError
    from search_spaces.errors import InfeasibleError
    from tuner.console import show_measurement, show_question
    from tuner.experiment import find_experiment, read_experiment
    from tuner.session import Session

    session = Session(question=read_experiment(find_experiment(experiment), runner="served"))
    scenario = session.scenario
    config = session.changed(settings)
    out = console()
    if not as_json:
        show_question(out, scenario)
    try:
        level = session.measure(config, load)
    except InfeasibleError as error:
        raise InputError(f"{config} cannot be served: {error}") from None
    except RunFailedError as error:
        sys.stderr.write(f"servetune: {config}: {error}\n")
        raise typer.Exit(EXIT_FAILED) from None
    if as_json:
        out.print_json(json.dumps(_labelled(level)))
    else:
        show_measurement(out, scenario, config, level)
    if not scenario.sla.kept_by(level):
        raise typer.Exit(EXIT_SLA_MISSED)


def _tell(out: "Console", scenario: "Scenario", report: "LoadReport") -> None:
    """One line for each load, as it ends."""
    from tuner.wording import milliseconds, plural, rate

    level = report.measurement
    kept = "kept" if scenario.sla.kept_by(level) else "missed"
    parts = [
        f"load {level.load:,.4g} {scenario.workload.load_unit}: SLA {kept}",
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


def _labelled(level: "Measurement") -> dict[str, object]:
    """A measurement as JSON, seconds by the name of each percentile."""
    from runners.measurement import METRICS, PERCENTILES

    content: dict[str, object] = asdict(level)
    for metric in METRICS:
        spread = level.latency(metric)
        content[metric] = {"mean": spread.mean} | {f"p{p:g}": spread.at(p) for p in PERCENTILES}
    return content


def _provenance(level: "Measurement", sender: str) -> str:
    return (
        f"Source: {level.source}, by {sender}: {level.requests:,} requests in {level.duration_s:.1f} s, "
        f"{level.failed_requests} failed."
    )
