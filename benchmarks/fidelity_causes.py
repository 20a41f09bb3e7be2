"""What each mended cause contributes: errors on a sample of recorded rows, the causes switched on one after another.

python benchmarks/fidelity_causes.py --rows 500 --seed 1
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from unittest.mock import patch

from runners.recorded.recording import Recording
from runners.recorded.sample import recordings
from runners.simulated.silicon import TOKENIZATION_S
from search_spaces.engines.engine import engines
from tuner.evidence.validate import Compared, compare, grouped, sample, score, select


@dataclass(frozen=True, kw_only=True)
class Causes:
    standing_start: bool = True
    waits: bool = True
    host: bool = True
    overlap: bool = True
    gemms: bool = True
    recipes: bool = True
    tokenization: bool = True


NAMES = tuple(field.name for field in fields(Causes))
TITLES = (
    "burst at the start",
    "waits of the launch scripts",
    "host issues prompts",
    "pass planned ahead",
    "vLLM fp8 GEMMs",
    "published recipes",
    "tokenization",
)
STEPS = {
    "none": Causes(**dict.fromkeys(NAMES, False)),
    **{f"+ {title}": Causes(**dict.fromkeys(NAMES[index:], False)) for index, title in enumerate(TITLES, start=1)},
}


def predicted(rows: Sequence[Recording], causes: Causes) -> list[Compared]:
    facts = {
        name: replace(
            fact,
            issues_prefill=fact.issues_prefill and causes.host,
            overlaps=causes.overlap,
            gemm_times_of=fact.gemm_times_of if causes.gemms else {},
        )
        for name, fact in engines().items()
    }
    with (
        patch("runners.simulated.silicon.facts_of", lambda engine: facts[engine.name]),
        patch("runners.simulated.simulated.facts_of", lambda engine: facts[engine.name]),
        patch("runners.simulated.silicon.TOKENIZATION_S", TOKENIZATION_S if causes.tokenization else 0.0),
    ):
        return list(compare([loaded(row, causes) for row in rows], ["simulator"]))


def loaded(row: Recording, causes: Causes) -> Recording:
    config, workload = row.config, row.workload
    if not causes.recipes:
        config = without_recipes()[row.provenance].config
    if not causes.waits:
        config = replace(config, batching=replace(config.batching, receive_interval=1))
    if not causes.standing_start:
        workload = replace(workload, standing_start=False, requests=max(400, 3 * row.concurrency))
    return replace(row, config=config, workload=workload)


@cache
def without_recipes() -> dict[str, Recording]:
    """The rows as the aggregated launch scripts would have started them."""
    with patch("runners.recorded.sample.recipe", return_value=None):
        return {row.provenance: row for row in recordings.__wrapped__().rows}


def cells(rows: Sequence[Compared]) -> str:
    found = [score(rows, "simulator", figure) for figure in ("ttft", "tpot", "throughput")]
    return " | ".join(f"{item.median_error:.0%} / {item.bias:.2f}" for item in found if item)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rows = sample(select(recordings().clean), asked.rows, asked.seed)
    print("| causes | rows | TTFT | TPOT | throughput/GPU |\n|---|---|---|---|---|")
    for label, causes in STEPS.items():
        compared = predicted(rows, causes)
        whole = [row for row in compared if row.row.config.mode == "aggregated"]
        groups = {
            "all": compared,
            **{f"aggregated, {name}": group for name, group in grouped(whole, "engine").items()},
            **{
                f"disaggregated, {name}": group
                for name, group in grouped([row for row in compared if row not in whole], "engine").items()
            },
            "trtllm, attention DP": [
                row
                for row in whole
                if row.row.config.engine.name == "trtllm" and row.row.config.layout.attention_dp > 1
            ],
            "vllm, fp8_block": [
                row
                for row in whole
                if (row.row.config.engine.name, row.row.config.precision.weights) == ("vllm", "fp8_block")
            ],
        }
        for name, group in groups.items():
            print(f"| {label} | {name} ({len(group)}) | {cells(group)} |", flush=True)


if __name__ == "__main__":
    main()
