"""Kernel data: whether a scenario can be predicted at all and, where it cannot, what is known instead."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from runners.simulated.architectures import bundled_names, shape_of
from runners.simulated.silicon import Silicon, StepKey, kernel_releases, measured_systems
from runners.simulated.steady_state import step_key
from search_spaces.config import Engine, Weights
from search_spaces.default import default_configs
from search_spaces.engines.engine import timed_as
from search_spaces.errors import NO_KERNEL_DATA, InfeasibleError, nearest_first
from search_spaces.hardware.system import systems
from search_spaces.models.model import KV_BYTES
from tuner.scenario.scenario import Scenario
from tuner.search.ranking import Ranking

SHOWN = 6
"""Names of architectures that are suggested."""


def has_kernel_data(scenario: Scenario, silicon: Silicon) -> bool:
    """Whether there are kernel times for any engine's default configuration."""
    return any(
        _has_times(silicon, step_key(config, config.layout))
        for engine in scenario.space.engines
        for config in itertools.chain.from_iterable(default_configs(scenario.model, engine, scenario.gpus))
    )


def lacks_kernel_data(ranking: Ranking) -> bool:
    """Whether nothing could be predicted, and some of it only for want of kernel times."""
    return not ranking.candidates and NO_KERNEL_DATA in ranking.excluded


def what_is_known(scenario: Scenario, silicon: Silicon) -> str:
    """Why nothing can be predicted, and what could be: other releases and formats, systems or architectures."""
    model, system = scenario.model, scenario.system
    engines = ", ".join(map(str, scenario.space.engines))
    lines = [f"no kernel times to predict {model.name} with on {system.name} by {engines}"]
    if shape_of(model.silicon_name) is None:
        near = ", ".join(nearest_first(model.silicon_name, bundled_names())[:SHOWN])
        lines.append(f"of silicon_name {model.silicon_name!r} (model) nothing was measured; the nearest: {near}")
    if system.silicon_name not in measured_systems():
        near = ", ".join(nearest_first(system.silicon_name, measured_systems()))
        lines.append(f"on silicon_name {system.silicon_name!r} (system) nothing was measured; valid: {near}")
    else:
        known = "; ".join(_formats(scenario, silicon)) or "nothing"
        lines.append(f"known of {model.name} on {system.name}: {known}")
    elsewhere = "; ".join(_elsewhere(scenario))
    lines += [f"measured elsewhere: {elsewhere}"] if elsewhere else []
    lines.append("`runner: served` measures real engines, of any release")
    return "".join(f"{line}. " for line in lines).rstrip()


def _formats(scenario: Scenario, silicon: Silicon) -> Iterator[str]:
    """Releases with kernel times of this model on this system, each with its number formats."""
    for release in kernel_releases(scenario.system):
        found = [weights for weights in scenario.model.weights if _has_format(scenario, silicon, release, weights)]
        if found:
            yield f"{release} ({', '.join(found)})"


def _has_format(scenario: Scenario, silicon: Silicon, release: Engine, weights: Weights) -> bool:
    configs = itertools.chain.from_iterable(default_configs(scenario.model, release, scenario.gpus))
    keys = {step_key(config, config.layout) for config in configs}
    tried = (replace(key, weights=weights, kv_cache=kv_cache) for key in keys for kv_cache in KV_BYTES)
    return any(_has_times(silicon, key) for key in tried)


def _has_times(silicon: Silicon, key: StepKey) -> bool:
    with suppress(InfeasibleError):
        silicon.step_times(key)
        return True
    return False


def _elsewhere(scenario: Scenario) -> Iterator[str]:
    """The engines asked for, and the other systems that their releases were measured on."""
    for engine in scenario.space.engines:
        timed = timed_as(engine, stand_in=False)
        names = [
            name
            for name, system in systems().items()
            if name != scenario.system.name and timed in kernel_releases(system)
        ]
        if names:
            yield f"{engine} on {', '.join(names)}"
