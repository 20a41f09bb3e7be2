"""Published load generators as senders: `vllm bench serve` and AIPerf, run as they are, their results read strictly."""

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runners.load.stream import PATHS, Endpoint, base_url, read_key
from runners.measurement import PERCENTILES, Measurement, Percentiles
from runners.runner import RunFailedError
from runners.workload.workload import ClosedLoop, Lengths, LoadedWorkload, Poisson
from search_spaces.errors import InputError

Tool = Literal["vllm-bench", "aiperf"]
RESULT = "result.json"
AIPERF_RESULT = "profile_export_aiperf.json"
TAIL = 2000
"""Characters of a tool's output that a failure keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """One run of a published tool. `tokenizer` is a name or a folder; tools count prompts with it."""

    url: str
    model_name: str
    loaded: LoadedWorkload
    endpoint: Endpoint = "completions"
    tokenizer: str | None = None
    api_key_env: str | None = None


def measure_with(tool: Tool, run: ToolRun, *, gpus: int, time_limit_s: float = 1800) -> Measurement:
    """Runs the tool to its end and reads its result; all requests count, as these tools have no warm-up of their own.

    Raises InputError where the tool is not installed or cannot send this load, RunFailedError where it failed, gave
    no result or answered no request.
    """
    executable = tool.partition("-")[0]
    found = shutil.which(executable)
    if found is None:
        raise InputError(f"--with {tool} needs the command `{executable}`, which is not installed here")
    with tempfile.TemporaryDirectory(prefix="servetune-") as folder:
        arguments = ARGUMENTS[tool](run, Path(folder))
        output = _finished([found, *arguments], _environment(run), tool, time_limit_s)
        results = sorted(Path(folder).rglob(RESULT if tool == "vllm-bench" else AIPERF_RESULT))
        if not results:
            raise RunFailedError(f"{tool} gave no result", output[-TAIL:])
        read = {"vllm-bench": read_vllm_bench, "aiperf": read_aiperf}[tool]
        return read(json.loads(results[0].read_text(encoding="utf-8")), run.loaded, gpus=gpus)


def _environment(run: ToolRun) -> dict[str, str] | None:
    key = read_key(run.api_key_env)
    if key is None:
        return None
    return {**os.environ, "OPENAI_API_KEY": key}


def _finished(command: Sequence[str], env: Mapping[str, str] | None, tool: Tool, time_limit_s: float) -> str:
    """Its output."""
    try:
        ended = subprocess.run(  # noqa: S603 an argument list; the tool was asked for by name
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunFailedError("time limit under load", f"{tool} ran over {time_limit_s:.0f} s") from None
    if ended.returncode:
        raise RunFailedError(f"{tool} failed", f"exit code {ended.returncode}: {ended.stdout[-TAIL:]}")
    return ended.stdout


def vllm_bench_arguments(run: ToolRun, folder: Path) -> list[str]:
    """For vLLM 0.32. Raises InputError for a trace, which `vllm bench serve` cannot send."""
    workload = run.loaded.workload
    prefix = workload.shared_prefix_tokens
    ratios = {"input": _range_ratio(workload.input_tokens, prefix), "output": _range_ratio(workload.output_tokens)}
    arguments = [
        *("bench", "serve"),
        *("--backend", "openai-chat" if run.endpoint == "chat" else "openai"),
        *("--base-url", base_url(run.url)),
        *("--endpoint", PATHS[run.endpoint]),
        *("--model", run.model_name),
        *("--dataset-name", "random"),
        *("--random-input-len", str(round(workload.input_tokens.mean) - prefix)),
        *("--random-output-len", str(round(workload.output_tokens.mean))),
        *("--random-range-ratio", json.dumps(ratios)),
        *("--random-prefix-len", str(prefix)),
        *("--num-prompts", str(workload.requests)),
        *("--seed", str(workload.seed)),
        *("--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--metric-percentiles", ",".join(f"{percentile:g}" for percentile in PERCENTILES)),
        *("--result-dir", str(folder)),
        *("--result-filename", RESULT),
        "--save-result",
        "--ignore-eos",
        "--disable-tqdm",
    ]
    arguments += ["--tokenizer", run.tokenizer] if run.tokenizer else []
    return arguments + _load_arguments("vllm-bench", run.loaded, concurrency="--max-concurrency")


def aiperf_arguments(run: ToolRun, folder: Path) -> list[str]:
    """For AIPerf 0.13, whose lengths are normal with the same mean and spread. Raises InputError for a trace."""
    workload = run.loaded.workload
    prefix = workload.shared_prefix_tokens
    arguments = [
        "profile",
        *("--url", base_url(run.url)),
        *("--model", run.model_name),
        *("--endpoint-type", "chat" if run.endpoint == "chat" else "completions"),
        "--streaming",
        *("--synthetic-input-tokens-mean", str(round(workload.input_tokens.mean) - prefix)),
        *("--synthetic-input-tokens-stddev", f"{_spread(workload.input_tokens):.1f}"),
        *("--output-tokens-mean", str(round(workload.output_tokens.mean))),
        *("--output-tokens-stddev", f"{_spread(workload.output_tokens):.1f}"),
        *("--extra-inputs", "ignore_eos:true"),
        *("--request-count", str(workload.requests)),
        *("--random-seed", str(workload.seed)),
        *("--artifact-dir", str(folder)),
        *("--ui", "none"),
    ]
    arguments += ["--num-prefix-prompts", "1", "--prefix-prompt-length", str(prefix)] if prefix else []
    arguments += ["--tokenizer", run.tokenizer] if run.tokenizer else []
    return arguments + _load_arguments("aiperf", run.loaded, concurrency="--concurrency")


ARGUMENTS: Mapping[Tool, Callable[[ToolRun, Path], list[str]]] = {
    "vllm-bench": vllm_bench_arguments,
    "aiperf": aiperf_arguments,
}


def _load_arguments(tool: Tool, loaded: LoadedWorkload, *, concurrency: str) -> list[str]:
    arrivals = loaded.arrivals
    if isinstance(arrivals, ClosedLoop):
        return [concurrency, str(arrivals.concurrency)]
    if isinstance(arrivals, Poisson):
        return ["--request-rate", f"{arrivals.rate:g}"]
    raise InputError(f"--with {tool} cannot send a trace; leave it out, and servetune sends it itself")


def _range_ratio(lengths: Lengths, prefix: int = 0) -> float:
    """Half the width over the middle."""
    return round((lengths.high - lengths.low) / 2 / max(lengths.mean - prefix, 1), 6)


def _spread(lengths: Lengths) -> float:
    """Standard deviation of a uniform law."""
    return (lengths.high - lengths.low) / math.sqrt(12)


def read_vllm_bench(result: Mapping[str, Any], loaded: LoadedWorkload, *, gpus: int) -> Measurement:
    """What `--save-result` writes. Raises RunFailedError where no request completed."""

    def latency(name: str) -> Percentiles:
        values = tuple(float(result[f"p{percentile:g}_{name}_ms"]) / 1000 for percentile in PERCENTILES)
        return Percentiles(mean=float(result[f"mean_{name}_ms"]) / 1000, values=values)

    completed = int(result["completed"])
    failed = _failed("vllm-bench", completed, int(result.get("failed", 0)), loaded)
    return Measurement(
        load=loaded.load,
        gpus=gpus,
        duration_s=float(result["duration"]),
        requests=completed,
        failed_requests=failed,
        input_tokens=int(result["total_input_tokens"]),
        output_tokens=int(result["total_output_tokens"]),
        ttft=latency("ttft"),
        tpot=latency("tpot"),
        itl=latency("itl"),
        e2e=latency("e2el"),
        source="measured",
    )


def read_aiperf(result: Mapping[str, Any], loaded: LoadedWorkload, *, gpus: int) -> Measurement:
    """What `profile_export_aiperf.json` holds; its p99.9, which it lacks, is the maximum. Raises RunFailedError."""

    def latency(name: str) -> Percentiles:
        found = result[name]
        scale = {"ms": 1e-3, "sec": 1.0, "s": 1.0, "us": 1e-6, "ns": 1e-9}[found["unit"]]
        values = tuple(float(found.get(f"p{percentile:g}", found["max"])) * scale for percentile in PERCENTILES)
        return Percentiles(mean=float(found["avg"]) * scale, values=values)

    def number(name: str) -> float:
        return float(result[name]["avg"]) if result.get(name) else 0.0

    completed = round(number("request_count"))
    failed = _failed("aiperf", completed, round(number("error_request_count")), loaded)
    return Measurement(
        load=loaded.load,
        gpus=gpus,
        duration_s=number("benchmark_duration"),
        requests=completed,
        failed_requests=failed,
        input_tokens=round(number("input_sequence_length") * completed),
        output_tokens=round(number("output_sequence_length") * completed),
        ttft=latency("time_to_first_token"),
        tpot=latency("inter_token_latency"),
        itl=latency("inter_chunk_latency" if "inter_chunk_latency" in result else "inter_token_latency"),
        e2e=latency("request_latency"),
        source="measured",
    )


def _failed(tool: Tool, completed: int, failed: int, loaded: LoadedWorkload) -> int:
    """All that did not complete: these tools end well when a server died half-way."""
    failed = max(failed, loaded.workload.requests - completed)
    if completed == 0:
        raise RunFailedError("no request was answered", f"{tool} says that {failed} failed")
    return failed
