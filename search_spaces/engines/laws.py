"""What an engine cannot serve, whatever the model: its own laws, and knobs that it does not take."""

from search_spaces.config import ServingConfig
from search_spaces.engines.law import pools_of
from search_spaces.engines.parts import laws_of
from search_spaces.engines.taken import not_taken


def unsupported(config: ServingConfig) -> str | None:
    """Why the engine cannot serve `config`, in a sentence; None where nothing is known against it."""
    pools = pools_of(config)
    broken = (reason for law in laws_of(config.engine) if (reason := law(config, pools)))
    return next(broken, not_taken(config) or None)
