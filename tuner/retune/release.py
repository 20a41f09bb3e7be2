"""Releases of an engine: the installed one, those on the package index, and the one that an image's tag names."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.version import InvalidVersion, Version

from search_spaces.config import Engine
from search_spaces.engines.engine import facts_of
from search_spaces.errors import InputError, UnknownNameError

LIMIT_S = 20.0
SHOWN = 60
TAG = re.compile(r"v?(\d+(?:\.\d+)+(?:\.?(?:rc|a|b|post|dev)\d+)*)")

Index = Callable[[str], Sequence[str]]
"""The versions of a package that can be had, in any order. Raises IndexUnreachableError where none answers."""


class IndexUnreachableError(Exception):
    """The package index was not asked, or did not answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """What is known of an engine's releases; `problem` says why the index is left out."""

    engine: Engine
    installed: tuple[str, ...]
    indexed: tuple[str, ...]
    problem: str = ""

    def newer(self, than: str) -> tuple[str, ...]:
        """Those on the index, and the installed one, that are newer; oldest first."""
        known = {*self.indexed, *self.installed}
        return tuple(sorted((one for one in known if _order(one) > _order(than)), key=_order))


def releases(engine: Engine, index: Index | None, *, elsewhere: Sequence[str] = ()) -> Releases:
    """Looks around; asks no index where `index` is None. `elsewhere` are releases in environments of their own."""
    indexed: Sequence[str] = ()
    problem = ""
    distributions = facts_of(engine).packages.distributions
    if index is not None and distributions:
        try:
            indexed = index(distributions[0])
        except IndexUnreachableError as error:
            problem = str(error)
    return Releases(engine=engine, installed=(*elsewhere, *installed(engine)), indexed=tuple(indexed), problem=problem)


def installed(engine: Engine) -> tuple[str, ...]:
    """The release in servetune's own environment, where there is one."""
    for package in facts_of(engine).packages.distributions:
        try:
            return (version(package),)
        except PackageNotFoundError:
            continue
    return ()


def pip_index(package: str) -> list[str]:
    """The versions that the user's pip would find, with its own index, credentials and proxies; pre-releases too."""
    if find_spec("pip"):
        pip = [sys.executable, "-m", "pip"]
    elif (found_pip := shutil.which("pip")) is not None:
        pip = [found_pip]
    else:
        raise IndexUnreachableError("there is no pip to ask for releases; give one with --to")
    command = [*pip, "--disable-pip-version-check", "index", "versions", "--pre", package]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise IndexUnreachableError(f"pip found no versions of {package} within {LIMIT_S:g} s") from None
    found = re.search(r"^Available versions: (.+)$", asked.stdout, re.MULTILINE)
    if asked.returncode or not found:
        lines = asked.stderr.strip().splitlines() or ["it said nothing"]
        raise IndexUnreachableError(f"pip found no versions of {package}: {lines[-1]}")
    return [text.strip() for text in found[1].split(",")]


def release_of_image(image: str) -> str:
    """`0.27.0` of `vllm/vllm-openai:v0.27.0-cu130`. Raises InputError where the tag names no release."""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    found = TAG.match(tag)
    if not found:
        raise InputError(f"image {image[:SHOWN]!r}: the tag must begin with a release such as v0.27.0, but is {tag!r}")
    return found[1]


def release_named(engine: Engine, to: str, *, real: bool, known: Releases) -> Engine:
    """The release that `to` means. Raises UnknownNameError, the nearest first, where there is none.

    A simulated release needs kernel times; a real one has to be on the index or installed, where the index answered.
    """
    if not real:
        valid: tuple[str, ...] = facts_of(engine).versions
    elif known.indexed:
        valid = tuple(sorted({*known.indexed, *known.installed}, key=_order))
    else:
        valid = ()
    if valid and to not in valid:
        raise UnknownNameError(f"{engine.name} release", to[:SHOWN], valid[::-1])
    return replace(engine, version=to)


def newest_known(engine: Engine, *, real: bool, known: Releases) -> str | None:
    """The newest release to go to; None where there is none newer. Of a real engine, first those that are installed."""
    if real:
        newer = [one for one in known.newer(engine.version) if not _order(one).is_prerelease]
        newer = [one for one in newer if one in known.installed] or newer
    else:
        newer = [one for one in facts_of(engine).versions if _order(one) > _order(engine.version)]
    return max(newer, key=_order, default=None)


def _order(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")
