"""The tuner measured as a tuner: how good its answer is after each measurement, against other ways of searching.

python benchmarks/regret.py [--recorded | --simulated] [--seeds 20] [--plot regret.html]

Recorded: every recorded Blackwell scenario and the grid of SLAs of `tuner.evidence.replay`. A measurement is one
published row (configuration and concurrency), newest of its kind. The answer is the row with the most tokens/s/GPU of
those measured so far that meet the SLA; its share is held against the best of all rows, and an answer that breaks the
SLA, or none, scores 0. Methods see a row's latencies when they measure it, never before. `--hopper` scores Hopper rows,
and shows the errors of predictions there: the bias is theirs. Scales and caution were chosen, for each Blackwell
model, on rows of other models, Hopper and Blackwell; the same won each time. Scores of variants on Blackwell had been
seen before, so this is no blind test: docs/search.md says what was held out.

Simulated: every legal aggregated deployment of gpt-oss-120b on 8 x B200 (10,744), priced exhaustively. With a prior,
the "real" system is a copy of the closed form whose TTFT and TPOT are off by random factors of precision, layout,
speculation and load, another for each seed. Without, it is the closed form itself.

Predictions of rows are kept in a cache directory under a name that says which code made them.
"""

import argparse
import hashlib
import json
import math
import os
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from runners.recorded.recording import Recording
from runners.simulated.silicon import SEQUENCES, Silicon
from runners.simulated.steady_state import SteadyPoint, SteadyState
from runners.workload.workload import Lengths, Workload
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import find_system, list_price
from search_spaces.models.model import find_model
from search_spaces.space import full_space
from tuner.evidence.replay import BLACKWELL, Limits, Prediction, cases, limits_of, rate_per_gpu
from tuner.evidence.validate import compare
from tuner.scenario.experiment.sampler import SAMPLERS, Sampler, SamplerName
from tuner.scenario.recorded import Case
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, read_slo
from tuner.search.lawful import Lawful
from tuner.search.ranking import Candidate, Prior, Uninformed
from tuner.search.samplers import optuna_sampler
from tuner.search.surrogate.features import Array, Features, FeatureTable, features_of
from tuner.search.surrogate.quantities import SIMULATOR_BIAS, kernel_of
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.surrogate.surrogate import CostOf, Option, Surrogate
from tuner.search.trial import RECORD

optuna.logging.set_verbosity(optuna.logging.ERROR)

MOST = 10
HOPPER = ("h100", "h200")
RUNNERS = ("simulator", "AIConfigurator")

Predictions = Mapping[str, Mapping[str, Prediction]]
"""By provenance of the row, then by who predicts."""


# Predictions of recorded rows, kept on disk


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


# Ways of choosing rows


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


# The simulator's own space


class World:
    """Random factors by which a real system's latencies differ from the closed form's; none for a scale of 0."""

    def __init__(self, seed: int, scale: float) -> None:
        self.seed, self.scale = seed, scale
        self._normals: dict[str, float] = {}

    def factor(self, what: str, config: ServingConfig, sequences: int) -> float:
        layout, precision, drafts = config.layout, config.precision, config.speculation
        parts = (
            (1.0, ""),
            (0.7, f"{precision}"),
            (0.5, f"tensor {layout.tensor}"),
            (0.5, f"attention_dp {layout.attention_dp}"),
            (0.5, f"expert {layout.expert}"),
            (0.4, f"{drafts.method}"),
            (0.2 * drafts.draft_length, "draft"),
            (0.1 * math.log2(sequences / 8), "load"),
            (0.3, f"{layout} {precision} {drafts}"),
        )
        total = sum(weight * self._normal(f"{what} {key}") for weight, key in parts)
        return math.exp(self.scale * {"ttft": 0.3, "tpot": 0.15}[what] * total)

    def _normal(self, key: str) -> float:
        if key not in self._normals:
            rng = np.random.default_rng([self.seed, zlib.crc32(key.encode())])
            self._normals[key] = float(rng.normal())
        return self._normals[key]


class Real(Prior):
    """The closed form in another world."""

    world = World(0, 0.0)

    def _best_point(self, config: ServingConfig) -> SteadyPoint:
        """The highest load that meets the SLA, to a 64th; the lowest where none does."""
        steady = SteadyState(silicon=self.silicon, config=config, workload=self.scenario.workload)
        best: SteadyPoint | None = None
        for sequences in (*(n for n in SEQUENCES if n < steady.most_sequences), steady.most_sequences):
            point = self._changed(steady, config, sequences)
            if not self._meets(point):
                return self._between(steady, config, best, sequences) if best else point
            best = point
        assert best is not None
        return best

    def _between(self, steady: SteadyState, config: ServingConfig, kept: SteadyPoint, missed: int) -> SteadyPoint:
        while missed - kept.sequences > max(1, kept.sequences // 64):
            middle = self._changed(steady, config, (kept.sequences + missed) // 2)
            if self._meets(middle):
                kept = middle
            else:
                missed = middle.sequences
        return kept

    def _changed(self, steady: SteadyState, config: ServingConfig, sequences: int) -> SteadyPoint:
        point = steady.at(sequences)
        ttft = point.ttft * self.world.factor("ttft", config, sequences)
        tpot = point.tpot * self.world.factor("tpot", config, sequences)
        e2e = ttft + tpot * (steady.output_tokens - 1)
        return replace(point, ttft=ttft, tpot=tpot, e2e=e2e, request_rate=point.concurrency / e2e)


Truth = Mapping[frozenset[tuple[str, Any]], Candidate]


def experiment() -> Scenario:
    model, system = find_model("gpt-oss-120b"), find_system("b200")
    space = full_space(model, system, (find_engine("trtllm"),), 8).restricted({"mode": ("aggregated",)})
    lengths = Lengths(low=1024, high=1024)
    slos = (read_slo("ttft_ms_mean", 300), read_slo("tpot_ms_mean", 10))
    return Scenario(
        name="regret",
        model=model,
        system=system,
        gpus=8,
        workload=Workload(input_tokens=lengths, output_tokens=lengths),
        sla=Sla(slos=slos),
        price=list_price(system, "hyperscaler"),
        objective="usd_per_million_output_tokens",
        space=space,
    )


def truth(prior: Prior, world: World) -> Truth:
    """Every legal configuration of the space, priced."""
    real = Real(prior.scenario, prior.silicon)
    real.world = world
    space = prior.scenario.space
    names = [name for name in space.dimensions if not name.startswith("prefill.")]
    found: dict[frozenset[tuple[str, Any]], Candidate] = {}
    for params in space.combinations(names):
        try:
            found[frozenset(params.items())] = real.predict(params)
        except InfeasibleError:
            continue
    return found


def ratios(scenario: Scenario, real: Truth, sampler: optuna.samplers.BaseSampler, most: int) -> list[float]:
    """Best cost found over the optimum, after each measured configuration; what is illegal costs no trial."""
    cheapest = min(c.objective for c in real.values() if not c.excess and c.objective is not None)
    study = optuna.create_study(sampler=sampler)
    best, found, seen = math.inf, [], set()
    for _ in range(40 * most):
        trial = study.ask()
        try:
            scenario.space.draw(trial)
            key = frozenset(trial.params.items())
            candidate = real[key]
        except (InfeasibleError, KeyError):
            trial.set_user_attr(RECORD, "infeasible")
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        for slo in scenario.sla.slos:
            trial.set_constraint(slo.key, candidate.excess if candidate.binding == slo.key else 0.0)
        trial.set_user_attr(RECORD, "measured")
        assert candidate.objective is not None
        study.tell(trial, candidate.objective)
        if key in seen:
            continue
        seen.add(key)
        best = min(best, math.inf if candidate.excess else candidate.objective)
        found.append(best / cheapest)
        if len(found) == most or found[-1] <= 1 + 1e-9:
            break
    return found


def reached(found: Sequence[float], ratio: float) -> float:
    return next((k for k, value in enumerate(found, start=1) if value <= ratio), math.inf)


def simulated(seeds: int, most: int, console: Console) -> None:
    scenario = experiment()
    prior = Prior(scenario, Silicon(scenario.model, scenario.system, longest_context=2048))
    ranking = prior.rank()
    same = truth(prior, World(0, 0.0))
    close = sum(not c.excess and c.objective <= 1.05 * best_of(same) for c in same.values())
    title = f"Trials to the optimum of {len(same):,} configurations ({close} within 5 %), {seeds} seeds, {most} at most"
    heads = ("", "within 5 % (median)", "within 1 % (median)", "seeds within 1 %", "s a trial")
    table = Table(*heads, title=title, box=SIMPLE_HEAD)

    def row(name: str, make: Callable[[int], tuple[Truth, optuna.samplers.BaseSampler]]) -> None:
        runs, spent = [], 0.0
        for seed in range(seeds):
            real, sampler = make(seed)
            began = time.perf_counter()
            runs.append(ratios(scenario, real, sampler, most))
            spent += time.perf_counter() - began
        medians = [median(reached(run, ratio) for run in runs) for ratio in (1.05, 1.01)]
        shown = [f"over {most}" if value == math.inf else f"{value:g}" for value in medians]
        inside = fmean(reached(run, 1.01) <= most for run in runs)
        table.add_row(name, *shown, f"{inside:.0%}", f"{spent / sum(map(len, runs)):.3f}")

    worlds = [truth(prior, World(seed + 1, 1.0)) for seed in range(seeds)]
    row("servetune, predictions off", lambda seed: (worlds[seed], SurrogateSampler(prior, ranking, seed=seed)))
    row("servetune, predictions right", lambda seed: (same, SurrogateSampler(prior, ranking, seed=seed)))
    row("servetune, no predictions", lambda seed: (same, uninformed(scenario, seed)))
    for sampler in SAMPLERS:
        if sampler != "surrogate" and (sampler != "gp" or find_spec("torch")):
            row(f"sampler: {sampler}", lambda seed, sampler=sampler: (same, foreign(prior, sampler, seed)))
    console.print(table)


def foreign(prior: Prior, name: SamplerName, seed: int) -> Lawful:
    """One of Optuna's, as `tune` has it propose: nothing that is infeasible, nothing twice."""
    return Lawful(optuna_sampler(Sampler(name=name), seed), prior)


def uninformed(scenario: Scenario, seed: int) -> SurrogateSampler:
    prior = Uninformed(scenario, seed=seed)
    return SurrogateSampler(prior, prior.rank(), seed=seed)


def best_of(real: Truth) -> float:
    return min(c.objective for c in real.values() if not c.excess and c.objective is not None)


def plot(means: Mapping[str, Sequence[float]], path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, shares in means.items():
        figure.add_scatter(x=list(range(1, MOST + 1)), y=list(shares), name=name, mode="lines+markers")
    figure.update_layout(xaxis_title="measurements", yaxis_title="share of the best measured tokens/s/GPU")
    figure.write_html(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", action="store_true", help="only the recorded Blackwell scenarios")
    parser.add_argument("--hopper", action="store_true", help="only the recorded Hopper scenarios")
    parser.add_argument("--simulated", action="store_true", help="only the simulator's own space")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--most", type=int, default=60, help="trials on the simulator's own space")
    parser.add_argument("--plot", type=Path, help="an .html file for the curves of the recorded scenarios")
    chosen = parser.parse_args()
    console = Console(width=150, highlight=False)
    everything = not (chosen.recorded or chosen.hopper or chosen.simulated)
    if chosen.hopper:
        errors(HOPPER, console)
        recorded(HOPPER, chosen.seeds, console)
    if chosen.recorded or everything:
        means = recorded(BLACKWELL, chosen.seeds, console)
        if chosen.plot:
            plot(means, chosen.plot)
    if chosen.simulated or everything:
        simulated(chosen.seeds, chosen.most, console)


if __name__ == "__main__":
    main()
