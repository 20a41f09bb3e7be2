"""The house stays tidy: short files, short functions, and no exception caught without saying which."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[1]
ROOMS = ("search_spaces", "runners", "tuner", "servetune")
MOST_LINES = 450
"""Of a file."""
LONGEST = 60
"""Lines of a function, its signature and docstring included."""
BROAD_EXCEPTS = 1
"""Of the load client, which ends a stream whatever ends it."""

OWN_ROOMS = {Path("engines")}
"""Tests of real engines, which are of no single room."""

SAYING_NOTHING = {"base", "common", "core", "helpers", "manager", "types", "utils", "v2"}
"""Names of files and folders that say nothing of what is in them."""

FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def functions() -> Iterator[tuple[str, int]]:
    """Every function by its place, with its lines."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                yield f"{path.relative_to(ROOT)}:{node.name}", node.end_lineno - node.lineno + 1


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = [] if handler.type is None else ast.walk(handler.type)
    names = {node.id for node in caught if isinstance(node, ast.Name)}
    return handler.type is None or not names.isdisjoint({"Exception", "BaseException"})


def test_no_file_is_long():
    files = [*FILES, *(ROOT / "benchmarks").glob("*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_files_are_named_after_what_is_in_them():
    names = [path.relative_to(ROOT).with_suffix("") for path in FILES]
    assert [str(name) for name in names if not SAYING_NOTHING.isdisjoint(name.parts)] == []


def test_no_function_is_long():
    assert [name for name, lines in functions() if lines > LONGEST] == []


def test_functions_are_short():
    lines = [lines for _, lines in functions()]
    assert median(lines) <= 7
    assert quantiles(lines, n=10)[-1] <= 20


def test_exceptions_are_caught_by_name():
    broad = [
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]
    assert len(broad) <= BROAD_EXCEPTS


def test_tests_share_nothing_by_way_of_test_modules():
    borrowed = [
        f"{path.relative_to(ROOT)}: {node.module}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.rpartition(".")[2].startswith("test_")
    ]
    assert borrowed == []


def test_tests_stand_in_the_rooms_of_what_they_test():
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in folders - OWN_ROOMS if not (ROOT / folder).is_dir()] == []
