"""Lease: one retune of an experiment at a time, by tags in the store that all of them share."""

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from tuner.retune.registry import Store, StoreError

KEY = "lease."
SECONDS = 120.0
"""A lease that is not renewed for so long is over: its holder was killed, or cannot reach the store."""

SKEW_S = 10.0
"""How far the clocks of two machines may differ."""

LOOK_EVERY_S = 5.0


class Tags(Protocol):
    """Named texts of one thing in a store, each written and deleted by itself."""

    def read(self) -> Mapping[str, str]: ...
    def write(self, key: str, value: str) -> None: ...
    def drop(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ModelTags:
    """The tags of a registered model. They exist as long as the model does."""

    store: Store
    name: str

    def read(self) -> Mapping[str, str]:
        model = self.store.model(self.name)
        return dict(model.tags) if model else {}

    def write(self, key: str, value: str) -> None:
        self.store.set_tag(self.name, key, value)

    def drop(self, key: str) -> None:
        self.store.drop_tag(self.name, key)


class TakenError(Exception):
    """Another holds the lease; the message says who, and until when."""


@dataclass(kw_only=True)
class Lease:
    """Held while the `with` lasts, by one owner at a time, and renewed meanwhile by a thread of its own.

    An owner first writes a tag of its own and then looks for others that are not over; if there is one, it takes its
    own back. Each writes before it looks, so of two that come together at least one sees the other: never do both
    hold the lease, as long as the store shows a tag to every reader once it is written (SQLite, one PostgreSQL or
    MySQL server, `mlflow server` before one of them; not a replica that lags) and the clocks differ by less than
    SKEW_S. Both may step back; they try again after a random pause.

    A holder that cannot renew is over after `seconds`, whether it knows or not: `held` is asked before what must not
    be done twice. Between that experiment and the deed the guarantee ends, since MLflow has no compare-and-set.

    Raises TakenError where another holds it and `wait_s` is over.
    """

    tags: Tags
    wait_s: float = 0.0
    seconds: float = SECONDS
    who: str = field(
        default_factory=lambda: f"{os.environ.get('USER', 'unknown')}@{socket.gethostname()}:{os.getpid()}"
    )
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    on_wait: Callable[[str], None] = lambda _who: None
    _key: str = field(default_factory=lambda: KEY + uuid.uuid4().hex, init=False)
    _until: float = field(default=0.0, init=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        give_up = self.clock() + self.wait_s
        while (other := self._try()) is not None:
            if self.clock() >= give_up:
                raise TakenError(other)
            self.on_wait(other)
            self.sleep(min(LOOK_EVERY_S, self.seconds / 10) * random.uniform(0.5, 1.5))  # noqa: S311 no secret
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StoreError):  # then it runs out by itself
            self.tags.drop(self._key)

    @property
    def held(self) -> bool:
        return self.clock() < self._until

    def _try(self) -> str | None:
        """Takes the lease, or says who has it."""
        self._write()
        others = [lease for key, lease in self._leases() if key != self._key and lease["until"] > self.clock() - SKEW_S]
        if not others:
            return None
        self._until = 0.0
        self.tags.drop(self._key)
        last = max(others, key=lambda lease: lease["until"])
        left = max(last["until"] - self.clock(), 0)
        return f"{last['who']} is at it, for another {left:.0f} s unless it renews"

    def _leases(self) -> list[tuple[str, dict[str, Any]]]:
        """Those of dead holders are cleared away on the way."""
        found = []
        for key, value in self.tags.read().items():
            if key.startswith(KEY):
                lease = json.loads(value)
                found.append((key, lease))
                if lease["until"] < self.clock() - 10 * self.seconds:
                    self.tags.drop(key)
        return found

    def _write(self) -> None:
        until = self.clock() + self.seconds
        self.tags.write(self._key, json.dumps({"who": self.who, "until": until}))
        self._until = until

    def _renew(self) -> None:
        while not self._over.wait(self.seconds / 3):
            with suppress(StoreError):  # the next attempt may do; `held` tells in the end
                self._write()
