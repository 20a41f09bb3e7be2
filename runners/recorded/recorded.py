"""Recorded: published measurements of real deployments, cleaned by named rules and replayed as runs."""

import csv
import datetime as dt
import math
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from runners.measurement import Measurement, Percentiles
from runners.recorded.launch import Launch, Recipe, launch, recipe
from runners.runner import Measure, RunFailedError
from runners.workload.workload import ClosedLoop, Lengths, LoadedWorkload, Workload
from search_spaces.config import (
    Batching,
    Disaggregation,
    EngineName,
    Layout,
    Precision,
    ServingConfig,
    Weights,
)
from search_spaces.engines.engine import engines, find_engine
from search_spaces.errors import InputError
from search_spaces.hardware.system import systems

SAMPLE = ("systems", "silicon_sample.csv")
"""Where the rows lie inside aiconfigurator_core, whose licence is Apache-2.0."""

COLUMNS = (
    "id",
    "silicon_data_source",
    "backend",
    "backend_version",
    "model_path",
    "system",
    "precision",
    "mode",
    "isl",
    "osl",
    "batch_size",
    "tp_size",
    "pp_size",
    "attention_dp_size",
    "moe_ep_size",
    "prefill_num_workers",
    "prefill_tp_size",
    "prefill_pp_size",
    "prefill_attention_dp_size",
    "prefill_moe_ep_size",
    "decode_num_workers",
    "decode_tp_size",
    "decode_pp_size",
    "decode_attention_dp_size",
    "decode_moe_ep_size",
    "silicon_ttft_ms",
    "silicon_tpot_ms",
)

# The checkpoints of the rows by the name of the model whose architecture they have.
MODELS = {
    "deepseek-ai/DeepSeek-R1": "deepseek-r1",
    "deepseek-ai/DeepSeek-V3": "deepseek-r1",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-r1",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-r1",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "meta-llama/Llama-3.1-70B": "llama-3.3-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "moonshotai/Kimi-K2.5": "kimi-k2.5",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.5",
}
# (dense models, models with experts): `fp8` rows of the latter ran block-scaled checkpoints.
WEIGHTS: dict[str, tuple[Weights, Weights]] = {
    "bf16": ("bf16", "bf16"),
    "fp8": ("fp8", "fp8_block"),
    "fp4": ("nvfp4", "nvfp4"),
}
DENSE = {"llama-3.3-70b", "llama-3.1-8b", "qwen3-32b"}
# TensorRT-LLM's MoE backend feeds MXFP8 activations (gptoss_fp4_b200_trt.sh); Hopper, without FP4 tensor cores, 16-bit.
MXFP4_BY_ENGINE: dict[EngineName, Weights] = {"trtllm": "mxfp4_mxfp8", "vllm": "mxfp4", "sglang": "mxfp4"}
HOPPER = {"h100_sxm", "h200_sxm"}
SYSTEMS = {system.silicon_name: name for name, system in systems().items()}

SHORTEST_SHARE = 0.8
"""Lengths are drawn uniformly from this share of the nominal length up to all of it (random_range_ratio 0.8)."""
LENGTH_TOLERANCE = 0.01
LEAST_MS = 0.1
"""Below any TTFT or TPOT of a served model: TPOT in seconds, put into a column of milliseconds, is below it."""
REQUESTS_EACH = 10
"""Requests for each one in flight (num_prompts = 10 x max_concurrency); all start at once."""

COLD_TTFT_S = 3.0
COLD_BATCH = 16
MTP_SPEED = 0.8
# The combinations for which the same project also ran MTP (benchmarks/single_node/*_mtp.sh).
MTP_RUNS = {("trtllm", "nvfp4"), ("trtllm", "fp8_block"), ("sglang", "fp8_block")}
SMALLEST_SCENARIO = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One published run: what was served, how it was loaded, and the mean latencies that were measured, in seconds.

    `config.engine` is the nearest release with kernel data; `release` is what really ran. Batching limits and the KV
    cache's format are those of the run's published script (see `launch`). `suspect` says why the row is not
    to be trusted; it is empty where nothing is known against it. `changed` names the rules that corrected it.
    """

    model: str
    system: str
    config: ServingConfig
    workload: Workload
    concurrency: int
    ttft: float
    tpot: float
    release: str
    date: dt.date | None
    provenance: str
    suspect: str = ""
    changed: tuple[str, ...] = ()

    @property
    def output_rate(self) -> float:
        """Output tokens/s of the closed loop: concurrency x output / (TTFT + TPOT x (output - 1))."""
        return self.concurrency * closed_loop_rate(self.ttft, self.tpot, self.workload.output_tokens.mean)

    @property
    def scenario(self) -> tuple[str, str, int, int]:
        """Model, system, nominal input and output tokens."""
        return self.model, self.system, self.workload.input_tokens.high, self.workload.output_tokens.high

    @property
    def seconds(self) -> float:
        """How long the load took to send and answer: its requests through the closed loop, start-up excluded."""
        return self.workload.requests * self.workload.output_tokens.mean / self.output_rate


def closed_loop_rate(ttft: float, tpot: float, output_tokens: float) -> float:
    """Output tokens/s of one of the closed loop's requests in flight, by Little's law.

    About 3 % above what is measured: the run's start and end are not full.
    """
    return output_tokens / (ttft + tpot * (output_tokens - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """Every row that can be replayed, with counts of rows by the rule that dropped or corrected them."""

    rows: tuple[Recording, ...]
    total: int
    dropped: Mapping[str, int]
    changed: Mapping[str, int]

    @classmethod
    def of(cls, rows: Iterable[Recording]) -> "Recordings":
        """Some rows, as if no others had been recorded."""
        kept = tuple(rows)
        return cls(rows=kept, total=len(kept), dropped={}, changed={})

    @property
    def clean(self) -> tuple[Recording, ...]:
        """Rows with nothing known against them."""
        return tuple(row for row in self.rows if not row.suspect)

    @property
    def suspects(self) -> Mapping[str, int]:
        """Suspect rows by reason."""
        return Counter(row.suspect for row in self.rows if row.suspect)

    def scenarios(self) -> Mapping[tuple[str, str, int, int], tuple[Recording, ...]]:
        """Clean rows by model, system, input and output tokens, where at least eight configurations were measured."""
        groups: dict[tuple[str, str, int, int], list[Recording]] = defaultdict(list)
        for row in self.clean:
            groups[row.scenario].append(row)
        return {
            key: tuple(rows)
            for key, rows in sorted(groups.items())
            if len({served(row.config) for row in rows}) >= SMALLEST_SCENARIO
        }


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the file: its cells and what is read out of the text in `silicon_data_source`."""

    cells: Mapping[str, str]
    where: str

    def text(self, column: str) -> str:
        return self.cells[column] or ""

    def number(self, column: str, default: float = math.nan) -> float:
        text = self.text(column)
        try:
            return float(text) if text else default
        except ValueError:
            raise InputError(f"{self.where}: column {column} must hold a number, but has {text!r}") from None

    def tokens(self, column: str) -> int:
        """Raises InputError for what is no count of tokens."""
        count = self.number(column)
        if not 1 <= count < math.inf:
            raise InputError(
                f"{self.where}: column {column} must hold a number of tokens, but has {self.text(column)!r}"
            )
        return int(count)

    def seconds(self, column: str) -> float:
        """Of a column in milliseconds. Raises InputError for a time that no engine has: its unit will be another."""
        time = self.number(column)
        if not LEAST_MS <= time < math.inf:
            raise InputError(
                f"{self.where}: column {column} must hold milliseconds, {LEAST_MS:g} or more, "
                f"but has {self.text(column)!r}"
            )
        return time / 1000

    def size(self, column: str) -> int:
        """A parallel size; absent and 0 both mean 1."""
        return max(int(self.number(column, 1)), 1)

    @property
    def source(self) -> str:
        return self.text("silicon_data_source")

    @property
    def concurrency(self) -> int:
        found = re.search(r"silicon_concurrency=(\d+)", self.source)
        return int(found[1]) if found else 0

    @property
    def date(self) -> dt.date | None:
        found = re.search(r"measured=(\d{4}-\d\d-\d\d)", self.source)
        return dt.date.fromisoformat(found[1]) if found else None

    @property
    def measurement(self) -> tuple[object, ...]:
        """What two copies of one measurement have in common: labels differ, the figures to six digits do not."""
        figures = (f"{self.number(name):.6g}" for name in ("silicon_ttft_ms", "silicon_tpot_ms"))
        return *figures, self.text("system"), self.text("isl"), self.text("osl"), self.concurrency

    @property
    def aggregated(self) -> bool:
        return self.text("mode") == "agg"

    @property
    def workers_known(self) -> bool:
        return self.aggregated or bool(self.text("prefill_num_workers") and self.text("decode_num_workers"))

    @property
    def gpus(self) -> int:
        return self.size("tp_size") * self.size("attention_dp_size")


@cache
def recordings() -> Recordings:
    """The rows that come with aiconfigurator_core (0.12.0: InferenceX and NVIDIA, August 2025 to April 2026)."""
    with as_file(files("aiconfigurator_core").joinpath(*SAMPLE)) as path:
        return read_recordings(path)


def read_recordings(path: Path) -> Recordings:
    """Reads and cleans a file with the columns of silicon_sample.csv; times in milliseconds.

    Raises InputError for a file without them, and for a cell that is no number.
    """
    rows = list(_rows(path))
    dropped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    kept = _known(_without_copies(rows, dropped), dropped)
    found = [_recording(row, changed) for row in kept]
    return Recordings(
        rows=tuple(_suspected(found)),
        total=len(rows),
        dropped=dropped,
        changed=changed,
    )


def _rows(path: Path) -> Iterator[_Row]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}: recordings need the columns {', '.join(COLUMNS)} (times in milliseconds); "
                    f"missing: {', '.join(missing)}"
                )
            for number, cells in enumerate(reader, start=2):
                yield _Row(cells, f"{path}: line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as recordings: {error}") from None


# Rules that drop rows


def _without_copies(rows: Sequence[_Row], dropped: Counter[str]) -> list[_Row]:
    """One row for each measurement: the copy that tells most (worker counts, then the smaller, unmultiplied layout)."""
    groups: dict[tuple[object, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.measurement].append(row)
    dropped["a copy of another row's measurement"] = len(rows) - len(groups)
    return [min(group, key=lambda row: (not row.workers_known, row.gpus)) for group in groups.values()]


def _known(rows: Iterable[_Row], dropped: Counter[str]) -> Iterator[_Row]:
    """Rows that say what ran, and of what servetune knows."""
    for row in rows:
        reason = next((name for name, holds in DROPPED.items() if holds(row)), None)
        if reason is None:
            yield row
        else:
            dropped[reason] += 1


def _is_multiplied(row: _Row) -> bool:
    """Published copies of such measurements show it: "tp16, 4 x 4" is tp4 with ep4, "dp64, 8 x 8" is dp8 with ep8.

    vLLM's "tp2, dp2, ep4" is one such product too: its script (minimaxm2.5_fp4_b200.sh) starts
    --tensor-parallel-size=1 --data-parallel-size=$TP. The published configurations (nvidia-master.yaml) have
    expert parallelism 1 or that of the whole worker, so GPUs = EP x EP is a product there.
    """
    expert, gpus = row.size("moe_ep_size"), row.gpus
    if not row.aggregated or expert == 1:
        return False
    tensor, ranks = row.size("tp_size"), row.size("attention_dp_size")
    both = tensor == ranks and expert == gpus
    one = 1 in {tensor, ranks} and gpus == expert * expert
    return both or one


def _on_one_node(row: _Row) -> int:
    """GPUs of an aggregated row's worker, a multiplied layout divided."""
    return math.isqrt(row.gpus) if _is_multiplied(row) else row.gpus


def _misses_parallelism(row: _Row) -> bool:
    """The batch of one scheduler is the concurrency, or its share on an attention-DP rank."""
    batch = row.number("batch_size")
    ranks = row.size("attention_dp_size")
    return row.aggregated and batch > 0 and row.concurrency not in {batch, batch * ranks}


NODE_GPUS = 8
DROPPED: Mapping[str, Callable[[_Row], bool]] = {
    "no concurrency given": lambda row: not row.concurrency,
    "disaggregated without worker counts": lambda row: not row.workers_known,
    "single node with more than 8 GPUs (mis-read)": lambda row: row.aggregated and _on_one_node(row) > NODE_GPUS,
    "layout with a size of 0 (not read)": lambda row: row.aggregated and row.text("moe_ep_size") in {"0", "0.0"},
    "batch and concurrency disagree (replicas or attention DP not given)": _misses_parallelism,
    "a model that servetune does not know": lambda row: row.text("model_path") not in MODELS,
    "a number format without kernel data (int4)": lambda row: _weights_name(row) not in WEIGHTS,
    "a system that servetune does not know": lambda row: row.text("system") not in SYSTEMS,
    "an engine that servetune does not know": lambda row: row.text("backend") not in engines(),
}


# Rows into recordings, with the rules that correct them


def _weights_name(row: _Row) -> str:
    named = row.text("precision") or ("fp4" if "NVFP4" in row.text("model_path") else "")
    return named or ("fp8" if "FP8" in row.text("model_path") else "bf16")


def _weights(row: _Row, model: str, engine: EngineName) -> Weights:
    if model.startswith("gpt-oss"):
        return "mxfp4" if row.text("system") in HOPPER else MXFP4_BY_ENGINE[engine]
    dense, experts = WEIGHTS[_weights_name(row)]
    return dense if model in DENSE else experts


def _recording(row: _Row, changed: Counter[str]) -> Recording:
    engine: EngineName = row.text("backend")
    model = MODELS[row.text("model_path")]
    weights = _weights(row, model, engine)
    rules = []
    if model.startswith("gpt-oss"):
        rules.append("MXFP4 labelled fp4 or nvfp4")
    if _is_multiplied(row):
        rules.append("layout multiplied by its expert parallelism")
    changed.update(rules)
    layout = _layout(row, "" if row.aggregated else "decode_")
    inputs, outputs = row.tokens("isl"), row.tokens("osl")
    started = launch(
        engine,
        model=model,
        weights=weights,
        gpus=layout.gpus_per_worker,
        attention_dp=layout.attention_dp > 1,
        input_tokens=inputs,
        concurrency=row.concurrency,
        date=row.date,
        disaggregated=not row.aggregated,
    )
    batching, disaggregation = _batching(row, started, layout)
    if disaggregation is not None:
        known = _recipe_of(row, model, weights, disaggregation.prefill_layout, layout)
        batching, disaggregation = _as_in_recipe(known, batching, disaggregation)
    return Recording(
        model=model,
        system=SYSTEMS[row.text("system")],
        config=ServingConfig(
            engine=find_engine(engine),
            layout=layout,
            batching=batching,
            precision=Precision(weights=weights, kv_cache=started.kv_cache),
            disaggregation=disaggregation,
        ),
        workload=Workload(
            input_tokens=_lengths(inputs),
            output_tokens=_lengths(outputs),
            requests=REQUESTS_EACH * row.concurrency,
            standing_start=True,
        ),
        concurrency=row.concurrency,
        ttft=row.seconds("silicon_ttft_ms"),
        tpot=row.seconds("silicon_tpot_ms"),
        release=row.text("backend_version") or "unknown",
        date=row.date,
        provenance=f"{row.text('id')} ({row.source})",
        changed=tuple(rules),
    )


def _batching(row: _Row, started: Launch, layout: Layout) -> tuple[Batching, Disaggregation | None]:
    """The limits of the workers that decode, and the prefill workers where there are any; all requests have seats."""
    most = max(started.max_sequences, math.ceil(row.concurrency / layout.schedulers))
    batching = Batching(
        max_sequences=most,
        max_batched_tokens=max(started.max_batched_tokens, most),
        receive_interval=started.receive_interval,
    )
    if row.aggregated:
        return batching, None
    tokens = max(started.max_batched_tokens, int(row.number("isl")))
    prefill = Disaggregation(
        prefill_layout=_layout(row, "prefill_"),
        prefill_batching=Batching(max_sequences=min(most, tokens), max_batched_tokens=tokens),
    )
    return batching, prefill


def _recipe_of(row: _Row, model: str, weights: Weights, prefill: Layout, decode: Layout) -> Recipe | None:
    engine: EngineName = row.text("backend")
    return recipe(
        engine,
        model=model,
        system=SYSTEMS[row.text("system")],
        weights=weights,
        lengths=(int(row.number("isl")), int(row.number("osl"))),
        concurrency=row.concurrency,
        prefill=prefill,
        decode=decode,
    )


def _as_in_recipe(known: Recipe | None, batching: Batching, pool: Disaggregation) -> tuple[Batching, Disaggregation]:
    """With the limits of the published recipe where there is one."""
    if known is None:
        return batching, pool
    started = pool.prefill_batching
    tokens = known.prefill_tokens or started.max_batched_tokens
    prefill = Batching(
        max_sequences=min(known.prefill_sequences or started.max_sequences, tokens), max_batched_tokens=tokens
    )
    decode = replace(
        batching, max_sequences=min(known.decode_sequences or batching.max_sequences, batching.max_sequences)
    )
    return decode, replace(pool, prefill_batching=prefill)


def _lengths(nominal: int) -> Lengths:
    return Lengths(low=max(1, round(SHORTEST_SHARE * nominal)), high=nominal)


def _layout(row: _Row, role: str) -> Layout:
    tensor, ranks = row.size(f"{role}tp_size"), row.size(f"{role}attention_dp_size")
    expert = row.size(f"{role}moe_ep_size")
    if not role and _is_multiplied(row):
        if tensor == ranks:
            tensor, expert = 1, ranks
        elif ranks == 1:
            tensor = expert
        else:
            ranks = expert
    return Layout(
        tensor=tensor,
        pipeline=row.size(f"{role}pp_size"),
        attention_dp=ranks,
        expert=expert,
        replicas=row.size(f"{role}num_workers") if role else 1,
    )


# Rules that make rows suspect


def _suspected(rows: Sequence[Recording]) -> Iterator[Recording]:
    fast = _unlabelled_mtp(rows)
    for row in rows:
        reason = ""
        if row.ttft > COLD_TTFT_S and row.concurrency <= COLD_BATCH:
            reason = f"cold start: {row.config.mode}, mean TTFT above 3 s at 16 requests in flight or fewer"
        elif id(row) in fast:
            reason = "unlabelled MTP: DeepSeek-R1, under 0.8 of the TPOT of the same layout and load"
        yield replace(row, suspect=reason) if reason else row


def _unlabelled_mtp(rows: Sequence[Recording]) -> set[int]:
    """Aggregated DeepSeek-R1 rows that are faster than a measurement of the same, or of a lighter load.

    Compared are rows of one system, engine, precision, layout and workload at the same load; where a layout has one
    row only, those of any expert parallelism at the same or a lower load (TPOT grows with the load). Only where MTP
    was run as well.
    """
    groups: dict[tuple[object, ...], list[Recording]] = defaultdict(list)
    for row in rows:
        config = row.config
        kind = (config.engine.name, config.precision.weights)
        if row.model == "deepseek-r1" and config.disaggregation is None and kind in MTP_RUNS:
            groups[(*kind, config.layout.tensor, config.layout.attention_dp, row.scenario)].append(row)
    return {id(row) for group in groups.values() for row in group if _is_fast(row, group)}


def _is_fast(row: Recording, group: Sequence[Recording]) -> bool:
    alike = [
        other for other in group if other.config.layout == row.config.layout and other.concurrency == row.concurrency
    ]
    if len(alike) == 1:
        alike = [other for other in group if other.concurrency <= row.concurrency]
    return any(row.tpot < MTP_SPEED * other.tpot for other in alike)


# The runner


def served(config: ServingConfig) -> ServingConfig:
    """What of a configuration the rows tell apart: batching limits follow from the load there."""
    pool = config.disaggregation
    return replace(
        config,
        batching=Batching(),
        disaggregation=replace(pool, prefill_batching=Batching()) if pool else None,
    )


def newest(rows: Iterable[Recording]) -> tuple[Recording, ...]:
    """Each configuration at each load once: its latest measurement, as one who measured now would see it."""
    latest: dict[tuple[object, ...], Recording] = {}
    for row in sorted(rows, key=lambda row: row.date or dt.date.min):
        latest[served(row.config), row.scenario, row.concurrency] = row
    return tuple(latest.values())


class Recorded:
    """Answers with what was published for a configuration, at the nearest recorded concurrency at or below.

    Percentiles are not in the rows: each of them is the mean. A run is charged what it took: the requests through
    the closed loop plus `startup_s` for loading and warming up the engine; `sleep` spends that time (by default none
    is spent), and `spent_s` sums it up, `gpu_seconds` times the GPUs held.
    """

    def __init__(
        self,
        rows: Iterable[Recording],
        *,
        startup_s: float = 0.0,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._rows: dict[ServingConfig, list[Recording]] = defaultdict(list)
        for row in newest(rows):
            self._rows[served(row.config)].append(row)
        for found in self._rows.values():
            found.sort(key=lambda row: row.concurrency)
        self.startup_s = startup_s
        self.spent_s = 0.0
        self.gpu_seconds = 0.0
        self._sleep = sleep

    @property
    def configs(self) -> tuple[ServingConfig, ...]:
        return tuple(self._rows)

    @contextmanager
    def serve(self, config: ServingConfig) -> Iterator[Measure]:
        """Raises RunFailedError for a configuration that was never measured."""
        found = self._rows.get(served(config))
        if not found:
            raise RunFailedError("not recorded", f"{config} was never measured; {len(self._rows)} configurations were")
        gpus = found[0].config.gpus
        self._charge(self.startup_s, gpus)

        def measure(loaded: LoadedWorkload) -> Measurement:
            row = _nearest(found, loaded, config)
            self._charge(row.seconds, gpus)
            return as_measurement(row)

        yield measure

    def _charge(self, seconds: float, gpus: int) -> None:
        self.spent_s += seconds
        self.gpu_seconds += seconds * gpus
        if self._sleep is not None:
            self._sleep(seconds)


def _nearest(found: Sequence[Recording], loaded: LoadedWorkload, config: ServingConfig) -> Recording:
    if not isinstance(loaded.arrivals, ClosedLoop):
        raise InputError("recordings know closed-loop arrivals only; valid: closed_loop")
    asked = loaded.workload
    rows = [row for row in found if same_lengths(row.workload, asked)]
    if not rows:
        known = sorted({(row.workload.input_tokens.high, row.workload.output_tokens.high) for row in found})
        raise RunFailedError(
            "not recorded",
            f"{config} was not measured with {asked.input_tokens} input and {asked.output_tokens} output tokens; "
            f"valid (longest): {', '.join(f'{inputs}/{outputs}' for inputs, outputs in known)}",
        )
    index = bisect_right([row.concurrency for row in rows], loaded.load)
    if not index:
        raise RunFailedError(
            "not recorded",
            f"{config} was measured from {rows[0].concurrency} requests in flight, not {loaded.load:g}",
        )
    return rows[index - 1]


def same_lengths(one: Workload, other: Workload) -> bool:
    """Whether both ask for the same token counts: the longest are equal, the shortest within 1 % of them."""
    pairs = (one.input_tokens, other.input_tokens), (one.output_tokens, other.output_tokens)
    return all(a.high == b.high and abs(a.low - b.low) <= LENGTH_TOLERANCE * a.high for a, b in pairs)


def as_measurement(row: Recording) -> Measurement:
    """A recording in the form of a run; every percentile is the mean."""
    requests = row.workload.requests
    return Measurement(
        load=row.concurrency,
        gpus=row.config.gpus,
        duration_s=row.seconds,
        requests=requests,
        input_tokens=round(requests * row.workload.input_tokens.mean),
        output_tokens=round(requests * row.workload.output_tokens.mean),
        ttft=Percentiles.of([row.ttft]),
        tpot=Percentiles.of([row.tpot]),
        itl=Percentiles.of([row.tpot]),
        e2e=Percentiles.of([row.ttft + row.tpot * (row.workload.output_tokens.mean - 1)]),
        source="recorded",
    )
