"""The seam between the search and everything that can serve, simulate or replay."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from runners.measurement import Measurement
from runners.workload import LoadedWorkload
from search_spaces.config import ServingConfig

Measure = Callable[[LoadedWorkload], Measurement]
"""Sends one load to the server that is up, and measures it. Raises RunFailedError."""


class RunFailedError(Exception):
    """There was no run: the server did not start, died or never answered.

    `cause` is a short class of failures to count by; `detail` holds state, path and the tail of the log.
    `environment` says that the machine is to blame and not the configuration: the same would befall any other.
    `gpu_seconds` is what the failure cost, in seconds of held GPUs.
    """

    def __init__(self, cause: str, detail: str, *, environment: bool = False, gpu_seconds: float = 0.0) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.environment = environment
        self.gpu_seconds = gpu_seconds


class Runner(Protocol):
    """Serves configurations, one at a time."""

    def serve(self, config: ServingConfig) -> AbstractContextManager[Measure]:
        """A server for `config` that takes any number of loads and is gone when the `with` ends.

        Raises InfeasibleError when the configuration is known to be impossible, RunFailedError when the server did
        not come up.
        """
        ...
