"""What an engine cannot serve, whatever the model: its own laws, and knobs that it does not take."""

from search_spaces.config import ServingConfig
from search_spaces.engines.law import Law, pools_of
from search_spaces.engines.parts import part
from search_spaces.engines.taken import not_taken


def unsupported(config: ServingConfig) -> str | None:
    """Why the engine cannot serve `config`, in a sentence; None where nothing is known against it."""
    own = part(config.engine, "laws")
    laws: tuple[Law, ...] = own.LAWS if own else ()
    pools = pools_of(config)
    return next((reason for law in laws if (reason := law(config, pools))), not_taken(config) or None)
