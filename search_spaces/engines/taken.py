"""What an engine takes: the values that each knob may have for it."""

from collections.abc import Mapping
from functools import cache

from search_spaces.config import Engine, ServingConfig, Value
from search_spaces.engines.checkpoints import own_formats
from search_spaces.engines.engine import facts_of
from search_spaces.engines.facts import EngineFacts
from search_spaces.knobs import KNOBS
from search_spaces.models.model import Model

WITHOUT: Mapping[str, Value] = {
    "mode": "aggregated",
    "precision.kv_cache": "bf16",
    "speculation.method": "none",
    "speculation.draft_length": 0,
}
"""What an engine has that does not take such a knob, sizes and intervals of 1 apart."""


def taken(facts: EngineFacts, name: str, values: tuple[Value, ...], model: Model) -> tuple[Value, ...]:
    """Those of the values of a knob that the engine takes; what it has by itself where it does not take the knob."""
    if not facts.takes_knob(name):
        return own_formats(model) if name == "precision.weights" else untaken(facts, name)
    offered = facts.offered(name)
    return values if offered is None else tuple(value for value in values if value in offered)


def untaken(facts: EngineFacts, name: str) -> tuple[Value, ...]:
    """What a knob is for an engine that does not take it; nothing where no configuration of it has the knob."""
    match name.rpartition(".")[2]:
        case "max_sequences":
            return (facts.default_max_sequences,)
        case "max_batched_tokens":
            return (facts.default_max_batched_tokens,)
    if name in WITHOUT:
        return (WITHOUT[name],)
    return (1,) if KNOBS[name].path and KNOBS[name].is_number else ()


def not_taken(config: ServingConfig) -> str:
    """The first knob that a configuration sets and its engine does not take, in a sentence; empty where it takes all.

    The model decides in which number formats weights can be loaded, so they are not looked at here.
    """
    for name, only in _limited(config.engine):
        value = KNOBS[name].read(config)
        if value is not None and value not in only:
            instead = f": it must be {' or '.join(map(str, only))}" if only else ""
            return f"{config.engine.name} does not take {name} {value}{instead}"
    return ""


@cache
def _limited(engine: Engine) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    """The knobs of which an engine takes these values only: searches ask for each of many thousand configurations."""
    facts = facts_of(engine)
    found = ((name, facts.offered(name) if facts.takes_knob(name) else untaken(facts, name)) for name in KNOBS)
    return tuple(
        (name, only)
        for name, only in found
        if only is not None and name != "precision.weights" and not (only and {*KNOBS[name].names} == {*only})
    )
