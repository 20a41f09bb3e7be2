"""The real runner on servers that are real processes and fail in every way: each failure has its name, and none leaves
anything behind.
"""

import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import psutil
import pytest

from runners.measurement import NO_METRICS
from runners.runner import OUT_OF_MEMORY, RunFailedError
from runners.served.deployment import Installation, plan
from runners.served.nvml import Driver
from runners.served.process import is_free
from runners.served.served import Served, TimeLimits
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Disaggregation, Engine, Layout, ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError
from search_spaces.models.model import Attention, Model
from tests.runners.served.fake_nvml import GIB, FakeNvml
from tests.runners.served.kernel import NEEDS_MEMORY_OF_THE_REAPED
from tuner.scenario.sla import Sla, Slo
from tuner.search.capacity import LoadRange, find_capacity

FAKE = Path(__file__).parent / "fake_server.py"
VLLM = Engine(name="vllm", version="1.2.3")
CONFIG = ServingConfig(engine=VLLM, batching=Batching(max_sequences=8, max_batched_tokens=2048))
LIMITS = TimeLimits(start_s=20, load_s=60, stall_s=2, stop_s=2, probe_s=5, errors_s=0.5, dying_s=0.5, poll_s=0.05)
WORKLOAD = Workload(
    input_tokens=Lengths(low=8, high=12), output_tokens=Lengths(low=4, high=6), requests=60, standing_start=True
)
TOY = Model(
    name="toy",
    checkpoint="toy",
    silicon_name="toy",
    layers=1,
    hidden_size=64,
    query_heads=8,
    attention=Attention(kv_heads=8, head_dim=64, layers_by_ratio={1: 1}),
    dense_parameters=1e6,
    expert_parameters=0,
    embedding_parameters=0,
    experts=0,
    experts_per_token=0,
    expert_width=64,
    max_context=1 << 20,
    weights=("bf16",),
    source="made up",
)


@pytest.fixture
def python(tmp_path):
    """Stands for the interpreter of an engine's environment: it starts the fake server, whatever module is named."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, {str(FAKE)!r}, *sys.argv[3:]])\n"
    )
    script.chmod(0o755)
    return str(script)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    """After every ending: no process, no listener."""
    yield
    assert of_this_test(tmp_path) == []


def of_this_test(tmp_path):
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("FAKE_OF") == str(tmp_path):
                found.append(process)
        except psutil.Error:
            continue
    return found


def served(tmp_path, python, *args, limits=LIMITS, prompt_tokens=10, **installed):
    installation = Installation(python=python, args=args, env={"FAKE_OF": str(tmp_path)}, **installed)
    return Served(TOY, installation, logs=tmp_path / "logs", limits=limits, prompt_tokens=prompt_tokens)


def failing(tmp_path, python, how, **options):
    """Runs a server that fails in the given way; the error, with the time that all took."""
    began = time.monotonic()
    runner = served(tmp_path, python, "--fail", how, **options)
    with pytest.raises(RunFailedError) as caught, runner.serve(CONFIG) as measure:
        measure(WORKLOAD.at(8))
    assert 0 < runner.gpu_seconds <= time.monotonic() - began
    return caught.value


@pytest.mark.parametrize(
    ("how", "cause", "environment", "said"),
    [
        ("flag", "unsupported flag", False, "exit 2 while starting.*unrecognized arguments: --no-such-flag"),
        ("combination", "invalid combination", False, "exit 1 while starting.*must be greater than or equal"),
        ("memory_at_start", OUT_OF_MEMORY, False, "exit 1 while starting.*torch.OutOfMemoryError: CUDA out of memory"),
        ("port_in_use", "port in use", True, "Address already in use"),
        ("no_module", "engine not installed", True, "No module named vllm"),
        ("disk_full_at_start", "disk full", True, "No space left on device"),
        ("hang_at_start", "hang at start", False, "still running after"),
        ("silent_worker_death", OUT_OF_MEMORY, False, "still running while starting"),
        ("errors_at_start", "server errors", False, "answers HTTP 500: .*something is wrong inside"),
        ("memory_under_load", OUT_OF_MEMORY, False, "exit 1 under load.*CUDA out of memory"),
        ("crash_under_load", "server killed", False, r"segmentation fault \(SIGSEGV\) under load"),
        ("crash_with_code_0", "crash under load", False, "exit 0 under load"),
        ("disk_full_under_load", "disk full", True, "exit 1 under load"),
        ("hang_under_load", "hang under load", False, "no token for"),
        ("broken_stream", "broken stream", False, "still running under load"),
        ("errors", "server errors", False, "something is wrong inside"),
    ],
)
def test_every_failure_has_a_name_its_log_and_leaves_nothing(tmp_path, python, how, cause, environment, said):
    limits = replace(LIMITS, start_s=3) if how == "hang_at_start" else LIMITS
    error = failing(tmp_path, python, how, limits=limits)
    assert error.cause == cause
    assert error.environment is environment
    log = tmp_path / "logs" / "0000" / "serve-0.log"
    state, path, *end = error.detail.split("\n")
    assert path == f"log: {log}"
    assert log.read_text().startswith("starting")
    assert end[-1] == log.read_text().splitlines()[-1].rstrip()  # the log may end within a line
    assert re.search(said, state), state


def test_an_engine_that_is_not_installed_is_the_environments_failure(tmp_path):
    runner = served(tmp_path, str(tmp_path / "nowhere" / "python"))
    with pytest.raises(RunFailedError, match="engine not installed") as caught, runner.serve(CONFIG):
        pass
    assert caught.value.environment


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, "illegal instruction (SIGILL)"),
        (signal.SIGSEGV, "segmentation fault (SIGSEGV)"),
        (signal.SIGBUS, "bus error (SIGBUS)"),
        pytest.param(
            signal.SIGKILL,
            "SIGKILL, as the kernel does when the host's memory runs out",
            marks=NEEDS_MEMORY_OF_THE_REAPED,
        ),
    ],
)
@pytest.mark.parametrize(("how", "state"), [("core_at_start", "while starting"), ("core_under_load", "under load")])
def test_a_signal_that_ended_the_engines_core_is_named(tmp_path, python, number, words, how, state):
    with pytest.raises(RunFailedError) as caught:
        with served(tmp_path, python, "--fail", how, "--core-signal", str(int(number))).serve(CONFIG) as measure:
            measure(WORKLOAD.at(8))
    assert str(caught.value).startswith(f"engine core killed: {words}, exit 0 {state}")
    assert not caught.value.environment


def test_a_server_is_ready_for_a_prompt_as_long_as_the_workloads(tmp_path, python):
    with served(tmp_path, python, "--fail", "short_prompt", prompt_tokens=10).serve(CONFIG):
        pass
    with pytest.raises(RunFailedError, match=r"server killed: illegal instruction \(SIGILL\) while starting"):
        with served(tmp_path, python, "--fail", "short_prompt", prompt_tokens=9).serve(CONFIG):
            pass


def test_a_wrong_model_name_is_named_at_once(tmp_path, python):
    runner = served(tmp_path, python, model_name="another")
    with pytest.raises(RunFailedError, match="wrong model name: 'another' was asked for") as caught:
        with runner.serve(CONFIG):
            pass
    assert not caught.value.environment


def test_another_release_than_asked_for_is_the_environments_failure(tmp_path, python):
    other = replace(CONFIG, engine=Engine(name="vllm", version="9.9"))
    with pytest.raises(RunFailedError, match=r"vllm 9.9 was asked for, but the server is vllm 1.2.3") as caught:
        with served(tmp_path, python).serve(other):
            pass
    assert caught.value.environment


def test_a_full_disk_is_named_before_anything_starts(tmp_path, python, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(RunFailedError, match="disk full") as caught, served(tmp_path, python).serve(CONFIG):
        pass
    assert caught.value.environment


def test_too_few_gpus_are_the_environments_failure(tmp_path, python):
    runner = served(tmp_path, python, devices=("0",))
    with pytest.raises(RunFailedError, match=r"no GPU: .* needs 2 GPUs, 1 are here") as caught:
        with runner.serve(replace(CONFIG, layout=Layout(tensor=2))):
            pass
    assert caught.value.environment


def test_a_port_that_another_program_takes_meanwhile_is_named(tmp_path, python, monkeypatch):
    from runners.served import served as module

    def taken(*args):
        planned = plan(*args)
        held.bind(("127.0.0.1", planned.workers[0].port))
        held.listen()
        return planned

    with socket.socket() as held:
        monkeypatch.setattr(module, "plan", taken)
        with pytest.raises(RunFailedError, match="port in use: serve-0: port") as caught:
            with served(tmp_path, python, limits=replace(LIMITS, stop_s=0.1)).serve(CONFIG):
                pass
    assert caught.value.environment


def test_a_measurement_counts_all_requests_and_holds_the_engines_own_metrics(tmp_path, python):
    with served(tmp_path, python).serve(CONFIG) as measure:
        level = measure(WORKLOAD.at(4))
        again = measure(WORKLOAD.at(2))
    assert (level.load, again.load) == (4, 2)
    assert level.requests >= WORKLOAD.requests
    assert level.failed_requests == 0
    assert level.source == "measured"
    assert level.gpus == 1
    assert 0.001 < level.tpot.at(50) < 0.1
    assert level.kv_cache_peak == 0.25
    # The fake counts each completion as a preemption: those of the window, without the probe and what came before.
    assert WORKLOAD.requests <= again.preemptions <= WORKLOAD.requests + 10
    assert level.observed is not None
    assert level.observed.versions == (("engine", "vllm 1.2.3"),)
    assert level.observed.watts is None


OWN_ENGINE = """\
title: My engine
versions: [1.0.0]
command: ['{python}', -m, my.server, --model, '{checkpoint}', --port, '{port}', --stranger]
knobs: {batching.max_sequences: --seats, batching.max_batched_tokens: --tokens}
server: {ignore_eos: false, min_tokens: false, usage_in_streams: false, model_name: '{checkpoint}'}
"""


def test_an_engine_of_ones_own_is_measured_and_what_could_not_be_had_is_said(tmp_path, python):
    folder = tmp_path / "my-engine"
    folder.mkdir()
    (folder / "engine.yaml").write_text(OWN_ENGINE)
    config = replace(CONFIG, engine=find_engine("./my-engine", directory=tmp_path))
    with served(tmp_path, python, checkpoint="my-checkpoint").serve(config) as measure:
        level = measure(WORKLOAD.at(4))
    assert (level.failed_requests, level.requests) == (0, WORKLOAD.requests)
    assert 4 * level.requests <= level.output_tokens <= 6 * level.requests
    assert level.observed is not None
    assert (level.observed.versions, level.observed.waiting_peak) == ((), None)
    counts, metrics = level.not_had
    assert counts.startswith("the server's count of tokens")
    assert metrics == NO_METRICS
    assert not level.knows_cache


def test_a_capacity_search_is_one_start_and_at_most_seven_loads(tmp_path, python):
    loads = LoadRange(lowest=1, highest=8, guess=3, unit=1)
    sla = Sla(slos=(Slo(metric="ttft", statistic="p95", limit_s=60),))
    with served(tmp_path, python).serve(CONFIG) as measure:
        found = find_capacity(measure, WORKLOAD, sla, loads)
    assert max(level.load for level in found.levels) == 8
    assert len(found.levels) <= 7
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["0000"]
    assert (tmp_path / "logs" / "0000" / "serve-0.log").read_text().count("starting") == 1


def test_ctrl_c_under_load_leaves_nothing(tmp_path, python):
    runner = served(tmp_path, python)
    long = replace(WORKLOAD, requests=100_000)
    with pytest.raises(KeyboardInterrupt), runner.serve(CONFIG) as measure:
        threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
        measure(long.at(4))
    assert of_this_test(tmp_path) == []


def test_two_searches_may_keep_their_logs_in_one_folder(tmp_path, python):
    one, other = served(tmp_path, python), served(tmp_path, python)
    with one.serve(CONFIG), other.serve(CONFIG):
        assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["0000", "0001"]


def test_replicas_share_the_load_each_on_ports_and_gpus_of_its_own(tmp_path, python):
    config = replace(CONFIG, layout=Layout(replicas=2))
    runner = served(tmp_path, python)
    with runner.serve(config) as measure:
        level = measure(WORKLOAD.at(4))
    assert level.gpus == 2
    logs = sorted(path.name for path in (tmp_path / "logs" / "0000").glob("*.log"))
    assert logs == ["serve-0.log", "serve-1.log"]


def test_gpus_are_handed_out_metered_named_and_seen_to_be_released(tmp_path, python, monkeypatch):
    nvml = FakeNvml()
    nvml.added = 100_000
    monkeypatch.setattr("runners.served.served.driver", lambda: Driver(nvml))
    runner = served(tmp_path, python, devices=("0", "GPU-1"))
    with runner.serve(replace(CONFIG, layout=Layout(replicas=2))) as measure:
        level = measure(WORKLOAD.at(4))
        handed_out = {process.environ().get("CUDA_VISIBLE_DEVICES") for process in of_this_test(tmp_path)}
    assert handed_out == {"0", "GPU-1"}
    assert level.observed is not None
    assert dict(level.observed.versions) == {
        "engine": "vllm 1.2.3",
        "driver": "580.1",
        "cuda": "13.2",
        "gpu": "NVIDIA H200",
    }
    # Each look finds 100 J more: of the four, two lie before the load and two after it, which also takes preparations.
    assert 0 < level.observed.watts * level.duration_s <= 400


def test_memory_that_a_server_leaves_on_its_gpu_is_the_environments_failure(tmp_path, python, monkeypatch):
    monkeypatch.setattr("runners.served.served.driver", lambda: Driver(FakeNvml(used=[GIB, 9 * GIB])))
    monkeypatch.setattr(Driver, "wait_until_released", partialmethod(Driver.wait_until_released, limit_s=0))
    with pytest.raises(RunFailedError, match="GPU memory held: after the server ended: GPU 0: 8192 MiB") as caught:
        with served(tmp_path, python, devices=("0",)).serve(CONFIG):
            pass
    assert caught.value.environment


def test_prefill_and_decode_workers_stand_behind_a_proxy(tmp_path, python):
    config = replace(CONFIG, disaggregation=Disaggregation())
    with served(tmp_path, python).serve(config) as measure:
        level = measure(WORKLOAD.at(4))
    assert level.gpus == 2
    assert level.failed_requests == 0
    logs = sorted(path.name for path in (tmp_path / "logs" / "0000").glob("*.log"))
    assert logs == ["decode-0.log", "prefill-0.log", "router.log"]


def test_a_worker_that_dies_beside_others_ends_the_run_and_all_of_them(tmp_path, python):
    config = replace(CONFIG, layout=Layout(replicas=2))
    with pytest.raises(
        RunFailedError, match="server killed: SIGKILL, as the kernel does when the host's memory runs out under load"
    ):
        with served(tmp_path, python, "--fail", "orphans").serve(config) as measure:
            while True:
                measure(WORKLOAD.at(4))


def test_gpus_and_ports_are_handed_out_once():
    config = replace(
        CONFIG, layout=Layout(tensor=2, replicas=2), disaggregation=Disaggregation(prefill_layout=Layout(replicas=3))
    )
    deployment = plan(TOY, config, Installation(python="/env/bin/python", devices=tuple("01234567")))
    assert [worker.devices for worker in deployment.workers] == [("0",), ("1",), ("2",), ("3", "4"), ("5", "6")]
    assert [worker.name for worker in deployment.workers] == [
        "prefill-0",
        "prefill-1",
        "prefill-2",
        "decode-0",
        "decode-1",
    ]
    assert len(set(deployment.ports)) == len(deployment.ports)
    assert all(map(is_free, deployment.ports))
    channels = [worker.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for worker in deployment.workers]
    assert len(set(channels)) == 5
    router = deployment.router
    assert router is not None
    urls = [worker.url for worker in deployment.workers]
    assert list(router.argv[-7:]) == ["--prefill", *urls[:3], "--decode", *urls[3:]]


def test_a_variants_arguments_come_last_and_one_that_is_not_there_is_infeasible():
    installation = Installation(args=("--enforce-eager",), variants={"half": ("--dtype", "float16")})
    worker = plan(TOY, replace(CONFIG, variant="half"), installation).workers[0]
    assert worker.argv[:3] == ("vllm", "serve", "toy")
    assert worker.argv[-3:] == ("--enforce-eager", "--dtype", "float16")
    with pytest.raises(InfeasibleError, match=r"no variant 'other' is defined \(known: half\)"):
        plan(TOY, replace(CONFIG, variant="other"), installation)


@pytest.mark.parametrize(
    ("engine", "first", "router"),
    [
        ("sglang", ("/env/bin/python", "-m", "sglang.launch_server"), "sglang_router.launch_router"),
        ("trtllm", ("/env/bin/trtllm-serve", "toy"), "disaggregated"),
    ],
)
def test_other_engines_bring_their_own_router(engine, first, router):
    config = replace(CONFIG, engine=Engine(name=engine, version=""), disaggregation=Disaggregation())
    deployment = plan(TOY, config, Installation(python="/env/bin/python"))
    assert deployment.workers[0].argv[: len(first)] == first
    assert deployment.router is not None
    assert router in deployment.router.argv
    text = " ".join(deployment.router.argv) + "".join(deployment.router.files.values())
    assert all(str(worker.port) in text for worker in deployment.workers)


def test_the_interpreters_own_packages_are_not_those_of_this_process(tmp_path, python, monkeypatch):
    from runners.served.deployment import environment

    monkeypatch.setenv("PYTHONPATH", "/of/servetune")
    installation = Installation(python="/env/bin/python", env={"HF_HUB_OFFLINE": "1"}, devices=("3", "5"))
    deployment = plan(TOY, replace(CONFIG, layout=Layout(tensor=2)), installation)
    env = environment(deployment.workers[0], installation)
    assert "PYTHONPATH" not in env
    assert env["PATH"].split(os.pathsep)[0] == "/env/bin"
    assert env["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert env["HF_HUB_OFFLINE"] == "1"
