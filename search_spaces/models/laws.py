"""What the facts of a model must be: ranges, and laws between them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from search_spaces.config import MAX_DRAFT_LENGTH
from search_spaces.models.model import Attention, Draft, Model
from search_spaces.ranges import ANY, POSITIVE, outside, unless

COUNTS = {
    "layers": POSITIVE,
    "hidden_size": POSITIVE,
    "query_heads": POSITIVE,
    "dense_parameters": POSITIVE,
    "expert_parameters": ANY,
    "embedding_parameters": ANY,
    "experts": ANY,
    "experts_per_token": ANY,
    "expert_width": POSITIVE,
    "max_context": POSITIVE,
}
CACHE = {
    "kv_heads": ANY,
    "head_dim": ANY,
    "latent_width": ANY,
    "window": ANY,
    "window_layers": ANY,
    "index_bytes_per_token": ANY,
    "state_bytes": ANY,
}
MEASURED_TWICE = 0.02
"""By how much tokens per step may fall from one draft length to the next: they are measured one by one (DeepSeek-V4-Pro
2.55 and 2.54 at 7 and 8 of models.yaml).
"""


def broken_laws(model: Model) -> Iterator[str]:
    """What cannot be, by key: the law and what was found."""
    yield from outside(model, COUNTS)
    yield from _experts(model)
    for key in ("checkpoint", "silicon_name"):
        yield from unless(bool(getattr(model, key)), key, "must not be empty", "nothing")
    yield from unless(bool(model.weights), "weights", "needs at least one number format", "none")
    yield from unless(
        len({*model.weights}) == len(model.weights), "weights", "must name each format once", ", ".join(model.weights)
    )
    for law in _attention(model, model.attention):
        yield f"attention.{law}"
    for method, draft in model.drafts.items():
        yield from unless(method != "none", "drafts", "must name methods that draft", method)
        for law in _draft(draft):
            yield f"drafts.{method}.{law}"


def _experts(model: Model) -> Iterator[str]:
    chosen, experts = model.experts_per_token, model.experts
    low = 1 if model.is_moe else 0
    law = f"`{low} <= experts_per_token <= experts` must hold with {experts} experts"
    yield from unless(low <= chosen <= experts, "experts_per_token", law, chosen)
    law = "must be above 0 with experts, and 0 without"
    yield from unless((model.expert_parameters > 0) == model.is_moe, "expert_parameters", law, model.expert_parameters)


def _attention(model: Model, attention: Attention) -> Iterator[str]:
    yield from outside(attention, CACHE)
    if not attention.latent_width:
        yield from _heads(model, attention)
    for ratio, layers in attention.layers_by_ratio.items():
        law = "`ratio >= 1` and `layers >= 0` must hold"
        yield from unless(ratio >= 1 and layers >= 0, "layers_by_ratio", law, f"{ratio}: {layers}")
    whole = sum(attention.layers_by_ratio.values())
    yield from unless(
        whole <= model.layers, "layers_by_ratio", f"must have at most {model.layers} layers in all", whole
    )
    law = f"`window_layers <= {model.layers}` (layers) must hold"
    yield from unless(attention.window_layers <= model.layers, "window_layers", law, attention.window_layers)
    law = "`window >= 1` must hold with window_layers"
    yield from unless(attention.window > 0 or not attention.window_layers, "window", law, attention.window)
    law = "needs a layer that keeps a cache, whole or in a window"
    yield from unless(whole + attention.window_layers > 0, "layers_by_ratio", law, "none")


def _heads(model: Model, attention: Attention) -> Iterator[str]:
    heads = attention.kv_heads
    law = "`kv_heads >= 1` and `head_dim >= 1` must hold, or `latent_width >= 1`"
    yield from unless(heads > 0 and attention.head_dim > 0, "kv_heads", law, f"{heads} and {attention.head_dim}")
    law = f"must divide the {model.query_heads} query_heads"
    yield from unless(heads < 1 or model.query_heads % heads == 0, "kv_heads", law, heads)


def _draft(draft: Draft) -> Iterator[str]:
    yield from ANY.broken("parameters", draft.parameters)
    lengths = len(draft.tokens_per_step)
    law = f"needs 1 to {MAX_DRAFT_LENGTH} draft lengths"
    yield from unless(1 <= lengths <= MAX_DRAFT_LENGTH, "tokens_per_step", law, lengths)
    for law in broken_series(draft.tokens_per_step):
        yield f"tokens_per_step: {law}"


def broken_series(tokens_per_step: Sequence[float]) -> Iterator[str]:
    """What cannot be of the mean tokens of a step at draft lengths 1, 2, ..."""
    for length, value in enumerate(tokens_per_step, start=1):
        if not 1 <= value <= length + 1:
            yield f"`1 <= tokens per step <= {length + 1}` must hold at draft length {length}, but got {value:g}"
    for length, (before, after) in enumerate(pairwise(tokens_per_step), start=2):
        if after < before * (1 - MEASURED_TWICE):
            yield f"tokens per step must not fall with the draft length, but got {after:g} at {length} after {before:g}"
