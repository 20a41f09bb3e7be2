"""Which values of the knobs each engine offers a search."""

from search_spaces.config import Engine, Value
from search_spaces.engines.engine import facts_of
from search_spaces.engines.taken import taken
from search_spaces.knobs import KNOBS
from search_spaces.models.model import Model

Offered = dict[str, tuple[Value, ...]]


def offered(model: Model, engine: Engine) -> Offered:
    """The values that knobs can have with an engine, of those knobs that cannot have all.

    A knob that the engine does not take has one, what the engine does by itself; or none, where no configuration of it
    has the knob.
    """
    facts = facts_of(engine)
    found: Offered = {name: taken(facts, name, (), model) for name in KNOBS if not facts.takes_knob(name)}
    for name in KNOBS:
        values = facts.offered(name)
        if name not in found and values is not None:
            found[name] = values
    return found


def is_fixed(offers: Offered, name: str) -> bool:
    """Whether there is nothing to choose of a knob with this engine. The mode is chosen before the engine is."""
    return name in offers and name != "mode" and len(offers[name]) < 2  # noqa: PLR2004
