"""Recipes: the limits of published disaggregated runs, where a recorded row does not say them."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from search_spaces.config import EngineName, Layout, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Limits of one scheduler in a disaggregated run's published recipe; None where the recipe leaves a default."""

    prefill_sequences: int | None
    prefill_tokens: int | None
    decode_sequences: int | None


PRECISIONS: Mapping[Weights, str] = {"nvfp4": "fp4", "fp8_block": "fp8"}
RECIPE_KEY = (
    *("engine", "model", "system", "precision", "input_tokens", "output_tokens"),
    *("prefill_workers", "prefill_tensor", "prefill_attention_dp"),
    *("decode_workers", "decode_tensor", "decode_attention_dp"),
)


def recipe(
    engine: EngineName,
    *,
    model: str,
    system: str,
    weights: Weights,
    lengths: tuple[int, int],
    concurrency: int,
    prefill: Layout,
    decode: Layout,
) -> Recipe | None:
    """The recipe of a disaggregated run, by what its row says; None where none is published.

    recipes.csv joins SemiAnalysisAI/InferenceX .github/configs/nvidia-master.yaml (December 2025 to April 2026), which
    names a recipe for each set of workers and concurrencies, with that recipe in NVIDIA/srt-slurm. Where the recipe
    itself is not public, the decode limit is the one in its name (..._batch32_...). SGLang's are divided by its
    attention-DP size, as it does itself; a prefill pass is the smaller of max-prefill-tokens and chunked-prefill-size.
    """
    layouts = (size for layout in (prefill, decode) for size in (layout.replicas, layout.tensor, layout.attention_dp))
    key = (engine, model, system, PRECISIONS.get(weights, ""), *lengths, *layouts, concurrency)
    return _recipes().get(tuple(map(str, key)))


@cache
def _recipes() -> Mapping[tuple[str, ...], Recipe]:
    text = files("runners.recorded").joinpath("recipes.csv").read_text(encoding="utf-8")
    return {
        (*(cells[name] for name in RECIPE_KEY), concurrency): Recipe(
            prefill_sequences=_whole(cells["prefill_sequences"]),
            prefill_tokens=_whole(cells["prefill_tokens"]),
            decode_sequences=_whole(cells["decode_sequences"]),
        )
        for cells in csv.DictReader(text.splitlines())
        for concurrency in cells["concurrency"].split("/")
    }


def _whole(text: str) -> int | None:
    return int(text) if text else None
