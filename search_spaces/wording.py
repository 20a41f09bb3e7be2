"""How configurations are put to people: the same word for the same thing, everywhere."""

from search_spaces.config import Layout, Method, ServingConfig, Weights
from search_spaces.engines.engine import facts_of

WEIGHTS: dict[Weights, str] = {
    "bf16": "BF16 weights",
    "fp8": "FP8 weights",
    "fp8_block": "block-scaled FP8 weights",
    "nvfp4": "NVFP4 weights",
    "mxfp4": "MXFP4 experts with 16-bit activations",
    "mxfp4_mxfp8": "MXFP4 experts with MXFP8 activations",
    "fp8_mxfp4": "FP8 dense layers and MXFP4 experts",
}
METHODS: dict[Method, str] = {"none": "", "mtp": "MTP", "eagle3": "Eagle3", "ngram": "n-gram"}


def in_words(config: ServingConfig) -> str:
    """A configuration as a sentence without a verb."""
    facts = facts_of(config.engine)
    speculation = config.speculation
    if config.disaggregation is None:
        where = f"{_workers(config.layout)} ({config.layout})"
    else:
        prefill = config.disaggregation.prefill_layout
        where = f"{_workers(prefill)} for prefill and {_workers(config.layout)} for decode ({config})"
    drafting = (
        f"{METHODS[speculation.method]} speculation with draft length {speculation.draft_length}"
        if speculation.method != "none"
        else "no speculation"
    )
    kv_cache = {"bf16": "16-bit", "fp8": "FP8"}[config.precision.kv_cache]
    parts = [
        f"{facts.title} {config.engine.version}",
        where,
        WEIGHTS[config.precision.weights],
        f"{kv_cache} KV cache",
        drafting,
        f"at most {config.batching.max_sequences} sequences and {config.batching.max_batched_tokens} tokens in a pass",
        *([f"variant {config.variant!r}"] if config.variant else []),
        *(f"{name} {value}" for name, value in config.settings),
    ]
    return ", ".join(parts)


def _workers(layout: Layout) -> str:
    gpus = layout.gpus_per_worker
    return f"{plural(layout.replicas, 'worker')} of {plural(gpus, 'GPU')}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
