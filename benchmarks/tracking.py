"""What tracking costs a search: milliseconds of its own time for each trial, and the wait at its end.

python benchmarks/tracking.py [--trials 300] [--uri http://...]   (a fresh local store unless told otherwise)

`all at once` leaves everything for the end; `one in 50 ms` is the pace of a search.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runners.measurement import Measurement, Percentiles
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Engine, Layout, Precision, ServingConfig
from search_spaces.hardware.system import Price, find_system
from search_spaces.models.model import find_model
from search_spaces.space import full_space
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, Slo
from tuner.search.tracker import Tracker, Untracked
from tuner.search.trial import Trial
from tuner.tracking.mlflow_tracker import MlflowTracker

TRTLLM = Engine(name="trtllm", version="1.3.0rc20")
PACES = {"all at once": 0.0, "one in 50 ms": 0.05}
LEVELS = 6


def scenario() -> Scenario:
    model, system = find_model("gpt-oss-120b"), find_system("b200")
    lengths = Lengths(low=1024, high=1024)
    return Scenario(
        name="benchmark",
        model=model,
        system=system,
        gpus=8,
        workload=Workload(input_tokens=lengths, output_tokens=lengths),
        sla=Sla(
            slos=(
                Slo(metric="ttft", statistic="p99", limit_s=1.0),
                Slo(metric="tpot", statistic="p99", limit_s=0.02),
            )
        ),
        price=Price(usd_per_gpu_hour=3.6, all_in_watts_per_gpu=2000, source="made up"),
        objective="usd_per_million_output_tokens",
        space=full_space(model, system, (TRTLLM,), 8),
    )


def trial(number: int) -> Trial:
    config = ServingConfig(
        engine=TRTLLM,
        layout=Layout(tensor=2, expert=2, replicas=4),
        batching=Batching(max_sequences=8 + number),
        precision=Precision(weights="mxfp4_mxfp8", kv_cache="fp8"),
    )
    levels = tuple(level(load=(number + 1) * step) for step in range(1, LEVELS + 1))
    return Trial(number=number, ending="measured", config=config, levels=levels, chosen=3, seconds=0.05)


def level(load: float) -> Measurement:
    latency = Percentiles(mean=load / 1e4, values=(load / 1e4,) * 6)
    return Measurement(
        load=load,
        gpus=8,
        duration_s=10,
        requests=400,
        input_tokens=round(load * 1000),
        output_tokens=round(load * 1000),
        ttft=latency,
        tpot=latency,
        itl=latency,
        e2e=latency,
        source="simulated",
    )


def log_all(tracker: Tracker, trials: list[Trial], pause_s: float) -> list[float]:
    """Milliseconds that each call took."""
    taken = []
    for one in trials:
        time.sleep(pause_s)
        begun = time.perf_counter()
        tracker.log(one)
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


def untracked(trials: list[Trial]) -> list[str]:
    taken = log_all(Untracked(), trials, pause_s=0)
    return ["untracked", *in_words(taken), "-", "-", "-"]


def tracked(name: str, trials: list[Trial], uri: str, pause_s: float) -> list[str]:
    """The search's own time, when the first trial was in the store, how many were not, the wait for them."""
    first_s = 0.0
    begun = time.perf_counter()

    def watch(done: int, _total: int) -> None:
        nonlocal first_s
        if done and not first_s:
            first_s = time.perf_counter() - begun

    tracker = MlflowTracker(scenario(), study=name, tracking_uri=uri, on_drain=watch)
    with tracker:
        taken = log_all(tracker, trials, pause_s)
        written = tracker.written
        left = time.perf_counter()
    drain_s = time.perf_counter() - left
    if tracker.problem:
        raise SystemExit(tracker.problem)
    first = f"{first_s:.1f}" if not written else "-"
    rest = len(trials) - written
    return [name, *in_words(taken), first, str(rest), f"{drain_s:.1f}"]


def in_words(milliseconds: list[float]) -> list[str]:
    ordered = sorted(milliseconds)
    return [
        f"{statistics.median(ordered):.3f}",
        f"{ordered[int(0.99 * len(ordered))]:.3f}",
        f"{sum(ordered):.0f}",
    ]


@contextmanager
def store(uri: str | None) -> Iterator[str]:
    if uri is not None:
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="tracking-") as folder:
        yield f"sqlite:///{Path(folder, 'mlflow.db')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--uri", help="a store that is there, such as http://127.0.0.1:5000")
    arguments = parser.parse_args()
    trials = [trial(number) for number in range(arguments.trials)]
    table = Table(title=f"Tracking {len(trials)} trials of {LEVELS} loads each")
    for heading in ("", "median ms", "p99 ms", "all ms", "first at s", "left", "drained in s"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row(*untracked(trials))
    for name, pause_s in PACES.items():
        with store(arguments.uri) as uri:
            table.add_row(*tracked(name, trials, uri, pause_s))
    Console().print(table)


if __name__ == "__main__":
    main()
