"""EnumeratedSpace: a search space that is a list of configurations, such as those that were measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from search_spaces.config import Engine, ServingConfig, Value
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.knobs import KNOBS, find_knob, flatten
from search_spaces.space import DRAFT_LENGTH, Params, SearchSpace, listed

UNLISTED = {"engine.version", *(name for name, knob in KNOBS.items() if "batching" in knob.path)}
"""Settings of which a listed configuration keeps its own."""


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
        """The configurations with these values only; those that have no such setting stay.

        Raises InputError for a knob that is unknown or no dimension, for a value outside it, and where nothing is left.
        """
        kept = list(self.configs.values())
        for name, values in restrictions.items():
            knob = find_knob(name)
            if name not in self.dimensions:
                raise UnknownNameError("dimension", name, self.dimensions)
            wanted = listed(replace(knob, any_integer=False), values, self.dimensions[name])
            kept = [config for config in kept if self.params(config).get(name, wanted[0]) in wanted]
        if not kept:
            raise InputError(f"none of the {len(self.configs)} configurations is left")
        return enumerated(kept, engines=self.engines, gpus=self.gpus)


def enumerated(configs: Iterable[ServingConfig], *, engines: tuple[Engine, ...], gpus: int) -> EnumeratedSpace:
    """The space of these configurations; each dimension has the values that they take, in order."""
    by_params = {frozenset(listed_params(config).items()): config for config in configs}
    values: dict[str, set[Value]] = {}
    lengths: dict[str, set[int]] = {}
    for config in by_params.values():
        for name, value in listed_params(config).items():
            values.setdefault(name, set()).add(value)
        if config.speculation.draft_length:
            lengths.setdefault(config.speculation.method, set()).add(config.speculation.draft_length)
    return EnumeratedSpace(
        engines=engines,
        gpus=gpus,
        dimensions={name: tuple(sorted(values[name])) for name in KNOBS if name in values},
        draft_lengths={method: tuple(sorted(found)) for method, found in lengths.items()},
        configs=by_params,
    )


def listed_params(config: ServingConfig) -> Params:
    """What tells a listed configuration from the others: no batch limits, but the number of workers."""
    values = {name: value for name, value in flatten(config).items() if name not in UNLISTED}
    return values if values[DRAFT_LENGTH] else {name: value for name, value in values.items() if name != DRAFT_LENGTH}
