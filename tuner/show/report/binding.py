"""What binds: which limit keeps the winner from serving more, with the evidence for it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from runners.measurement import Measurement
from runners.simulated.silicon import Silicon, StepKey
from runners.simulated.steady_state import SteadyState, step_key, transfer_seconds
from search_spaces.errors import InfeasibleError
from tuner.scenario.amounts import milliseconds
from tuner.scenario.sla import Slo
from tuner.study.finished_study import FinishedStudy

if TYPE_CHECKING:
    from search_spaces.config import ServingConfig

NEAR = 0.05
"""An SLO with less headroom than this share of its limit binds."""

FULL = 0.95
"""A KV cache, or the seats of a scheduler, that were used to this share are full."""

BUSY = 0.8
"""A pool that is busy this share of its time makes prompts queue."""

MUCH = 0.5
"""A prompt whose own pass takes this share of the mean TTFT decides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Something that could hold the winner back. `use` is the share of it in use (1: at the limit)."""

    name: str
    use: float | None
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The limits, and the name of the one that binds; `behind` is the resource that makes it bind."""

    limit: str
    behind: str
    limits: tuple[Limit, ...]


def what_binds(finished: FinishedStudy) -> Binding:
    """What holds the best trial back at the load that counts. Raises InputError where nothing was measured."""
    return _Winner(finished).binding


@dataclass(frozen=True, kw_only=True)
class Occupied:
    """Where time goes: with prompts as a share of all time, and in a decode step by kind of kernel.

    `compute_bound` is how far its experts and matrix products grow with the batch: 0 not at all, 1 in proportion.
    `queries` is the tokens of one decode step.
    """

    busy_with_prompts: float
    prompt_s: float
    kinds: dict[str, float]
    compute_bound: float
    step_s: float
    sequences: float
    queries: int


class _Winner:
    """The best trial's deployment at the load that counts."""

    def __init__(self, finished: FinishedStudy) -> None:
        self.finished = finished
        self.scenario = finished.scenario
        self.trial = finished.winner
        self.level: Measurement = self.trial.measurement
        self.config: ServingConfig = finished.winning_config

    @property
    def binding(self) -> Binding:
        limits = (*self._slos(), *self._cache(), *self._resources())
        nearest = self.nearest
        resource = self._largest_resource()
        if -self.scenario.sla.excess(self.level)[nearest.key] <= NEAR or self.next_missed is not None:
            slo = f"the SLO {nearest}"
            return Binding(limit=slo, behind=resource, limits=limits)
        if self.level.kv_cache_peak >= FULL or self.level.preemptions:
            return Binding(limit="KV-cache capacity", behind=resource, limits=limits)
        return Binding(limit=resource or "the highest load that was tried", behind="", limits=limits)

    @property
    def nearest(self) -> Slo:
        """The SLO with the least headroom; where a slightly higher load was tried, the one that broke first."""
        return self.scenario.sla.nearest(self.next_missed or self.level)

    @cached_property
    def next_missed(self) -> Measurement | None:
        """The lowest load above the one that counts at which the SLA was missed."""
        above = [
            level for level in self.trial.levels if level.load > self.level.load and not self.scenario.sla.met_by(level)
        ]
        return min(above, key=lambda level: level.load, default=None)

    def _slos(self) -> Iterator[Limit]:
        unit = self.scenario.workload.load_unit
        for slo in self.scenario.sla.slos:
            use = slo.observed(self.level) / slo.limit_s
            evidence = f"{milliseconds(slo.observed(self.level))} of {milliseconds(slo.limit_s)}"
            missed = self.next_missed
            if missed is not None:
                evidence += f"; at the next load tried, {missed.load:,.4g} {unit}: {milliseconds(slo.observed(missed))}"
            yield Limit(name=str(slo), use=use, evidence=evidence)

    def _cache(self) -> Iterator[Limit]:
        level = self.level
        if level.source == "estimated":
            return
        if level.knows_cache:
            evidence = f"at most {level.kv_cache_peak:.0%} full, {level.preemptions:,} preemptions"
            yield Limit(name="KV-cache capacity", use=level.kv_cache_peak, evidence=evidence)
        seats = self.config.batching.max_sequences
        running = self.sequences
        yield Limit(
            name="Seats (max_sequences)",
            use=running / seats,
            evidence=f"{running:,.0f} of {seats:,} sequences decode on each scheduler on average (Little's law)",
        )

    @property
    def sequences(self) -> float:
        """Requests that decode on each scheduler: request rate x time from first to last token (Little's law)."""
        decoding = max(self.level.e2e.mean - self.level.ttft.mean, 0.0)
        return self.level.request_rate * decoding / self.config.layout.schedulers

    # Where the time goes, by the kernel times

    @cached_property
    def occupied(self) -> Occupied | None:
        """None where there are no kernel times of this deployment."""
        try:
            return self._occupied(self.finished.session.silicon)
        except InfeasibleError:
            return None

    @property
    def key(self) -> StepKey:
        return step_key(self.config, self.config.layout)

    def _occupied(self, silicon: Silicon) -> Occupied:
        workload, config = self.scenario.workload, self.config
        steady = SteadyState(silicon=silicon, config=config, workload=workload)
        draft = config.speculation.draft_length
        sequences = max(self.sequences, 1.0)
        queries = max(round(sequences * (draft + 1)), 1)
        context = round(workload.mean_input_tokens + workload.mean_output_tokens / 2)
        kinds = silicon.decode_kinds(self.key, queries, 16)
        kinds["attention"] = silicon.decode_kinds(self.key, max(round(sequences), 1), context)["attention"]
        step = sum(kinds.values())
        prompt, busy = self._prompts(steady, step)
        half = silicon.decode_kinds(self.key, max(queries // 2, 1), 16)
        return Occupied(
            busy_with_prompts=busy,
            prompt_s=prompt,
            kinds={kind: seconds / step for kind, seconds in kinds.items()},
            compute_bound=_growth(half, kinds),
            step_s=step,
            sequences=sequences,
            queries=queries,
        )

    def _prompts(self, steady: SteadyState, step: float) -> tuple[float, float]:
        """Seconds of a prompt, and the share of its time that a scheduler which takes prompts gives to them.

        Where prompts and decoding share a worker, a prompt takes what it adds to a step, and the share is of the time
        that both take.
        """
        rate, config = self.level.request_rate, self.config
        pool = config.disaggregation
        if pool is not None:
            alone = replace(config, layout=pool.prefill_layout, batching=pool.prefill_batching, disaggregation=None)
            seconds = replace(steady, config=alone).prompt_seconds()
            return seconds, min(rate * seconds / pool.prefill_layout.schedulers, 1.0)
        sequences = max(round(self.sequences), 1)
        steps = (self.scenario.workload.mean_output_tokens - 1) / steady.tokens_per_step
        prompt, decoding = steady.added_prompt_seconds(sequences), steps * step / sequences
        return prompt, prompt / (prompt + decoding)

    @property
    def _shares(self) -> dict[str, float]:
        """Shares of the busy time of the pool that the nearest SLO is about, by resource."""
        occupied = self.occupied
        if occupied is None:
            return {}
        prompts = occupied.busy_with_prompts
        decoding = 1 - prompts if self.config.disaggregation is None else 1.0
        shares = {} if self.config.disaggregation else {"prefill compute": prompts}
        products = occupied.kinds["experts"] + occupied.kinds["matrix products"]
        shares["decode bandwidth"] = decoding * (
            occupied.kinds["attention"] + products * (1 - occupied.compute_bound) + occupied.kinds["other"]
        )
        shares["decode compute"] = decoding * products * occupied.compute_bound
        shares["interconnect"] = decoding * occupied.kinds["communication"]
        return shares

    def _largest_resource(self) -> str:
        shares = self._shares
        if not shares or self.occupied is None:
            return ""
        own = self.occupied.prompt_s / self.level.ttft.mean
        if self.nearest.metric == "ttft" and (own >= MUCH or self.occupied.busy_with_prompts >= BUSY):
            return "prefill compute"
        return max(shares, key=lambda name: shares[name])

    def _resources(self) -> Iterator[Limit]:
        occupied, shares = self.occupied, self._shares
        if occupied is None:
            return
        where = "the prefill pool's time" if self.config.disaggregation else "a worker's time"
        alone = " by itself" if self.config.disaggregation else ", beside decoding"
        yield Limit(
            name="Prefill compute",
            use=occupied.busy_with_prompts,
            evidence=f"prompts take {occupied.busy_with_prompts:.0%} of {where}: "
            f"{self.level.request_rate:,.3g} requests/s x {milliseconds(occupied.prompt_s)} for a prompt{alone}",
        )
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in _largest(occupied.kinds) if share >= 0.01)  # noqa: PLR2004
        yield Limit(
            name="Decode bandwidth",
            use=shares["decode bandwidth"],
            evidence=f"reading weights and KV cache; a step of {occupied.sequences:,.0f} sequences "
            f"({occupied.queries:,} tokens) takes {milliseconds(occupied.step_s)}: {kinds}",
        )
        yield Limit(
            name="Decode compute",
            use=shares["decode compute"],
            evidence=f"the last doubling of the batch made its matrix products and experts take "
            f"{2**occupied.compute_bound:.2f} times as long (1: reading weights, 2: computing)",
        )
        yield Limit(name="Interconnect", use=shares["interconnect"], evidence=self._interconnect(occupied))

    def _interconnect(self, occupied: Occupied) -> str:
        text = f"{occupied.kinds['communication']:.0%} of a decode step is exchange between the GPUs of a worker"
        if not occupied.kinds["communication"] and self.config.layout.gpus_per_worker > 1:
            text = "the tables have the exchange between GPUs overlap with the experts: it counts there"
        if self.config.disaggregation is None:
            return text
        tokens = self.scenario.workload.mean_input_tokens - self.scenario.workload.shared_prefix_tokens
        seconds = transfer_seconds(self.scenario.model, self.scenario.system, self.config, tokens)
        return f"{text}; handing over a prompt's KV cache takes {seconds * 1000:.2g} ms of the TTFT"


def _largest(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])


def _growth(half: dict[str, float], whole: dict[str, float]) -> float:
    """log2 of how much longer experts and matrix products take with twice the tokens, between 0 and 1."""
    import math

    names = ("experts", "matrix products")
    before, after = (sum(kinds[name] for name in names) for kinds in (half, whole))
    return min(max(math.log2(after / before), 0.0), 1.0) if before > 0 else 0.0
