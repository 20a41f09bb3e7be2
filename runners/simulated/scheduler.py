"""Scheduler: one continuous batch over time, from one scheduling event to the next in closed form."""

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from runners.simulated.step_time import DecodeTimes, StepTimes


@dataclass(slots=True, eq=False)
class Sequence:
    """A request on its way through the engine. Times in seconds; `steps` decode steps follow the first token.

    `cached` tokens of the prompt are found in the prefix cache: they take no room of their own and no prefill, but
    attention reads them. A preempted sequence is prefilled again with what it had generated, `recomputed` tokens that
    are then part of its prompt.
    """

    arrival: float
    prompt: int
    output: int
    steps: int
    cached: int = 0
    recomputed: int = 0
    prefilled: int = 0
    first_token: float = math.nan
    finished: float = math.nan
    finish_step: int = 0
    admitted: int = 0
    reserved: float = 0.0
    last_token: float = math.nan

    @property
    def tpot(self) -> float:
        """Seconds for each token after the first; NaN for a single token."""
        return (self.finished - self.first_token) / (self.output - 1) if self.output > 1 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one scheduler may do at a time.

    `kv_tokens` is the KV-cache capacity. `drafted` of the `draft_length` draft tokens are computed on the GPU (none by
    n-gram). `role` prefill hands each sequence on after its prompt; decode receives
    sequences whose prompt is in its cache already. `tokens_per_step` is the mean progress of a sequence in one step.
    With a `receive_interval` arrivals are looked at every so many decode steps, after each pass with prompts, and while
    idle. Where it `overlaps`, the host plans a pass while the one before runs: an arrival misses the next pass.
    """

    max_sequences: int
    max_batched_tokens: int
    kv_tokens: int
    role: Literal["both", "prefill", "decode"] = "both"
    admission: Literal["reserve", "preempt"] = "reserve"
    mixes_prefill: bool = True
    draft_length: int = 0
    drafted: int = 0
    tokens_per_step: float = 1.0
    receive_interval: int = 1
    overlaps: bool = False


@dataclass(slots=True)
class Block:
    """What runs from `start` to `end`: one pass with prompt chunks, or `steps` decode-only steps.

    n decode steps take n x step_s + growth_s x n (n - 1) / 2.
    """

    start: float
    end: float
    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    steps: int = 0
    step_s: float = 0.0
    growth_s: float = 0.0

    def seconds(self, steps: int) -> float:
        return steps * (self.step_s + self.growth_s * (steps - 1) / 2)


@dataclass(slots=True)
class Gaps:
    """Inter-token gaps: seconds, and how many were that long."""

    seconds: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, seconds: float, count: int) -> None:
        if count > 0:
            self.seconds.append(seconds)
            self.counts.append(count)


class Scheduler:
    """A batch that admits, prefills in chunks, decodes, and preempts when its KV cache is full.

    The owner drives it: `submit` sequences, `start` a block, and at the block's end call `finish`, which returns the
    sequences that are done here. Between two events nothing is computed for single tokens.
    """

    def __init__(self, steps: StepTimes, policy: Policy) -> None:
        self.steps = steps
        self.policy = policy
        self.arrived: deque[tuple[int, Sequence]] = deque()
        self.waiting: deque[Sequence] = deque()
        self.prefilling: deque[Sequence] = deque()
        self.running: list[tuple[int, int, Sequence]] = []
        self.block: Block | None = None
        self.gaps = Gaps()
        self.preemptions = 0
        self.kv_used = 0.0
        self.kv_peak = 0.0
        self._step = 0
        self._context = 0.0
        self._admissions = 0
        self._unlooked = 0
        self._starts = 0
        self._last_step = 0.0
        self._last_tokens: dict[float, int] = {}

    @property
    def load(self) -> int:
        """Sequences here, in any state."""
        return len(self.arrived) + len(self.waiting) + len(self.prefilling) + len(self.running)

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence; a decode-only block that is under way ends at the next look if it can be admitted."""
        block = self.block
        busy = bool(self.running or self.prefilling)
        misses = self.policy.overlaps and busy and not (block and not block.chunks)
        self.arrived.append((self._starts + (2 if misses else 1), sequence))
        first = not self.waiting and len(self.arrived) == 1
        if block and block.steps > 1 and first and self._has_room(sequence):
            self._cut(block, now)

    def start(self, now: float) -> None:
        """Begin the next block, if there is anything to do."""
        self._starts += 1
        self._receive()
        self._admit(now)
        self._make_room()
        if self.prefilling:
            self.block = self._prefill_block(now)
        elif self.running:
            self.block = self._decode_block(now)
        else:
            self.block = None

    def finish(self) -> list[Sequence]:
        """End the block at its `end`; the sequences that completed (or, in role prefill, whose prompt did)."""
        block = self.block
        assert block is not None
        self.block = None
        self._unlooked = 0 if block.chunks else (self._unlooked + block.steps) % self.policy.receive_interval
        if not block.chunks:
            self._advance(block, block.steps)
            return self._completed(block.end)
        if self.running and self.policy.mixes_prefill:
            self._advance(block, 1)
        done = self._finish_prompts(block)
        return done + self._completed(block.end)

    # Admission

    def _receive(self) -> None:
        if self._unlooked and self.running:
            return
        while self.arrived and (self.arrived[0][0] <= self._starts or not self.running):
            self.waiting.append(self.arrived.popleft()[1])

    def _has_room(self, sequence: Sequence) -> bool:
        here = len(self.running) + len(self.prefilling)
        if not here:
            return True
        tokens = self.kv_used + self._needed(sequence) + self._growth(here + 1)
        return here < self.policy.max_sequences and tokens <= self.policy.kv_tokens

    def _growth(self, sequences: int) -> float:
        """KV tokens that one step of so many sequences takes beyond what they reserved."""
        if self.policy.role == "prefill" or self.policy.admission == "reserve":
            return 0.0
        return sequences * self.policy.tokens_per_step

    def _needed(self, sequence: Sequence) -> int:
        tokens = sequence.prompt - sequence.cached
        if self.policy.role == "prefill" or self.policy.admission == "preempt":
            return tokens
        return tokens + sequence.output

    def _admit(self, now: float) -> None:
        while self.waiting and self._has_room(self.waiting[0]):
            sequence = self.waiting.popleft()
            sequence.reserved = self._needed(sequence)
            self._hold(sequence.reserved)
            self._admissions += 1
            sequence.admitted = self._admissions
            if sequence.prefilled >= sequence.prompt:
                self._run(sequence, now)
            else:
                sequence.prefilled = max(sequence.prefilled, sequence.cached)
                self.prefilling.append(sequence)

    def _hold(self, tokens: float) -> None:
        self.kv_used += tokens
        self.kv_peak = max(self.kv_peak, self.kv_used)

    def _run(self, sequence: Sequence, now: float) -> None:
        if math.isnan(sequence.first_token):
            sequence.first_token = sequence.last_token = now
        self._last_tokens[sequence.last_token] = self._last_tokens.get(sequence.last_token, 0) + 1
        sequence.finish_step = self._step + sequence.steps
        self._context += sequence.prompt
        heapq.heappush(self.running, (sequence.finish_step, sequence.admitted, sequence))

    # Blocks

    def _prefill_block(self, now: float) -> Block:
        sequences = len(self.running) if self.policy.mixes_prefill else 0
        queries = sequences * (self.policy.draft_length + 1)
        budget = max(self.policy.max_batched_tokens - queries, 1)
        chunks: list[tuple[Sequence, int]] = []
        for sequence in self.prefilling:
            tokens = min(sequence.prompt - sequence.prefilled, budget)
            chunks.append((sequence, tokens))
            budget -= tokens
            if budget <= 0:
                break
        shapes = [(sequence.prefilled, tokens, sequence.prompt) for sequence, tokens in chunks]
        seconds = self.steps.prefill(shapes, decoding_tokens=queries)
        if sequences:
            times = self._decode_times(sequences)
            seconds += times.attention(self._context / sequences) + times.drafting
        return Block(start=now, end=now + seconds, chunks=chunks)

    def _decode_block(self, now: float) -> Block:
        sequences = len(self.running)
        steps = self.running[0][0] - self._step
        if self.policy.admission == "preempt":
            steps = min(steps, max(1, int((self.policy.kv_tokens - self.kv_used) / self._growth(sequences))))
        if self.arrived:
            steps = min(steps, self._until_look(1))
        context = self._context / sequences
        progress = self.policy.tokens_per_step
        middle = context + progress * (steps - 1) / 2
        value, slope = self._decode_times(sequences).line(middle)
        block = Block(
            start=now,
            end=now,
            steps=steps,
            step_s=value - slope * (middle - context),
            growth_s=slope * progress,
        )
        block.end = now + block.seconds(steps)
        return block

    def _decode_times(self, sequences: int) -> DecodeTimes:
        return self.steps.decode(sequences, self.policy.draft_length, drafted=self.policy.drafted)

    def _cut(self, block: Block, now: float) -> None:
        """End a decode-only block at the first look at arrivals that is not before `now`."""
        elapsed = now - block.start
        half = block.growth_s / 2
        linear = block.step_s - half
        steps = math.ceil(2 * elapsed / (linear + math.sqrt(linear * linear + 4 * half * elapsed)) - 1e-9)
        planned = 1 if self.policy.overlaps else 0
        block.steps = min(self._until_look(max(steps, 1) + planned), block.steps)
        block.end = block.start + block.seconds(block.steps)

    def _until_look(self, steps: int) -> int:
        """Steps of this block, at least `steps`, after which arrivals are looked at."""
        interval = self.policy.receive_interval
        return steps + -(self._unlooked + steps) % interval

    # Progress

    def _advance(self, block: Block, steps: int) -> None:
        sequences = len(self.running)
        self._step += steps
        tokens = sequences * steps * self.policy.tokens_per_step
        self._context += tokens
        if self.policy.admission == "preempt":
            self._hold(tokens)
        self._record_gaps(block, steps)

    def _record_gaps(self, block: Block, steps: int) -> None:
        """The first gap counts from the last token: whatever a sequence waited for in between is part of it."""
        mean = (block.end - block.start) / steps
        for last_token, sequences in self._last_tokens.items():
            self.gaps.add(block.start - last_token + mean, sequences)
        self.gaps.add(mean, len(self.running) * (steps - 1))
        self._last_step = block.end
        self._last_tokens = {block.end: len(self.running)}

    def _finish_prompts(self, block: Block) -> list[Sequence]:
        done: list[Sequence] = []
        for sequence, tokens in block.chunks:
            sequence.prefilled += tokens
            if sequence.prefilled < sequence.prompt:
                continue
            self.prefilling.remove(sequence)
            if self.policy.role == "prefill":
                self.kv_used -= sequence.reserved
                done.append(sequence)
            else:
                self._run(sequence, block.end)
        return done

    def _completed(self, now: float) -> list[Sequence]:
        done: list[Sequence] = []
        while self.running and self.running[0][0] <= self._step:
            sequence = heapq.heappop(self.running)[2]
            sequence.finished = now
            self._last_tokens[now] -= 1
            self._release(sequence, generated=sequence.steps * self.policy.tokens_per_step)
            done.append(sequence)
        if not self.running:
            self._context = 0.0
        return done

    def _release(self, sequence: Sequence, generated: float) -> None:
        self._context -= sequence.prompt + generated
        self.kv_used -= sequence.reserved
        if self.policy.admission == "preempt":
            self.kv_used -= generated

    def _make_room(self) -> None:
        """Preempt the newest sequences until one more step fits, or one sequence is left alone."""
        while len(self.running) + len(self.prefilling) > 1:
            if self.kv_used + self._growth(len(self.running)) <= self.policy.kv_tokens:
                return
            running = max(self.running, key=lambda entry: entry[1], default=None)
            if self.prefilling and (running is None or self.prefilling[-1].admitted > running[1]):
                sequence = self.prefilling.pop()
                self.kv_used -= sequence.reserved
            else:
                assert running is not None
                self._preempt(running)
                sequence = running[2]
            sequence.prefilled = 0
            self.waiting.appendleft(sequence)
            self.preemptions += 1

    def _preempt(self, entry: tuple[int, int, Sequence]) -> None:
        """Stop a running sequence; what it has generated becomes part of its prompt."""
        self.running.remove(entry)
        heapq.heapify(self.running)
        sequence = entry[2]
        left = sequence.finish_step - self._step
        generated = (sequence.steps - left) * self.policy.tokens_per_step
        self._release(sequence, generated)
        if left < sequence.steps:
            sequence.last_token = self._last_step
        self._last_tokens[sequence.last_token] -= 1
        sequence.prompt += math.ceil(generated)
        sequence.recomputed += math.ceil(generated)
        sequence.steps = left
