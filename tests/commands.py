"""The command as users run it: a process, its output and its exit code."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-c", "from tuner.cli import main; main()"]

EXPERIMENT = """\
model: gpt-oss-120b
system: b200
gpus: 2
engines: [trtllm]
workload: {arrivals: closed_loop, input_tokens: 256, output_tokens: 64, requests: 50}
sla: {ttft_ms_p99: 1000, tpot_ms_p99: 20}
price: {usd_per_gpu_hour: 3.6}
objective: usd_per_million_output_tokens
space:
  mode: [aggregated]
  layout.tensor: [1]
  layout.pipeline: [1]
  layout.attention_dp: [1]
  layout.expert: [1]
  precision.weights: [mxfp4_mxfp8]
  precision.kv_cache: [fp8]
  speculation.method: [none, eagle3]
  speculation.draft_length: [1]
  batching.max_sequences: [64, 128]
  batching.max_batched_tokens: [8192]
budget: {trials: 3}
"""
DEPLOYED = """\
model: gpt-oss-120b
system: b200
gpus: 2
engines: [vllm]
workload: {arrivals: closed_loop, input_tokens: 64, output_tokens: {low: 8, high: 16}, requests: 50}
sla: {ttft_ms_p90: 60, tpot_ms_p90: 50}
price: {usd_per_gpu_hour: 3.6}
objective: usd_per_million_output_tokens
"""
"""An experiment for a server that is up: its limits are of a fake one."""


@dataclass
class Result:
    code: int
    output: str
    errors: str

    @property
    def words(self) -> str:
        """The output on one line, without frames."""
        return re.sub(r"[\s│╭╮╰╯─]+", " ", self.output)

    def next(self, name: str) -> str:
        """What stands behind a name in the last lines."""
        return next(line for line in self.output.splitlines() if line.startswith(f"{name}: ")).split(": ", 1)[1]


def environment() -> dict[str, str]:
    hidden = ("COLUMNS", "MLFLOW_TRACKING_URI", "FORCE_COLOR", "NO_COLOR", "TERM")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def run(*arguments: object, cwd: Path) -> Result:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(*arguments: object, cwd: Path):
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def refused(result: Result) -> str:
    """Nothing but a message on the error stream, and the exit code for unusable input."""
    assert result.code == 2, result
    assert "Traceback" not in result.errors
    return re.sub(r"[\s│]+", " ", result.errors)
