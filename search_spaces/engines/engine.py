"""EngineFacts: how each engine schedules and what it does when nobody tunes it."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from search_spaces.config import Engine, EngineName, Method
from search_spaces.errors import UnknownNameError
from search_spaces.tables import read_yaml

RELEASE = re.compile(r"\d+(\.\d+)+[\w.+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """An engine's documented defaults and scheduling policy.

    `admission`: `reserve` admits a request when its whole length fits the KV cache; `preempt` when its prompt does,
    and evicts the newest when the cache is full. `mixes_prefill`: prompts ride in the same iterations as decoding.
    `issues_prefill`: without CUDA graphs, the host issues a pass with prompts kernel by kernel. `overlaps`: the host
    plans a pass while the one before runs, so a request that arrives meanwhile misses the next one.
    """

    name: EngineName
    title: str
    versions: tuple[str, ...]
    default_max_sequences: int
    default_max_batched_tokens: int
    memory_fraction: float
    memory_fraction_of: Literal["free", "total"]
    admission: Literal["reserve", "preempt"]
    mixes_prefill: bool
    issues_prefill: bool
    overlaps: bool
    methods: tuple[Method, ...]
    image: str
    source: str

    def image_of(self, version: str) -> str:
        """The container image that the engine's makers publish for a release."""
        return self.image.format(version=version)


@cache
def engine_names() -> tuple[EngineName, ...]:
    """Every engine that servetune comes with."""
    return tuple(engines())


@cache
def engines() -> dict[str, EngineFacts]:
    """Every engine that servetune knows, by name."""
    return {name: _facts(name, facts) for name, facts in read_yaml("search_spaces.engines", "engines.yaml").items()}


def find_engine(text: str, *, any_release: bool = False) -> Engine:
    """`vllm`, or `vllm@0.27.0` for a release other than the default.

    Raises UnknownNameError for an engine, or a release without data unless `any_release` is accepted.
    """
    name, _, version = text.partition("@")
    if name not in engines():
        raise UnknownNameError("engine", name, engines())
    facts = engines()[name]
    known = version in facts.versions or (any_release and RELEASE.fullmatch(version))
    if version and not known:
        raise UnknownNameError(f"{name} version", version, facts.versions)
    return Engine(name=facts.name, version=version or facts.versions[0])


def nearest_release(engine: Engine) -> Engine:
    """The release with kernel times that is nearest: the same, else the newest before it, else the oldest."""
    versions = sorted(engines()[engine.name].versions, key=_order)
    older = [version for version in versions if _order(version) <= _order(engine.version)]
    return Engine(name=engine.name, version=(older or versions[:1])[-1])


def _order(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        return Version("0")


def _facts(name: str, facts: dict[str, Any]) -> EngineFacts:
    tuples = {key: tuple(facts.pop(key)) for key in ("versions", "methods")}
    return EngineFacts(name=name, **tuples, **facts)  # type: ignore[arg-type]
