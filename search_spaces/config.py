"""ServingConfig: one complete way of serving a model, as frozen parts that compare and hash by value."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

Weights = Literal["bf16", "fp8", "fp8_block", "nvfp4", "mxfp4", "mxfp4_mxfp8", "fp8_mxfp4"]
KvCache = Literal["bf16", "fp8"]
Method = Literal["none", "mtp", "eagle3", "ngram"]
Mode = Literal["aggregated", "disaggregated"]
Value = str | int
EngineName = str
"""The name of a folder in search_spaces/engines, or of a user's own engine folder."""

METHODS: tuple[Method, ...] = get_args(Method)
MODES: tuple[Mode, ...] = get_args(Mode)
MAX_DRAFT_LENGTH = 8


def _require(law: str, *, holds: bool, found: str) -> None:
    if not holds:
        raise ValueError(f"`{law}` must hold, but got {found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An inference engine at one release; `folder` is the absolute path of the one that describes a user's own."""

    name: EngineName
    version: str
    folder: str | None = None

    @property
    def asked_as(self) -> str:
        """As an experiment names it."""
        return f"{self.folder or self.name}@{self.version}"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one worker is spread over GPUs, and how many identical workers there are.

    A worker holds tensor x pipeline x attention_dp GPUs. In its mixture-of-experts layers the
    tensor x attention_dp GPUs of a pipeline stage are regrouped: `expert` of them hold different
    experts, the rest (`moe_tensor`) split each expert.
    """

    tensor: int = 1
    pipeline: int = 1
    attention_dp: int = 1
    expert: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            _require(f"{field.name} >= 1", holds=value >= 1, found=str(value))

    @property
    def gpus_per_worker(self) -> int:
        return self.tensor * self.pipeline * self.attention_dp

    @property
    def gpus(self) -> int:
        return self.gpus_per_worker * self.replicas

    @property
    def schedulers(self) -> int:
        """Independent continuous batches: one for each attention-DP rank, pipeline stage and replica."""
        return self.attention_dp * self.pipeline * self.replicas

    @property
    def moe_tensor(self) -> int:
        """Ways in which each expert is split; whole only where `expert` divides (see fit)."""
        return self.tensor * self.attention_dp // self.expert

    def __str__(self) -> str:
        sizes = {
            "tp": self.tensor,
            "pp": self.pipeline,
            "dp": self.attention_dp,
            "ep": self.expert,
        }
        parts = [f"{name}{size}" for name, size in sizes.items() if size > 1] or ["tp1"]
        return "·".join(parts) + (f" x{self.replicas}" if self.replicas > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Limits of one scheduler's iteration: sequences running at once, tokens in one forward pass.

    `receive_interval` is the number of decode steps for which requests that have arrived are left waiting (SGLang's
    --scheduler-recv-interval; TensorRT-LLM's batch_wait_timeout_iters, and with attention DP its timeout_iters):
    that spares the host work and lets prompts gather, at the price of TTFT.
    """

    max_sequences: int = 256
    max_batched_tokens: int = 8192
    receive_interval: int = 1

    def __post_init__(self) -> None:
        _require("max_sequences >= 1", holds=self.max_sequences >= 1, found=str(self.max_sequences))
        _require(
            "max_batched_tokens >= max_sequences",
            holds=self.max_batched_tokens >= self.max_sequences,
            found=f"{self.max_batched_tokens} < {self.max_sequences}",
        )
        _require("receive_interval >= 1", holds=self.receive_interval >= 1, found=str(self.receive_interval))


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Number formats: a recipe for the weights (dense layers and experts), and the KV cache's.

    mxfp4 keeps dense layers in bf16 and experts in MXFP4 with 16-bit activations; mxfp4_mxfp8 feeds
    the same experts MXFP8 activations; fp8_mxfp4 has block-scaled FP8 dense layers and MXFP4 experts.
    """

    weights: Weights = "bf16"
    kv_cache: KvCache = "bf16"

    def __str__(self) -> str:
        return f"{self.weights}/kv-{self.kv_cache}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """Speculative decoding: who drafts, and how many tokens before each verification."""

    method: Method = "none"
    draft_length: int = 0

    def __post_init__(self) -> None:
        _require(
            f"1 <= draft_length <= {MAX_DRAFT_LENGTH}, or 0 with method none",
            holds=(self.draft_length == 0) if self.method == "none" else 1 <= self.draft_length <= MAX_DRAFT_LENGTH,
            found=f"method {self.method} with draft_length {self.draft_length}",
        )

    def __str__(self) -> str:
        return "" if self.method == "none" else f"{self.method}:{self.draft_length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disaggregation:
    """The prefill workers of a disaggregated deployment; the config's own layout then decodes (xPyD)."""

    prefill_layout: Layout = Layout()
    prefill_batching: Batching = Batching()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """Everything that an operator chooses. Aggregated where `disaggregation` is None.

    `variant` names a set of further engine arguments that an experiment defines; None where it defines none.
    `settings` has what no part holds, by the knob's name, in the order of names.
    """

    engine: Engine
    layout: Layout = Layout()
    batching: Batching = Batching()
    precision: Precision = Precision()
    speculation: Speculation = Speculation()
    disaggregation: Disaggregation | None = None
    variant: str | None = None
    settings: tuple[tuple[str, Value], ...] = ()

    def setting(self, name: str) -> Value | None:
        """What `settings` has under a knob's name; None where it is left to the engine."""
        return dict(self.settings).get(name)

    @property
    def gpus(self) -> int:
        prefill = self.disaggregation.prefill_layout.gpus if self.disaggregation else 0
        return self.layout.gpus + prefill

    @property
    def mode(self) -> Mode:
        return "disaggregated" if self.disaggregation else "aggregated"

    @property
    def workers(self) -> str:
        """`3P5D` for three prefill and five decode workers; `8x` for eight aggregated ones."""
        if self.disaggregation is None:
            return f"{self.layout.replicas}x"
        return f"{self.disaggregation.prefill_layout.replicas}P{self.layout.replicas}D"

    def __str__(self) -> str:
        if self.disaggregation is None:
            where = str(self.layout)
        else:
            where = f"{self.workers} {_worker(self.disaggregation.prefill_layout)} > {_worker(self.layout)}"
        limits = f"b{self.batching.max_sequences}/{self.batching.max_batched_tokens}"
        further = [f"{name}={value}" for name, value in self.settings]
        parts = [where, str(self.precision), limits, str(self.speculation), self.variant or "", *further]
        return " ".join(part for part in parts if part)


def _worker(layout: Layout) -> str:
    return str(layout).split(" ", maxsplit=1)[0]
