"""How long one simulated run takes once its step times are warm, and how that grows with requests and with tokens.

python benchmarks/simulation_speed.py

The first row is the reference: 400 requests of 1024/1024 tokens, 100 in flight on one scheduler. A simulator that
stepped through tokens would take eight times as long for eight times the output; this one skips from event to event.
"""

import os
import statistics
import time
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

os.environ["OMP_NUM_THREADS"] = "1"

from runners.simulated.silicon import Silicon
from runners.simulated.simulated import Simulated
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Layout, Precision, ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model

REPEATS = 9


def fixed(tokens: int) -> Lengths:
    return Lengths(low=tokens, high=tokens)


def main() -> None:
    model, system = find_model("gpt-oss-120b"), find_system("b200")
    config = ServingConfig(
        engine=find_engine("trtllm"),
        layout=Layout(replicas=1),
        batching=Batching(max_sequences=512, max_batched_tokens=8192),
        precision=Precision(weights="mxfp4_mxfp8", kv_cache="fp8"),
    )
    base = Workload(input_tokens=fixed(1024), output_tokens=fixed(1024), requests=400)
    runs = [
        ("400 requests, 1024/1024, 100 in flight", base, 100.0),
        ("eight times the output tokens", replace(base, output_tokens=fixed(8192)), 100.0),
        ("eight times the requests", replace(base, requests=3200), 100.0),
        ("Poisson, 5 requests/s", replace(base, shape="poisson"), 5.0),
    ]
    silicon = Silicon(model, system, longest_context=1024 + 8192)
    table = Table("run", "median ms", "least", "most", title="One simulated run, step times warm", box=SIMPLE_HEAD)
    with Simulated(silicon).serve(config) as measure:
        for name, workload, load in runs:
            measure(workload.at(load))
            seconds = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                measure(workload.at(load))
                seconds.append(time.perf_counter() - began)
            figures = (statistics.median(seconds), min(seconds), max(seconds))
            table.add_row(name, *(f"{value * 1000:.1f}" for value in figures))
    Console(width=110, highlight=False).print(table)


if __name__ == "__main__":
    main()
