"""Simulated: a discrete-event run of the engine's scheduler over measured kernel times."""

import heapq
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

from runners.measurement import Measurement, Percentiles
from runners.runner import Measure
from runners.simulated.group import Group
from runners.simulated.requests import Acceptance, Requests
from runners.simulated.scheduler import Gaps, Policy, Scheduler, Sequence
from runners.simulated.silicon import Silicon
from runners.simulated.steady_state import step_key, transfer_seconds
from runners.simulated.step_time import StepTimes
from runners.simulated.window import Window
from runners.workload.workload import LoadedWorkload
from search_spaces.config import Batching, Layout, ServingConfig
from search_spaces.engines.engine import facts_of
from search_spaces.fit import kv_capacity


class Simulated:
    """Predicts what a deployment does under a load.

    Modelled: continuous batching with admission by free KV cache and free seats, chunked prefill within
    max_batched_tokens, the engine's policy (does a prompt ride along with decoding or stop it; is a request's whole
    length reserved or is the newest preempted and recomputed), closed loop, Poisson and trace arrivals, length
    distributions, a shared prefix that is always cached, disaggregation with separate pools and the KV cache's
    transfer at the system's link bandwidth, speculation with the measured acceptance by position and the draft's own
    time (one layer and the output head for each draft token).

    Also: steps for which arrivals are left waiting (`receive_interval`), the pass that a request misses because it is
    planned already, the host's time to issue a pass with prompts without CUDA graphs, and, where the workload has a
    `standing_start`, the burst with which a load generator begins.

    Tokenization holds a request up before the scheduler sees it, one prompt after another; a disaggregated request has
    its first token when a decode worker has a seat for it, which answers the client.

    Not modelled: the rest of the host's time (sampling, detokenization, HTTP, routing), contention of KV transfers,
    imbalance between attention-DP ranks and experts beyond the database's own assumption, prefix-cache eviction,
    CUDA-graph padding, and start-up. Replicas and ranks are alike and get requests in turn, so one of them stands for
    all; with disaggregation the smallest group with the same ratio does.

    How far off that is stands in runners/simulated/known_errors.py; `servetune validate` makes the whole table,
    docs/fidelity.md. runners/simulated/calibration.py corrects the step times by measurements.

    Deterministic: the workload's seed decides lengths, arrivals and acceptance.
    """

    def __init__(self, silicon: Silicon) -> None:
        self.silicon = silicon

    @contextmanager
    def serve(self, config: ServingConfig) -> Iterator[Measure]:
        """Raises InfeasibleError for a lack of memory or of kernel data."""
        silicon = self.silicon
        decode_times = silicon.step_times(step_key(config, config.layout))
        prefill_times = None
        if config.disaggregation is not None:
            prefill_times = silicon.step_times(step_key(config, config.disaggregation.prefill_layout))

        def measure(loaded: LoadedWorkload) -> Measurement:
            return _Simulation(self.silicon, config, decode_times, prefill_times, loaded).run()

        yield measure


class _Simulation:
    """One run of the smallest group of schedulers that stands for the deployment."""

    def __init__(
        self,
        silicon: Silicon,
        config: ServingConfig,
        decode_times: StepTimes,
        prefill_times: StepTimes | None,
        loaded: LoadedWorkload,
    ) -> None:
        self.model, self.system = silicon.model, silicon.system
        self.config = config
        self.loaded = loaded
        workload = loaded.workload
        self.rng = np.random.default_rng(workload.seed)
        drafts = self.model.drafts.get(config.speculation.method)
        measured = drafts.tokens_per_step[: config.speculation.draft_length] if drafts else ()
        self.acceptance = Acceptance.of(measured)
        group = Group.of(config, loaded.arrivals)
        role: Literal["both", "decode"] = "decode" if group.prefill else "both"
        decode_policy = self._policy(config.layout, config.batching, role)
        self.decodes = [Scheduler(decode_times, decode_policy) for _ in range(group.decode)]
        self.prefills: list[Scheduler] = []
        pool = config.disaggregation
        if pool is not None and prefill_times is not None:
            prefill_policy = self._policy(pool.prefill_layout, pool.prefill_batching, "prefill")
            self.prefills = [Scheduler(prefill_times, prefill_policy) for _ in range(group.prefill)]
        self.entries = self.prefills or self.decodes
        own_tokens = max(workload.mean_request_tokens - workload.shared_prefix_tokens, 1)
        held = max(1, int(decode_policy.kv_tokens / own_tokens))
        self.seats = group.decode * min(config.batching.max_sequences, held)
        self.group = group
        self.concurrency = group.concurrency
        self.requests = Requests.drawn(loaded, group, self.seats, self.acceptance, self.rng)
        self.to_count = self.requests.to_count
        self.warm_up: list[Sequence] = []
        self.counted: list[Sequence] = []
        self.events: list[tuple[float, int, Scheduler | None, Sequence | None]] = []
        self.order = itertools.count()
        self.finishing: Scheduler | None = None
        self.tokenizer_free = 0.0
        self.sent = 0
        self.in_flight = 0
        self.window = Window(self.concurrency, self.seats)

    def _policy(self, layout: Layout, batching: Batching, role: Literal["both", "prefill", "decode"]) -> Policy:
        config, workload = self.config, self.loaded.workload
        facts = facts_of(config.engine)
        tokens = workload.mean_request_tokens
        held = kv_capacity(self.model, self.system, config, layout, batching, tokens)
        speculates = role != "prefill"
        return Policy(
            max_sequences=batching.max_sequences,
            max_batched_tokens=batching.max_batched_tokens,
            kv_tokens=max(held - workload.shared_prefix_tokens, 1),
            role=role,
            admission=facts.admission,
            mixes_prefill=facts.mixes_prefill,
            receive_interval=batching.receive_interval,
            overlaps=facts.overlaps and role == "both",
            draft_length=config.speculation.draft_length if speculates else 0,
            drafted=self.model.drafted_tokens(config.speculation) if speculates else 0,
            tokens_per_step=self.acceptance.mean if speculates else 1.0,
        )

    # The requests

    def _next(self, now: float) -> Sequence | None:
        index = self.sent
        if index >= len(self.requests):
            return None
        self.sent += 1
        if self.sent == len(self.requests):
            self.window.exhausted(self.in_flight)
        self.in_flight += 1
        prompt = int(self.requests.prompts[index])
        return Sequence(
            arrival=now,
            prompt=prompt,
            output=int(self.requests.outputs[index]),
            steps=int(self.requests.steps[index]),
            cached=min(self.loaded.workload.shared_prefix_tokens, prompt - 1),
        )

    def _fill(self) -> None:
        """Start a closed loop as if it had always been running: its first generation is part-way through decoding."""
        part_way = min(self.concurrency, self.seats)
        shares = self.rng.permutation((np.arange(part_way) + 0.5) / part_way)
        for share in shares:
            sequence = self._next(0.0)
            assert sequence is not None
            if not sequence.steps:
                self._deliver(min(self.entries, key=lambda scheduler: scheduler.load), sequence, 0.0)
                continue
            done = int(sequence.output * share)
            sequence.prompt += done
            sequence.prefilled = sequence.prompt
            sequence.output -= done
            sequence.steps = math.ceil(sequence.steps * (1 - share))
            self._deliver(min(self.decodes, key=lambda scheduler: scheduler.load), sequence, 0.0)
        for _ in range(self.concurrency - part_way):
            self._send(0.0)

    def _send_at_once(self) -> None:
        """The first generation arrives together: the server sees all of it before its first pass."""
        self.window.open_at_once(self.concurrency)
        for _ in range(self.concurrency):
            sequence = self._next(0.0)
            if sequence is None:
                continue
            seen = self._tokenized(sequence, 0.0)
            if seen > 0.0:
                self._push(seen, None, sequence)
            else:
                min(self.entries, key=lambda scheduler: scheduler.load).submit(sequence, 0.0)
        for scheduler in self.entries:
            self._start(scheduler, 0.0)

    # The event loop

    def run(self) -> Measurement:
        if self.concurrency and self.loaded.workload.standing_start:
            self._send_at_once()
        elif self.concurrency:
            self._fill()
        else:
            self._schedule_arrival()
        while self.events and len(self.counted) < self.to_count:
            now, _, scheduler, sequence = heapq.heappop(self.events)
            if sequence is not None:
                pool = self.decodes if sequence.prefilled >= sequence.prompt else self.entries
                self._deliver(min(pool, key=lambda one: one.load), sequence, now)
            elif scheduler is None:
                self._send(now)
                self._schedule_arrival()
            elif scheduler.block is not None and scheduler.block.end <= now:
                self.finishing = scheduler
                for done in scheduler.finish():
                    self._done(scheduler, done, now)
                self.finishing = None
                self._start(scheduler, now)
        return self._measurement()

    def _schedule_arrival(self) -> None:
        if self.sent < len(self.requests):
            self._push(float(self.requests.times[self.sent]), None, None)

    def _push(self, time: float, scheduler: Scheduler | None, sequence: Sequence | None) -> None:
        heapq.heappush(self.events, (time, next(self.order), scheduler, sequence))

    def _send(self, now: float) -> None:
        sequence = self._next(now)
        if sequence is None:
            return
        seen = self._tokenized(sequence, now)
        if seen > now:
            self._push(seen, None, sequence)
        else:
            self._deliver(min(self.entries, key=lambda scheduler: scheduler.load), sequence, now)

    def _tokenized(self, sequence: Sequence, now: float) -> float:
        """When the scheduler sees a request: the front end tokenizes one prompt at a time for all ranks of a worker.

        vLLM (one thread: github.com/vllm-project/vllm/issues/25301), SGLang's tokenizer manager and TensorRT-LLM's
        server do so; the front ends before disaggregated workers (Dynamo) tokenize in parallel.
        """
        steps = self.entries[0].steps
        seconds = steps.tokenization * sequence.prompt
        if self.prefills:
            return now + seconds + steps.request_host
        begins = max(now, self.tokenizer_free)
        self.tokenizer_free = begins + seconds * self.config.layout.attention_dp
        return begins + seconds + steps.request_host

    def _deliver(self, scheduler: Scheduler, sequence: Sequence, now: float) -> None:
        block = scheduler.block
        end = block.end if block else math.inf
        scheduler.submit(sequence, now)
        if block is None:
            if scheduler is not self.finishing:
                self._start(scheduler, now)
        elif block.end < end:
            self._push(block.end, scheduler, None)

    def _start(self, scheduler: Scheduler, now: float) -> None:
        scheduler.start(now)
        if scheduler.block is not None:
            self._push(scheduler.block.end, scheduler, None)

    def _done(self, scheduler: Scheduler, sequence: Sequence, now: float) -> None:
        if scheduler.policy.role == "prefill":
            ready = now + transfer_seconds(self.model, self.system, self.config, sequence.prompt - sequence.cached)
            if sequence.steps:
                self._push(ready, None, sequence)
                return
            sequence.first_token = sequence.last_token = sequence.finished = ready
        self.in_flight -= 1
        if now > self.window.opened:
            self.counted.append(sequence)
        else:
            self._warm_up(sequence, now)
        if self.concurrency:
            self._send(now)

    def _warm_up(self, sequence: Sequence, now: float) -> None:
        """A completion that does not count; what the engines recorded is forgotten when the window opens with it."""
        self.warm_up.append(sequence)
        if self.window.opens(sequence, now, self.in_flight):
            # Numbers in flight fluctuate by their square root: count enough that this is no backlog.
            if not self.concurrency:
                self.to_count = max(self.to_count, 4 * self.in_flight)
            for scheduler in self.decodes:
                scheduler.gaps = Gaps()
                scheduler.preemptions = 0

    # The result

    def _measurement(self) -> Measurement:
        # A trace may be over before the warm-up is: then all of it counts.
        counted = self.counted or self.warm_up
        opened = self.window.opened if self.counted else 0.0
        end = max(sequence.finished for sequence in counted)
        gaps = [scheduler.gaps for scheduler in self.decodes]
        seconds = np.concatenate([gap.seconds for gap in gaps]) if any(g.seconds for g in gaps) else None
        counts = np.concatenate([gap.counts for gap in gaps])
        tpot = np.array([sequence.tpot for sequence in counted])
        tpot = tpot[~np.isnan(tpot)]
        scaled = self.group.scaled
        return Measurement(
            load=self.loaded.load,
            gpus=self.config.gpus,
            duration_s=end - opened,
            requests=scaled(len(counted)),
            input_tokens=scaled(sum(s.prompt - s.recomputed for s in counted)),
            output_tokens=scaled(sum(s.output for s in counted)),
            ttft=Percentiles.of([s.first_token - s.arrival for s in counted]),
            tpot=Percentiles.of(tpot if tpot.size else [0.0]),
            itl=Percentiles.of(seconds, counts) if seconds is not None else Percentiles.of([0.0]),
            e2e=Percentiles.of([s.finished - s.arrival for s in counted]),
            backlog_growth=scaled(self.window.growth(self.in_flight)),
            preemptions=scaled(sum(scheduler.preemptions for scheduler in self.decodes)),
            kv_cache_peak=max(s.kv_peak / s.policy.kv_tokens for s in self.decodes),
            source="simulated",
        )
