"""Validate: how far predictions lie from what was measured, ours and the peer's on the same rows."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist, fmean, median
from typing import Literal

from runners.measurement import Measurement
from runners.recorded.recorded import newest
from runners.recorded.recording import Recording, Recordings, closed_loop_rate
from runners.runner import RunFailedError, Runner
from runners.simulated.estimated import Estimated
from runners.simulated.known_errors import Spread
from runners.simulated.silicon import Silicon
from runners.simulated.simulated import Simulated
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.hardware.system import Price, find_system, list_price
from search_spaces.models.model import find_model
from tuner.evidence.held_out import HALVES, half
from tuner.evidence.replay import BLACKWELL, GRID, Decision, Limits, Prediction, decide
from tuner.scenario.cost import dollars_per_million
from tuner.scenario.recorded import case_name
from tuner.scenario.sla import probability_of_all

Figure = Literal["ttft", "tpot", "throughput", "cost"]
FIGURES: Mapping[Figure, str] = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "throughput": "throughput/GPU",
    "cost": "$/M tokens",
}


def _peer(silicon: Silicon) -> Runner:
    """AIConfigurator as its own `cli estimate` asks it."""
    return Estimated(silicon, one_prompt=True)


RUNNERS: Mapping[str, Callable[[Silicon], Runner]] = {"simulator": Simulated, "AIConfigurator": _peer}
FEWEST_TO_RANK = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A measured row and what each runner predicts for it, or why it cannot."""

    row: Recording
    predictions: Mapping[str, Prediction]
    uncovered: Mapping[str, str]

    def ratio(self, runner: str, figure: Figure) -> float:
        """Predicted over measured. Dollars are in inverse proportion to throughput, whatever the GPU's price."""
        predicted, row = self.predictions[runner], self.row
        if figure == "ttft":
            return predicted.ttft / row.ttft
        if figure == "tpot":
            return predicted.tpot / row.tpot
        output = row.workload.output_tokens.mean
        rates = closed_loop_rate(predicted.ttft, predicted.tpot, output) / closed_loop_rate(row.ttft, row.tpot, output)
        return rates if figure == "throughput" else 1 / rates


def compare(
    rows: Sequence[Recording],
    runners: Iterable[str] = tuple(RUNNERS),
    *,
    done: Callable[[], None] = lambda: None,
) -> Iterator[Compared]:
    """Every runner on every row, one system and model after the other; `done` is called after each row."""
    groups: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    for row in rows:
        groups[row.system, row.model].append(row)
    for (system, model), group in sorted(groups.items()):
        longest = max(row.workload.max_request_tokens for row in group)
        silicon = Silicon(find_model(model), find_system(system), longest_context=longest)
        made = {name: RUNNERS[name](silicon) for name in runners}
        for row in group:
            yield _compared(row, made)
            done()


def _compared(row: Recording, runners: Mapping[str, Runner]) -> Compared:
    predictions: dict[str, Prediction] = {}
    uncovered: dict[str, str] = {}
    for name, runner in runners.items():
        try:
            with runner.serve(row.config) as measure:
                run = measure(row.workload.at(row.concurrency))
        except (InfeasibleError, RunFailedError) as error:
            uncovered[name] = error.cause
        else:
            predictions[name] = _means(run)
    return Compared(row=row, predictions=predictions, uncovered=uncovered)


def _means(run: Measurement) -> Prediction:
    return Prediction(ttft=run.ttft.mean, tpot=run.tpot.mean)


def select(
    rows: Iterable[Recording],
    systems: Sequence[str] | None = None,
    engine: str | None = None,
    *,
    of_half: str | None = None,
) -> list[Recording]:
    """Rows of these systems (by default the Blackwell ones), this engine and this half (by default both).

    Raises UnknownNameError, and InputError where there is no such row.
    """
    wanted = {find_system(name).name for name in systems} if systems else set(BLACKWELL)
    name = find_engine(engine).name if engine else None
    if of_half not in {None, *HALVES}:
        raise UnknownNameError("half", of_half, HALVES)
    found = [row for row in rows if row.system in wanted and name in {None, row.config.engine.name}]
    found = [row for row in found if of_half in {None, half(row)}]
    if not found:
        raise InputError(f"nothing was recorded for {engine or 'any engine'} on {', '.join(sorted(wanted))}")
    return found


def sample(rows: Sequence[Recording], count: int | None, seed: int) -> list[Recording]:
    """That many rows drawn without replacement; all of them without a count."""
    if count is None or count >= len(rows):
        return list(rows)
    return random.Random(seed).sample(list(rows), count)  # noqa: S311 no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of one figure: median and mean absolute relative error, and the median of predicted over measured."""

    rows: int
    median_error: float
    mean_error: float
    bias: float


def score(rows: Iterable[Compared], runner: str, figure: Figure) -> Score | None:
    """Over the rows that the runner covers; None where there are none."""
    ratios = [row.ratio(runner, figure) for row in rows if runner in row.predictions]
    if not ratios:
        return None
    errors = [abs(ratio - 1) for ratio in ratios]
    return Score(rows=len(ratios), median_error=median(errors), mean_error=fmean(errors), bias=median(ratios))


def scores_of(compared: Sequence[Compared], runners: Iterable[str]) -> dict[str, dict[str, Score]]:
    """By runner and figure, on these rows."""
    return {name: {figure: found for figure in FIGURES if (found := score(compared, name, figure))} for name in runners}


def _quarter(row: Recording) -> str:
    return f"{row.date.year} Q{(row.date.month + 2) // 3}" if row.date else UNDATED


def _layout(row: Recording) -> str:
    """Of one worker, or of one of each kind: a deployment's replicas behave alike."""
    pool = row.config.disaggregation
    workers = ([pool.prefill_layout] if pool else []) + [row.config.layout]
    return f"{row.config.engine.name} " + " > ".join(str(replace(layout, replicas=1)) for layout in workers)


UNDATED = "unknown"
SD_OF_MAD = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""

GROUPS: Mapping[str, Callable[[Recording], str]] = {
    "all": lambda _row: "all",
    "half": half,
    "engine": lambda row: row.config.engine.name,
    "system": lambda row: row.system,
    "mode": lambda row: row.config.mode,
    "precision": lambda row: row.config.precision.weights,
    "model": lambda row: row.model,
    "scenario": lambda row: case_name(row.scenario),
    "layout": _layout,
    "quarter": _quarter,
}
SPLITS = ("layout", "scenario", "model", "quarter")
"""The groups by which what is fitted is held apart from what is scored."""


def grouped(rows: Iterable[Compared], by: str) -> Mapping[str, list[Compared]]:
    """Rows by one of GROUPS."""
    groups: dict[str, list[Compared]] = defaultdict(list)
    for row in rows:
        groups[GROUPS[by](row.row)].append(row)
    return dict(sorted(groups.items()))


def splits(rows: Sequence[Recording], by: str) -> Iterator[tuple[str, list[Recording], list[Recording]]]:
    """Each group of a split with the rows to fit on and its own rows to score: no row is in both.

    By quarter only what was measured before is fitted on: the first has nothing, and what has no date is left out.
    """
    groups: dict[str, list[Recording]] = defaultdict(list)
    for row in rows:
        groups[GROUPS[by](row)].append(row)
    for name, scored in sorted(groups.items()):
        if by == "quarter":
            fitted = [row for other, group in groups.items() if other < name and other != UNDATED for row in group]
            if name != UNDATED:
                yield name, fitted, scored
        else:
            yield name, [row for other, group in groups.items() if other != name for row in group], scored


Meets = Callable[[Compared, Prediction, Limits], bool]

SURE = Spread(median=0.0, sd=1e-9)
"""Where nothing is known of the error, there is none."""


def decisions(
    compared: Iterable[Compared],
    runner: str,
    *,
    only: Callable[[Compared], bool] = lambda _row: True,
    meets: Meets = lambda _row, predicted, limits: limits.met_by(predicted),
) -> list[Decision]:
    """What the runner would have picked in each scenario with eight configurations, at each of the grid's limits.

    Rows that the runner abstains from are not picked; those that are not `only` are left out, as if not measured.
    `meets` says of a prediction whether the limits are met by it.
    """
    by_row = {row.row: row for row in compared}

    def met(row: Recording, predicted: Prediction, limits: Limits) -> bool:
        return meets(by_row[row], predicted, limits)

    found: list[Decision] = []
    for rows in Recordings.of(by_row).scenarios().values():
        known = [row for row in newest(rows) if only(by_row[row])]
        predictions = [by_row[row].predictions.get(runner) for row in known]
        made = (decide(known, predictions, limits, meets=met) for limits in GRID)
        found += [decision for decision in made if decision is not None]
    return found


def spread(rows: Iterable[Compared], runner: str, figure: Figure) -> Spread | None:
    """Of log(measured / predicted) over the rows that the runner covers; None where there are none."""
    logs = [-math.log(row.ratio(runner, figure)) for row in rows if runner in row.predictions]
    if not logs:
        return None
    middle = median(logs)
    return Spread(median=middle, sd=SD_OF_MAD * median(abs(log - middle) for log in logs))


def cautious(
    compared: Sequence[Compared],
    runner: str,
    confidence: float,
    *,
    only: Callable[[Compared], bool] = lambda _row: True,
) -> list[Decision]:
    """Decisions that meet both limits together with a confidence, as errors on other models' rows say."""

    @cache
    def errors(model: str) -> tuple[NormalDist, NormalDist]:
        others = [row for row in compared if row.row.model != model]
        ttft, tpot = (spread(others, runner, figure) or SURE for figure in ("ttft", "tpot"))
        return NormalDist(ttft.median, ttft.sd), NormalDist(tpot.median, tpot.sd)

    def meets(row: Compared, predicted: Prediction, limits: Limits) -> bool:
        ttft, tpot = errors(row.row.model)
        doubts = (ttft + math.log(predicted.ttft / limits.ttft), tpot + math.log(predicted.tpot / limits.tpot))
        return probability_of_all(doubts) >= confidence

    return decisions(compared, runner, only=only, meets=meets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dollars:
    """Per million output tokens, at list prices: medians of what was measured, predicted, and of their difference."""

    rows: int
    measured: float
    predicted: float
    error: float


def dollars(rows: Iterable[Compared], runner: str) -> Dollars | None:
    """Over the rows that the runner covers; None where there are none."""
    pairs = [
        (paid, paid * row.ratio(runner, "cost"))
        for row in rows
        if runner in row.predictions and (paid := measured_dollars(row.row))
    ]
    if not pairs:
        return None
    return Dollars(
        rows=len(pairs),
        measured=median(paid for paid, _ in pairs),
        predicted=median(predicted for _, predicted in pairs),
        error=median(abs(predicted - paid) for paid, predicted in pairs),
    )


def measured_dollars(row: Recording) -> float:
    """Per million output tokens, at the latest hyperscaler list price."""
    return dollars_per_million(row.output_rate, row.config.gpus, gpu_price(row.system))


@cache
def gpu_price(system: str) -> Price:
    """The latest hyperscaler list price."""
    return list_price(find_system(system), "hyperscaler")


def coverage(rows: Sequence[Compared], runner: str) -> tuple[int, Mapping[str, int]]:
    """Rows that the runner predicts, and counts of the reasons why it does not."""
    missing = Counter(row.uncovered[runner] for row in rows if runner in row.uncovered)
    return len(rows) - missing.total(), missing


def rank_correlation(rows: Iterable[Compared], runner: str, figure: Figure) -> float | None:
    """Median over scenarios of Spearman's correlation between predicted and measured, where five rows or more are."""
    groups: dict[object, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if runner in row.predictions:
            found = measured(row.row, figure)
            groups[row.row.scenario].append((found, found * row.ratio(runner, figure)))
    ranked = [_spearman(pairs) for pairs in groups.values() if len(pairs) >= FEWEST_TO_RANK]
    return median(ranked) if ranked else None


def measured(row: Recording, figure: Figure) -> float:
    """Seconds, tokens/s/GPU, or something in proportion to dollars."""
    rate = row.output_rate / row.config.gpus
    return {"ttft": row.ttft, "tpot": row.tpot, "throughput": rate, "cost": 1 / rate}[figure]


def _spearman(pairs: Sequence[tuple[float, float]]) -> float:
    first, second = (_ranks([pair[side] for pair in pairs]) for side in (0, 1))
    middle = (len(pairs) - 1) / 2
    top = sum((a - middle) * (b - middle) for a, b in zip(first, second, strict=True))
    spread = math.sqrt(sum((a - middle) ** 2 for a in first) * sum((b - middle) ** 2 for b in second))
    return top / spread if spread else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 0; equal values share the mean of theirs."""
    order = sorted(values)
    first = {value: index for index, value in reversed(list(enumerate(order)))}
    count = Counter(values)
    return [first[value] + (count[value] - 1) / 2 for value in values]
