"""What scripts import: every name from its home, none before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import servetune
from search_spaces.errors import InputError


def test_every_name_comes_from_its_home():
    assert servetune.InputError is InputError
    assert all(getattr(servetune, name).__name__ == name for name in dir(servetune))


def test_type_checkers_see_the_names_that_there_are():
    source = Path(servetune.__file__).read_text(encoding="utf-8")
    names = {
        alias.asname: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert names == servetune._HOMES
    assert Path(servetune.__file__).with_name("py.typed").is_file()


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'tuen'"):
        _ = servetune.tuen


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("pandas", "optuna", "plotly", "numpy", "pydantic", "tuner", "runners")
    script = f"import sys, servetune; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_imports_nothing_heavy():
    script = "import sys, tuner.cli; print([m for m in ('pandas', 'optuna', 'plotly', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "servetune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("servetune ")


def test_what_is_wrong_is_said_on_a_line_and_ends_with_2():
    command = [sys.executable, "-m", "servetune", "tune", "no-such-experiment"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("servetune: no file and no experiment")
    assert "Traceback" not in done.stderr
