"""Model: the facts of a checkpoint that decide whether it fits and how fast it is."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from search_spaces.config import KvCache, Method, Speculation, Weights
from search_spaces.errors import InfeasibleError, UnknownNameError
from search_spaces.tables import read_yaml

KV_BYTES: dict[KvCache, float] = {"bf16": 2.0, "fp8": 1.0}

# Bytes for each weight element as (dense layers, experts). Block formats include their scales: NVFP4 has one FP8
# scale for 16 elements, MXFP4 and MXFP8 one byte for 32, FP8 block one float for 128x128.
WEIGHT_BYTES: dict[Weights, tuple[float, float]] = {
    "bf16": (2.0, 2.0),
    "fp8": (1.0, 1.0),
    "fp8_block": (1.0, 1.0),
    "nvfp4": (0.5625, 0.5625),
    "mxfp4": (2.0, 0.53125),
    "mxfp4_mxfp8": (2.0, 0.53125),
    "fp8_mxfp4": (1.0, 0.53125),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What one token leaves in the KV cache.

    Grouped-query attention keeps 2 x kv_heads x head_dim elements in each layer and is split over tensor ranks
    by head; latent attention (MLA) keeps `latent_width` elements and every tensor rank holds all of them.
    `layers_by_ratio` maps a compression ratio to the number of layers that keep one entry for so many tokens;
    layers with a sliding `window` keep at most that many entries. Sparse attention adds an index, and compressors a
    state of fixed size; both are bytes, whatever the cache's number format.
    """

    kv_heads: int = 0
    head_dim: int = 0
    latent_width: int = 0
    layers_by_ratio: dict[int, int]
    window: int = 0
    window_layers: int = 0
    index_bytes_per_token: float = 0.0
    state_bytes: float = 0.0

    def elements(self, tokens: float, tensor: int) -> float:
        """KV elements on one tensor rank for a sequence of `tokens` tokens."""
        heads = max(1.0, self.kv_heads / tensor)
        width = self.latent_width or 2 * heads * self.head_dim
        entries = sum(layers * tokens / ratio for ratio, layers in self.layers_by_ratio.items())
        return width * (entries + self.window_layers * min(tokens, self.window))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A way of speculating that exists for a model, and how many tokens one step then yields.

    `tokens_per_step[k - 1]` is the measured mean number of tokens that a step with k draft tokens commits, the
    verified one included.
    """

    parameters: float
    tokens_per_step: tuple[float, ...]
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A checkpoint. Counts are elements, not bytes."""

    name: str
    checkpoint: str
    silicon_name: str
    layers: int
    hidden_size: int
    query_heads: int
    attention: Attention
    dense_parameters: float
    expert_parameters: float
    embedding_parameters: float
    experts: int
    experts_per_token: int
    expert_width: int
    max_context: int
    weights: tuple[Weights, ...]
    source: str
    not_modelled: str = ""
    drafts: dict[Method, Draft] = field(default_factory=dict)

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    @property
    def own_weights(self) -> Weights:
        """The number format in which the checkpoint is published."""
        return self.weights[0]

    def tokens_per_step(self, speculation: Speculation) -> float:
        """Mean tokens committed by one decode step; 1 without speculation.

        Raises InfeasibleError where this model has no such draft or it was never measured so long.
        """
        if speculation.method == "none":
            return 1.0
        draft = self.drafts.get(speculation.method)
        if draft is None:
            known = ", ".join(self.drafts) or "none"
            raise InfeasibleError("no draft", f"{self.name} has no {speculation.method} draft (known: {known})")
        if speculation.draft_length > len(draft.tokens_per_step):
            raise InfeasibleError(
                "no acceptance data",
                f"{speculation.method} for {self.name} was measured up to draft length "
                f"{len(draft.tokens_per_step)}, not {speculation.draft_length}",
            )
        return draft.tokens_per_step[speculation.draft_length - 1]

    def kv_bytes(self, tokens: float, *, kv_cache: KvCache, tensor: int = 1) -> float:
        """KV-cache bytes of one sequence on one tensor rank, all layers."""
        attention = self.attention
        entries = attention.elements(tokens, tensor) * KV_BYTES[kv_cache]
        return entries + attention.index_bytes_per_token * tokens + attention.state_bytes

    def drafted_tokens(self, speculation: Speculation) -> int:
        """Draft tokens that a step computes on the GPU: all of them, but none where the draft has no parameters."""
        draft = self.drafts.get(speculation.method)
        return speculation.draft_length if draft and draft.parameters else 0


@cache
def models() -> dict[str, Model]:
    """Every model that servetune knows, by name."""
    return {name: model_of(name, facts) for name, facts in read_yaml("search_spaces.models", "models.yaml").items()}


def find_model(name: str) -> Model:
    """Raises UnknownNameError."""
    try:
        return models()[name]
    except KeyError:
        raise UnknownNameError("model", name, models()) from None


def model_of(name: str, facts: dict[str, Any]) -> Model:
    """An entry of models.yaml, its types taken on trust."""
    attention = Attention(**facts.pop("attention"))
    drafts = {
        method: Draft(**{**draft, "tokens_per_step": tuple(draft["tokens_per_step"])})
        for method, draft in facts.pop("drafts", {}).items()
    }
    weights = tuple(facts.pop("weights"))
    return Model(name=name, attention=attention, drafts=drafts, weights=weights, **facts)
