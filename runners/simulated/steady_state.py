"""SteadyState: a deployment's mean behaviour in closed form, good for ranking before anything is simulated."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from runners.simulated.silicon import SEQUENCES, Silicon, StepKey
from runners.simulated.step_time import StepTimes
from runners.workload.workload import Workload
from search_spaces.config import Layout, ServingConfig
from search_spaces.fit import kv_capacity
from search_spaces.hardware.system import System
from search_spaces.models.model import Model

PREFILL_UTILIZATION = 0.85
"""Share of its time that a prefill pool may be busy before its queue dominates TTFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyPoint:
    """Means at `sequences` requests on each scheduler: requests/s of the deployment, seconds."""

    sequences: int
    concurrency: float
    request_rate: float
    ttft: float
    tpot: float
    e2e: float

    def load(self, workload: Workload) -> float:
        """In the workload's own unit: requests in flight, requests/s, or pace of its trace."""
        if workload.shape == "closed_loop":
            return self.concurrency
        return self.request_rate / (workload.trace.rate if workload.trace else 1.0)


@dataclass(frozen=True, kw_only=True)
class SteadyState:
    """The mean-field balance of one configuration under one workload.

    A request's decode steps each take the batch's step time; every one of the n requests on a scheduler also waits
    for the prompts of the others: W = steps x d(n) + n x p, request rate n / W (Little's law). TTFT is the
    iteration that carries the prompt, half a step of waiting for it, and the M/D/1 wait behind other prompts, after the
    prompt has been tokenized.
    """

    silicon: Silicon
    config: ServingConfig
    workload: Workload

    @cached_property
    def input_tokens(self) -> int:
        return max(1, round(self.workload.mean_input_tokens) - self.workload.shared_prefix_tokens)

    @cached_property
    def output_tokens(self) -> float:
        return self.workload.mean_output_tokens

    @cached_property
    def tokens_per_step(self) -> float:
        return self.silicon.model.tokens_per_step(self.config.speculation)

    @cached_property
    def decode_steps(self) -> StepTimes:
        return self.silicon.step_times(step_key(self.config, self.config.layout))

    @cached_property
    def most_sequences(self) -> int:
        """By seats and by KV cache."""
        tokens = self.workload.mean_request_tokens
        silicon, config = self.silicon, self.config
        held = kv_capacity(silicon.model, silicon.system, config, config.layout, config.batching, tokens)
        return max(1, min(config.batching.max_sequences, int(held / tokens)))

    def levels(self) -> Iterator[SteadyPoint]:
        """Points of growing load, to the most that can run at once."""
        for sequences in (*(n for n in SEQUENCES if n < self.most_sequences), self.most_sequences):
            yield self.at(sequences)

    def at(self, sequences: int) -> SteadyPoint:
        """The balance with so many requests on each scheduler of the layout that decodes."""
        if self.config.disaggregation is not None:
            return self._disaggregated(sequences)
        step = self._step_seconds(sequences)
        prompt = self.added_prompt_seconds(sequences)
        steps = (self.output_tokens - 1) / self.tokens_per_step
        residence = max(steps * step + sequences * prompt, 1e-9)  # of a single token nothing is decoded
        carrying = step + prompt
        busy = min(sequences * prompt / residence, 0.99)
        host = self._host_seconds(self.decode_steps)
        ttft = host + carrying + step / 2 + carrying * queueing(busy)
        return self._point(sequences, host + residence + step / 2, ttft)

    def _disaggregated(self, sequences: int) -> SteadyPoint:
        pool = self.config.disaggregation
        assert pool is not None
        decoding = (self.output_tokens - 1) / self.tokens_per_step * self._step_seconds(sequences)
        residence = max(decoding, 1e-9)  # nothing is decoded after a single token
        wanted = sequences * self.config.layout.schedulers / residence
        steps = self.silicon.step_times(step_key(self.config, pool.prefill_layout))
        prompt = self._prompt_seconds(steps, 0)
        offered = pool.prefill_layout.schedulers * PREFILL_UTILIZATION / prompt
        if wanted > offered:
            residence *= wanted / offered
        busy = min(wanted, offered) / offered * PREFILL_UTILIZATION
        transfer = transfer_seconds(self.silicon.model, self.silicon.system, self.config, self.input_tokens)
        ttft = self._host_seconds(steps) + prompt * (1 + queueing(busy)) + transfer
        return self._point(sequences, residence + ttft, ttft)

    def _point(self, sequences: int, e2e: float, ttft: float) -> SteadyPoint:
        concurrency = sequences * self.config.layout.schedulers
        return SteadyPoint(
            sequences=sequences,
            concurrency=concurrency,
            request_rate=concurrency / e2e,
            ttft=ttft,
            tpot=max(e2e - ttft, 0.0) / max(self.output_tokens - 1, 1),
            e2e=e2e,
        )

    def _host_seconds(self, steps: StepTimes) -> float:
        """Before the scheduler sees a request."""
        return steps.request_host + steps.tokenization * self.input_tokens

    def _step_seconds(self, sequences: int) -> float:
        context = self.input_tokens + self.workload.shared_prefix_tokens + self.output_tokens / 2
        speculation = self.config.speculation
        drafted = self.silicon.model.drafted_tokens(speculation)
        return self.decode_steps.decode(sequences, speculation.draft_length, drafted=drafted).line(context)[0]

    def added_prompt_seconds(self, sequences: int) -> float:
        """Seconds that a prompt adds to a step that decodes so many sequences anyway."""
        queries = sequences * (self.config.speculation.draft_length + 1)
        pass_s = self._prompt_seconds(self.decode_steps, queries)
        return max(pass_s - self.decode_steps.decode_shared(queries), 0.0)

    def prompt_seconds(self) -> float:
        """Seconds of one worker of the config's own layout for one prompt, alone."""
        return self._prompt_seconds(self.decode_steps, 0)

    def _prompt_seconds(self, steps: StepTimes, decoding_tokens: int) -> float:
        """Seconds of the passes that a prompt takes, decoding tokens riding along in the last one."""
        pool = self.config.disaggregation
        batching = pool.prefill_batching if pool else self.config.batching
        room = max(batching.max_batched_tokens - decoding_tokens, 1)
        whole, rest = divmod(self.input_tokens, room)
        length = self.input_tokens
        seconds = whole * steps.prefill([(0, room, length)]) if whole else 0.0
        if rest or not whole:
            seconds += steps.prefill([(length - rest, rest, length)], decoding_tokens=decoding_tokens)
        return seconds


def queueing(busy: float) -> float:
    """Mean wait in units of the service time when a server is `busy` so much of its time (M/D/1)."""
    return busy / (2 * (1 - busy))


def transfer_seconds(model: Model, system: System, config: ServingConfig, tokens: float) -> float:
    """Seconds to hand the KV cache of a prompt to a decode worker, uncontended.

    Each tensor rank sends or receives its own share, so the side with fewer ranks has the busier links.
    """
    pool = config.disaggregation
    assert pool is not None
    tensor = min(pool.prefill_layout.tensor, config.layout.tensor)
    size = model.kv_bytes(tokens, kv_cache=config.precision.kv_cache, tensor=tensor)
    return system.network_latency_s + size / system.kv_link_bandwidth


def step_key(config: ServingConfig, layout: Layout) -> StepKey:
    """What the step times of one worker of `layout` depend on."""
    return StepKey(
        engine=config.engine,
        layout=replace(layout, replicas=1),
        weights=config.precision.weights,
        kv_cache=config.precision.kv_cache,
    )
