"""Launch: how published benchmark scripts started an engine, where a recorded run does not say it.

As written in SemiAnalysisAI/InferenceX, benchmarks/single_node/*_b200*.sh @6a5dad463e (2026-03-23), unless an engine's
`published.py` says otherwise. A disaggregated run gets the aggregated settings of its engine without the wait for
arrivals, where no recipe is known.
"""

import datetime as dt
from dataclasses import dataclass

from search_spaces.config import Engine, KvCache, Weights
from search_spaces.engines.engine import facts_of
from search_spaces.engines.parts import part

NODE_GPUS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a published row says of its run; `gpus` are those of one worker."""

    model: str
    weights: Weights
    gpus: int
    attention_dp: bool
    input_tokens: int
    concurrency: int
    date: dt.date | None
    disaggregated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Settings of one recorded run, as far as a row does not say them."""

    max_sequences: int
    max_batched_tokens: int
    kv_cache: KvCache
    receive_interval: int = 1


def launched(engine: Engine, run: Run) -> Launch:
    """As the published script says; with the engine's own defaults where none is known."""
    published = part(engine, "published")
    if published is None:
        facts = facts_of(engine)
        sequences, tokens = facts.default_max_sequences, facts.default_max_batched_tokens
        return Launch(max_sequences=sequences, max_batched_tokens=tokens, kv_cache="bf16")
    made: Launch = published.launch(run)
    return made
