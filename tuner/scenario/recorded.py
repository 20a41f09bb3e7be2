"""Recorded scenarios as experiments: which rows answer one, and what may be searched in them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runners.recorded.recorded import newest, same_lengths
from runners.recorded.recording import SMALLEST_SCENARIO, Recording, Recordings, served
from runners.recorded.sample import recordings
from runners.workload.workload import Workload
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.enumerated import EnumeratedSpace, enumerated
from search_spaces.errors import InputError
from tuner.scenario.sla import Sla

NEAREST = 3
"""Recorded scenarios that an error names."""

FOLDER = "recorded"
"""Experiments that come with the recordings are named `recorded/NAME`."""

USUAL_TTFT_MS = 2000
USUAL_TPOT_MS = 30


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recorded scenario: what was measured of it.

    `rows` hold each configuration at each load once: the newest measurement of it.
    """

    model: str
    system: str
    input_tokens: int
    output_tokens: int
    rows: tuple[Recording, ...]

    @property
    def scenario(self) -> tuple[str, str, int, int]:
        return self.model, self.system, self.input_tokens, self.output_tokens

    @property
    def name(self) -> str:
        """`deepseek-r1-b200-1024-1024`."""
        return case_name(self.scenario)

    @cached_property
    def configs(self) -> Mapping[ServingConfig, tuple[Recording, ...]]:
        """Rows by what of their configuration was chosen (`served`), each from the lowest concurrency up."""
        groups: dict[ServingConfig, list[Recording]] = defaultdict(list)
        for row in sorted(self.rows, key=lambda row: row.concurrency):
            groups[served(row.config)].append(row)
        return {config: tuple(rows) for config, rows in groups.items()}


def case_name(scenario: tuple[str, str, int, int]) -> str:
    return "-".join(map(str, scenario))


def case_of(scenario: tuple[str, str, int, int], rows: Iterable[Recording]) -> Case:
    """A scenario's rows as a case."""
    model, system, inputs, outputs = scenario
    return Case(model=model, system=system, input_tokens=inputs, output_tokens=outputs, rows=newest(rows))


def recorded_cases(found: Recordings | None = None) -> Mapping[str, Case]:
    """Every recorded scenario that can be searched, by name."""
    scenarios = (found or recordings()).scenarios()
    made = [case_of(key, rows) for key, rows in scenarios.items()]
    return {known.name: known for known in made}


def experiment_text(known: Case) -> str:
    """An experiment file that asks a recorded scenario for all that was measured of it."""
    lengths = known.rows[0].workload
    engines = sorted({row.config.engine.name for row in known.rows})
    dates = sorted(row.date for row in known.rows if row.date)
    when = f", {dates[0]} to {dates[-1]}" if dates else ""
    measured = f"{len(known.configs)} configurations, {len(known.rows)} runs{when}"
    return "\n".join(
        [
            f"# Asks the measured runs of {known.model} on {known.system}: {measured}.",
            "# Rows hold mean latencies only, so the SLOs are means. Prices are a choice: put in your own.",
            f"model: {known.model}",
            f"system: {known.system}",
            f"gpus: {max(row.config.gpus for row in known.rows)}",
            f"engines: [{', '.join(engines)}]",
            "workload:",
            "  arrivals: closed_loop",
            f"  input_tokens: {{low: {lengths.input_tokens.low}, high: {lengths.input_tokens.high}}}",
            f"  output_tokens: {{low: {lengths.output_tokens.low}, high: {lengths.output_tokens.high}}}",
            f"sla: {{ttft_ms_mean: {USUAL_TTFT_MS}, tpot_ms_mean: {USUAL_TPOT_MS}}}",
            "price: {list: hyperscaler}",
            "objective: usd_per_million_output_tokens",
            "runner: recorded",
            "",
        ]
    )


def write_experiments(folder: Path) -> int:
    """Writes the experiment of each recorded scenario; files that are there stay. Returns how many were written.

    Raises InputError for a folder that cannot be written to.
    """
    written = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, known in recorded_cases().items():
            path = folder / f"{name}.yaml"
            if not path.exists():
                path.write_text(experiment_text(known), encoding="utf-8")
                written += 1
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to: {error.strerror}") from None
    return written


# Which rows answer an experiment


def recorded_rows(model: str, system: str, workload: Workload) -> tuple[Recording, ...]:
    """What was measured of a scenario, each configuration at each load once.

    Raises InputError, with the nearest recorded scenarios, where fewer than eight configurations were.
    """
    _check_shape(workload)
    asked = (model, system, workload.input_tokens.high, workload.output_tokens.high)
    known = recordings().scenarios().get(asked, ())
    rows = [row for row in known if same_lengths(row.workload, workload)]
    if rows:
        return newest(rows)
    count = len({served(row.config) for row in recordings().clean if row.scenario == asked})
    if known:
        recorded = known[0].workload
        raise InputError(
            f"input and output tokens must be those recorded, {recorded.input_tokens} and {recorded.output_tokens}, "
            f"but got {workload.input_tokens} and {workload.output_tokens}"
        )
    found = f"only {count} configurations were" if count else "nothing was"
    raise InputError(
        f"{found} recorded for {_named(asked)} (a search needs {SMALLEST_SCENARIO}); nearest: {_nearest(asked)}; "
        "`servetune list recordings` shows all"
    )


def _check_shape(workload: Workload) -> None:
    if workload.shape != "closed_loop":
        raise InputError(f"arrivals must be closed_loop, as they were recorded, but got {workload.shape}")
    if workload.shared_prefix_tokens:
        raise InputError(
            "shared_prefix_tokens must be 0, since no prefix cache was in the recorded runs, "
            f"but got {workload.shared_prefix_tokens}"
        )


def _named(scenario: tuple[str, str, int, int]) -> str:
    model, system, inputs, outputs = scenario
    return f"{model} on {system} with {inputs}/{outputs} tokens"


def _nearest(asked: tuple[str, str, int, int]) -> str:
    """The recorded scenarios most like it: of its model, then of its system, then by lengths."""

    def unlikeness(known: tuple[str, str, int, int]) -> tuple[bool, bool, float]:
        inputs, outputs = math.log(known[2] / asked[2]), math.log(known[3] / asked[3])
        return known[0] != asked[0], known[1] != asked[1], abs(inputs) + abs(outputs)

    ordered = sorted(recordings().scenarios(), key=unlikeness)
    return ", ".join(map(_named, ordered[:NEAREST]))


def configurations(rows: Iterable[Recording]) -> set[ServingConfig]:
    """What was measured, whatever the load."""
    return {served(row.config) for row in rows}


def recorded_space(rows: Iterable[Recording], engines: Sequence[str], gpus: int) -> EnumeratedSpace:
    """The configurations that were measured, of these engines and on so many GPUs at the most.

    Batch limits are those of the run at the highest load. Raises InputError where none is left, and for an engine
    with a release: the rows are of the releases that ran.
    """
    released = [name for name in engines if "@" in name]
    if released:
        raise InputError(f"recordings are of the releases that ran: name the engine alone, but got {released[0]}")
    highest = {served(row.config): row for row in sorted(rows, key=lambda row: row.concurrency)}
    configs = [row.config for row in highest.values()]
    of_engines = [config for config in configs if config.engine.name in engines]
    if not of_engines:
        found = sorted({config.engine.name for config in configs})
        raise InputError(f"recorded engines are {', '.join(found)}, but got {', '.join(engines)}")
    fitting = [config for config in of_engines if config.gpus <= gpus]
    if not fitting:
        least = min(config.gpus for config in of_engines)
        raise InputError(f"`gpus >= {least}` (the smallest deployment recorded) must hold, but got {gpus}")
    return enumerated(fitting, engines=tuple(map(find_engine, engines)), gpus=gpus)


def judged_on_means(sla: Sla) -> tuple[str, ...]:
    """The SLOs that recordings cannot tell, since they hold means only."""
    return tuple(slo.key for slo in sla.slos if slo.statistic != "mean" or slo.metric == "itl")
