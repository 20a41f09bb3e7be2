"""Measures a deployment that is already running: one load, or the highest that meets the SLA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from runners.load.load import LoadReport, Rules, load_report
from runners.load.stream import Endpoint, served_models
from runners.load.tools import Tool, ToolRun, measure_with
from runners.measurement import Measurement
from runners.workload.workload import Lengths, LoadedWorkload, Workload
from search_spaces.engines.engine import facts_of
from search_spaces.engines.facts import Server
from search_spaces.errors import InputError, UnknownNameError
from tuner.scenario.scenario import Scenario
from tuner.search.capacity import Capacity, LoadRange, find_capacity

Sender = Literal["servetune"] | Tool

HIGHEST_CONCURRENCY = 4096
FIRST_CONCURRENCY = 16
"""Requests in flight where the search for an unknown deployment's capacity begins."""

PROBED_REQUESTS = 5
OPEN_LOOP_SPAN = 1000
"""The search looks at rates up to so many times the first guess, and down to its inverse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where to send the load, and what it holds: replicas behind `urls` on `gpus` GPUs together.

    `server` is what it takes beyond OpenAI's API.
    """

    urls: tuple[str, ...]
    model_name: str
    gpus: int
    endpoint: Endpoint = "completions"
    server: Server = field(default_factory=Server)
    api_key_env: str | None = None

    def load(self, loaded: LoadedWorkload, rules: Rules) -> LoadReport:
        """Raises RunFailedError."""
        return load_report(
            self.urls,
            self.model_name,
            loaded,
            gpus=self.gpus,
            endpoint=self.endpoint,
            server=self.server,
            api_key_env=self.api_key_env,
            rules=rules,
        )


def model_name(urls: Sequence[str], asked: str | None, api_key_env: str | None, server: Server) -> str:
    """The name asked for, or the first that the servers offer. Raises InputError, with the names there are.

    An engine whose server says no names is taken at the word of who asks.
    """
    if server.model_name and asked:
        return asked
    for url in urls:
        served = served_models(url, api_key_env)
        asked = asked or served[0]
        if asked not in served:
            raise UnknownNameError(f"model at {url}", asked, served)
    assert asked is not None
    return asked


def server_of(scenario: Scenario) -> Server:
    """What the servers of the scenario's only engine take; as OpenAI's and more where there are several."""
    servers = {engine: facts_of(engine).server for engine in scenario.space.engines}
    (first, *others) = servers.values()
    return Server() if others else first


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How hard (None: the highest load that meets the SLA), by which sender, and for how long at most (seconds)."""

    load: float | None = None
    sender: Sender = "servetune"
    tokenizer: str | None = None
    time_limit_s: float = 1800


def measure_deployment(
    deployment: Deployment,
    scenario: Scenario,
    sending: Sending,
    *,
    on_load: Callable[[LoadReport], None] = lambda _report: None,
) -> Measurement:
    """The load that counts; `on_load` is called with each load of ours as it ends.

    Raises RunFailedError, and InputError where a published tool is not installed or cannot send this load.
    """
    if sending.load is None:
        if sending.sender != "servetune":
            raise InputError(f"--with {sending.sender} needs --load: it does not end a run early")
        found = capacity(deployment, scenario, time_limit_s=sending.time_limit_s, on_load=on_load)
        return found.levels[found.chosen]
    loaded = scenario.workload.at(sending.load)
    if sending.sender == "servetune":
        report = deployment.load(loaded, Rules(time_limit_s=sending.time_limit_s))
        on_load(report)
        return report.measurement
    run = ToolRun(
        url=deployment.urls[0],
        model_name=deployment.model_name,
        loaded=loaded,
        endpoint=deployment.endpoint,
        tokenizer=sending.tokenizer,
        api_key_env=deployment.api_key_env,
    )
    return measure_with(sending.sender, run, gpus=deployment.gpus, time_limit_s=sending.time_limit_s)


def capacity(
    deployment: Deployment,
    scenario: Scenario,
    *,
    time_limit_s: float,
    on_load: Callable[[LoadReport], None] = lambda _report: None,
) -> Capacity:
    """The highest load that meets the SLA, in at most MOST_LEVELS runs, each ended once its SLOs are decided."""
    rules = Rules(time_limit_s=time_limit_s, limits=scenario.sla.limits)

    def measure(loaded: LoadedWorkload) -> Measurement:
        report = deployment.load(loaded, rules)
        on_load(report)
        return report.measurement

    return find_capacity(measure, scenario.workload, scenario.sla, load_range(deployment, scenario.workload))


def load_range(deployment: Deployment, workload: Workload) -> LoadRange:
    """Where to look: around FIRST_CONCURRENCY requests in flight; in open loop, at the rate that has so many.

    That rate is by Little's law from how long a request takes alone, by median of a few. Raises RunFailedError.
    """
    if workload.shape == "closed_loop":
        return LoadRange(lowest=1, highest=HIGHEST_CONCURRENCY, guess=FIRST_CONCURRENCY, unit=1)
    trace = workload.trace
    alone = replace(
        workload,
        shape="closed_loop",
        trace=None,
        input_tokens=_fixed(workload.mean_input_tokens),
        output_tokens=_fixed(workload.mean_output_tokens),
        requests=PROBED_REQUESTS,
        standing_start=True,
    )
    e2e = deployment.load(alone.at(1), Rules()).measurement.e2e.at(50)
    guess = FIRST_CONCURRENCY / e2e / (trace.rate if trace else 1.0)
    return LoadRange(lowest=guess / OPEN_LOOP_SPAN, highest=guess * OPEN_LOOP_SPAN, guess=guess)


def _fixed(tokens: float) -> Lengths:
    return Lengths(low=max(round(tokens), 1), high=max(round(tokens), 1))
