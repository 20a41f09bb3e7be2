"""Each runner, through the suite that all of them pass. The real one serves stand-ins here, and vLLM in engines/."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runners.recorded.recorded import Recorded
from runners.recorded.recording import served
from runners.recorded.sample import recordings
from runners.served.deployment import Installation
from runners.served.served import Served
from runners.served.time_limits import TimeLimits
from runners.simulated.estimated import Estimated
from runners.simulated.silicon import Silicon
from runners.simulated.simulated import Simulated
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Disaggregation, Engine, Layout, Precision, ServingConfig
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model
from tests.runners.suite import Case, RunnerSuite

FAKE = Path(__file__).parent / "served" / "fake_server.py"
PREDICTED = ServingConfig(
    engine=Engine(name="trtllm", version="1.3.0rc20"),
    layout=Layout(replicas=8),
    batching=Batching(max_sequences=128, max_batched_tokens=8192),
    precision=Precision(weights="fp8", kv_cache="fp8"),
)
WORKLOAD = Workload(input_tokens=Lengths(low=200, high=256), output_tokens=Lengths(low=100, high=128), requests=100)


@pytest.fixture(scope="module")
def silicon():
    return Silicon(find_model("llama-3.1-8b"), find_system("b200"), longest_context=4096)


class TestSimulated(RunnerSuite):
    @pytest.fixture
    def case(self, silicon):
        impossible = replace(PREDICTED, engine=Engine(name="trtllm", version="9"))
        return Case(Simulated(silicon), PREDICTED, WORKLOAD, (8, 64), impossible)


class TestEstimated(RunnerSuite):
    @pytest.fixture
    def case(self, silicon):
        return Case(
            Estimated(silicon), PREDICTED, WORKLOAD, (8, 64), replace(PREDICTED, disaggregation=Disaggregation())
        )


class TestRecorded(RunnerSuite):
    @pytest.fixture
    def case(self):
        rows = recordings().rows
        runs = {}
        for row in rows:
            runs.setdefault((served(row.config), row.model, str(row.workload.input_tokens)), []).append(row)
        found = sorted(max(runs.values(), key=len), key=lambda row: row.concurrency)
        first, last = found[0], found[-1]
        impossible = replace(first.config, layout=Layout(tensor=7))
        loads = (first.concurrency, last.concurrency)
        return Case(Recorded(found), first.config, first.workload, loads, impossible)


class TestServed(RunnerSuite):
    @pytest.fixture
    def case(self, tmp_path):
        python = tmp_path / "python"
        command = [sys.executable, str(FAKE)]
        python.write_text(
            f"#!{sys.executable}\nimport os, sys\nos.execv({command[0]!r}, [*{command!r}, *sys.argv[3:]])\n"
        )
        python.chmod(0o755)
        limits = TimeLimits(start_s=30, load_s=60, stall_s=10, stop_s=5, poll_s=0.05)
        installation = Installation(python=str(python), checkpoint="toy", variants={"broken": ("--fail", "flag")})
        config = ServingConfig(
            engine=Engine(name="vllm", version="1.2.3"), batching=Batching(max_sequences=8, max_batched_tokens=2048)
        )
        workload = Workload(input_tokens=Lengths(low=8, high=12), output_tokens=Lengths(low=8, high=12), requests=50)
        return Case(
            Served(find_model("llama-3.1-8b"), installation, logs=tmp_path / "logs", limits=limits),
            config,
            workload,
            (2, 4),
            replace(config, variant="broken"),
        )
