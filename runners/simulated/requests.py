"""Requests: what a simulated group of schedulers is sent, drawn before it runs."""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from runners.simulated.group import Group
from runners.workload.workload import Floats, Ints, LoadedWorkload, Poisson, Replay

WARM_UP = 3
"""Completions for each request in flight before an open loop is counted."""

FEWEST_WARM_UPS = 64
"""Completions before an open loop is counted in any case: the first to complete are the shortest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Tokens that one decode step commits: mean and variance."""

    mean: float
    variance: float

    @classmethod
    def of(cls, tokens_per_step: tuple[float, ...]) -> "Acceptance":
        """From the measured mean tokens per step at draft lengths 1, 2, ...; the last one is in use.

        The share of steps that accept at least i drafts is tokens_per_step[i] - tokens_per_step[i - 1]; the second
        moment of their number is the sum of (2 i - 1) times that share.
        """
        shares = [min(max(after - before, 0.0), 1.0) for before, after in itertools.pairwise((1.0, *tokens_per_step))]
        accepted = sum(shares)
        second = sum((2 * i - 1) * share for i, share in enumerate(shares, start=1))
        mean = tokens_per_step[-1] if tokens_per_step else 1.0
        return cls(mean=mean, variance=max(second - accepted * accepted, 0.0))

    def steps(self, tokens: Ints, rng: np.random.Generator) -> Ints:
        """Steps that commit so many tokens: the renewal process's normal law, n / m +- sqrt(n v / m^3)."""
        spread = np.sqrt(tokens * self.variance / self.mean**3)
        drawn = rng.normal(tokens / self.mean, spread)
        return np.clip(np.rint(drawn), np.minimum(tokens, 1), tokens).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Token counts and decode steps of each request, in the order in which they are sent.

    `times` are their arrivals in seconds, empty in a closed loop. The run ends when `to_count` have been counted.
    """

    prompts: Ints
    outputs: Ints
    steps: Ints
    times: Floats
    to_count: int

    @classmethod
    def drawn(
        cls, loaded: LoadedWorkload, group: Group, seats: int, acceptance: Acceptance, rng: np.random.Generator
    ) -> "Requests":
        """The group's share. `seats` is how many requests it can run at once."""
        workload = loaded.workload
        if workload.standing_start and group.concurrency:
            # Only what is counted: this group's share of the requests, all of them.
            to_count = max(round(workload.requests / group.copies), group.concurrency)
            prompts, outputs, times = _lengths_and_arrivals(loaded, group.copies, to_count, rng)
        else:
            to_count = max(workload.requests, group.concurrency)
            # Enough for the warm-up, the counted requests and those in flight at the end.
            count = 2 * to_count + FEWEST_WARM_UPS + (WARM_UP + 3) * max(seats, group.concurrency)
            prompts, outputs, times = _lengths_and_arrivals(loaded, group.copies, count, rng)
            if group.concurrency:
                # Requests that are found running are longer than those that arrive: in proportion to their length.
                running = min(group.concurrency, seats)
                first = rng.choice(count, size=running, p=outputs / outputs.sum())
                prompts = np.concatenate([prompts[first], prompts])
                outputs = np.concatenate([outputs[first], outputs])
        steps = acceptance.steps(outputs - 1, rng)
        return cls(prompts=prompts, outputs=outputs, steps=steps, times=times, to_count=to_count)

    def __len__(self) -> int:
        return len(self.prompts)


def _lengths_and_arrivals(
    loaded: LoadedWorkload, copies: Fraction, count: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Floats]:
    arrivals = loaded.arrivals
    if isinstance(arrivals, Replay):
        return _replayed(arrivals, copies, count)
    prompts = loaded.workload.input_tokens.draw(rng, count)
    outputs = loaded.workload.output_tokens.draw(rng, count)
    if isinstance(arrivals, Poisson):
        # Requests go to the groups in turn: each gets every copies-th arrival of the whole stream.
        return prompts, outputs, np.cumsum(rng.gamma(float(copies), 1 / arrivals.rate, size=count))
    return prompts, outputs, np.empty(0)


def _replayed(replay: Replay, copies: Fraction, count: int) -> tuple[Ints, Ints, Floats]:
    """Every copies-th request of a trace, all of it and at least `count` of them.

    A trace that is shorter is replayed from its beginning, as often as it takes. Where copies are a fraction, so many
    requests apart on the average: the load is theirs, whatever the fraction.
    """
    trace = replay.trace
    whole = len(trace.arrival)
    positions = (
        np.arange(max(count, math.ceil(whole / copies)), dtype=np.int64) * copies.numerator // copies.denominator
    )
    rounds, within = np.divmod(positions, whole)
    period = float(trace.arrival[-1]) + 1 / trace.rate
    times = (trace.arrival[within] + rounds * period) / replay.speed
    return trace.input_tokens[within], trace.output_tokens[within], times
