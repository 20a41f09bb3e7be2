"""How often a run that stops early decides otherwise than the whole run, and how many requests it saves.

    python benchmarks/early_stops.py

Latencies are simulated: independent ones (exponential), an autoregressive series (0.9 from request to request), and the
waits of an M/D/1 queue that is busy four fifths of the time. The limit is the true percentile times `room`: 1 is the
hardest case, where the whole run itself is right by chance.
"""

from collections.abc import Callable

import numpy as np

from runners.load.stopping import Limit, Stopping

RUNS = 200
ROOMS = (0.8, 1.0, 1.25)


def independent(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.exponential(size=count)


def autoregressive(rng: np.random.Generator, count: int) -> np.ndarray:
    noise = rng.normal(size=count) * np.sqrt(1 - 0.81)
    series = [rng.normal()]
    for each in noise[1:]:
        series.append(0.9 * series[-1] + each)
    return np.exp(series)


def queueing(rng: np.random.Generator, count: int) -> np.ndarray:
    wait, waits = 0.0, []
    for gap in rng.exponential(1.25, size=count + 1000):
        wait = max(wait + 1 - gap, 0.0)
        waits.append(wait)
    return 0.1 + np.array(waits[1000:])


def simulate(
    kind: Callable[[np.random.Generator, int], np.ndarray], percentile: float, requests: int, room: float, true: float
) -> str:
    rng = np.random.default_rng(1)
    limit = Limit(metric="ttft", percentile=percentile, limit_s=true * room)
    kept = false_met = false_missed = sent = 0
    for _ in range(RUNS):
        seconds = kind(rng, requests)
        stopping = Stopping([limit], planned=requests, steady=True)
        decisions = (stopping.take({"ttft": each}) for each in seconds)
        answered, decision = next((end for end in enumerate(decisions, start=1) if end[1]), (requests, None))
        whole = int((seconds > limit.limit_s).sum()) <= limit.allowed(requests)
        kept += whole
        false_met += decision == "SLOs met" and not whole
        false_missed += decision == "SLO missed" and whole
        sent += answered
    name = kind.__name__
    return (
        f"{name:15s} {percentile:3.0f} {requests:8d} {room:5.2f} {kept / RUNS:10.1%} {false_met / RUNS:10.1%}"
        f" {false_missed / RUNS:12.1%} {sent / RUNS / requests:9.0%}"
    )


if __name__ == "__main__":
    print(f"{RUNS} runs each")
    print("latencies         p requests  room whole kept false kept false missed requests sent")
    for kind in (independent, autoregressive, queueing):
        population = kind(np.random.default_rng(0), 200_000)
        for percentile in (50, 95, 99):
            for requests in (400, 2000):
                for room in ROOMS:
                    true = float(np.quantile(population, percentile / 100))
                    print(simulate(kind, percentile, requests, room, true), flush=True)
