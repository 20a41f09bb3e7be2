"""Where experiments are: those that ship, those in a folder, and those that come with the recordings."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError, UnknownNameError, nearest_first
from search_spaces.strict_yaml import SHOWN, parse_yaml, shown
from tuner.scenario.recorded import FOLDER, experiment_text, recorded_cases

SUFFIX = ".yaml"


def list_experiments() -> dict[str, Path]:
    """Experiments by name: those that ship with servetune, and those in `experiments/` of this directory."""
    here = Path("experiments")
    found = sorted(_shipped().glob(f"*{SUFFIX}")) + sorted(here.glob(f"*{SUFFIX}"))
    return dict(sorted({path.stem: path for path in found}.items()))


def find_experiment(name_or_path: str) -> Path:
    """A file by its path, an experiment by its name, or a recorded scenario's experiment by `recorded/NAME`.

    Raises InputError for what is none of them.
    """
    if os.path.isfile(name_or_path):  # noqa: PTH113 Path.is_file raises for names that no file can have
        return Path(name_or_path)
    known = list_experiments()
    name = name_or_path.rpartition("/")[2].removesuffix(SUFFIX)[:SHOWN]
    if name_or_path in (name, name + SUFFIX) and name in known:
        return known[name]
    recorded = recorded_cases()
    if name in recorded and name_or_path.removeprefix(f"{FOLDER}/").removesuffix(SUFFIX) == name:
        return Path(FOLDER) / f"{name}{SUFFIX}"
    if name_or_path.startswith(f"{FOLDER}/"):
        raise UnknownNameError("recorded scenario", name, recorded)
    if os.path.isdir(name_or_path):  # noqa: PTH112 as above
        raise InputError(f"{name_or_path}: is a folder; name an experiment file in it")
    choices = ", ".join(nearest_first(name, list(known)))
    raise InputError(
        f"no file and no experiment {name_or_path[:SHOWN]!r}; valid experiments: {choices}; "
        f"`servetune list recordings` shows those named {FOLDER}/..."
    )


def _shipped() -> Path:
    """`tuner/experiments` of a wheel; in a checkout, `experiments` beside `tuner`."""
    package = Path(__file__).parents[2]
    packaged = package / "experiments"
    return packaged if packaged.is_dir() else package.parent / "experiments"


def read_text(path: Path) -> str:
    """A file's text, or the experiment that comes with a recorded scenario."""
    if path.parent == Path(FOLDER) and not path.exists() and path.stem in recorded_cases():
        return experiment_text(recorded_cases()[path.stem])
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text, but byte {error.start} is not") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None


def read_mapping(path: Path, keys: Iterable[str]) -> dict[Any, Any]:
    data = parse_yaml(path, read_text(path))
    if not isinstance(data, dict):
        raise InputError(f"{path}: must be a mapping with the keys {', '.join(keys)}, but got {shown(data)}")
    return data
