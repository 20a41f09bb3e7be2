"""EnumeratedSpace: a search space that is a list of configurations, such as those that were measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from search_spaces.config import Engine, ServingConfig
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.space import PREFILL, Params, SearchSpace, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class EnumeratedSpace(SearchSpace):
    """Only what is in the list can be drawn; every other combination of its values is infeasible.

    The number of workers is a dimension here, and batch limits are none: a configuration keeps its own.
    """

    configs: Mapping[frozenset[tuple[str, Value]], ServingConfig] = field(default_factory=dict)

    def config(self, params: Mapping[str, Value]) -> ServingConfig:
        """The listed configuration that parameters stand for. Raises InfeasibleError when it is not in the list."""
        found = self.configs.get(frozenset(params.items()))
        if found is None:
            raise self._unlisted(dict(params))
        return found

    def check(self, config: ServingConfig) -> None:
        """Raises InfeasibleError for a configuration that is not in the list, its batch limits apart."""
        if not self.lists(config):
            raise self._unlisted(config)

    def _unlisted(self, what: object) -> InfeasibleError:
        return InfeasibleError("not in the list", f"{len(self.configs)} configurations are, but not {what}")

    def params(self, config: ServingConfig) -> Params:
        return listed_params(config)

    def lists(self, config: ServingConfig) -> bool:
        """Whether a configuration is in the list, its batch limits apart."""
        return frozenset(listed_params(config).items()) in self.configs

    def restricted(self, restrictions: Mapping[str, tuple[Value, ...]]) -> "EnumeratedSpace":
        """The configurations with these values only; prefill dimensions leave aggregated ones alone.

        Raises InputError for an unknown dimension, for a value outside it, and where nothing is left.
        """
        kept = list(self.configs.values())
        for name, values in restrictions.items():
            if name not in self.dimensions:
                raise UnknownNameError("dimension", name, self.dimensions)
            for value in values:
                if value not in self.dimensions[name]:
                    raise UnknownNameError(f"value of {name}", value, self.dimensions[name])
            kept = [config for config in kept if self.params(config).get(name, next(iter(values), "")) in values]
        if not kept:
            raise InputError(f"none of the {len(self.configs)} configurations is left")
        return enumerated(kept, engines=self.engines, gpus=self.gpus)


def enumerated(configs: Iterable[ServingConfig], *, engines: tuple[Engine, ...], gpus: int) -> EnumeratedSpace:
    """The space of these configurations; each dimension has the values that they take, in order."""
    by_params = {frozenset(listed_params(config).items()): config for config in configs}
    values: dict[str, set[Value]] = {}
    for config in by_params.values():
        for name, value in listed_params(config).items():
            values.setdefault(name, set()).add(value)
    order = sorted(values, key=lambda name: name.startswith(PREFILL))  # they are drawn after `mode`
    dimensions = {name: tuple(sorted(values[name], key=lambda value: (str(type(value)), value))) for name in order}
    return EnumeratedSpace(engines=engines, gpus=gpus, dimensions=dimensions, configs=by_params)


def listed_params(config: ServingConfig) -> Params:
    """What tells a listed configuration from the others: no batch limits, but the number of workers."""
    params: Params = {
        "mode": config.mode,
        "engine": config.engine.name,
        **_sizes(config, "layout."),
        "precision.weights": config.precision.weights,
        "precision.kv_cache": config.precision.kv_cache,
        "speculation": str(config.speculation) or "none",
    }
    if config.disaggregation is not None:
        prefill = replace(config, layout=config.disaggregation.prefill_layout)
        sizes = _sizes(prefill, PREFILL)
        params |= {f"{PREFILL}workers": sizes.pop(f"{PREFILL}replicas"), **sizes}
    return params


def _sizes(config: ServingConfig, prefix: str) -> Params:
    layout = config.layout
    return {
        f"{prefix}tensor": layout.tensor,
        f"{prefix}pipeline": layout.pipeline,
        f"{prefix}attention_dp": layout.attention_dp,
        f"{prefix}expert": layout.expert,
        f"{prefix}replicas": layout.replicas,
    }
