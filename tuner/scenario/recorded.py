"""Recorded scenarios as experiments: which rows answer one, what may be searched in them, and what it took."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from runners.recorded.recorded import (
    SMALLEST_SCENARIO,
    Recording,
    Recordings,
    as_measurement,
    newest,
    recordings,
    same_lengths,
    served,
)
from runners.simulated.silicon import Silicon
from runners.simulated.steady_state import SteadyPoint, SteadyState
from runners.workload.workload import Workload
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.enumerated import EnumeratedSpace, enumerated
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.space import Params
from tuner.evidence.replay import Case, case
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla
from tuner.search.capacity import LoadRange
from tuner.search.ranking import Candidate, Prior, Ranking
from tuner.search.trial import Trial

NEAREST = 3
"""Recorded scenarios that an error names."""

FOLDER = "recorded"
"""Experiments that come with the recordings are named `recorded/NAME`."""

USUAL_TTFT_MS = 2000
USUAL_TPOT_MS = 30


def recorded_cases(found: Recordings | None = None) -> Mapping[str, Case]:
    """Every recorded scenario that can be searched, by name."""
    scenarios = (found or recordings()).scenarios()
    made = [case(key, rows) for key, rows in scenarios.items()]
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


# The search over them


class RecordedPrior(Prior):
    """Predicts what was recorded, and nothing else, at the loads that were recorded.

    What the closed form cannot predict is not left out, since it was served: it is tried last.
    """

    def __init__(self, scenario: Scenario, silicon: Silicon, rows: Iterable[Recording]) -> None:
        super().__init__(scenario, silicon, source="recorded")
        self._rows: dict[ServingConfig, list[Recording]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.concurrency):
            self._rows[served(row.config)].append(row)

    def rank(self) -> Ranking:
        space = self.scenario.space
        assert isinstance(space, EnumeratedSpace)
        candidates = [self.predict(space.params(config)) for config in space.configs.values()]
        return Ranking(candidates=tuple(sorted(candidates, key=lambda candidate: candidate.rank)), excluded={})

    def predict(self, params: Params) -> Candidate:
        """The candidate that parameters stand for; its cost is None where there is no prediction."""
        config = self.scenario.space.config(params)
        try:
            return self._candidate(params, config, self._best_point(config))
        except InfeasibleError:
            return Candidate(params=params, objective=None, excess=math.inf)

    def load_range(self, config: ServingConfig) -> LoadRange:
        """The recorded loads; the first guess is the predicted capacity or, without one, the middle."""
        loads = tuple(float(row.concurrency) for row in self._rows[served(config)])
        try:
            guess = self._best_point(config).concurrency
        except InfeasibleError:
            guess = median(loads)
        return LoadRange(lowest=loads[0], highest=loads[-1], guess=guess, only=loads)

    def frontier(self, ranking: Ranking, *, most: int) -> list[tuple[ServingConfig, SteadyPoint]]:  # noqa: ARG002
        """None: what was not chosen is not measured."""
        return []

    def _best_point(self, config: ServingConfig) -> SteadyPoint:
        """The highest recorded load predicted to meet the SLA, or the lowest where none does."""
        points = [self._point(row) for row in self._rows[served(config)]]
        kept = [point for point in points if self._keeps(point)]
        return kept[-1] if kept else points[0]

    def _point(self, row: Recording) -> SteadyPoint:
        steady = SteadyState(silicon=self.silicon, config=row.config, workload=self.scenario.workload)
        return steady.at(math.ceil(row.concurrency / row.config.layout.schedulers))


# What it came to


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A search over recorded rows, against all that they hold.

    `seconds` and `gpu_seconds` are what the measured runs took (start-up of the engines, which is not recorded,
    left out); `all_gpu_seconds` is what all rows took. `best` is the cheapest row that meets the SLA, at `dollars`;
    `found` is the answer's own row, `at_the_top` where its configuration was measured at no higher load.
    """

    configs: int
    tried: int
    seconds: float
    gpu_seconds: float
    all_gpu_seconds: float
    dollars: float | None
    best: Recording | None
    found: Recording | None
    at_the_top: bool


def replayed(scenario: Scenario, rows: Sequence[Recording], trials: Sequence[Trial], chosen: Trial | None) -> Replayed:
    """`chosen` is the trial that was recommended; `rows` are those that could be searched."""
    measured = [trial for trial in trials if trial.ending == "measured"]
    levels = [level for trial in measured for level in trial.levels]
    found = row_of(chosen, rows) if chosen else None
    best = min(
        (row for row in rows if scenario.sla.met_by(as_measurement(row))),
        key=lambda row: scenario.usd_per_million(as_measurement(row)),
        default=None,
    )
    return Replayed(
        configs=len(configurations(rows)),
        tried=len(measured),
        seconds=sum(level.duration_s for level in levels),
        gpu_seconds=sum(level.duration_s * level.gpus for level in levels),
        all_gpu_seconds=sum(row.seconds * row.config.gpus for row in rows),
        dollars=scenario.usd_per_million(as_measurement(best)) if best else None,
        best=best,
        found=found,
        at_the_top=found is not None and found.concurrency == _highest(rows, found),
    )


def _highest(rows: Iterable[Recording], like: Recording) -> int:
    return max(row.concurrency for row in rows if served(row.config) == served(like.config))


def row_of(trial: Trial, rows: Iterable[Recording]) -> Recording | None:
    """The row that a trial's measurement is a replay of."""
    if trial.config is None or trial.ending != "measured":
        return None
    asked = served(trial.config), trial.measurement.load
    return next((row for row in rows if (served(row.config), row.concurrency) == asked), None)


def judged_on_means(sla: Sla) -> tuple[str, ...]:
    """The SLOs that recordings cannot tell, since they hold means only."""
    return tuple(slo.key for slo in sla.slos if slo.statistic != "mean" or slo.metric == "itl")
