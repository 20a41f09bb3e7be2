"""The scheduler that skips events, against one that takes a step at a time."""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runners.simulated.scheduler import Policy, Scheduler, Sequence
from runners.simulated.step_time import Curve, StepTimes, Surface

# The law of the fake engine's step times, in seconds: everything is linear, so that a closed form can be exact.
PREFILL_BASE, PREFILL_TOKEN, PREFILL_ATTENTION = 0.0113, 0.000217, 0.0000071
DECODE_BASE, DECODE_QUERY = 0.00719, 0.000331
QUERY_ATTENTION, CONTEXT_ATTENTION = 0.0000531, 0.00000917
DRAFT_BASE, DRAFT_SEQUENCE = 0.000613, 0.0000171
INTENSITY = 0.31
SHORTEST = 16


def line(x0: float, x1: float, law) -> Curve:
    return Curve((x0, x1), (law(x0), law(x1)))


def linear_step_times() -> StepTimes:
    return StepTimes(
        prefill_shared=line(0, 1024, lambda tokens: PREFILL_BASE + PREFILL_TOKEN * tokens),
        decode_shared=line(0, 1024, lambda queries: DECODE_BASE + DECODE_QUERY * queries),
        prefill_attention=Surface(
            (1, 9), tuple(line(0, 1024, lambda length, n=n: n * PREFILL_ATTENTION * length) for n in (1, 9))
        ),
        decode_attention=Surface((1, 9), tuple(line(SHORTEST, 1024, attention_of(n)) for n in (1, 9))),
        draft=line(0, 1024, lambda sequences: DRAFT_BASE + DRAFT_SEQUENCE * sequences),
        verify_intensity=INTENSITY,
    )


def attention_of(sequences: int):
    return lambda context: sequences * (QUERY_ATTENTION + CONTEXT_ATTENTION * (context - SHORTEST))


def curved_step_times() -> StepTimes:
    """Attention over the cache in pieces of different slope, as measured ones are."""
    contexts = (16, 64, 128, 256, 512)
    rows = [Curve(contexts, tuple(n * 1e-6 * (5 + c**1.3) for c in contexts)) for n in (1, 9)]
    plain = linear_step_times()
    return StepTimes(
        prefill_shared=plain.prefill_shared,
        decode_shared=plain.decode_shared,
        prefill_attention=plain.prefill_attention,
        decode_attention=Surface((1, 9), tuple(rows)),
        draft=plain.draft,
        verify_intensity=INTENSITY,
    )


@dataclass(frozen=True)
class Job:
    arrival: float
    prompt: int
    output: int
    steps: int
    cached: int = 0


@dataclass
class Outcome:
    """First token and completion of each job by its number, and what the engine went through."""

    first: dict[int, float] = field(default_factory=dict)
    finished: dict[int, float] = field(default_factory=dict)
    admitted: list[int] = field(default_factory=list)
    preemptions: int = 0
    kv_peak: float = 0.0
    kv_left: float = 0.0
    gap_seconds: float = 0.0
    gaps: int = 0


# The oracle: one engine iteration at a time, every sum written out.


@dataclass(eq=False)
class Request:
    number: int
    job: Job
    prompt: int
    prefilled: int = 0
    reserved: float = 0.0
    done: int = 0
    done_before: int = 0
    order: int = 0

    @property
    def generated(self) -> int:
        """Steps since it was last admitted."""
        return self.done - self.done_before


class Plain:
    def __init__(self, jobs: list[Job], policy: Policy, concurrency: int, context_law=None) -> None:
        self.policy = policy
        self.concurrency = concurrency
        self.context_law = context_law
        self.to_come = deque(enumerate(jobs))
        self.waiting: list[Request] = []
        self.prefilling: list[Request] = []
        self.running: list[Request] = []
        self.now = 0.0
        self.orders = 0
        self.outcome = Outcome()

    def serve(self) -> Outcome:
        for _ in range(self.concurrency):
            self.send()
        while True:
            while not self.concurrency and self.to_come and self.to_come[0][1].arrival <= self.now + 1e-12:
                self.send()
            if not (self.waiting or self.prefilling or self.running):
                if not self.to_come:
                    self.outcome.kv_left = self.used()
                    return self.outcome
                self.now = self.to_come[0][1].arrival
                continue
            self.iterate()

    def send(self) -> None:
        if self.to_come:
            number, job = self.to_come.popleft()
            self.waiting.append(Request(number, job, job.prompt))

    def used(self) -> float:
        used = sum(request.reserved for request in self.prefilling + self.running)
        if self.policy.admission == "preempt":
            used += sum(request.generated * self.policy.tokens_per_step for request in self.running)
        return used

    def one_step(self, sequences: int) -> float:
        grows = self.policy.admission == "preempt" and self.policy.role != "prefill"
        return sequences * self.policy.tokens_per_step if grows else 0.0

    def needed(self, request: Request) -> float:
        reserves = self.policy.admission == "reserve" and self.policy.role != "prefill"
        return request.prompt - request.job.cached + (request.job.output if reserves else 0)

    def fits(self, request: Request) -> bool:
        here = len(self.prefilling) + len(self.running)
        if here == 0:
            return True
        if here == self.policy.max_sequences:
            return False
        return self.used() + self.needed(request) + self.one_step(here + 1) <= self.policy.kv_tokens

    def admit(self) -> None:
        while self.waiting and self.fits(self.waiting[0]):
            request = self.waiting.pop(0)
            request.reserved = self.needed(request)
            self.orders += 1
            request.order = self.orders
            self.outcome.admitted.append(request.number)
            if self.policy.role == "decode" and request.done == 0:
                self.outcome.first[request.number] = self.now
                self.running.append(request)
            else:
                request.prefilled = request.job.cached
                self.prefilling.append(request)
        self.outcome.kv_peak = max(self.outcome.kv_peak, self.used())

    def evict(self) -> None:
        while len(self.prefilling) + len(self.running) > 1:
            if self.used() + self.one_step(len(self.running)) <= self.policy.kv_tokens:
                return
            newest = max(self.prefilling + self.running, key=lambda request: request.order)
            (self.prefilling if newest in self.prefilling else self.running).remove(newest)
            newest.prompt += math.ceil(newest.generated * self.policy.tokens_per_step)
            newest.done_before = newest.done
            self.waiting.insert(0, newest)
            self.outcome.preemptions += 1

    def iterate(self) -> None:
        self.admit()
        self.evict()
        decoding = list(self.running)
        chunks: list[tuple[Request, int]] = []
        if self.prefilling:
            if not self.policy.mixes_prefill:
                decoding = []
            room = max(self.policy.max_batched_tokens - len(decoding) * (self.policy.draft_length + 1), 1)
            for request in self.prefilling:
                tokens = min(room, request.prompt - request.prefilled)
                if tokens:
                    chunks.append((request, tokens))
                    room -= tokens
        self.now += self.pass_seconds(chunks, decoding)
        for request in decoding:
            request.done += 1
        for request, tokens in chunks:
            request.prefilled += tokens
            if request.prefilled == request.prompt:
                self.prefilling.remove(request)
                self.outcome.first.setdefault(request.number, self.now)
                if self.policy.role == "prefill":
                    self.complete(request)
                else:
                    self.running.append(request)
        self.outcome.kv_peak = max(self.outcome.kv_peak, self.used())
        for request in [request for request in self.running if request.done >= request.job.steps]:
            self.running.remove(request)
            self.complete(request)

    def complete(self, request: Request) -> None:
        self.outcome.finished[request.number] = self.now
        if self.concurrency:
            self.send()

    def pass_seconds(self, chunks: list[tuple[Request, int]], decoding: list[Request]) -> float:
        count = len(decoding)
        queries = count * (self.policy.draft_length + 1)
        seconds = self.attention_seconds(decoding) if count else 0.0
        if count:
            seconds += self.policy.drafted * (DRAFT_BASE + DRAFT_SEQUENCE * count)
        if not chunks:
            return seconds + DECODE_BASE + DECODE_QUERY * queries
        tokens = sum(tokens for _, tokens in chunks) + queries
        seconds += PREFILL_BASE + PREFILL_TOKEN * tokens
        for request, now in chunks:
            before, after = request.prefilled, request.prefilled + now
            seconds += PREFILL_ATTENTION * request.prompt * (after**2 - before**2) / request.prompt**2
        return seconds

    def attention_seconds(self, decoding: list[Request]) -> float:
        count = len(decoding)
        contexts = sum(request.prompt + request.generated * self.policy.tokens_per_step for request in decoding)
        if self.context_law is not None:
            return self.context_law(count, contexts / count)
        width = self.policy.draft_length + 1
        growth = max(1.0, width * INTENSITY) if width > 1 else 1.0
        return count * width * QUERY_ATTENTION + growth * CONTEXT_ATTENTION * (contexts - count * SHORTEST)


# The scheduler under test, driven alone.


class Recorded(Scheduler):
    """Notes the order of admission."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.order: list[Sequence] = []

    def _admit(self, now: float) -> None:
        before = set(map(id, [*self.prefilling, *(entry[2] for entry in self.running)]))
        super()._admit(now)
        there = [*self.prefilling, *(entry[2] for entry in self.running)]
        self.order += sorted((s for s in there if id(s) not in before), key=lambda s: s.admitted)


class Driver:
    """Submits, starts and finishes, as the owner of a scheduler does."""

    def __init__(self, jobs: list[Job], policy: Policy, concurrency: int, times: StepTimes) -> None:
        self.scheduler = Recorded(times, policy)
        self.concurrency = concurrency
        self.sequences = [
            Sequence(arrival=job.arrival, prompt=job.prompt, output=job.output, steps=job.steps, cached=job.cached)
            for job in jobs
        ]
        if policy.role == "decode":
            for sequence in self.sequences:
                sequence.prefilled = sequence.prompt
        self.to_come = deque(self.sequences)
        self.outcome = Outcome()

    def serve(self) -> Outcome:
        for _ in range(self.concurrency):
            self.send(0.0)
        self.scheduler.start(0.0)
        while self.scheduler.block or (self.to_come and not self.concurrency):
            if self.next_arrival() <= self.block_end():
                self.arrive(self.next_arrival())
            else:
                self.finish(self.block_end())
        return self.result()

    def send(self, now: float) -> None:
        if self.to_come:
            self.scheduler.submit(self.to_come.popleft(), now)

    def next_arrival(self) -> float:
        return self.to_come[0].arrival if self.to_come and not self.concurrency else math.inf

    def block_end(self) -> float:
        return self.scheduler.block.end if self.scheduler.block else math.inf

    def arrive(self, now: float) -> None:
        idle = self.scheduler.block is None
        while self.next_arrival() <= now:
            self.send(now)
        if idle:
            self.scheduler.start(now)

    def finish(self, now: float) -> None:
        for sequence in self.scheduler.finish():
            number = self.sequences.index(sequence)
            self.outcome.finished[number] = now
            if self.scheduler.policy.role == "prefill":
                self.outcome.first[number] = now
            if self.concurrency:
                self.send(now)
        self.scheduler.start(now)
        assert self.scheduler.kv_used >= -1e-6

    def result(self) -> Outcome:
        scheduler, outcome = self.scheduler, self.outcome
        assert scheduler.load == 0
        for number, sequence in enumerate(self.sequences):
            if not math.isnan(sequence.first_token):
                outcome.first[number] = sequence.first_token
        outcome.admitted = [self.sequences.index(sequence) for sequence in scheduler.order]
        outcome.preemptions, outcome.kv_peak = scheduler.preemptions, scheduler.kv_peak
        outcome.kv_left = scheduler.kv_used
        outcome.gaps = sum(scheduler.gaps.counts)
        outcome.gap_seconds = sum(s * n for s, n in zip(scheduler.gaps.seconds, scheduler.gaps.counts, strict=True))
        return outcome


def skip_events(jobs: list[Job], policy: Policy, concurrency: int, times: StepTimes) -> Outcome:
    return Driver(jobs, policy, concurrency, times).serve()


# What is drawn


@st.composite
def policies(draw, roles=("both", "both", "decode", "prefill")) -> Policy:
    draft_length = draw(st.sampled_from([0, 0, 1, 3]))
    max_sequences = draw(st.integers(1, 6))
    return Policy(
        max_sequences=max_sequences,
        max_batched_tokens=draw(st.integers(1, 60)) + max_sequences * (draft_length + 1),
        kv_tokens=draw(st.sampled_from([40, 70, 120, 1000])),
        role=draw(st.sampled_from(roles)),
        admission=draw(st.sampled_from(["reserve", "preempt"])),
        mixes_prefill=draw(st.booleans()),
        draft_length=draft_length,
        drafted=draw(st.sampled_from([0, draft_length])),
        # Exact in binary: both sides must agree on which token is the first that does not fit.
        tokens_per_step=draw(st.sampled_from([1.25, 1.5, 2.0])) if draft_length else 1.0,
    )


@st.composite
def jobs(draw) -> list[Job]:
    shapes = draw(
        st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.integers(0, 400)), max_size=12, min_size=1)
    )
    clock, result = 0.0, []
    for prompt, output, pause in shapes:
        clock += pause * 0.0013717
        steps = math.ceil((output - 1) / draw(st.sampled_from([1, 1, 2])))
        cached = draw(st.sampled_from([0, 0, min(8, prompt - 1)]))
        result.append(Job(clock, prompt, output, steps, cached))
    return result


def agree(plain: Outcome, skipping: Outcome, tolerance: float = 1e-6) -> None:
    assert skipping.first == pytest.approx(plain.first, rel=tolerance, abs=1e-12)
    assert skipping.finished == pytest.approx(plain.finished, rel=tolerance, abs=1e-12)


def with_steps(work: list[Job], policy: Policy) -> list[Job]:
    """The decode role is never given a request that is complete with its first token."""
    if policy.role != "decode":
        return work
    return [Job(job.arrival, job.prompt, max(job.output, 2), max(job.steps, 1), job.cached) for job in work]


LONG = [Job(0.0, 55, 30, 29), Job(0.0, 5, 30, 29), Job(0.1, 20, 25, 24), Job(0.15, 50, 3, 2), Job(0.2, 9, 1, 0)]
TIGHT = Policy(max_sequences=4, max_batched_tokens=16, kv_tokens=70, admission="preempt")


@settings(max_examples=400, deadline=None)
@given(work=jobs(), policy=policies())
@example(work=LONG, policy=TIGHT)
@example(work=LONG, policy=Policy(max_sequences=4, max_batched_tokens=16, kv_tokens=70, mixes_prefill=False))
def test_given_arrivals_are_served_as_token_by_token(work, policy):
    work = with_steps(work, policy)
    plain = Plain(work, policy, 0).serve()
    skipping = skip_events(work, policy, 0, linear_step_times())
    agree(plain, skipping)
    assert skipping.admitted == plain.admitted
    assert skipping.preemptions == plain.preemptions
    assert skipping.kv_peak == pytest.approx(plain.kv_peak)


@settings(max_examples=250, deadline=None)
@given(work=jobs(), policy=policies(), concurrency=st.integers(1, 8))
@example(work=LONG * 3, policy=TIGHT, concurrency=5)
def test_a_closed_loop_is_served_as_token_by_token(work, policy, concurrency):
    work = with_steps(work, policy)
    plain = Plain(work, policy, concurrency).serve()
    skipping = skip_events(work, policy, concurrency, linear_step_times())
    agree(plain, skipping)
    assert skipping.preemptions == plain.preemptions


@settings(max_examples=150, deadline=None)
@given(work=jobs(), policy=policies(roles=("both", "decode")))
def test_curved_attention_is_followed_within_a_percent(work, policy):
    work = with_steps(work, policy)
    times = curved_step_times()

    def law(count: int, context: float) -> float:
        return times.decode(count, policy.draft_length).attention(context)

    agree(Plain(work, policy, 4, law).serve(), skip_events(work, policy, 4, times), tolerance=0.01)


def test_the_draws_reach_preemption_and_chunks():
    """Guards the tests above: without these, agreement would be cheap."""
    plain = Plain(LONG, TIGHT, 0).serve()
    assert plain.preemptions >= 2
    assert max(job.prompt for job in LONG) > TIGHT.max_batched_tokens


# Laws


@settings(max_examples=200, deadline=None)
@given(work=jobs(), policy=policies(), concurrency=st.integers(0, 8))
def test_nobody_is_lost_and_everything_is_given_back(work, policy, concurrency):
    work = with_steps(work, policy)
    outcome = skip_events(work, policy, concurrency, linear_step_times())
    assert outcome.finished.keys() == outcome.first.keys() == set(range(len(work)))
    assert outcome.kv_left == pytest.approx(0, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(work=jobs(), policy=policies(), concurrency=st.integers(0, 8))
@example(work=LONG, policy=TIGHT, concurrency=0)
def test_the_cache_holds_no_more_than_it_can(work, policy, concurrency):
    """But a sequence that is too long for it is served alone."""
    work = with_steps(work, policy)
    alone = max(job.prompt + job.steps * policy.tokens_per_step + job.output for job in work)
    outcome = skip_events(work, policy, concurrency, linear_step_times())
    if alone <= policy.kv_tokens:
        assert outcome.kv_peak <= policy.kv_tokens + 1e-6
    else:
        assert outcome.kv_peak <= alone + 1e-6


@settings(max_examples=200, deadline=None)
@given(work=jobs(), policy=policies())
def test_requests_are_admitted_first_come_first_served(work, policy):
    work = with_steps(work, policy)
    outcome = skip_events(work, policy, 0, linear_step_times())
    first_admission = list(dict.fromkeys(outcome.admitted))
    assert first_admission == sorted(first_admission)


@settings(max_examples=200, deadline=None)
@given(work=jobs(), policy=policies(roles=("both", "prefill")))
def test_prompts_are_finished_first_come_first_served_without_preemption(work, policy):
    outcome = skip_events(work, policy, 0, linear_step_times())
    if not outcome.preemptions:
        firsts = [outcome.first[number] for number in range(len(work))]
        assert all(before <= after for before, after in pairwise(firsts))


@settings(max_examples=200, deadline=None)
@given(work=jobs(), policy=policies(roles=("both", "decode")), concurrency=st.integers(0, 8))
def test_the_gaps_between_tokens_add_up_to_the_time_between_first_and_last(work, policy, concurrency):
    work = with_steps(work, policy)
    outcome = skip_events(work, policy, concurrency, linear_step_times())
    assert outcome.gaps == sum(job.steps for job in work)
    spans = sum(outcome.finished[number] - outcome.first[number] for number in range(len(work)))
    assert outcome.gap_seconds == pytest.approx(spans, rel=1e-6, abs=1e-9)


# Single cases, worked out by hand


def one(policy: Policy, *work: Job) -> Outcome:
    return skip_events(list(work), policy, 0, linear_step_times())


def test_one_request_takes_its_prompt_and_its_steps():
    outcome = one(Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=1000), Job(0.5, 100, 4, 3))
    prompt = PREFILL_BASE + 100 * PREFILL_TOKEN + 100 * PREFILL_ATTENTION
    steps = sum(
        DECODE_BASE + DECODE_QUERY + QUERY_ATTENTION + CONTEXT_ATTENTION * (context - SHORTEST)
        for context in (100, 101, 102)
    )
    assert outcome.first[0] == pytest.approx(0.5 + prompt)
    assert outcome.finished[0] == pytest.approx(0.5 + prompt + steps)


def test_a_request_of_one_token_is_done_with_its_prompt():
    outcome = one(Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=1000), Job(0.0, 10, 1, 0))
    assert outcome.finished == outcome.first
    assert outcome.gaps == 0


def test_an_arrival_waits_for_the_step_under_way():
    policy = Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=10_000)
    alone = one(policy, Job(0.0, 16, 500, 499))
    step = DECODE_BASE + DECODE_QUERY + QUERY_ATTENTION
    late = alone.first[0] + 10.4 * step
    both = one(policy, Job(0.0, 16, 500, 499), Job(late, 16, 2, 1))
    boundary = alone.first[0] + 11 * step + CONTEXT_ATTENTION * 11 * 10 / 2
    mixed = PREFILL_BASE + 17 * PREFILL_TOKEN + 16 * PREFILL_ATTENTION
    attention = QUERY_ATTENTION + 11 * CONTEXT_ATTENTION
    assert both.first[1] == pytest.approx(boundary + mixed + attention)


def test_an_engine_that_does_not_mix_stops_decoding_for_a_prompt():
    work = [Job(0.0, 16, 50, 49), Job(0.1, 40, 1, 0)]
    mixing = one(Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=10_000), *work)
    stopping = one(Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=10_000, mixes_prefill=False), *work)
    prompt = PREFILL_BASE + 40 * PREFILL_TOKEN + 40 * PREFILL_ATTENTION
    alone = one(Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=10_000), work[0])
    assert stopping.finished[0] == pytest.approx(alone.finished[0] + prompt)
    assert mixing.finished[0] < stopping.finished[0]


def test_a_long_prompt_is_prefilled_in_chunks_beside_the_decoding():
    policy = Policy(max_sequences=8, max_batched_tokens=33, kv_tokens=10_000)
    outcome = one(policy, Job(0.0, 16, 100, 99), Job(0.0, 96, 1, 0))
    # 16 of the first prompt leave 17 for the second; then 32 beside one decoding token, 32, and the last 15.
    passes = [(33, 0), (33, 16), (33, 17), (16, 18)]
    seconds = sum(PREFILL_BASE + tokens * PREFILL_TOKEN for tokens, _ in passes)
    seconds += PREFILL_ATTENTION * (16 + 96)
    seconds += sum(QUERY_ATTENTION + CONTEXT_ATTENTION * (context - SHORTEST) for _, context in passes[1:])
    assert outcome.first[1] == pytest.approx(seconds)


def test_a_shared_prefix_is_neither_prefilled_nor_stored_again_but_attended_to():
    policy = Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=10_000)
    outcome = one(policy, Job(0.0, 100, 2, 1, cached=60))
    prompt = PREFILL_BASE + 40 * PREFILL_TOKEN + PREFILL_ATTENTION * (100**2 - 60**2) / 100
    step = DECODE_BASE + DECODE_QUERY + QUERY_ATTENTION + CONTEXT_ATTENTION * (100 - SHORTEST)
    assert outcome.first[0] == pytest.approx(prompt)
    assert outcome.finished[0] == pytest.approx(prompt + step)
    assert outcome.kv_peak == 42


def test_the_newest_is_preempted_and_computed_again():
    policy = Policy(max_sequences=2, max_batched_tokens=1000, kv_tokens=50, admission="preempt")
    outcome = one(policy, Job(0.0, 20, 25, 24), Job(0.0, 20, 25, 24))
    assert outcome.preemptions == 1
    assert outcome.admitted == [0, 1, 1]
    assert outcome.finished[0] < outcome.finished[1]
    again = PREFILL_BASE + 25 * PREFILL_TOKEN + 25 * PREFILL_ATTENTION
    steps = sum(
        DECODE_BASE + DECODE_QUERY + QUERY_ATTENTION + CONTEXT_ATTENTION * (25 + step - SHORTEST) for step in range(19)
    )
    assert outcome.finished[1] == pytest.approx(outcome.finished[0] + again + steps)


def test_an_engine_that_reserves_never_preempts():
    policy = Policy(max_sequences=2, max_batched_tokens=1000, kv_tokens=50)
    outcome = one(policy, Job(0.0, 20, 25, 24), Job(0.0, 20, 25, 24))
    assert outcome.preemptions == 0
    assert outcome.first[1] > outcome.finished[0]


def test_drafts_cost_time_and_save_steps():
    plain = Policy(max_sequences=8, max_batched_tokens=1000, kv_tokens=1000)
    drafting = Policy(
        max_sequences=8, max_batched_tokens=1000, kv_tokens=1000, draft_length=1, drafted=1, tokens_per_step=2.0
    )
    slow, fast = one(plain, Job(0.0, 16, 21, 20)), one(drafting, Job(0.0, 16, 21, 10))
    step = DECODE_BASE + 2 * DECODE_QUERY + 2 * QUERY_ATTENTION + DRAFT_BASE + DRAFT_SEQUENCE
    spans = [outcome.finished[0] - outcome.first[0] for outcome in (slow, fast)]
    assert spans[1] == pytest.approx(10 * step + CONTEXT_ATTENTION * 2 * 45)
    assert spans[1] < spans[0]
