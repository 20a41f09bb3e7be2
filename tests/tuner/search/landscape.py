"""A small world to search in: a space, a prior that predicts capacities, and a runner that has them."""

from contextlib import contextmanager
from dataclasses import dataclass

import optuna

from runners.measurement import Measurement, Percentiles
from runners.workload.workload import Lengths, Workload
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import Price, find_system
from search_spaces.knobs import PREFILL
from search_spaces.models.model import find_model
from search_spaces.space import SearchSpace, full_space
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, Slo
from tuner.search.capacity import LoadRange
from tuner.search.ranking import Candidate, Ranking
from tuner.search.search import Budget, Search
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.trial import Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

SYSTEM, MODEL = find_system("b200"), find_model("gpt-oss-120b")


def a_space(gpus: int = 8, *, variants: tuple[str, ...] = (), **values) -> SearchSpace:
    """One engine's space, of one format of weights and without drafts; `layout_tensor=(1, 2)` restricts a dimension."""
    space = full_space(MODEL, SYSTEM, (find_engine("trtllm"),), gpus, variants=variants)
    few = {
        "mode": ("aggregated",),
        "layout.pipeline": (1,),
        "layout.attention_dp": (1,),
        "layout.expert": (1,),
        "precision.weights": ("mxfp4_mxfp8",),
        "precision.kv_cache": ("fp8", "bf16"),
        "speculation.method": ("none",),
        "batching.max_batched_tokens": (8192,),
        "prefill.attention_dp": (1,),
        "prefill.expert": (1,),
    }
    return space.restricted(few | {name.replace("_", ".", 1): chosen for name, chosen in values.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedScenario(Scenario):
    """A scenario in which all is possible but what is in `impossible`."""

    impossible: tuple[ServingConfig, ...] = ()

    def check(self, config) -> None:
        if config in self.impossible:
            raise InfeasibleError("memory", "it needs 300 GiB, 180 are there")


def a_scenario(space: SearchSpace, **changes) -> LimitedScenario:
    return LimitedScenario(
        name="small",
        model=MODEL,
        system=SYSTEM,
        gpus=space.gpus,
        workload=Workload(input_tokens=Lengths(low=1024, high=1024), output_tokens=Lengths(low=100, high=100)),
        sla=Sla(slos=(Slo(metric="tpot", statistic="p99", limit_s=0.02),)),
        price=Price(usd_per_gpu_hour=3.6, all_in_watts_per_gpu=2000),
        objective="usd_per_million_output_tokens",
        space=space,
        **changes,
    )


def every_params(space: SearchSpace) -> list:
    """All that can be drawn of an aggregated space."""
    return list(space.combinations([name for name in space.dimensions if not name.startswith(PREFILL)]))


def usual_capacity(config: ServingConfig) -> float:
    """Requests in flight at which TPOT reaches 20 ms; the best is tp2, FP8 KV cache, speculation, 256 sequences."""
    best = {1: 0.7, 2: 1.0, 4: 0.8, 8: 0.5}[config.layout.tensor]
    best *= 1.0 if config.precision.kv_cache == "fp8" else 0.9
    best *= 1.3 if config.speculation.method == "eagle3" else 1.0
    return 100 * best * config.batching.max_sequences / 256


class Predictions:
    """A prior that predicts the `capacity` of configurations, possible or not, and ranks those that are given."""

    def __init__(self, scenario: Scenario, capacity=usual_capacity, ranked=()) -> None:
        self.scenario = scenario
        self.capacity = capacity
        self.ranked = tuple(ranked)

    def predict(self, params) -> Candidate:
        config = self.scenario.space.config(params)
        return Candidate(params=dict(params), objective=config.gpus / self.capacity(config), excess=0.0)

    def rank(self) -> Ranking:
        candidates = sorted(map(self.predict, self.ranked), key=lambda one: one.rank)
        return Ranking(candidates=tuple(candidates), excluded={})

    def load_range(self, config) -> LoadRange:
        return LoadRange(lowest=1, highest=10_000, guess=self.capacity(config), unit=1)


class Landscape:
    """A runner whose servers reach 20 ms of TPOT at `capacity` requests in flight, and give each 50 tokens/s.

    `capacity` may raise instead, and returns 0 for servers that never meet the SLO.
    """

    def __init__(self, capacity=usual_capacity) -> None:
        self.capacity = capacity
        self.served: list[ServingConfig] = []

    @contextmanager
    def serve(self, config):
        self.served.append(config)
        capacity = self.capacity(config)
        yield lambda loaded: measurement(
            loaded.load, tpot_s=0.02 * loaded.load / capacity if capacity else 1.0 + loaded.load, gpus=config.gpus
        )


def measurement(load: float, *, tpot_s: float, gpus: int = 8) -> Measurement:
    tpot = Percentiles(mean=tpot_s, values=(tpot_s,) * 6)
    return Measurement(
        load=load,
        gpus=gpus,
        duration_s=100,
        requests=1000,
        input_tokens=1_000_000,
        output_tokens=round(load * 5000),
        ttft=tpot,
        tpot=tpot,
        itl=tpot,
        e2e=tpot,
        source="recorded",
    )


class Log:
    """A tracker and a progress display that keep what they are called with."""

    def __init__(self) -> None:
        self.logged: list[int] = []
        self.shown: list[tuple[int, Trial | None]] = []

    def log(self, trial: Trial) -> None:
        self.logged.append(trial.number)

    def __call__(self, done: int, best: Trial | None) -> None:
        self.shown.append((done, best))


def search_in(study: optuna.Study, prior, runner, *, sampler=None, trials=20, budget=None, log=None, **parts) -> Search:
    """With the surrogate's sampler, where no other is given."""
    sampler = sampler or SurrogateSampler(prior, prior.rank(), seed=0)
    log = log or Log()
    return Search(
        prior=prior,
        runner=runner,
        study=study,
        sampler=sampler,
        tracker=log,
        budget=budget or Budget(trials=trials),
        progress=log,
        **parts,
    )
