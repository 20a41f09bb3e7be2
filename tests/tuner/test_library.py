"""Use from Python: what docs/python.md shows is run, line by line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tuner

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def code_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_page_on_python_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen: dict[str, object] = {}
    blocks = code_blocks(PAGE)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), seen)
    study = seen["study"]
    assert list(seen["trials"].index) == list(range(12))
    assert seen["levels"]["chosen"].sum() == (seen["trials"]["ending"] == "measured").sum()
    assert set(seen["cheapest_by_engine"].index) == {"trtllm"}
    assert seen["cheapest_by_engine"]["trtllm"] == study.answer.cost(study.best).usd_per_million_output_tokens
    assert "<html" in Path("report.html").read_text(encoding="utf-8")
    assert "mxfp4" in capsys.readouterr().out


def test_the_first_block_is_five_lines():
    assert len([line for line in code_blocks(PAGE)[0].splitlines() if line]) <= 5


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'tuen'"):
        _ = tuner.tuen


def test_importing_the_package_imports_nothing_heavy():
    script = "import sys, tuner, tuner.cli; print([m for m in ('pandas', 'optuna', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
