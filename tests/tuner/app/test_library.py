"""Use from Python: what docs/python.md shows is run, line by line."""

import re
from pathlib import Path

import pytest

import servetune

PAGE = Path(__file__).parents[3] / "docs" / "python.md"


def code_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_page_on_python_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen: dict[str, object] = {}
    blocks = code_blocks(PAGE)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), seen)
    study = seen["study"]
    assert list(seen["trials"].index) == list(range(12))
    assert seen["levels"]["chosen"].sum() == (seen["trials"]["ending"] == "measured").sum()
    assert set(seen["cheapest_by_engine"].index) == {"trtllm"}
    assert seen["cheapest_by_engine"]["trtllm"] == study.answer.cost(study.best).usd_per_million_output_tokens
    assert "<html" in Path("report.html").read_text(encoding="utf-8")
    assert {*seen["figure"].data[0].x} <= {1, 2, 4, 8}
    assert "mxfp4" in capsys.readouterr().out


def test_the_first_block_is_five_lines():
    assert len([line for line in code_blocks(PAGE)[0].splitlines() if line]) <= 5


def test_a_notebook_shows_the_verdict(tmp_path):
    study = servetune.tune("gpt-oss-120b-b200-chat", trials=2, studies=tmp_path)
    assert "**Verdict.** $" in study._repr_markdown_()


def test_an_unknown_format_lists_the_valid_ones(tmp_path):
    study = servetune.tune("gpt-oss-120b-b200-chat", trials=1, studies=tmp_path)
    with pytest.raises(servetune.InputError, match="unknown format 'htm'; valid: html, md, "):
        study.report("htm")
