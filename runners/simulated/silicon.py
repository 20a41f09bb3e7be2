"""Step times from AIConfigurator's silicon database: the one file that imports AIConfigurator."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runners.simulated.architectures import shape_of
from runners.simulated.step_time import Curve, StepTimes, Surface
from search_spaces.config import Engine, KvCache, Layout, Weights
from search_spaces.engines.engine import engines, facts_of, find_engine, timed_as
from search_spaces.errors import NO_KERNEL_DATA, InfeasibleError
from search_spaces.hardware.system import System
from search_spaces.models.model import KV_BYTES, Model

# (dense layers, experts) in AIConfigurator's names.
QUANT_MODES: dict[Weights, tuple[str, str]] = {
    "bf16": ("bfloat16", "bfloat16"),
    "fp8": ("fp8", "fp8"),
    "fp8_block": ("fp8_block", "fp8_block"),
    "nvfp4": ("nvfp4", "nvfp4"),
    "mxfp4": ("bfloat16", "w4a16_mxfp4"),
    "mxfp4_mxfp8": ("bfloat16", "w4a8_mxfp4_mxfp8"),
    "fp8_mxfp4": ("fp8_block", "w4a8_mxfp4_mxfp8"),
}
KV_MODES: dict[KvCache, str] = {"bf16": "bfloat16", "fp8": "fp8"}

SEQUENCES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
PROMPTS = (1, 2, 4, 8, 16, 32)
TOKENS = (
    *(1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024),
    *(1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
)
SHORTEST_CONTEXT = 16

KINDS: dict[str, tuple[str, ...]] = {
    "communication": ("dispatch", "_ar", "p2p", "a2a", "alltoall"),
    "attention": ("attention", "mla"),
    "experts": ("moe", "expert"),
    "matrix products": ("gemm", "ffn", "logits"),
}
"""Kinds of kernel, by what the names of AIConfigurator's operations contain; the first that fits, else `other`.

Where the exchange between experts overlaps with them (`moe_overlap`), both count as experts.
"""

# Host seconds to issue one layer kernel by kernel. A layer of DeepSeek-V3 (latent attention and experts): a pass of
# one new token takes 82.6 ms without and 23.1 ms with CUDA graphs, 61 layers, SGLang
# (github.com/sgl-project/sglang/pull/12160). Any other layer: a pass of 129 tokens of Qwen3-4B takes 16.6 ms without
# and 5.7 ms with, of 513 still 16.4 ms, 36 layers (github.com/wejoncy/sfllm/pull/46). Both are from other measurements
# than those that this project is judged on.
LATENT_LAYER_HOST_S = 0.0826 / 61
LAYER_HOST_S = 0.0164 / 36

# Host seconds to tokenize one token of a prompt: 1.1 s for a document of about a million tokens with Hugging Face's
# tokenizers, which work through one sequence on one thread (Charles Xu, "3.3x Faster HuggingFace Tokenizers for Single
# Sequence", November 2025). The engines use the same library.
TOKENIZATION_S = 1.1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKey:
    """What the step times of a worker depend on; batching and draft length are arguments of StepTimes."""

    engine: Engine
    layout: Layout
    weights: Weights
    kv_cache: KvCache


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEstimate:
    """AIConfigurator's answer for one worker: seconds, output tokens/s, and whether its memory holds the batch."""

    ttft: float
    tpot: float
    output_rate: float
    fits: bool


class Silicon:
    """The measured kernels of one model on one system.

    Step times are kept once built, and so is the handle behind them: AIConfigurator drops its tables (a second to
    read) with the last handle that uses them.
    """

    def __init__(self, model: Model, system: System, *, longest_context: int, stand_in: bool = False) -> None:
        self.model = model
        self.system = system
        self.longest_context = longest_context
        self._stand_in = stand_in
        self._built: dict[StepKey, StepTimes | InfeasibleError] = {}
        self._handles: list[Any] = []

    def step_times(self, key: StepKey) -> StepTimes:
        """Step times for contexts up to `longest_context` tokens (about 15 ms; the first of an engine 1 s).

        Raises InfeasibleError where the database has no kernel for the combination.
        """
        if key not in self._built:
            try:
                handle = self._compiled(key)
                self._built[key] = _step_times(handle, self.model, self.system, key, self.longest_context)
            except InfeasibleError as error:
                self._built[key] = error
        built = self._built[key]
        if isinstance(built, InfeasibleError):
            raise built
        return built

    def decode_kinds(self, key: StepKey, sequences: int, context: int) -> dict[str, float]:
        """Seconds of one decode step with one query token for each sequence, by KINDS of kernel.

        Raises InfeasibleError where the database has no kernel for the combination.
        """
        return _by_kind(self._compiled(key).decode_step_per_op(sequences, max(context - 1, 1), 2))

    def prefill_kinds(self, key: StepKey, tokens: int) -> dict[str, float]:
        """Seconds of the pass that takes one prompt of so many tokens, by KINDS of kernel.

        Raises InfeasibleError where the database has no kernel for the combination.
        """
        context, _ = self._compiled(key).run_static_per_op(batch_size=1, isl=tokens, osl=1, mode="static_ctx")
        return _by_kind(context)

    def _timed(self, key: StepKey) -> StepKey:
        return replace(key, engine=timed_as(key.engine, stand_in=self._stand_in))

    def _compiled(self, key: StepKey) -> Any:
        key = self._timed(key)
        handle = _compile(self.model, self.system, key, keep=self._handles)
        name = facts_of(key.engine).gemm_times_of.get(key.weights)
        if name is None:
            return handle
        other = replace(key, engine=find_engine(name))
        try:
            return _ShorterGemms(handle, _compile(self.model, self.system, other, keep=self._handles))
        except InfeasibleError:
            return handle

    def peer_estimate(
        self, key: StepKey, *, draft_length: int, accepted: float
    ) -> Callable[[int, int, int, int], PeerEstimate]:
        """AIConfigurator's own steady-state estimate of one worker.

        By batch, input length, output length and tokens of prompts in one pass.

        Raises InfeasibleError where the database has no kernel for the combination.
        """
        self.step_times(key)  # finds out which attention format there are kernels for, or that there are none
        return _peer_estimate(
            self.model,
            self.system,
            self._timed(key),
            draft_length=draft_length,
            accepted=accepted,
        )


class _ShorterGemms:
    """A handle whose matrix products take the other handle's time where that is shorter."""

    def __init__(self, handle: Any, other: Any) -> None:
        self._handle = handle
        self._other = other

    def decode_step_per_op(self, *args: int) -> list[Any]:
        return _shorter_gemms(self._handle.decode_step_per_op(*args), self._other.decode_step_per_op(*args))

    def run_static_per_op(self, **kwargs: Any) -> tuple[list[Any], list[Any]]:
        own, others = self._handle.run_static_per_op(**kwargs), self._other.run_static_per_op(**kwargs)
        context, generation = (_shorter_gemms(*pair) for pair in zip(own, others, strict=True))
        return context, generation


def _shorter_gemms(own: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    times = {name: milliseconds for name, milliseconds, *_ in others if name.endswith("_gemm")}
    return [(name, min(milliseconds, times.get(name, milliseconds)), *rest) for name, milliseconds, *rest in own]


def _by_kind(per_op: Iterable[Any]) -> dict[str, float]:
    seconds = dict.fromkeys((*KINDS, "other"), 0.0)
    for name, milliseconds, *_ in per_op:
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")
        seconds[kind] += milliseconds / 1000
    return seconds


def _step_times(handle: Any, model: Model, system: System, key: StepKey, longest_context: int) -> StepTimes:
    attention_names = _attention_names(handle, longest_context)
    contexts = _doubling(SHORTEST_CONTEXT, longest_context)

    def decode(sequences: int, context: int) -> tuple[float, float, float]:
        # AIConfigurator places the query at isl + osl / 2.
        return _split(handle.decode_step_per_op(sequences, context - 1, 2), attention_names)

    def prefill(prompts: int, length: int) -> tuple[float, float, float]:
        context, _ = handle.run_static_per_op(batch_size=prompts, isl=length, osl=1, mode="static_ctx")
        return _split(context, attention_names)

    decode_shared = Curve(TOKENS, tuple(decode(tokens, SHORTEST_CONTEXT)[0] for tokens in TOKENS))
    logits = [decode(sequences, SHORTEST_CONTEXT)[2] for sequences in SEQUENCES]
    draft_layer = [
        (decode_shared(sequences) - head + decode(sequences, contexts[-1] // 2)[1]) / model.layers + head
        for sequences, head in zip(SEQUENCES, logits, strict=True)
    ]
    return StepTimes(
        prefill_shared=Curve(TOKENS, tuple(prefill(1, tokens)[0] for tokens in TOKENS)),
        decode_shared=decode_shared,
        prefill_attention=_surface(PROMPTS, contexts, lambda prompts, length: prefill(prompts, length)[1]),
        decode_attention=_surface(SEQUENCES, contexts, lambda count, context: decode(count, context)[1]),
        draft=Curve(SEQUENCES, tuple(draft_layer)),
        verify_intensity=_verify_intensity(model, system, key),
        prefill_host=_prefill_host(model, key),
        tokenization=TOKENIZATION_S,
    )


def _prefill_host(model: Model, key: StepKey) -> float:
    """Seconds that the host takes to issue a pass with prompts where no CUDA graph does it."""
    if not facts_of(key.engine).issues_prefill:
        return 0.0
    latent = bool(model.attention.latent_width)
    return model.layers / key.layout.pipeline * (LATENT_LAYER_HOST_S if latent else LAYER_HOST_S)


def _surface(xs: Iterable[int], ys: tuple[int, ...], value: Callable[[int, int], float]) -> Surface:
    xs = tuple(xs)
    return Surface(xs, tuple(Curve(ys, tuple(value(x, y) for y in ys)) for x in xs))


def _doubling(low: int, high: int) -> tuple[int, ...]:
    """low, 2 low, 4 low, ... up to the first that is not below high; at least two."""
    values = [low, 2 * low]
    while values[-1] < high:
        values.append(2 * values[-1])
    return tuple(values)


def _split(per_op: Any, attention_names: frozenset[str]) -> tuple[float, float, float]:
    """(shared, attention, logits) seconds of a list of (name, ms, energy, source)."""
    shared = attention = logits = 0.0
    for name, milliseconds, *_ in per_op:
        if name in attention_names:
            attention += milliseconds
        else:
            shared += milliseconds
        if name.endswith("logits_gemm"):
            logits += milliseconds
    return shared / 1000, attention / 1000, logits / 1000


def _attention_names(handle: Any, longest_context: int) -> frozenset[str]:
    """Operations whose time depends on the context at an equal number of tokens."""
    long = max(longest_context, 64 * SHORTEST_CONTEXT)
    few, _ = handle.run_static_per_op(batch_size=1, isl=long, osl=1, mode="static_ctx")
    many, _ = handle.run_static_per_op(batch_size=8, isl=long // 8, osl=1, mode="static_ctx")
    pairs = [
        (few, many),
        (handle.decode_step_per_op(64, long, 2), handle.decode_step_per_op(64, SHORTEST_CONTEXT, 2)),
    ]
    names: set[str] = set()
    for one, other in pairs:
        names |= {a[0] for a, b in zip(one, other, strict=True) if abs(a[1] - b[1]) > 1e-6 * max(a[1], b[1])}
    return frozenset(names)


def _verify_intensity(model: Model, system: System, key: StepKey) -> float:
    """FLOPs for each KV-cache byte with one query token, over the GPU's FLOPs for each byte of memory traffic.

    One query token does 2 FLOPs x (key + value) width for each of the query heads that share a KV entry.
    Grouped-query attention reads key and value (2 x head_dim elements); latent attention reads one latent that
    serves both.
    """
    attention = model.attention
    sharing = model.query_heads if attention.latent_width else model.query_heads / attention.kv_heads
    flops_per_element = 2 * sharing * (2 if attention.latent_width else 1)
    gpu = system.gpu
    peak = gpu.fp8_flops if key.kv_cache == "fp8" else gpu.bf16_flops
    return flops_per_element / KV_BYTES[key.kv_cache] / (peak / gpu.memory_bandwidth)


def _compile(model: Model, system: System, key: StepKey, *, keep: list[Any]) -> Any:
    """A compiled AIConfigurator engine; every handle made on the way is appended to `keep`.

    Context attention is keyed by the attention's own number format. The inferred one comes first; DeepSeek's kernels
    were measured in bfloat16 only.
    """
    if shape_of(model.silicon_name) is None:  # AIConfigurator would look for it on the network
        raise InfeasibleError(NO_KERNEL_DATA, f"nothing was measured of {model.silicon_name}")
    missing: Exception | None = None
    for attention in (None, "bfloat16"):
        try:
            handle = _handle(model, system, key, attention)
            keep.append(handle)
            handle.predict_prefill_latency(1, 1024)
            handle.decode_step_latency(1, 1024, 2)
        except (ValueError, RuntimeError) as error:  # the roots of AIConfigurator's own errors
            missing = missing or error
            continue
        return handle
    reason = str(missing).split(" at /", maxsplit=1)[0].removeprefix("perf database error: ")
    raise InfeasibleError(
        NO_KERNEL_DATA,
        f"{model.name} {key.weights}, KV {key.kv_cache}, {key.layout} on {key.engine}: {reason}",
    ) from None


def _peer_estimate(
    model: Model,
    system: System,
    key: StepKey,
    *,
    draft_length: int,
    accepted: float,
) -> Callable[[int, int, int, int], PeerEstimate]:
    from aiconfigurator.sdk.backends.factory import get_backend
    from aiconfigurator.sdk.config import RuntimeConfig
    from aiconfigurator.sdk.inference_session import InferenceSession
    from aiconfigurator.sdk.models import get_model, resolve_context_fmha_by_data
    from aiconfigurator_core.sdk.config_builders import apply_nextn

    config = _model_config(model, key, attention=None)
    apply_nextn(config, draft_length)
    database = _database(system.silicon_name, key.engine)
    resolve_context_fmha_by_data(config, model.silicon_name, database, key.engine.name, is_context_role=True)
    # A backend object caches its answers without the model in the key: one for each worker.
    backend = get_backend(key.engine.name)
    session = InferenceSession(get_model(model.silicon_name, config, key.engine.name), database, backend)

    def estimate(batch: int, input_tokens: int, output_tokens: int, prompt_tokens: int) -> PeerEstimate:
        progress = {"decode_tokens_per_iteration": 1 + accepted} if draft_length else {}
        summary = session.run_agg(
            RuntimeConfig(batch_size=batch, isl=input_tokens, osl=output_tokens),
            ctx_tokens=prompt_tokens,
            **progress,
        )
        result = summary.get_result_dict()
        return PeerEstimate(
            ttft=result["ttft"] / 1000,
            tpot=result["tpot"] / 1000,
            output_rate=result["tokens/s"],
            fits=not (summary.check_oom() or summary.check_kv_cache_oom()),
        )

    return estimate


def _model_config(model: Model, key: StepKey, attention: str | None) -> Any:
    """AIConfigurator's description of one worker."""
    from aiconfigurator_core.sdk.config_builders import build_model_config

    gemm, moe = QUANT_MODES[key.weights]
    layout = key.layout
    return build_model_config(
        tp_size=layout.tensor,
        pp_size=layout.pipeline,
        attention_dp_size=layout.attention_dp,
        moe_tp_size=layout.moe_tensor if model.is_moe else 1,
        moe_ep_size=layout.expert,
        gemm_quant_mode=gemm,
        moe_quant_mode=moe if model.is_moe else None,
        kvcache_quant_mode=KV_MODES[key.kv_cache],
        fmha_quant_mode=attention,
    )


def _handle(model: Model, system: System, key: StepKey, attention: str | None) -> Any:
    """What EngineHandle.compile does, with the database read once instead of five YAML files each time."""
    import aiconfigurator_core
    from aiconfigurator_core.sdk.engine import EngineHandle, build_engine_spec_json
    from aiconfigurator_core.sdk.models import get_model

    config = _model_config(model, key, attention)
    database = _database(system.silicon_name, key.engine)
    spec = build_engine_spec_json(
        get_model(model.silicon_name, config, key.engine.name),
        model_path=model.silicon_name,
        system=system.silicon_name,
        backend=key.engine.name,
        backend_version=key.engine.version,
        kv_block_size=None,
        systems_path=None,
        nextn=0,
        database=database,
    )
    return EngineHandle(aiconfigurator_core.engine_spec_bincode_from_json(spec))


@cache
def _database(system: str, engine: Engine) -> Any:
    """AIConfigurator's tables of one engine release on one system."""
    for name in ("aiconfigurator_core", "aiconfigurator"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from aiconfigurator_core.sdk.perf_database import get_database

    database = get_database(system, engine.name, engine.version)
    if database is None:
        raise InfeasibleError(NO_KERNEL_DATA, f"nothing was measured for {engine} on {system}")
    return database


def kernel_releases(system: System) -> tuple[Engine, ...]:
    """The engine releases that step times are known for on a system, as far as the installed tables' folders say.

    Nothing is read or imported; empty where the tables are not installed.
    """
    tables = _tables() / system.silicon_name
    releases = [Engine(name=facts.name, version=version) for facts in engines().values() for version in facts.versions]
    return tuple(release for release in releases if any(tables.glob(f"*/{release.name}/{release.version}")))


def measured_systems() -> list[str]:
    """Every `silicon_name` of a system that kernels were measured on; none where the tables are not installed."""
    return sorted(folder.name for folder in _tables().glob("*") if folder.is_dir())


def _tables() -> Path:
    found = find_spec("aiconfigurator_core")
    folders = found.submodule_search_locations if found else None
    return Path(folders[0] if folders else "not-installed") / "systems" / "data"
