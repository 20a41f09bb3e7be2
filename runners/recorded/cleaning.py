"""Rules that drop, correct or suspect published measurements, each by its name."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from runners.recorded.recording import Recording
from runners.recorded.row import MODELS, SYSTEMS, WEIGHTS, Row, weights_name
from search_spaces.engines.engine import facts_of
from search_spaces.engines.folders import engine_names

COLD_TTFT_S = 3.0
COLD_BATCH = 16
MTP_SPEED = 0.8


def without_copies(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    """One row for each measurement: the copy that tells most (worker counts, then the smaller, unmultiplied layout)."""
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.measurement].append(row)
    dropped["a copy of another row's measurement"] = len(rows) - len(groups)
    return [min(group, key=lambda row: (not row.workers_known, row.gpus)) for group in groups.values()]


def is_multiplied(row: Row) -> bool:
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


def _on_one_node(row: Row) -> int:
    """GPUs of an aggregated row's worker, a multiplied layout divided."""
    return math.isqrt(row.gpus) if is_multiplied(row) else row.gpus


def _misses_parallelism(row: Row) -> bool:
    """The batch of one scheduler is the concurrency, or its share on an attention-DP rank."""
    batch = row.number("batch_size")
    ranks = row.size("attention_dp_size")
    return row.aggregated and batch > 0 and row.concurrency not in {batch, batch * ranks}


NODE_GPUS = 8
DROPPED: Mapping[str, Callable[[Row], bool]] = {
    "no concurrency given": lambda row: not row.concurrency,
    "disaggregated without worker counts": lambda row: not row.workers_known,
    "single node with more than 8 GPUs (mis-read)": lambda row: row.aggregated and _on_one_node(row) > NODE_GPUS,
    "layout with a size of 0 (not read)": lambda row: row.aggregated and row.text("moe_ep_size") in {"0", "0.0"},
    "batch and concurrency disagree (replicas or attention DP not given)": _misses_parallelism,
    "a model that servetune does not know": lambda row: row.text("model_path") not in MODELS,
    "a number format without kernel data (int4)": lambda row: weights_name(row) not in WEIGHTS,
    "a system that servetune does not know": lambda row: row.text("system") not in SYSTEMS,
    "an engine that servetune does not know": lambda row: row.text("backend") not in engine_names(),
}


def suspected(rows: Sequence[Recording]) -> Iterator[Recording]:
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
        weights = config.precision.weights
        ran_mtp = weights in facts_of(config.engine).published.mtp
        if row.model == "deepseek-r1" and config.disaggregation is None and ran_mtp:
            groups[
                (config.engine.name, weights, config.layout.tensor, config.layout.attention_dp, row.scenario)
            ].append(row)
    return {id(row) for group in groups.values() for row in group if _is_fast(row, group)}


def _is_fast(row: Recording, group: Sequence[Recording]) -> bool:
    alike = [
        other for other in group if other.config.layout == row.config.layout and other.concurrency == row.concurrency
    ]
    if len(alike) == 1:
        alike = [other for other in group if other.concurrency <= row.concurrency]
    return any(row.tpot < MTP_SPEED * other.tpot for other in alike)
