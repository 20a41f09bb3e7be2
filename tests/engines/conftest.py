"""A real vLLM on the CPU, and what a tiny random model needs to be served and tuned."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("SERVETUNE_VLLM_PYTHON") or str(ROOT / ".venv-vllm" / "bin" / "python")
OLDER = os.environ.get("SERVETUNE_OLDER_VLLM_PYTHON") or str(ROOT / ".venv-vllm-0.31.0" / "bin" / "python")
REQUIRED = os.environ.get("SERVETUNE_REQUIRE_ENGINES", "")

CHEAP_START = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
ONE_PROCESS = [
    *("--enforce-eager", "--distributed-executor-backend", "uni"),
    *("--max-model-len", "1024", "--kv-cache-memory-bytes", str(1 << 30)),
]

MODEL = """\
tiny:
  checkpoint: tiny
  silicon_name: tiny
  layers: 2
  hidden_size: 128
  query_heads: 4
  attention: {kv_heads: 2, head_dim: 32, layers_by_ratio: {1: 2}}
  dense_parameters: 295424
  expert_parameters: 0
  embedding_parameters: 524288
  experts: 0
  experts_per_token: 0
  expert_width: 256
  max_context: 1024
  weights: [bf16, fp8]
  source: tests/engines/tiny_model.py
"""
SYSTEM = """\
cpu:
  title: a machine without GPUs
  silicon_name: cpu
  gpu:
    name: cpu
    memory_bytes: 8.0e+9
    memory_bandwidth: 20.0e+9
    bf16_flops: 0.1e+12
    fp8_flops: 0.1e+12
    fp4_flops: null
    power_watts: 50
  gpus_per_node: 2
  nvlink_gpus: 2
  max_gpus: 2
  nvlink_bandwidth: 1.0e+9
  network_bandwidth: 1.0e+9
  network_latency_s: 1.0e-4
  source: made up for the tests
"""


@pytest.fixture(scope="session")
def vllm_python():
    return found(PYTHON, "SERVETUNE_VLLM_PYTHON")


@pytest.fixture(scope="session")
def older_vllm_python():
    """vLLM 0.31.0, for what goes from one release to the next."""
    return found(OLDER, "SERVETUNE_OLDER_VLLM_PYTHON")


def found(python, variable):
    if not Path(python).is_file():
        why = f"no vLLM at {python}: set {variable} to an interpreter that has it (docs/real-engines.md)"
        if REQUIRED:
            pytest.fail(why)
        pytest.skip(why)
    return python


@dataclass(frozen=True)
class EngineSettings:
    """What makes a start cheap."""

    args: tuple[str, ...]
    env: dict[str, str]


@pytest.fixture(scope="session")
def engine_settings():
    return EngineSettings(args=tuple(ONE_PROCESS), env=CHEAP_START)


@pytest.fixture(scope="session")
def tiny(vllm_python, tmp_path_factory):
    """The folder of a tiny random model, with the files that describe it and its machine to servetune."""
    folder = tmp_path_factory.mktemp("tiny")
    script = Path(__file__).parent / "tiny_model.py"
    env = {"PATH": os.environ["PATH"], **CHEAP_START}
    subprocess.run([vllm_python, str(script), str(folder / "checkpoint")], check=True, env=env, capture_output=True)
    (folder / "model.yaml").write_text(MODEL)
    (folder / "system.yaml").write_text(SYSTEM)
    return folder


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    """After every test: no process that carries its mark."""
    yield
    assert living(tmp_path) == []


def living(tmp_path):
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TEST_OF") == str(tmp_path):
                found.append(process)
        except psutil.Error:
            continue
    return found
