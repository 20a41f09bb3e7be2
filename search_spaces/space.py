"""SearchSpace: the settings that a search may choose, their values, and the configurations they make."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from search_spaces.config import (
    MAX_DRAFT_LENGTH,
    Batching,
    Disaggregation,
    Engine,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
)
from search_spaces.engines.engine import facts_of
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.hardware.system import System
from search_spaces.models.model import KV_BYTES, Model

Value = str | int
Params = dict[str, Value]

MAX_SEQUENCES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
MAX_BATCHED_TOKENS = (2048, 4096, 8192, 16384)
PREFILL_WORKERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48)
PREFILL = "prefill."
VARIANT = "variant"


class Draws(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """Dimensions and their values, in the order in which they are drawn.

    Aggregated and disaggregated deployments share their dimensions; those that begin with `prefill.` describe the
    prefill workers and are drawn only when disaggregated. The number of replicas (or decode workers) is whatever
    fills `gpus`: it changes no cost per token, so it is no dimension.
    """

    engines: tuple[Engine, ...]
    gpus: int
    dimensions: Mapping[str, tuple[Value, ...]]

    def draw(self, trial: Draws) -> ServingConfig:
        """A configuration from an Optuna trial. Raises InfeasibleError when the parts make no deployment."""
        params: Params = {}
        for name, choices in self.dimensions.items():
            if name.startswith(PREFILL) and params["mode"] == "aggregated":
                continue
            params[name] = trial.suggest_categorical(name, choices)
        return self.config(params)

    def drawn(self, params: Mapping[str, Value]) -> Params:
        """Those of the parameters that are drawn in their mode."""
        aggregated = params["mode"] == "aggregated"
        return {name: value for name, value in params.items() if not (aggregated and name.startswith(PREFILL))}

    def config(self, params: Mapping[str, Value]) -> ServingConfig:
        """The configuration that parameters stand for. Raises InfeasibleError when they make none."""
        try:
            return self._config(params)
        except ValueError as error:
            raise InfeasibleError("batching", str(error)) from None

    def _config(self, params: Mapping[str, Value]) -> ServingConfig:
        layout = _layout(params, "layout.")
        speculation = speculation_of(params)
        sequences = _int(params, "batching.max_sequences")
        disaggregation = None
        left = self.gpus
        if params["mode"] == "disaggregated":
            prefill = replace(_layout(params, PREFILL), replicas=_int(params, "prefill.workers"))
            left -= prefill.gpus
            tokens = _int(params, "prefill.max_batched_tokens")
            seats = min(sequences, tokens // (speculation.draft_length + 1))
            batching = Batching(max_sequences=seats, max_batched_tokens=tokens)
            disaggregation = Disaggregation(prefill_layout=prefill, prefill_batching=batching)
        replicas = left // layout.gpus_per_worker
        if replicas < 1:
            needed = self.gpus - left + layout.gpus_per_worker
            raise InfeasibleError("GPUs", f"the workers need {needed} GPUs, {self.gpus} are there")
        return ServingConfig(
            engine=next(engine for engine in self.engines if engine.name == params["engine"]),
            layout=replace(layout, replicas=replicas),
            batching=Batching(
                max_sequences=sequences,
                max_batched_tokens=_int(params, "batching.max_batched_tokens"),
            ),
            precision=Precision(weights=params["precision.weights"], kv_cache=params["precision.kv_cache"]),  # type: ignore[arg-type]
            speculation=speculation,
            disaggregation=disaggregation,
            variant=str(params[VARIANT]) if VARIANT in params else None,
        )

    def params(self, config: ServingConfig) -> Params:
        """The parameters that stand for a configuration: the inverse of `config`."""
        params: Params = {
            "mode": config.mode,
            "engine": config.engine.name,
            **_layout_params(config.layout, "layout."),
            "precision.weights": config.precision.weights,
            "precision.kv_cache": config.precision.kv_cache,
            "speculation": str(config.speculation) or "none",
            "batching.max_sequences": config.batching.max_sequences,
            "batching.max_batched_tokens": config.batching.max_batched_tokens,
        }
        if config.disaggregation is not None:
            prefill = config.disaggregation
            params |= _layout_params(prefill.prefill_layout, PREFILL)
            params["prefill.max_batched_tokens"] = prefill.prefill_batching.max_batched_tokens
            params["prefill.workers"] = prefill.prefill_layout.replicas
        if config.variant is not None:
            params[VARIANT] = config.variant
        return params

    def with_variants(self, names: tuple[str, ...]) -> "SearchSpace":
        """The space with a choice among sets of further engine arguments."""
        return replace(self, dimensions={**self.dimensions, VARIANT: names})

    def restricted(self, restrictions: Mapping[str, tuple[Value, ...]]) -> "SearchSpace":
        """The space with fewer values. Raises InputError for an unknown dimension or a value outside it."""
        dimensions = dict(self.dimensions)
        for name, values in restrictions.items():
            if name not in dimensions:
                raise UnknownNameError("dimension", name, dimensions)
            for value in values:
                if value not in dimensions[name]:
                    raise UnknownNameError(f"value of {name}", value, dimensions[name])
            if not values:
                raise InputError(f"{name} needs at least one value")
            dimensions[name] = tuple(value for value in dimensions[name] if value in values)
        return replace(self, dimensions=dimensions)


def full_space(model: Model, system: System, engines_used: tuple[Engine, ...], gpus: int) -> SearchSpace:
    """Everything that can be chosen for a model on `gpus` GPUs of a system."""
    sizes = tuple(size for size in (1, 2, 4, 8, 16, 32, 64) if size <= min(gpus, system.nvlink_gpus))
    expert = sizes if model.is_moe else (1,)
    tensor = tuple(size for size in sizes if size <= min(8, gpus))
    modes = ("aggregated", "disaggregated") if gpus > 1 else ("aggregated",)
    methods = {method for engine in engines_used for method in facts_of(engine).methods}
    drafts = [
        f"{method}:{length}"
        for method, draft in model.drafts.items()
        if method in methods
        for length in range(1, min(len(draft.tokens_per_step), MAX_DRAFT_LENGTH) + 1)
    ]
    dimensions: dict[str, tuple[Value, ...]] = {
        "mode": modes,
        "engine": tuple(engine.name for engine in engines_used),
        "layout.tensor": tensor,
        "layout.pipeline": tuple(size for size in (1, 2) if size <= gpus),
        "layout.attention_dp": expert,
        "layout.expert": expert,
        "precision.weights": model.weights,
        "precision.kv_cache": tuple(KV_BYTES),
        "speculation": ("none", *drafts),
        "batching.max_sequences": MAX_SEQUENCES,
        "batching.max_batched_tokens": MAX_BATCHED_TOKENS,
    }
    if "disaggregated" in modes:
        dimensions |= {
            "prefill.tensor": tensor,
            "prefill.pipeline": (1,),
            "prefill.attention_dp": expert,
            "prefill.expert": expert,
            "prefill.max_batched_tokens": MAX_BATCHED_TOKENS,
            "prefill.workers": tuple(count for count in PREFILL_WORKERS if count < gpus),
        }
    return SearchSpace(engines=engines_used, gpus=gpus, dimensions=dimensions)


def _int(params: Mapping[str, Value], name: str) -> int:
    return int(params[name])


def speculation_of(params: Mapping[str, Value]) -> Speculation:
    """What `none` or `mtp:2` stands for."""
    method, _, length = str(params["speculation"]).partition(":")
    return Speculation(method=method, draft_length=int(length or 0))  # type: ignore[arg-type]


def _layout(params: Mapping[str, Value], prefix: str) -> Layout:
    return Layout(
        tensor=_int(params, f"{prefix}tensor"),
        pipeline=_int(params, f"{prefix}pipeline"),
        attention_dp=_int(params, f"{prefix}attention_dp"),
        expert=_int(params, f"{prefix}expert"),
    )


def _layout_params(layout: Layout, prefix: str) -> Params:
    return {
        f"{prefix}tensor": layout.tensor,
        f"{prefix}pipeline": layout.pipeline,
        f"{prefix}attention_dp": layout.attention_dp,
        f"{prefix}expert": layout.expert,
    }
