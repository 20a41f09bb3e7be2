"""Why a configuration cannot be served: divisibility, memory, NVLink domain, engine and model support."""

from dataclasses import dataclass

from search_spaces.config import Batching, Layout, ServingConfig
from search_spaces.engines.checkpoints import own_formats
from search_spaces.engines.engine import facts_of
from search_spaces.engines.laws import unsupported
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import System
from search_spaces.models.model import WEIGHT_BYTES, Model

GIB = 1 << 30

# From AIConfigurator 0.12.0 (systems/*.yaml `misc` and TRTLLMBackend.ACTIVATION_COEFFICIENTS): CUDA context and
# libraries, NCCL buffers, and bytes of activation for each token and hidden element by tensor parallel size.
RUNTIME_BYTES = 3.5 * GIB
NCCL_BYTES = 392 * (1 << 20)
DENSE_ACTIVATION = {1: 22.0, 2: 13.0, 4: 10.0, 8: 10.0}
MOE_ACTIVATION = {1: 44.0, 2: 26.0, 4: 20.0, 8: 20.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one GPU of a worker, and what is left of it for the KV cache."""

    capacity: float
    weights: float
    draft: float
    activations: float
    runtime: float
    kv_cache: float

    @property
    def other_than_kv(self) -> float:
        return self.weights + self.draft + self.activations + self.runtime


def memory(model: Model, system: System, config: ServingConfig, layout: Layout, batching: Batching) -> Memory:
    """Where one GPU's memory goes in a worker of this layout; `kv_cache` is negative where nothing is left."""
    dense, expert = WEIGHT_BYTES[config.precision.weights]
    ranks = layout.tensor * layout.pipeline
    weights = (
        model.dense_parameters * dense / ranks
        + model.embedding_parameters * WEIGHT_BYTES["bf16"][0] / ranks
        + model.expert_parameters * expert / (ranks * layout.attention_dp)
    )
    draft = 0.0
    if config.speculation.method in model.drafts:
        spread = layout.tensor * layout.attention_dp
        draft = model.drafts[config.speculation.method].parameters * dense / spread
    coefficients = MOE_ACTIVATION if model.is_moe else DENSE_ACTIVATION
    coefficient = coefficients[max(size for size in coefficients if size <= layout.tensor)]
    activations = batching.max_batched_tokens * model.hidden_size * coefficient
    runtime = RUNTIME_BYTES + (NCCL_BYTES if layout.gpus_per_worker > 1 else 0)
    facts = facts_of(config.engine)
    capacity = system.gpu.memory_bytes
    used = weights + draft + activations + runtime
    if facts.memory_fraction_of == "free":
        kv_cache = (capacity - used) * facts.memory_fraction
    else:
        kv_cache = capacity * facts.memory_fraction - used
    return Memory(
        capacity=capacity,
        weights=weights,
        draft=draft,
        activations=activations,
        runtime=runtime,
        kv_cache=kv_cache,
    )


def kv_token_bytes(model: Model, config: ServingConfig, layout: Layout, tokens: float) -> float:
    """KV bytes on one GPU for each token of a sequence of `tokens` tokens, the draft's own layer included.

    A pipeline stage holds its share of the layers for all the batches in flight, so pipeline parallelism
    changes nothing for one scheduler.
    """
    sequence = model.kv_bytes(tokens, kv_cache=config.precision.kv_cache, tensor=layout.tensor)
    draft = model.drafts.get(config.speculation.method)
    layers = model.layers + (1 if draft and draft.parameters else 0)
    return sequence / tokens * layers / model.layers


def kv_capacity(
    model: Model,
    system: System,
    config: ServingConfig,
    layout: Layout,
    batching: Batching,
    tokens: float,
) -> int:
    """Tokens that one scheduler's KV cache holds, in sequences of about `tokens` tokens.

    Raises InfeasibleError where not even one such sequence fits.
    """
    budget = memory(model, system, config, layout, batching)
    held = int(budget.kv_cache / kv_token_bytes(model, config, layout, tokens))
    if held < tokens:
        raise InfeasibleError(
            "memory",
            f"{layout} in {config.precision}: weights {budget.weights / GIB:.1f} + draft {budget.draft / GIB:.1f} + "
            f"activations {budget.activations / GIB:.1f} + runtime {budget.runtime / GIB:.1f} GiB of "
            f"{budget.capacity / GIB:.1f} GiB leave room for {max(held, 0)} KV-cache tokens, but one request needs "
            f"{tokens:.0f}",
        )
    return held


def check(model: Model, system: System, config: ServingConfig, *, gpus: int, max_request_tokens: int) -> None:
    """Raises InfeasibleError with the first law that `config` breaks on `gpus` GPUs of `system`.

    `max_request_tokens` is the longest request's input plus output.
    """
    _check_support(model, system, config)
    for layout, batching in worker_pools(config):
        _check_layout(model, system, layout)
        needed = batching.max_sequences * (config.speculation.draft_length + 1)
        if needed > batching.max_batched_tokens:
            raise InfeasibleError(
                "batching",
                f"max_sequences x (draft_length + 1) = {needed} tokens must fit "
                f"max_batched_tokens {batching.max_batched_tokens}",
            )
        kv_capacity(model, system, config, layout, batching, max_request_tokens)
    if config.gpus > gpus:
        raise InfeasibleError("GPUs", f"{config} needs {config.gpus} GPUs, {gpus} are there")


def worker_pools(config: ServingConfig) -> list[tuple[Layout, Batching]]:
    """The pools of identical workers: decode (or aggregated) first, then prefill."""
    pools = [(config.layout, config.batching)]
    if config.disaggregation is not None:
        pools.append((config.disaggregation.prefill_layout, config.disaggregation.prefill_batching))
    return pools


def _check_support(model: Model, system: System, config: ServingConfig) -> None:
    weights = config.precision.weights
    if weights not in model.weights:
        known = ", ".join(model.weights)
        raise InfeasibleError("precision", f"{model.name} has no {weights} weights (known: {known})")
    if "fp4" in weights and weights != "mxfp4" and not system.gpu.has_fp4:
        raise InfeasibleError("precision", f"{system.gpu.name} has no FP4 tensor cores for {weights}")
    if config.speculation.method not in facts_of(config.engine).methods:
        raise InfeasibleError("engine", f"{config.engine.name} has no {config.speculation.method} speculation")
    model.tokens_per_step(config.speculation)
    reason = unsupported(config)
    if reason:
        raise InfeasibleError("engine", reason)
    own = own_formats(model)
    if weights not in own and not facts_of(config.engine).takes_knob("precision.weights"):
        raise InfeasibleError(
            "engine", f"{config.engine.name} loads {model.name} as it is, in {own[0]}, not in {weights}"
        )


def _check_layout(model: Model, system: System, layout: Layout) -> None:
    if layout.gpus_per_worker > system.nvlink_gpus:
        raise InfeasibleError(
            "NVLink domain",
            f"a worker of {layout.gpus_per_worker} GPUs spans more than one domain of {system.nvlink_gpus}",
        )
    _divides("tensor", layout.tensor, "query heads", model.query_heads)
    heads = model.attention.kv_heads
    if heads and heads % layout.tensor and layout.tensor % heads:
        raise InfeasibleError("divisibility", f"tensor {layout.tensor} and {heads} KV heads do not divide each other")
    if layout.pipeline > model.layers:
        raise InfeasibleError("divisibility", f"pipeline {layout.pipeline} exceeds {model.layers} layers")
    if not model.is_moe:
        if layout.attention_dp > 1 or layout.expert > 1:
            raise InfeasibleError("dense model", "attention DP and expert parallelism need experts")
        _divides("tensor", layout.tensor, "MLP width", model.expert_width)
        return
    _divides("expert", layout.expert, "tensor x attention_dp", layout.tensor * layout.attention_dp)
    _divides("expert", layout.expert, "experts", model.experts)
    _divides("moe_tensor", layout.moe_tensor, "expert width", model.expert_width)


def _divides(what: str, size: int, of_what: str, whole: int) -> None:
    if whole % size:
        raise InfeasibleError("divisibility", f"{what} {size} does not divide {of_what} {whole}")
