"""What a shell completes to: names that are found without reading what they name, at once."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from search_spaces.engines.folders import engine_names

EXPERIMENT_SUFFIX = ".yaml"
STUDY_SUFFIX = ".journal"

RUNNERS = ("simulated", "estimated", "recorded", "served")
SAMPLERS = ("surrogate", "tpe", "gp", "nsga2", "random")
LISTS = ("models", "systems", "engines", "knobs", "experiments", "recordings")
GENERAL_TARGETS = ("docker-compose", "kubernetes", "dynamo", "llm-d")
REPORT_FORMATS = ("html", "md", "json", "csv")


def experiments(incomplete: str) -> list[str]:
    """Names that ship, those in `experiments/` here, and experiment files by their path."""
    folders = (_shipped(), Path("experiments"))
    names = {path.stem for folder in folders for path in folder.glob(f"*{EXPERIMENT_SUFFIX}")}
    return [*_beginning(names, incomplete), *_paths(incomplete, EXPERIMENT_SUFFIX)]


def studies(ctx: Any, incomplete: str) -> list[str]:
    """Studies in the folder that `--studies` names, and study files by their path."""
    folder = Path(ctx.params.get("studies") or "studies")
    names = {path.stem for path in folder.glob(f"*{STUDY_SUFFIX}")}
    return [*_beginning(names, incomplete), *_paths(incomplete, STUDY_SUFFIX)]


def runners(incomplete: str) -> list[str]:
    return _beginning(RUNNERS, incomplete)


def samplers(incomplete: str) -> list[str]:
    return _beginning(SAMPLERS, incomplete)


def lists(incomplete: str) -> list[str]:
    return _beginning(LISTS, incomplete)


def targets(incomplete: str) -> list[str]:
    return _beginning((*engine_names(), *GENERAL_TARGETS), incomplete)


def engines(incomplete: str) -> list[str]:
    return _beginning(engine_names(), incomplete)


def report_formats(incomplete: str) -> list[str]:
    return _beginning(REPORT_FORMATS, incomplete)


def _shipped() -> Path:
    """As in tuner.scenario.experiment.files, which takes longer to import than a shell should wait."""
    package = Path(__file__).parent.parent
    packaged = package / "experiments"
    return packaged if packaged.is_dir() else package.parent / "experiments"


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _paths(incomplete: str, suffix: str) -> Iterator[str]:
    """Files and folders that go on from what was typed, once that names a folder or the beginning of one's name."""
    folder, slash, start = incomplete.rpartition("/")
    here = Path(folder + slash) if slash else Path()
    try:
        entries = sorted(here.iterdir())
    except OSError:
        return
    for path in entries:
        if path.name.startswith(start) and not (path.name.startswith(".") and not start):
            if path.is_dir() and start + slash:
                yield f"{folder}{slash}{path.name}/"
            elif path.suffix == suffix:
                yield f"{folder}{slash}{path.name}"
