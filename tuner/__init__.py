"""Which to serve: finds the cheapest configuration that meets the SLO.

From Python: `tuner.tune("gpt-oss-120b-b200-chat").best`, `tuner.read_experiment(...)`, `tuner.open_finished(...)`; see
docs/python.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.library import open_finished, read_experiment, tune

__all__ = ["open_finished", "read_experiment", "tune"]


def __getattr__(name: str) -> Any:
    """The library's names, imported when they are first used: a command that needs none of them stays quick."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("tuner.library"), name)
