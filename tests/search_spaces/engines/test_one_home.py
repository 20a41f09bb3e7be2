"""One home for each engine: nothing outside its folder names it, and no two know each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces.engines.folders import FILE, engine_names

ROOT = Path(__file__).parents[3]
ENGINES = ROOT / "search_spaces" / "engines"
ROOMS = ("search_spaces", "runners", "tuner", "servetune")
PARTS = ("command.py", "deploy.py", "laws.py", "parser.py", "published.py")
OUTSIDE = [
    path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    if not any(path.is_relative_to(ENGINES / name) for name in engine_names())
]


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every text in the code; docstrings, and texts that stand alone as they do, may speak of engines."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_modules_to_look_at():
    assert len(OUTSIDE) > 100
    assert len(engine_names()) >= 3


def test_nothing_outside_its_folder_names_an_engine_or_imports_it():
    homes = tuple(f"search_spaces.engines.{name}" for name in engine_names())
    found = []
    for path in OUTSIDE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{path}:{node.lineno}: {node.value!r}" for node in strings(tree) if node.value in engine_names()]
        found += [f"{path}: {module}" for module in imported(tree) if module.startswith(homes)]
    assert not found


@pytest.mark.parametrize("name", engine_names())
def test_no_engine_imports_another(name):
    others = tuple(f"search_spaces.engines.{other}" for other in engine_names() if other != name)
    for path in (ENGINES / name).glob("*.py"):
        assert not [module for module in imported(ast.parse(path.read_text())) if module.startswith(others)]


@pytest.mark.parametrize("name", engine_names())
def test_every_engine_that_servetune_comes_with_has_the_same_files(name):
    assert {path.name for path in (ENGINES / name).iterdir() if path.is_file()} == {"__init__.py", FILE, *PARTS}


@pytest.mark.parametrize("name", engine_names())
def test_an_engine_s_python_starts_no_process_and_writes_no_file(name):
    forbidden = ("subprocess", "os.", "shutil", "tempfile", "socket")
    for path in (ENGINES / name).glob("*.py"):
        assert not [module for module in imported(ast.parse(path.read_text())) if module.startswith(forbidden)]
