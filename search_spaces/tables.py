"""Tables of facts that ship inside this package, read safely."""

from importlib.resources import files
from typing import Any, cast


def read_yaml(package: str, name: str) -> dict[str, Any]:
    """A mapping from a YAML file of a package."""
    from ruamel.yaml import YAML

    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return cast("dict[str, Any]", YAML(typ="safe", pure=True).load(text))


def read_csv(package: str, name: str) -> list[dict[str, str]]:
    """Rows of a CSV file of a package."""
    import csv

    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
