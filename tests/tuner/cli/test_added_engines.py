"""An engine that nobody wrote code for: added by its folder alone, to a copy of the product or to an experiment."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import Result

ROOT = Path(__file__).parents[3]
PACKAGES = ("search_spaces", "runners", "tuner", "servetune", "experiments")

FACTS = """\
title: Paravane
versions: [3.1.0, 3.0.2]
times_of: vllm@0.27.0
source: made up
image: 'registry.example/paravane:{version}'
default_max_sequences: 128
"""
MADE_UP = f"""\
{FACTS}
takes: [layout.tensor, batching.max_sequences, batching.max_batched_tokens]
knobs:
  precision.kv_cache: {{option: --cache, values: {{bf16: null, fp8: fp8}}}}
packages: {{distributions: [paravane], module: paravane}}
"""
COMMAND = '''\
"""Paravane."""

from search_spaces.engines.worker import Rendered, Worker, options


def render(worker: Worker) -> Rendered:
    limits = {"--seats": worker.batching.max_sequences, "--pass": worker.batching.max_batched_tokens}
    argv = options({"--port": worker.port, "--shards": worker.layout.tensor, **limits})
    return Rendered(argv=("paravane", worker.checkpoint, *argv))


def notes(_: Worker) -> list[str]:
    return ["Paravane likes the wind."]
'''
LAWS = '''\
"""Paravane."""

from collections.abc import Sequence

from search_spaces.config import ServingConfig
from search_spaces.engines.law import Law, Pool


def no_eight(config: ServingConfig, _: Sequence[Pool]) -> str | None:
    return "paravane has no workers of 8 GPUs" if config.layout.tensor == 8 else None


LAWS: tuple[Law, ...] = (no_eight,)
'''
OWN = f"""\
{FACTS}
command: ['{{python}}', -m, paravane, '{{checkpoint}}', --host, '{{host}}', --port, '{{port}}']
knobs:
  layout.tensor: --shards
  batching.max_sequences: --seats
  batching.max_batched_tokens: --pass
  precision.kv_cache: {{option: --cache, values: {{bf16: null, fp8: fp8}}}}
env: {{PARAVANE_LOG: quiet}}
"""
EXPERIMENT = """\
model: llama-3.1-8b
system: b200
gpus: 2
engines: [ENGINE]
workload: {arrivals: closed_loop, input_tokens: 128, output_tokens: 32, requests: 50}
sla: {ttft_ms_p99: 1000}
price: {usd_per_gpu_hour: 2.5, all_in_watts_per_gpu: 1000}
objective: usd_per_million_output_tokens
space: {layout.tensor: [1, 2], batching.max_sequences: [64, 128], batching.max_batched_tokens: [8192]}
budget: {trials: 2}
"""


def run(home: Path, product: Path, *arguments: str) -> Result:
    """The command of the product in a folder, run in another."""
    env = {**os.environ, "PYTHONPATH": str(product), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "servetune", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=home, env=env, check=False)
    return Result(code=ended.returncode, output=ended.stdout, errors=ended.stderr)


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Path:
    """A copy with one folder more."""
    copy = tmp_path_factory.mktemp("product")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = copy / "search_spaces" / "engines" / "paravane"
    folder.mkdir()
    (folder / "engine.yaml").write_text(MADE_UP)
    (folder / "command.py").write_text(COMMAND)
    (folder / "laws.py").write_text(LAWS)
    return copy


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("home")
    (path / "built-in.yaml").write_text(EXPERIMENT.replace("ENGINE", "paravane"))
    (path / "own.yaml").write_text(EXPERIMENT.replace("ENGINE", "./mine/paravane-own@3.0.2"))
    (path / "mine" / "paravane-own").mkdir(parents=True)
    (path / "mine" / "paravane-own" / "engine.yaml").write_text(OWN)
    (path / "mine" / "paravane-own" / "command.py").write_text("raise SystemExit('run')")
    return path


@pytest.fixture(scope="module", params=["built-in", "own"])
def engine(request, product, home):
    """How it is run, its name and the experiment that asks for it."""
    name = {"built-in": "paravane", "own": "paravane-own"}[request.param]
    source = {"built-in": product, "own": ROOT}[request.param]
    return lambda *arguments: run(home, source, *arguments), name, f"{request.param}.yaml"


@pytest.fixture(scope="module")
def tuned(engine):
    command, _, experiment = engine
    return command("tune", experiment, "--no-track", "--study", experiment.partition(".")[0], "--json")


def test_it_is_listed(engine):
    command, name, experiment = engine
    listed = command("list", "engines", experiment)
    assert listed.code == 0, listed.errors
    (line,) = (line for line in listed.output.splitlines() if line.split()[:1] == [name])
    assert "Paravane" in line
    assert "3.1.0, 3.0.2" in line
    assert "those of vllm@0.27.0 stand in" in line


def test_it_is_simulated_with_the_kernel_times_that_stand_in(engine):
    command, _, experiment = engine
    simulated = command("simulate", experiment, "--set", "layout.tensor=1", "--load", "4")
    assert simulated.code == 0, simulated.errors
    assert "Paravane 3." in simulated.output
    assert "Paravane has no kernel times of its own: those of vLLM 0.27.0 stand in" in " ".join(
        simulated.output.split()
    )


def test_it_is_searched_and_its_command_rendered(engine, tuned):
    _, name, _ = engine
    assert tuned.code == 0, tuned.errors
    document = json.loads(tuned.output)
    own = "paravane meta-llama/Llama-3.1-8B-Instruct --port 8000 --shards 1 --seats "
    assert (own if name == "paravane" else own.replace(" --port", " --host 127.0.0.1 --port")) in document["start"]
    assert ("Paravane likes the wind." in document["start"]) == (name == "paravane")
    assert "kernel_times_of" in tuned.output


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize("target", ["shell", "docker-compose", "kubernetes"])
def test_it_is_deployed(engine, home, target, tmp_path):
    command, name, experiment = engine
    study = experiment.partition(".")[0]
    target = name if target == "shell" else target
    deployed = command("deploy", study, "--target", target, "-o", str(tmp_path / "out"))
    assert deployed.code == 0, deployed.errors
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    everything = "\n".join(texts.values())
    assert len(re.findall(r"--shards", everything)) >= 1
    assert "no kernel times of its own" in texts["README.md"]
    if target != name:
        version = "3.1.0" if name == "paravane" else "3.0.2"
        assert f"registry.example/paravane:{version}" in everything


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize("target", ["llm-d"])
def test_it_is_not_deployed_where_nobody_starts_it(engine, target, tmp_path):
    command, name, experiment = engine
    refused = command("deploy", experiment.partition(".")[0], "--target", target, "-o", str(tmp_path / "out"))
    assert refused.code == 2
    assert f"but the winner runs on {name}; targets that fit: {name}, docker-compose, kubernetes" in refused.errors
    assert "Traceback" not in refused.errors


def test_its_laws_are_asked(engine):
    command, name, experiment = engine
    if name == "paravane":
        refused = command("simulate", experiment, "--set", "layout.tensor=8")
        assert refused.code == 2
        assert "paravane has no workers of 8 GPUs" in refused.errors
