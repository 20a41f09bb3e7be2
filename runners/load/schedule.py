"""What a load sends, in order: lengths and arrivals, drawn with the workload's seed."""

import itertools
from collections.abc import Iterator

import numpy as np

from runners.workload.workload import ClosedLoop, LoadedWorkload, Poisson, Replay, Request

BLOCK = 1024
"""Requests drawn at a time."""


def requests_of(loaded: LoadedWorkload) -> Iterator[Request]:
    """What is sent, in order. Without end, but for a standing start.

    A closed loop's first generation is drawn part-way through its answers, as a loop finds them that has always been
    running: longer ones are likelier to be found, and what is answered already is part of the prompt.
    """
    workload, arrivals = loaded.workload, loaded.arrivals
    rng = np.random.default_rng(workload.seed)
    if isinstance(arrivals, Replay):
        yield from _replayed(arrivals)
        return
    drawn = _drawn(loaded, rng)
    if isinstance(arrivals, ClosedLoop):
        if workload.standing_start:
            yield from itertools.islice(drawn, max(workload.requests, arrivals.concurrency))
            return
        yield from _part_way(loaded, arrivals.concurrency, rng)
    yield from drawn


def _drawn(loaded: LoadedWorkload, rng: np.random.Generator) -> Iterator[Request]:
    workload, arrivals = loaded.workload, loaded.arrivals
    now = 0.0
    while True:
        inputs = workload.input_tokens.draw(rng, BLOCK).tolist()
        outputs = workload.output_tokens.draw(rng, BLOCK).tolist()
        gaps = [0.0] * BLOCK
        if isinstance(arrivals, Poisson):
            gaps = rng.exponential(1 / arrivals.rate, size=BLOCK).tolist()
        for input_tokens, output_tokens, gap in zip(inputs, outputs, gaps, strict=True):
            now += gap
            yield Request(arrival=now, input_tokens=input_tokens, output_tokens=output_tokens)


def _part_way(loaded: LoadedWorkload, concurrency: int, rng: np.random.Generator) -> Iterator[Request]:
    workload = loaded.workload
    inputs = workload.input_tokens.draw(rng, concurrency)
    outputs = workload.output_tokens.draw(rng, max(BLOCK, concurrency))
    outputs = rng.choice(outputs, size=concurrency, p=outputs / outputs.sum())
    shares = rng.permutation((np.arange(concurrency) + 0.5) / concurrency)
    done = (outputs * shares).astype(np.int64)
    for prompt, answered, whole in zip(inputs.tolist(), done.tolist(), outputs.tolist(), strict=True):
        yield Request(arrival=0.0, input_tokens=prompt + answered, output_tokens=whole - answered)


def _replayed(arrivals: Replay) -> Iterator[Request]:
    """A trace that is shorter than the run is replayed from its beginning, as often as it takes."""
    trace = arrivals.trace
    period = float(trace.arrival[-1]) + 1 / trace.rate
    rows = list(zip(trace.arrival.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True))
    for turn in itertools.count():
        for arrival, input_tokens, output_tokens in rows:
            at = (arrival + turn * period) / arrivals.speed
            yield Request(arrival=at, input_tokens=input_tokens, output_tokens=output_tokens)
