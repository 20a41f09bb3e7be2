"""Regret on recordings: how near each way of searching comes to the best recorded row, after each measurement."""

import hashlib
import json
import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from runners.recorded.recording import Recording
from tuner.evidence.replay import Limits, Prediction, cases, limits_of, rate_per_gpu
from tuner.evidence.validate import compare
from tuner.scenario.recorded import Case
from tuner.search.surrogate.features import Array, Features, FeatureTable, features_of
from tuner.search.surrogate.quantities import SIMULATOR_BIAS, kernel_of
from tuner.search.surrogate.surrogate import CostOf, Option, Surrogate

MOST = 10
RUNNERS = ("simulator", "AIConfigurator")

Predictions = Mapping[str, Mapping[str, Prediction]]
"""By provenance of the row, then by who predicts."""


def predictions(rows: Sequence[Recording]) -> Predictions:
    path = Path(tempfile.gettempdir()) / "servetune-regret" / f"{version(rows)}.json"
    if not path.exists():
        found = {
            compared.row.provenance: {name: [p.ttft, p.tpot] for name, p in compared.predictions.items()}
            for compared in compare(rows, RUNNERS)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return {
        row: {name: Prediction(ttft=ttft, tpot=tpot) for name, (ttft, tpot) in by.items()}
        for row, by in json.loads(path.read_text()).items()
    }


def version(rows: Sequence[Recording]) -> str:
    """Of the code that predicts, and of the rows."""
    digest = hashlib.sha256()
    for room in ("runners", "search_spaces"):
        for file in sorted((Path(__file__).parents[1] / room).rglob("*.*")):
            if file.suffix in {".py", ".yaml", ".csv"}:
                digest.update(file.read_bytes())
    digest.update("".join(row.provenance for row in rows).encode())
    return digest.hexdigest()[:16]


class Measured:
    """One case's rows and one SLA, as a method may see them: predictions of all rows, latencies of those measured."""

    def __init__(self, case: Case, limits: Limits, known: Predictions) -> None:
        self.case, self.limits = case, limits
        self.rows = case.rows
        self.predicted = [known[row.provenance] for row in case.rows]
        self.measured: list[int] = []

    def measure(self, index: int) -> Recording:
        self.measured.append(index)
        return self.rows[index]

    def shares(self) -> list[float]:
        """Share of the best after 1, 2, ... MOST measurements."""
        kept = [rate_per_gpu(row, row) for row in self.rows if self.limits.met_by(row)]
        found, shares = 0.0, []
        for index in self.measured[:MOST]:
            row = self.rows[index]
            found = max(found, rate_per_gpu(row, row) if self.limits.met_by(row) else 0.0)
            shares.append(found / max(kept))
        return shares + [shares[-1]] * (MOST - len(shares))


def at_random(table: Measured, seed: int) -> None:
    order = list(range(len(table.rows)))
    random.Random(seed).shuffle(order)
    for index in order[:MOST]:
        table.measure(index)


def static(table: Measured, _seed: int) -> None:
    """AIConfigurator's ranking: those predicted to meet the SLA by throughput, then by how little they miss it."""

    def rank(index: int) -> tuple[float, float]:
        point = table.predicted[index].get("AIConfigurator")
        if point is None:
            return (math.inf, 0.0)
        over = max(point.ttft / table.limits.ttft, point.tpot / table.limits.tpot, 1.0)
        return (over, -rate_per_gpu(table.rows[index], point))

    for index in sorted(range(len(table.rows)), key=rank)[:MOST]:
        table.measure(index)


def surrogate(table: Measured, _seed: int) -> None:
    """`Surrogate` over the simulator's predictions; a row that is not predicted borrows those of the nearest."""
    model = Surrogate(options(table), ("ttft", "tpot"), cost_of=cost_of(table))
    best: float | None = None
    while len(table.measured) < min(MOST, len(table.rows)):
        acquisition = model.acquisition(best)
        acquisition[table.measured] = -1.0
        index = int(acquisition.argmax())
        row = table.measure(index)
        model.observe(
            index, {name: math.log(getattr(row, name) / getattr(table.limits, name)) for name in ("ttft", "tpot")}
        )
        if table.limits.met_by(row):
            cost = -math.log(rate_per_gpu(row, row))
            best = cost if best is None else min(best, cost)


def cost_of(table: Measured) -> CostOf:
    """-log(tokens/s/GPU) of a closed loop whose latencies are given as logarithms of latency / limit."""
    load = np.array([[row.concurrency / row.config.gpus] for row in table.rows])
    tokens = np.array([[row.workload.output_tokens.mean] for row in table.rows])

    def cost(ratios: Mapping[str, Array]) -> Array:
        ttft, tpot = (np.exp(ratios[name]) * getattr(table.limits, name) for name in ("ttft", "tpot"))
        found: Array = np.log((ttft + tpot * (tokens - 1)) / (load * tokens))
        return found

    return cost


def options(table: Measured) -> list[Option]:
    rows = [features_of(row.config, row.concurrency, release=row.release) for row in table.rows]
    known = [index for index, by in enumerate(table.predicted) if "simulator" in by]
    found = []
    for features, by in zip(rows, table.predicted, strict=True):
        nearest = min(known, key=lambda index: apart(features, rows[index]))
        point = by.get("simulator", table.predicted[nearest]["simulator"])
        ratios = {
            name: math.log(getattr(point, name) / getattr(table.limits, name)) + SIMULATOR_BIAS[name]
            for name in ("ttft", "tpot")
        }
        found.append(Option(params={}, features=features, cost=0.0, ratios=ratios))
    return found


def apart(one: Features, other: Features) -> float:
    names = sum(a != b for a, b in zip(one.names, other.names, strict=True))
    return sum(abs(a - b) for a, b in zip(one.numbers, other.numbers, strict=True)) + 2 * names


def sampled(make: Callable[[int], optuna.samplers.BaseSampler]) -> Callable[[Measured, int], None]:
    """An Optuna sampler on what tells the rows apart: what is measured is the row nearest to what it asks for."""

    def run(table: Measured, seed: int) -> None:
        numbers, names = columns(table.case.name, table.rows)
        study = optuna.create_study(sampler=make(seed))
        while len(table.measured) < min(MOST, len(table.rows)):
            trial = study.ask()
            far = np.zeros(len(table.rows))
            for at, column in enumerate(numbers):
                far += abs(column - trial.suggest_float(f"n{at}", column.min(), column.max()))
            for at, column in enumerate(names):
                far += 2 * (column != trial.suggest_categorical(f"c{at}", sorted(set(column))))
            far[table.measured] = math.inf
            row = table.measure(int(far.argmin()))
            for name in ("ttft", "tpot"):
                trial.set_constraint(name, getattr(row, name) / getattr(table.limits, name) - 1)
            study.tell(trial, 1 / rate_per_gpu(row, row))

    return run


COLUMNS: dict[str, Any] = {}


def columns(case: str, rows: Sequence[Recording]) -> Any:
    """What differs between a case's rows: numbers and names, each as one array for all rows."""
    if case not in COLUMNS:
        features = [features_of(row.config, row.concurrency) for row in rows]
        numbers = [np.array(column) for column in zip(*(one.numbers for one in features), strict=True)]
        names = [np.array(column) for column in zip(*(one.names for one in features), strict=True)]
        COLUMNS[case] = (
            [column for column in numbers if column.max() > column.min()],
            [column for column in names if len(set(column)) > 1],
        )
    return COLUMNS[case]


def methods() -> Mapping[str, Callable[[Measured, int], None]]:
    found = {
        "servetune": surrogate,
        "AIConfigurator, static ranking": static,
        "random": at_random,
        "Optuna TPE": sampled(lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=3)),
        "Optuna NSGA-II": sampled(lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=5)),
    }
    if find_spec("torch"):
        found["Optuna GP"] = sampled(lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=3))
    return found


def errors(systems: Sequence[str], console: Console) -> None:
    """Logarithms of measured / simulated of each covered row: what the surrogate's bias and scales are held against."""
    rows = [row for case in cases(systems=systems) for row in case.rows]
    known = predictions(rows)
    covered = [(row, known[row.provenance]["simulator"]) for row in rows if "simulator" in known[row.provenance]]
    table = Table("", "rows", "mean", "bias used", "deviation", "deviation expected", box=SIMPLE_HEAD)
    table.title = f"log(measured / simulated) on {', '.join(systems)}"
    features = FeatureTable.of([features_of(row.config, row.concurrency, release=row.release) for row, _ in covered])
    for name in ("ttft", "tpot"):
        logs = [math.log(getattr(row, name) / getattr(point, name)) for row, point in covered]
        kernel = kernel_of(name)
        expected = math.sqrt(kernel.variances(features).mean() + kernel.noise**2)
        figures = (fmean(logs), SIMULATOR_BIAS[name], stdev(logs), expected)
        table.add_row(name.upper(), f"{len(logs):,}", *(f"{figure:.2f}" for figure in figures))
    console.print(table)


def recorded(systems: Sequence[str], seeds: int, console: Console) -> dict[str, list[float]]:
    """Mean shares by method."""
    found = cases(systems=systems)
    known = predictions([row for case in found for row in case.rows])
    asked = [(case, limits) for case in found for limits in limits_of(case)]
    title = f"Share of the best measured tokens/s/GPU: {len(found)} scenarios, {len(asked)} experiments"
    table = Table("", *(f"{k}" for k in range(1, MOST + 1)), "no answer after 5", title=title, box=SIMPLE_HEAD)
    means: dict[str, list[float]] = {}
    by_case: dict[str, list[float]] = {}
    for name, method in methods().items():
        runs = []
        for case, limits in asked:
            for seed in range(1 if method in (surrogate, static) else seeds):
                view = Measured(case, limits, known)
                method(view, seed)
                runs.append(view.shares())
                if method is surrogate:
                    by_case.setdefault(case.name, []).append(runs[-1][4])
        means[name] = [fmean(run[k] for run in runs) for k in range(MOST)]
        none = fmean(run[4] == 0 for run in runs)
        table.add_row(name, *(f"{share:.3f}" for share in means[name]), f"{none:.1%}")
    console.print(table)
    if "Optuna GP" not in means:
        console.print("Optuna's GP sampler was left out: torch is not installed.")
    worst = sorted(by_case.items(), key=lambda item: fmean(item[1]))[:5]
    shown = ", ".join(f"{name} {fmean(shares):.2f}" for name, shares in worst)
    console.print(f"Where servetune does worst, share after 5: {shown}")
    return means
