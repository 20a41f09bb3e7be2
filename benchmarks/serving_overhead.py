"""Seconds that servetune adds to a real trial: start, end and one load of a server that does nothing but answer.

    python benchmarks/serving_overhead.py

The stand-in of the tests starts at once and waits 2 ms for each token, so that what is left over is servetune's:
ports, processes, the log, the wait for the first token, metrics, and the end of every descendant.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from runners.served.deployment import Installation
from runners.served.served import Served
from runners.served.time_limits import TimeLimits
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Engine, ServingConfig
from search_spaces.models.model import find_model

FAKE = Path(__file__).parents[1] / "tests" / "runners" / "served" / "fake_server.py"
CONFIG = ServingConfig(engine=Engine(name="vllm", version="1.2.3"), batching=Batching(max_sequences=8))
WORKLOAD = Workload(input_tokens=Lengths(low=8, high=12), output_tokens=Lengths(low=16, high=16), requests=50)
TURNS = 5


def stand_in(folder: Path) -> str:
    python = folder / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"os.execv({sys.executable!r}, [sys.executable, {str(FAKE)!r}, *sys.argv[3:]])\n"
    )
    python.chmod(0o755)
    return str(python)


def turn(runner: Served, config: ServingConfig) -> tuple[float, float]:
    """Seconds of a trial beside its load, and seconds of its load beside the tokens' own."""
    began = time.monotonic()
    with runner.serve(config) as measure:
        before = time.monotonic()
        level = measure(replace(WORKLOAD, standing_start=True).at(4))
        loaded = time.monotonic() - before
    return time.monotonic() - began - loaded, loaded - level.duration_s


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(python=stand_in(Path(folder)), checkpoint="toy")
        runner = Served(find_model("llama-3.1-8b"), installation, logs=Path(folder) / "logs", limits=TimeLimits())
        beside, around = zip(*(turn(runner, CONFIG) for _ in range(TURNS)), strict=True)
    print(f"start and end of a server that starts at once: {statistics.median(beside):.2f} s (most {max(beside):.2f})")
    print(f"a load, beside its requests: {statistics.median(around):.2f} s (most {max(around):.2f})")


if __name__ == "__main__":
    main()
