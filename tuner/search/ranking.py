"""What is known of a scenario before anything is measured: every legal combination, predicted and ranked."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from runners.measurement import Source
from runners.simulated.silicon import Silicon
from runners.simulated.steady_state import PREFILL_UTILIZATION, SteadyPoint, SteadyState, queueing
from search_spaces.config import Batching, Disaggregation, Layout, ServingConfig, Value
from search_spaces.default import default_configs
from search_spaces.errors import InfeasibleError
from search_spaces.knobs import PREFILL
from search_spaces.space import DRAFT_LENGTH, Params
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Slo
from tuner.search.capacity import LoadRange

MATCHED = ("batching.max_sequences", "batching.max_batched_tokens", PREFILL)
"""How the names of settings begin that are not combined with the others: each combination gets those that match it."""

USUAL_BATCHED_TOKENS = 8192
FRONTIER_STEP = 0.95
"""The next point of a frontier has at most this share of the TPOT of the one before."""

MOST_DRAWN = 20_000
"""Configurations that are looked at where nothing can be predicted."""

WIDEST = 1e4
"""How far an open loop's load may lie from a guess that rests on nothing."""

PREFILL_POOLS = 3
"""Kinds of prefill worker tried beside each decode worker: the most requests/s per GPU. The smallest is, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration's parameters with its predicted objective ($) and excess over the SLA (0 when met).

    `binding` is the SLO that it misses most, empty when all are met. Where nothing can be predicted, `objective`
    is None.
    """

    params: Params
    objective: float | None
    excess: float = 0.0
    binding: str = ""

    @property
    def rank(self) -> tuple[float, float]:
        """SLA-meeting ones first, by cost; then the others, by how near they come."""
        return (self.excess, 0.0 if self.objective is None else self.objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Candidates, best first, and why the other combinations of the space were excluded, counted by cause.

    A combination is everything but the batch limits and, when disaggregated, the prefill workers.
    """

    candidates: tuple[Candidate, ...]
    excluded: Mapping[str, int]

    @property
    def combinations(self) -> int:
        return len(self.candidates) + sum(self.excluded.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _PrefillPool:
    """A kind of prefill worker: its parameters, GPUs, and the requests/s that keep its queue short."""

    params: Params
    gpus: int
    request_rate: float
    ttft: float


class Prior:
    """Predicts the configurations of one scenario with SteadyState, without simulating or measuring any.

    `source` says what the search will observe: where a confidence is asked for, its error is left as headroom.
    """

    def __init__(self, scenario: Scenario, silicon: Silicon, *, source: Source = "simulated") -> None:
        self.scenario = scenario
        self._source: Source = source
        self.silicon = silicon
        self._pools: dict[tuple[Value, ...], Sequence[_PrefillPool]] = {}

    def rank(self) -> Ranking:
        """Every combination of the space, predicted."""
        candidates: list[Candidate] = []
        excluded: Counter[str] = Counter()
        for params in self._combinations():
            try:
                candidates.append(self._best_batching(params))
            except InfeasibleError as error:
                excluded[error.cause] += 1
        return Ranking(candidates=tuple(sorted(candidates, key=lambda c: c.rank)), excluded=dict(excluded))

    def predict(self, params: Params) -> Candidate:
        """The candidate that parameters stand for. Raises InfeasibleError."""
        config = self.scenario.space.config(params)
        self.scenario.check(config)
        return self._candidate(params, config, self._best_point(config))

    def load_range(self, config: ServingConfig) -> LoadRange:
        """Where the capacity of a legal configuration may lie, the predicted one as the first guess."""
        workload = self.scenario.workload
        point = self._best_point(config)
        if workload.shape == "closed_loop":
            unit = config.layout.schedulers
            seats = config.batching.max_sequences * unit
            return LoadRange(lowest=unit, highest=seats, guess=point.load(workload), unit=unit)
        steady = SteadyState(silicon=self.silicon, config=config, workload=workload)
        most = 2 * steady.at(steady.most_sequences).load(workload)
        return LoadRange(lowest=most / 1000, highest=most, guess=0.9 * point.load(workload))

    def frontier(self, ranking: Ranking, *, most: int) -> list[tuple[ServingConfig, SteadyPoint]]:
        """Configurations and loads that no other is predicted to beat in both cost and tokens/s for each user.

        At most `most`, from the cheapest to the quickest, with about equal steps in tokens/s for each user.
        """
        points = [
            (self._objective(config, point), point.tpot, config, point)
            for config in self._layout_leaders(ranking)
            for point in SteadyState(silicon=self.silicon, config=config, workload=self.scenario.workload).levels()
        ]
        front: list[tuple[ServingConfig, SteadyPoint]] = []
        for _, tpot, config, point in sorted(points, key=lambda item: item[:2]):
            if not front or tpot < front[-1][1].tpot * FRONTIER_STEP:
                front.append((config, point))
        keep = {round(index * (len(front) - 1) / (most - 1)) for index in range(most)}
        return [item for index, item in enumerate(front) if index in keep]

    def _layout_leaders(self, ranking: Ranking) -> Iterator[ServingConfig]:
        """The best candidate of each mode, engine, layout and speculation."""
        seen: set[tuple[Value, ...]] = set()
        for candidate in ranking.candidates:
            kind = tuple(
                value
                for name, value in candidate.params.items()
                if name.startswith(("mode", "engine", "speculation.", "layout."))
            )
            if kind not in seen:
                seen.add(kind)
                yield self.scenario.space.config(candidate.params)

    # Combinations

    def _combinations(self) -> Iterator[Params]:
        space = self.scenario.space
        return space.combinations([name for name in space.dimensions if not name.startswith(MATCHED)])

    def _best_batching(self, params: Params) -> Candidate:
        """The combination with batch limits that do not bind and, disaggregated, matched prefill workers."""
        space = self.scenario.space
        tokens = int(_at_least(space.possible("batching.max_batched_tokens", params), USUAL_BATCHED_TOKENS))
        queries = int(params.get(DRAFT_LENGTH, 0)) + 1
        seats = [n for n in space.possible("batching.max_sequences", params) if int(n) * queries <= tokens]
        if not seats:
            raise InfeasibleError("batching", f"no max_sequences x {queries} tokens fits {tokens}")
        params = space.drawn(params | {"batching.max_sequences": seats[-1], "batching.max_batched_tokens": tokens})
        if params["mode"] == "disaggregated":
            params = self._with_prefill(params)
        config = self.scenario.space.config(params)
        self.scenario.check(config)
        point = self._best_point(config)
        # Open-loop arrivals crowd at times: leave seats for half as many again.
        crowd = 1.0 if self.scenario.workload.shape == "closed_loop" else 1.5
        params = space.drawn(params | {"batching.max_sequences": _at_least(seats, point.sequences * crowd)})
        return self._candidate(params, config, point)

    def _candidate(self, params: Params, config: ServingConfig, point: SteadyPoint) -> Candidate:
        excess = self._excess(point)
        binding = max(excess, key=lambda key: excess[key])
        missed = max(excess[binding], 0.0)
        return Candidate(
            params=params,
            objective=self._objective(config, point),
            excess=missed,
            binding=binding if missed else "",
        )

    def _best_point(self, config: ServingConfig) -> SteadyPoint:
        """The highest load predicted to meet the SLA, or the lowest load where none does."""
        steady = SteadyState(silicon=self.silicon, config=config, workload=self.scenario.workload)
        best: SteadyPoint | None = None
        for point in steady.levels():
            if self._meets(point):
                best = point
            else:
                return self._refined(steady, best, point.sequences) if best else point
        assert best is not None
        return best

    def _refined(self, steady: SteadyState, met: SteadyPoint, missed: int) -> SteadyPoint:
        while missed - met.sequences > max(1, met.sequences // 16):
            middle = steady.at((met.sequences + missed) // 2)
            if self._meets(middle):
                met = middle
            else:
                missed = middle.sequences
        return met

    def _meets(self, point: SteadyPoint) -> bool:
        return all(excess <= 0 for excess in self._excess(point).values())

    def _excess(self, point: SteadyPoint) -> dict[str, float]:
        sla = self.scenario.sla
        return sla.excess_of([_predicted(slo, point) for slo in sla.slos], self._source)

    def _objective(self, config: ServingConfig, point: SteadyPoint) -> float:
        return self.scenario.usd_per_million_at(point.request_rate, held=config.gpus)

    # Disaggregation

    def _with_prefill(self, params: Params) -> Params:
        """With the kind and number of prefill workers that serve most requests/s (rate matching).

        x prefill workers offer x times one worker's requests/s; the decode workers that fill the rest of the GPUs
        take theirs; the smaller of both is served. All GPUs are paid for: of equals, those that hold more are first.
        """
        aggregated = self.scenario.space.config(params | {"mode": "aggregated"})
        layout = replace(aggregated.layout, replicas=1)
        decode_rate = self._decode_rate(replace(aggregated, layout=layout))
        best: tuple[float, int] = (0.0, 0)
        chosen: Params | None = None
        pools = self._prefill_pools(params, aggregated)
        left = self.scenario.gpus - layout.gpus
        fitting = [pool for pool in pools if pool.gpus <= left]
        smallest = sorted(fitting, key=lambda pool: pool.gpus)[:1]
        for pool in (*fitting[:PREFILL_POOLS], *smallest):
            for workers in map(int, self.scenario.space.possible("prefill.replicas", params)):
                held = workers * pool.gpus
                decoders = (self.scenario.gpus - held) // layout.gpus
                if decoders < 1:
                    break
                rate = min(workers * pool.request_rate, decoders * decode_rate)
                if (rate, held + decoders * layout.gpus) > best:
                    best = rate, held + decoders * layout.gpus
                    chosen = params | pool.params | {"prefill.replicas": workers}
        if chosen is None:
            raise InfeasibleError("GPUs", f"no prefill worker fits beside {layout}")
        return self.scenario.space.drawn(chosen)

    def _decode_rate(self, worker: ServingConfig) -> float:
        """Requests/s of one decode worker whose prompts are always ready."""
        self.scenario.check(worker)
        plenty = Disaggregation(prefill_layout=replace(worker.layout, replicas=1_000_000))
        return self._best_point(replace(worker, disaggregation=plenty)).request_rate

    def _prefill_pools(self, params: Params, like: ServingConfig) -> Sequence[_PrefillPool]:
        """Those quick enough for the TTFT asked for (all, where none is), most requests/s per GPU first."""
        key = tuple(value for name, value in params.items() if not name.startswith(("layout.", "batching.")))
        if key not in self._pools:
            pools = list(self._possible_pools(params, like))
            quick = [pool for pool in pools if self._meets_ttft(pool)] or pools
            self._pools[key] = sorted(quick, key=lambda pool: -pool.request_rate / pool.gpus)
        return self._pools[key]

    def _meets_ttft(self, pool: _PrefillPool) -> bool:
        sla = self.scenario.sla
        of_ttft = replace(sla, slos=tuple(slo for slo in sla.slos if slo.metric == "ttft"))
        excess = of_ttft.excess_of([pool.ttft] * len(of_ttft.slos), self._source)
        return all(value <= 0 for value in excess.values())

    def _possible_pools(self, beside: Params, like: ServingConfig) -> Iterator[_PrefillPool]:
        space = self.scenario.space
        names = ("tensor", "pipeline", "attention_dp", "expert")
        limits = space.possible("prefill.max_batched_tokens", beside)
        tokens = int(_at_least(limits, self.scenario.workload.mean_input_tokens))
        seats = min(like.batching.max_sequences, tokens // (like.speculation.draft_length + 1))
        batching = Batching(max_sequences=seats, max_batched_tokens=tokens)
        for sizes in itertools.product(*(space.possible(PREFILL + name, beside) for name in names)):
            layout = Layout(**{name: int(size) for name, size in zip(names, sizes, strict=True)})
            worker = replace(like, layout=layout, batching=batching)
            try:
                self.scenario.check(worker)
                steady = SteadyState(silicon=self.silicon, config=worker, workload=self.scenario.workload)
                seconds = steady.prompt_seconds()
            except InfeasibleError:
                continue
            params: Params = {PREFILL + name: size for name, size in zip(names, sizes, strict=True)}
            yield _PrefillPool(
                params=self._other_prefill() | params | {"prefill.max_batched_tokens": tokens},
                gpus=layout.gpus,
                request_rate=layout.schedulers * PREFILL_UTILIZATION / seconds,
                ttft=seconds * (1 + queueing(PREFILL_UTILIZATION)),
            )

    def _other_prefill(self) -> Params:
        """What is searched of prefill workers beside their layout and tokens: at first, as it is listed first."""
        dimensions = self.scenario.space.dimensions.items()
        return {name: values[0] for name, values in dimensions if name.startswith(PREFILL)}


class Uninformed:
    """Knows which configurations of a scenario are legal, and predicts nothing: where there are no kernel times."""

    def __init__(self, scenario: Scenario, *, seed: int = 0) -> None:
        self.scenario = scenario
        self._seed = seed

    def rank(self) -> Ranking:
        """Legal configurations in random order, the one nearest to the engine's default first.

        All of them, or those among MOST_DRAWN draws where there are more. What were excluded is counted among these.
        """
        candidates: list[Candidate] = []
        excluded: Counter[str] = Counter()
        for params in self._drawn():
            try:
                candidates.append(self.predict(params))
            except InfeasibleError as error:
                excluded[error.cause] += 1
        candidates.sort(key=self._is_no_start(candidates))
        return Ranking(candidates=tuple(candidates), excluded=dict(excluded))

    def predict(self, params: Params) -> Candidate:
        """The candidate that parameters stand for. Raises InfeasibleError."""
        self.scenario.check(self.scenario.space.config(params))
        return Candidate(params=params, objective=None)

    def load_range(self, config: ServingConfig) -> LoadRange:
        """Every load that makes sense. The guess is the middle of a closed loop; else a request/s for each scheduler,
        or the trace's own pace.
        """
        unit = config.layout.schedulers
        if self.scenario.workload.shape == "closed_loop":
            seats = config.batching.max_sequences * unit
            return LoadRange(lowest=unit, highest=seats, guess=math.sqrt(unit * seats), unit=unit)
        guess = 1.0 if self.scenario.workload.trace else float(unit)
        return LoadRange(lowest=guess / WIDEST, highest=guess * WIDEST, guess=guess)

    def frontier(self, ranking: Ranking, *, most: int) -> list[tuple[ServingConfig, SteadyPoint]]:  # noqa: ARG002
        """Nothing is predicted."""
        return []

    def _drawn(self) -> list[Params]:
        rng = random.Random(self._seed)  # noqa: S311 no secret
        space = self.scenario.space
        if math.prod(map(len, space.dimensions.values())) <= MOST_DRAWN:
            found = list(space.combinations(space.dimensions))
        else:
            drawn = (space.at_random(rng, {}) for _ in range(MOST_DRAWN))
            found = list({frozenset(params.items()): params for params in drawn}.values())
        rng.shuffle(found)
        return found

    def _is_no_start(self, candidates: Sequence[Candidate]) -> Callable[[Candidate], bool]:
        """Of all candidates, the one with the fewest settings other than the first engine's default is the start."""
        scenario = self.scenario
        sizes = default_configs(scenario.model, scenario.space.engines[0], scenario.gpus)
        default = scenario.space.params(next(next(sizes))).items()
        start = min(candidates, key=lambda candidate: -len(default & candidate.params.items()), default=None)
        return lambda candidate: candidate is not start


def _at_least(values: Sequence[Value], wanted: float) -> Value:
    """The smallest value that is not below `wanted`, or the largest there is."""
    return next((value for value in values if int(value) >= wanted), values[-1])


def _predicted(slo: Slo, point: SteadyPoint) -> float:
    """The mean that stands for an SLO's statistic: the closed form knows no percentiles."""
    return {"ttft": point.ttft, "tpot": point.tpot, "itl": point.tpot, "e2e": point.e2e}[slo.metric]
