"""A real vLLM on the CPU, and what a tiny random model needs to be served and tuned."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from tests.own_facts import MODEL, SYSTEM
from tuner.cli import app

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


@pytest.fixture
def write_experiment(tiny, engine_settings, tmp_path):
    """Writes an experiment on the tiny model that any server meets, with other parts as named; the path."""

    def write(*, serve, **parts):
        asked = {
            "model": str(tiny / "model.yaml"),
            "system": str(tiny / "system.yaml"),
            "gpus": 1,
            "workload": {
                "arrivals": "closed_loop",
                "input_tokens": {"low": 24, "high": 40},
                "output_tokens": {"low": 12, "high": 20},
                "requests": 50,
            },
            "sla": {"ttft_ms_p95": 20000, "tpot_ms_p95": 5000},
            "price": {"usd_per_gpu_hour": 0.1, "all_in_watts_per_gpu": 100},
            "objective": "usd_per_million_output_tokens",
            "runner": "served",
            "serve": {
                "checkpoint": str(tiny / "checkpoint"),
                "device": "cpu",
                "args": list(engine_settings.args),
                "env": {**engine_settings.env, "TEST_OF": str(tmp_path)},
                "start_min": 4,
                "load_min": 3,
                "logs": str(tmp_path / "logs"),
                **serve,
            },
            **parts,
        }
        path = tmp_path / "tiny.yaml"
        with path.open("w") as file:
            YAML().dump(asked, file)
        return path

    return write


@pytest.fixture
def servetune(tmp_path):
    """Runs a command on the studies and the store of this test."""
    ours = {"--studies": str(tmp_path / "studies"), "--tracking-uri": f"sqlite:///{tmp_path}/mlflow.db"}

    def run(*arguments, without=()):
        kept = [part for option, value in ours.items() if option not in without for part in (option, value)]
        return CliRunner().invoke(app, [*arguments, *kept])

    return run


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
