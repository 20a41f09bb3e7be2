"""The published measurements that come with AIConfigurator, or are in a file of one's own, as recordings."""

import math
from collections import Counter
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from runners.recorded.cleaning import DROPPED, is_multiplied, suspected, without_copies
from runners.recorded.recipes import Recipe, recipe
from runners.recorded.recording import Recording, Recordings
from runners.recorded.row import MODELS, SYSTEMS, WEIGHTS, Row, rows_of, weights_name
from runners.recorded.table import known
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Disaggregation, Engine, Layout, Precision, ServingConfig, Weights
from search_spaces.engines.engine import facts_of, find_engine
from search_spaces.engines.launch import Launch, Run, launched

SAMPLE = ("systems", "silicon_sample.csv")
"""Where the rows lie inside aiconfigurator_core, whose licence is Apache-2.0."""

DENSE = {"llama-3.3-70b", "llama-3.1-8b", "qwen3-32b"}

HOPPER = {"h100_sxm", "h200_sxm"}

SHORTEST_SHARE = 0.8
"""Lengths are drawn uniformly from this share of the nominal length up to all of it (random_range_ratio 0.8)."""
REQUESTS_EACH = 10
"""Requests for each one in flight (num_prompts = 10 x max_concurrency); all start at once."""


@cache
def recordings() -> Recordings:
    """The rows that come with aiconfigurator_core (0.12.0: InferenceX and NVIDIA, August 2025 to April 2026)."""
    with as_file(files("aiconfigurator_core").joinpath(*SAMPLE)) as path:
        return read_recordings(path)


def read_recordings(path: Path) -> Recordings:
    """Reads and cleans a file with the columns of silicon_sample.csv; times in milliseconds.

    Raises InputError for a file without them, and for a cell that is no number.
    """
    rows = list(rows_of(path))
    dropped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    kept = known(without_copies(rows, dropped), DROPPED, dropped)
    found = [_recording(row, changed) for row in kept]
    return Recordings(
        rows=tuple(suspected(found)),
        total=len(rows),
        dropped=dropped,
        changed=changed,
    )


def _weights(row: Row, model: str, engine: Engine) -> Weights:
    if model.startswith("gpt-oss"):
        return "mxfp4" if row.text("system") in HOPPER else facts_of(engine).published.mxfp4
    dense, experts = WEIGHTS[weights_name(row)]
    return dense if model in DENSE else experts


def _recording(row: Row, changed: Counter[str]) -> Recording:
    engine = find_engine(row.text("backend"))
    model = MODELS[row.text("model_path")]
    weights = _weights(row, model, engine)
    rules = []
    if model.startswith("gpt-oss"):
        rules.append("MXFP4 labelled fp4 or nvfp4")
    if is_multiplied(row):
        rules.append("layout multiplied by its expert parallelism")
    changed.update(rules)
    layout = _layout(row, "" if row.aggregated else "decode_")
    inputs, outputs = row.tokens("isl"), row.tokens("osl")
    started = launched(
        engine,
        Run(
            model=model,
            weights=weights,
            gpus=layout.gpus_per_worker,
            attention_dp=layout.attention_dp > 1,
            input_tokens=inputs,
            concurrency=row.concurrency,
            date=row.date,
            disaggregated=not row.aggregated,
        ),
    )
    batching, disaggregation = _batching(row, started, layout)
    if disaggregation is not None:
        known = _recipe_of(row, model, weights, disaggregation.prefill_layout, layout)
        batching, disaggregation = _as_in_recipe(known, batching, disaggregation)
    return Recording(
        model=model,
        system=SYSTEMS[row.text("system")],
        config=ServingConfig(
            engine=engine,
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


def _batching(row: Row, started: Launch, layout: Layout) -> tuple[Batching, Disaggregation | None]:
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


def _recipe_of(row: Row, model: str, weights: Weights, prefill: Layout, decode: Layout) -> Recipe | None:
    return recipe(
        row.text("backend"),
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


def _layout(row: Row, role: str) -> Layout:
    tensor, ranks = row.size(f"{role}tp_size"), row.size(f"{role}attention_dp_size")
    expert = row.size(f"{role}moe_ep_size")
    if not role and is_multiplied(row):
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
