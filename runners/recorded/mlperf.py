"""MLPerf: results that submitters tuned by hand for the MLPerf Inference rounds v5.1 and v6.0, cleaned by named rules.

`mlperf.csv` joins two published tables, whose sources stand in each line: the results, and the configuration files of
the submissions (columns tuned_*), by round, submitter, platform (without its ending _TRT), model and scenario.

Latencies are percentiles of an open loop with the data set's own lengths, and the submission is one load: nothing of
this is comparable with the means of `recorded`, so the two are kept apart.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, get_args

from runners.measurement import PERCENTILES, Percentiles
from runners.recorded.recording import SMALLEST_SCENARIO
from runners.recorded.table import known, lines_of
from search_spaces.config import (
    Batching,
    Engine,
    KvCache,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
    Weights,
)
from search_spaces.engines.engine import engines, find_engine
from search_spaces.errors import InputError

Mode = Literal["Server", "Interactive", "Offline"]
"""MLPerf's scenarios: Poisson arrivals with two sets of p99 limits, and all requests at once with none."""

COLUMNS = (
    *("round", "id", "submitter", "availability", "platform", "accelerator", "total_accel", "model", "scenario"),
    *("units", "weight_dtype", "mean_output_tokens", "scheduled_samples_s", "completed_samples_s"),
    *("completed_tokens_s", "ttft_p99_limit_ms", "tpot_p99_limit_ms", "ttft_mean_ms", "ttft_p50_ms", "ttft_p90_ms"),
    *("ttft_p99_ms", "tpot_mean_ms", "tpot_p50_ms", "tpot_p90_ms", "tpot_p99_ms", "location", "source"),
    *("tuned_tp", "tuned_pp", "tuned_moe_ep", "tuned_attention_dp", "tuned_max_batch_size", "tuned_max_num_tokens"),
    *("tuned_kv_cache_dtype", "tuned_spec_method", "tuned_spec_draft_len", "tuned_num_prefill_workers", "tuned_source"),
)
MODELS = {
    "deepseek-r1": "deepseek-r1",
    "gpt-oss-120b": "gpt-oss-120b",
    "llama3.1-405b": "llama-3.1-405b",
    "llama3.1-8b": "llama-3.1-8b",
    "qwen3-vl-235b-a22b": "qwen3-vl-235b",
}
EXPERTS = {"deepseek-r1", "gpt-oss-120b", "qwen3-vl-235b"}
SYSTEMS = {
    "NVIDIA B200-SXM-180GB": "b200",
    "NVIDIA B300-SXM-270GB": "b300",
    "NVIDIA GB200": "gb200-nvl72",
    "NVIDIA GB300": "gb300-nvl72",
    "NVIDIA H200-SXM-141GB": "h200",
    "NVIDIA H100-SXM-80GB": "h100",
}
LEAST_SECONDS = 600.0
"""The least that a run of these scenarios may take (MLPerf inference rules: min_duration 600,000 ms)."""

LEAST_SERVED = 0.9
KNOWN_PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One submitted result.

    `request_rate` and `output_rate` are completed requests/s and tokens/s. `ttft` and `tpot` are None where all
    requests come at once; what is not published of them is infinite, so that no SLO on it counts as met. Limits
    are the round's own, of the 99th percentile, in seconds. `config` is what was tuned, None with the reason in
    `unconfigured`. `suspect` and `changed` are those of a Recording.
    """

    round: str
    submitter: str
    model: str
    system: str
    mode: Mode
    gpus: int
    weights: str
    request_rate: float
    output_rate: float
    ttft: Percentiles | None
    tpot: Percentiles | None
    ttft_limit: float | None
    tpot_limit: float | None
    config: ServingConfig | None
    unconfigured: str
    provenance: str
    suspect: str = ""
    changed: tuple[str, ...] = ()

    @property
    def experiment(self) -> tuple[str, str, Mode]:
        """What was asked: model, system and scenario. Rounds differ in software, not in the experiment."""
        return self.model, self.system, self.mode

    @property
    def seconds(self) -> float:
        """The least that the run took."""
        return LEAST_SECONDS

    @property
    def gpu_seconds(self) -> float:
        return self.seconds * self.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Submissions:
    """Every result that servetune can make use of, with counts of rows by the rule that dropped or corrected them."""

    rows: tuple[Submission, ...]
    total: int
    dropped: Mapping[str, int]
    changed: Mapping[str, int]

    @property
    def clean(self) -> tuple[Submission, ...]:
        return tuple(row for row in self.rows if not row.suspect)

    @property
    def suspects(self) -> Mapping[str, int]:
        return Counter(row.suspect for row in self.rows if row.suspect)

    def experiments(self) -> Mapping[tuple[str, str, Mode], tuple[Submission, ...]]:
        """Clean rows by what was asked."""
        groups: dict[tuple[str, str, Mode], list[Submission]] = defaultdict(list)
        for row in self.clean:
            groups[row.experiment].append(row)
        return {key: tuple(rows) for key, rows in sorted(groups.items())}


def unsearchable(rows: Sequence[Submission]) -> str:
    """Why the submissions of one experiment cannot be searched."""
    known = {row.config for row in rows if row.config is not None}
    missing = Counter(row.unconfigured for row in rows if row.config is None)
    reasons = [f"{reason} ({count} of {len(rows)})" for reason, count in missing.most_common()]
    if len(known) < SMALLEST_SCENARIO:
        reasons.insert(0, f"configurations known: {len(known)}, one load each (a search needs {SMALLEST_SCENARIO})")
    return "; ".join(reasons)


@cache
def submissions() -> Submissions:
    """The results that ship with servetune."""
    with as_file(files("runners.recorded").joinpath("mlperf.csv")) as path:
        return read_submissions(path)


def read_submissions(path: Path) -> Submissions:
    """Reads and cleans a file with the columns of mlperf.csv.

    Raises InputError for a file without them, and for a cell that is no number.
    """
    rows = [_Row(*line) for line in lines_of(path, COLUMNS, "MLPerf results")]
    dropped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    kept = list(known(_without_copies(rows, dropped), DROPPED, dropped))
    found = tuple(_submission(row, changed) for row in kept)
    return Submissions(rows=found, total=len(rows), dropped=dropped, changed=changed)


@dataclass(frozen=True, slots=True)
class _Row:
    cells: Mapping[str, str]
    where: str

    def text(self, column: str) -> str:
        return self.cells[column] or ""

    def number(self, column: str) -> float | None:
        """None for an empty cell."""
        text = self.text(column)
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise InputError(f"{self.where}: column {column} must hold a number, but has {text!r}")
        return value

    def size(self, column: str) -> int:
        """Absent means 1."""
        return int(self.number(column) or 1)


# Rules that drop rows


def _without_copies(rows: Iterable[_Row], dropped: Counter[str]) -> list[_Row]:
    """One row for each run: the same run is entered once for each accuracy target."""
    names = ("round", "submitter", "platform", "scenario", "completed_samples_s", "completed_tokens_s", "ttft_p99_ms")
    seen: dict[tuple[str, ...], _Row] = {}
    for row in rows:
        key = (row.text("model").removesuffix(".9"), *(row.text(name) for name in names))
        if key in seen:
            dropped["the same run, entered for a second accuracy target"] += 1
        seen.setdefault(key, row)
    return list(seen.values())


DROPPED: Mapping[str, Callable[[_Row], bool]] = {
    "a model that servetune does not know": lambda row: row.text("model") not in MODELS,
    "a system that servetune does not know": lambda row: row.text("accelerator") not in SYSTEMS,
    "a scenario that servetune does not know": lambda row: row.text("scenario") not in get_args(Mode),
    "no tokens/s given (queries or samples only)": lambda row: not row.number("completed_tokens_s"),
}


# Rows into submissions


def _submission(row: _Row, changed: Counter[str]) -> Submission:
    model = MODELS[row.text("model")]
    rules = []
    if row.text("units") != "Tokens/s":
        rules.append("result in queries/s, tokens/s taken from the log")
    if model == "gpt-oss-120b" and row.text("weight_dtype") == "fp4":
        rules.append("MXFP4 labelled fp4")
    changed.update(rules)
    config, unconfigured = _config(row, model)
    return Submission(
        round=row.text("round"),
        submitter=row.text("submitter"),
        model=model,
        system=SYSTEMS[row.text("accelerator")],
        mode=row.text("scenario"),  # type: ignore[arg-type]
        gpus=row.size("total_accel"),
        weights=_weights(row, model),
        request_rate=row.number("completed_samples_s") or 0.0,
        output_rate=row.number("completed_tokens_s") or 0.0,
        ttft=_percentiles(row, "ttft"),
        tpot=_percentiles(row, "tpot"),
        ttft_limit=_seconds(row, "ttft_p99_limit_ms"),
        tpot_limit=_seconds(row, "tpot_p99_limit_ms"),
        config=config,
        unconfigured=unconfigured,
        provenance=f"MLPerf {row.text('id')} {row.text('location')} ({row.text('source')})",
        suspect=next((reason for reason, holds in SUSPECT.items() if holds(row)), ""),
        changed=tuple(rules),
    )


def _seconds(row: _Row, column: str) -> float | None:
    value = row.number(column)
    return None if value is None else value / 1000


def _percentiles(row: _Row, metric: str) -> Percentiles | None:
    """The next higher percentile that is published stands for one that is not; above the 99th nothing does."""
    known = {p: _seconds(row, f"{metric}_p{p:g}_ms") for p in KNOWN_PERCENTILES}
    if any(value is None for value in known.values()):
        return None
    at_least = [min((p for p in KNOWN_PERCENTILES if p >= wanted), default=None) for wanted in PERCENTILES]
    values = [math.inf if p is None else float(known[p] or 0.0) for p in at_least]
    mean = _seconds(row, f"{metric}_mean_ms")
    return Percentiles(mean=math.inf if mean is None else mean, values=tuple(values))


def _is_short(row: _Row) -> bool:
    asked = row.number("scheduled_samples_s")
    return asked is not None and (row.number("completed_samples_s") or 0.0) < LEAST_SERVED * asked


def _misses(metric: str) -> Callable[[_Row], bool]:
    def holds(row: _Row) -> bool:
        limit = row.number(f"{metric}_p99_limit_ms")
        return limit is not None and (row.number(f"{metric}_p99_ms") or 0.0) > limit

    return holds


SUSPECT: Mapping[str, Callable[[_Row], bool]] = {
    "fewer than 90 % of the requests sent were answered in time": _is_short,
    "TTFT p99 above the round's own limit": _misses("ttft"),
    "TPOT p99 above the round's own limit": _misses("tpot"),
    "a preview: not to be had when it was submitted": lambda row: row.text("availability") != "available",
}


# Configurations


def _weights(row: _Row, model: str) -> str:
    """The format published, in our words where there is one."""
    published = row.text("weight_dtype")
    if model == "gpt-oss-120b" and published == "fp4":
        return "mxfp4_mxfp8"
    return {"fp4": "nvfp4", "fp8": "fp8_block" if model in EXPERTS else "fp8"}.get(published, published)


@cache
def _submitted() -> Engine:
    """The engine that the submissions ran."""
    return find_engine(next(name for name, facts in engines().items() if facts.published.mlperf))


def _config(row: _Row, model: str) -> tuple[ServingConfig | None, str]:
    """What was tuned, or why that is not known."""
    reason = next((name for name, holds in UNCONFIGURED.items() if holds(row, model)), "")
    if reason:
        return None, reason
    tensor, pipeline = row.size("tuned_tp"), row.size("tuned_pp")
    ranks = tensor if row.text("tuned_attention_dp") == "True" else 1
    weights: Weights = _weights(row, model)  # type: ignore[assignment]
    cache: KvCache = row.text("tuned_kv_cache_dtype")  # type: ignore[assignment]
    length = int(row.number("tuned_spec_draft_len") or 0)
    config = ServingConfig(
        engine=_submitted(),
        layout=Layout(
            tensor=tensor // ranks,
            pipeline=pipeline,
            attention_dp=ranks,
            expert=row.size("tuned_moe_ep"),
            replicas=row.size("total_accel") // (tensor * pipeline),
        ),
        batching=Batching(
            max_sequences=row.size("tuned_max_batch_size"), max_batched_tokens=row.size("tuned_max_num_tokens")
        ),
        precision=Precision(weights=weights, kv_cache=cache),
        speculation=Speculation(method="mtp", draft_length=length) if length else Speculation(),
    )
    return config, ""


UNCONFIGURED: Mapping[str, Callable[[_Row, str], bool]] = {
    "no configuration published": lambda row, _model: not row.text("tuned_source"),
    "layouts of the prefill workers not given": lambda row, _model: bool(row.number("tuned_num_prefill_workers")),
    "layout or batch limits not given": lambda row, _model: (
        not all(row.number(f"tuned_{name}") for name in ("tp", "pp", "max_batch_size", "max_num_tokens"))
    ),
    "expert parallelism not given": lambda row, model: model in EXPERTS and not row.number("tuned_moe_ep"),
    "format of the KV cache not given": lambda row, _model: row.text("tuned_kv_cache_dtype") not in get_args(KvCache),
    "more sequences than tokens in a pass": lambda row, _model: (
        row.size("tuned_max_batch_size") > row.size("tuned_max_num_tokens")
    ),
    "GPUs are not a multiple of a worker's": lambda row, _model: (
        row.size("total_accel") % (row.size("tuned_tp") * row.size("tuned_pp")) != 0
    ),
}
