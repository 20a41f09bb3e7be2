"""The folder that a deployment is written to: all of its files or none, and nothing that is somebody else's."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from search_spaces.errors import InputError
from tuner.deploy.plan import Files

MARKER = ".servetune-deployment.json"
"""Says that a folder is ours, and which files in it are."""


def write_folder(folder: Path, files: Files, *, about: Mapping[str, str], force: bool = False) -> None:
    """All files or none: they are written beside `folder` and moved in.

    Files of an earlier deployment there are replaced, and those that it no longer has removed. Raises InputError for
    a folder with other things in it, unless `force`d: files of the same names are then overwritten, others kept.
    """
    old = _ours(folder, force=force)
    marker = json.dumps({**about, "files": sorted(files)}, indent=2) + "\n"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written there: {error.strerror}") from None
    try:
        for name, text in {**files, MARKER: marker}.items():
            path = made / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
        made.chmod(0o755)
        _move(made, folder, gone=old - set(files))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written there: {error.strerror}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _ours(folder: Path, *, force: bool) -> set[str]:
    """The names of an earlier deployment's files in `folder`."""
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder with -o")
    try:
        return set(json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        if force or not any(folder.iterdir()):
            return set()
    raise InputError(
        f"{folder}: holds files that servetune did not write; name another folder, or add --force"
    ) from None


def _move(made: Path, folder: Path, *, gone: set[str]) -> None:
    if not folder.exists():
        made.rename(folder)
        return
    for path in made.iterdir():
        path.replace(folder / path.name)
    for name in gone:
        (folder / Path(name).name).unlink(missing_ok=True)
