"""Published load generators: what they are asked, and how strictly their results are read."""

import json
import os
import sys

import numpy as np
import pytest

from runners.load.tools import (
    ToolRun,
    aiperf_arguments,
    measure_with,
    read_aiperf,
    read_vllm_bench,
    vllm_bench_arguments,
)
from runners.runner import RunFailedError
from runners.workload.workload import Lengths, Trace, Workload
from search_spaces.errors import InputError

LENGTHS = {"input_tokens": Lengths(low=800, high=1200), "output_tokens": Lengths(low=100, high=100)}
# The keys that vLLM 0.32's vllm/benchmarks/serve.py writes.
VLLM_RESULT = {
    "duration": 10.0,
    "completed": 98,
    "failed": 2,
    "total_input_tokens": 98_000,
    "total_output_tokens": 9_800,
    **{
        f"{statistic}_{name}_ms": value
        for name, value in (("ttft", 50.0), ("tpot", 10.0), ("itl", 9.0), ("e2el", 1040.0))
        for statistic in ("mean", "p50", "p75", "p90", "p95", "p99", "p99.9")
    },
}
AIPERF_LATENCY = {
    "unit": "ms",
    "avg": 50.0,
    "p50": 48.0,
    "p75": 52.0,
    "p90": 55.0,
    "p95": 58.0,
    "p99": 60.0,
    "max": 70.0,
}
AIPERF_RESULT = {
    "request_count": {"unit": "requests", "avg": 99},
    "error_request_count": {"unit": "requests", "avg": 1},
    "benchmark_duration": {"unit": "sec", "avg": 12.5},
    "input_sequence_length": {"unit": "tokens", "avg": 1000.0},
    "output_sequence_length": {"unit": "tokens", "avg": 100.0},
    "time_to_first_token": AIPERF_LATENCY,
    "inter_token_latency": AIPERF_LATENCY | {"avg": 10.0},
    "request_latency": AIPERF_LATENCY | {"unit": "sec", "avg": 1.04},
}


def run(load=8, **changes):
    workload = Workload(**LENGTHS | {"requests": 100} | changes)
    return ToolRun(url="http://127.0.0.1:8000/v1", model_name="model", loaded=workload.at(load))


def option(arguments, name):
    return arguments[arguments.index(name) + 1]


def test_vllm_bench_is_asked_for_the_same_load(tmp_path):
    arguments = vllm_bench_arguments(run(shared_prefix_tokens=200), tmp_path)
    assert option(arguments, "--base-url") == "http://127.0.0.1:8000"
    assert option(arguments, "--max-concurrency") == "8"
    # 200 of the prefix and 600 to 1,000 of its own: 800 x (1 - 0.25) to 800 x (1 + 0.25)
    assert (option(arguments, "--random-prefix-len"), option(arguments, "--random-input-len")) == ("200", "800")
    assert json.loads(option(arguments, "--random-range-ratio")) == {"input": 0.25, "output": 0.0}
    assert "--ignore-eos" in arguments
    assert option(vllm_bench_arguments(run(2.5, shape="poisson"), tmp_path), "--request-rate") == "2.5"


def test_aiperf_is_asked_for_the_same_load(tmp_path):
    arguments = aiperf_arguments(run(), tmp_path)
    assert arguments[0] == "profile"
    assert "--streaming" in arguments
    assert option(arguments, "--concurrency") == "8"
    assert option(arguments, "--request-count") == "100"
    # A uniform law's standard deviation is its width over the root of 12.
    assert option(arguments, "--synthetic-input-tokens-stddev") == "115.5"


@pytest.mark.parametrize("arguments", [vllm_bench_arguments, aiperf_arguments])
def test_no_published_tool_sends_a_trace(arguments, tmp_path):
    trace = Trace(path="t", arrival=np.arange(3.0), input_tokens=np.full(3, 8), output_tokens=np.full(3, 8))
    with pytest.raises(InputError, match="cannot send a trace"):
        arguments(run(shape="trace", trace=trace), tmp_path)


def test_vllm_benchs_result_is_read_in_seconds():
    measured = read_vllm_bench(VLLM_RESULT, run().loaded, gpus=2)
    assert (measured.requests, measured.failed_requests, measured.gpus) == (98, 2, 2)
    assert (measured.ttft.at(99), measured.tpot.mean, measured.e2e.at(50)) == (0.05, 0.01, 1.04)
    assert measured.output_rate == 980
    assert measured.source == "measured"


def test_requests_that_a_tool_says_nothing_about_have_failed():
    silent = {key: value for key, value in VLLM_RESULT.items() if key != "failed"} | {"completed": 48}
    assert read_vllm_bench(silent, run().loaded, gpus=1).failed_requests == 52
    with pytest.raises(RunFailedError, match="no request was answered: vllm-bench says that 100 failed"):
        read_vllm_bench(VLLM_RESULT | {"completed": 0}, run().loaded, gpus=1)


def test_aiperfs_result_is_read_by_its_units_and_its_maximum_stands_for_p999():
    measured = read_aiperf(AIPERF_RESULT, run().loaded, gpus=1)
    assert (measured.requests, measured.failed_requests, measured.duration_s) == (99, 1, 12.5)
    assert (measured.ttft.at(99), measured.ttft.at(99.9)) == (0.06, 0.07)
    assert (measured.e2e.mean, measured.tpot.mean) == (1.04, 0.01)
    assert measured.output_tokens == 9900


# Running it


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a command of that name on the path; it does what its Python code says, the arguments being sys.argv."""

    def install(name, code):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\nimport json, os, pathlib, sys, time\n{code}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def test_a_tool_is_run_and_its_result_read(tool):
    folder = "pathlib.Path(sys.argv[sys.argv.index('--result-dir') + 1])"
    tool("vllm", f"({folder} / 'result.json').write_text(json.dumps({VLLM_RESULT!r}))")
    assert measure_with("vllm-bench", run(), gpus=1).requests == 98


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("sys.exit('no such server')", "vllm-bench failed: exit code 1: no such server"),
        ("print('all is well')", "vllm-bench gave no result: all is well"),
        ("time.sleep(60)", "time limit under load: vllm-bench ran over 1 s"),
    ],
)
def test_a_tool_that_fails_is_a_failed_run_with_what_it_said(tool, code, told):
    tool("vllm", code)
    with pytest.raises(RunFailedError, match=told):
        measure_with("vllm-bench", run(), gpus=1, time_limit_s=1)


def test_a_tool_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--with aiperf needs the command `aiperf`, which is not installed here"):
        measure_with("aiperf", run(), gpus=1)
