"""Regret on the simulator's own space, in worlds where its predictions are off by random factors."""

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from statistics import fmean, median
from typing import Any

import numpy as np
import optuna
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from runners.simulated.silicon import SEQUENCES, Silicon
from runners.simulated.steady_state import SteadyPoint, SteadyState
from runners.workload.workload import Lengths, Workload
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import find_system, list_price
from search_spaces.models.model import find_model
from search_spaces.space import full_space
from tuner.scenario.experiment.sampler import SAMPLERS, Sampler, SamplerName
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, read_slo
from tuner.search.lawful import Lawful
from tuner.search.ranking import Candidate, Prior, Uninformed
from tuner.search.samplers import optuna_sampler
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.trial import RECORD


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
