"""What an engine cannot serve, whatever the model: its own laws, and knobs that it cannot be told."""

from collections.abc import Iterator, Sequence

from search_spaces.config import ServingConfig
from search_spaces.engines.engine import facts_of
from search_spaces.engines.facts import EngineFacts
from search_spaces.engines.law import Law, Pool, pools_of
from search_spaces.engines.parts import part


def unsupported(config: ServingConfig) -> str | None:
    """Why the engine cannot serve `config`, in a sentence; None where nothing is known against it."""
    own = part(config.engine, "laws")
    laws: tuple[Law, ...] = own.LAWS if own else ()
    pools = pools_of(config)
    return next((reason for law in (*laws, _told) if (reason := law(config, pools))), None)


def _told(config: ServingConfig, pools: Sequence[Pool]) -> str | None:
    """A knob that the engine cannot be told stays as it is where nobody tells it."""
    facts = facts_of(config.engine)
    if config.disaggregation and not facts.disaggregates:
        return f"{facts.name} has no prefill workers of their own: mode must be aggregated"
    for knob, value, only in _fixed(config, pools, facts):
        if value not in only:
            return f"{facts.name} cannot be told {knob} {value}: it must be {' or '.join(map(str, only))}"
    return None


def _fixed(
    config: ServingConfig, pools: Sequence[Pool], facts: EngineFacts
) -> Iterator[tuple[str, object, tuple[object, ...]]]:
    """Knobs with their value and those that they may have, where these are few."""
    for pool in pools:
        sizes = {f"layout.{name}": getattr(pool.layout, name) for name in _SIZES}
        sizes["batching.receive_interval"] = pool.batching.receive_interval
        for knob, value in sizes.items():
            if not facts.takes_knob(knob):
                yield knob, value, (1,)
    yield "speculation.method", config.speculation.method, facts.methods
    for knob, value in (
        ("precision.kv_cache", config.precision.kv_cache),
        ("precision.weights", config.precision.weights),
    ):
        offered = facts.offered(knob)
        if offered is not None:
            yield knob, value, offered


_SIZES = ("tensor", "pipeline", "attention_dp", "expert")
