"""The documentation: its links lead somewhere, its reference is that of the code, and its tutorial runs."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "experiments" / "README.md"])
COMMAND = [sys.executable, "-c", "from tuner.cli import main; main()"]
REFERENCE = {
    "knobs.md": [sys.executable, "-c", "from tuner.show.knobs import knob_page; print(knob_page())"],
    "commands.md": [sys.executable, "-m", "typer", "tuner.cli", "utils", "docs", "--name", "servetune"],
    "experiment.md": [
        *(sys.executable, "-c", "from jsonschema_markdown.main import cli; cli()"),
        *("--no-footer", "--no-empty-columns", "experiments/experiment.schema.json"),
    ],
}


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def tokens(page: Path):
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_and_pictures_lead_to_files_and_headings_that_exist(page):
    for token in tokens(page):
        target = token.attrs.get("href") or token.attrs.get("src") or ""
        if not target or target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = str(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_index():
    index = ROOT / "docs" / "README.md"
    reached = {str(token.attrs["href"]) for token in tokens(index) if token.attrs.get("href")}
    pages = {str(page.relative_to(index.parent)) for page in PAGES if index.parent in page.parents} - {"README.md"}
    assert pages <= reached


def page_of(name: str) -> Path:
    return ROOT / "docs" / "reference" / name


def generated(name: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    done = subprocess.run(REFERENCE[name], cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.rstrip() + "\n"


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_is_that_of_the_code(name):
    assert page_of(name).read_text(encoding="utf-8") == generated(name), "run `make docs`"


# The tutorial


def steps(page: Path):
    """(language, what else stands behind it, text) of each fenced block."""
    for token in tokens(page):
        if token.type == "fence" and token.info:
            language, _, more = token.info.partition(" ")
            yield language, more, token.content


def run(command: str, folder: Path, expected: str, code: int) -> None:
    argv = shlex.split(command)
    assert argv[0] == "servetune"
    environment = {**os.environ, "COLUMNS": "400", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*COMMAND, *argv[1:]], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
    said = re.sub(r" *\n", "\n", done.stdout)
    same = doctest.OutputChecker().check_output(expected, said, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert same, f"{command}\n--- expected\n{expected}\n--- said\n{said}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["tutorial.md", "how-to/add-an-engine.md"])
def test_a_page_runs_as_it_is_written(page, tmp_path):
    done = 0
    for language, more, text in steps(ROOT / "docs" / page):
        if more.startswith("search_spaces/"):  # tests/tuner/cli/test_added_engines.py adds it to a copy of the product
            continue
        if language == "console":  # behind it the exit code, where that is not 0
            command, _, expected = text.removeprefix("$ ").partition("\n")
            run(command, tmp_path, expected, int(more or 0))
            done += 1
        elif language == "python":
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=environment, check=True, timeout=300)
            done += 1
        else:
            (tmp_path / more).parent.mkdir(exist_ok=True)
            (tmp_path / more).write_text(text, encoding="utf-8")
    assert done >= 4


if __name__ == "__main__":
    for name in REFERENCE:
        page_of(name).write_text(generated(name), encoding="utf-8")
