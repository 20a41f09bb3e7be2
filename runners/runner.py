"""The seam between the search and everything that can serve, simulate or replay."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from runners.measurement import Measurement
from runners.workload.workload import LoadedWorkload
from search_spaces.config import ServingConfig

Measure = Callable[[LoadedWorkload], Measurement]
"""Sends one load to the server that is up, and measures it. Raises RunFailedError."""


class RunFailedError(Exception):
    """There was no run: the server did not start, died or never answered.

    `cause` is a short class of failures to count by; the message holds state, path and the tail of the log. An
    `environment` failure says nothing about the configuration: an engine that is not installed, a full disk.
    """

    def __init__(self, cause: str, detail: str, *, environment: bool = False) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.environment = environment


OUT_OF_MEMORY = "out of memory"
"""The cause of a failure that bounds what other configurations may need."""


class Runner(Protocol):
    """Serves configurations, one at a time."""

    def serve(self, config: ServingConfig) -> AbstractContextManager[Measure]:
        """A server for `config` that takes any number of loads and is gone when the `with` ends.

        Raises InfeasibleError when the configuration is known to be impossible, RunFailedError when the server did
        not come up.
        """
        ...


@runtime_checkable
class Metered(Protocol):
    """A runner that holds real GPUs, or replays a time when they were held."""

    @property
    def gpu_seconds(self) -> float:
        """GPUs x seconds held since the runner was made, from the start of each server to its end."""
        ...
