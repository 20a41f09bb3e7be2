"""An engine that nobody wrote code for, as the how-to page has it: added by its folder alone, here or by a user."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.commands import Result

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-to" / "add-an-engine.md"
PACKAGES = ("search_spaces", "runners", "tuner", "servetune", "experiments")


def page_s_files() -> dict[str, str]:
    """Each fenced block of the page that is a file, by its path."""
    fences = [
        token for token in MarkdownIt("commonmark").parse(PAGE.read_text(encoding="utf-8")) if token.type == "fence"
    ]
    return {name: token.content for token in fences if (name := token.info.partition(" ")[2])}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def run(home: Path, product: Path, *arguments: str) -> Result:
    """The command of the product in a folder, run in another."""
    env = {**os.environ, "PYTHONPATH": str(product), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "servetune", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=home, env=env, check=False)
    return Result(code=ended.returncode, output=ended.stdout, errors=ended.stderr)


@pytest.fixture(scope="module", params=["in the product", "a user's own"])
def engine(request, tmp_path_factory):
    """How the product is run with the page's experiment, and whether the engine is a user's own."""
    files, home = page_s_files(), tmp_path_factory.mktemp("home")
    shipped = {name: text for name, text in files.items() if name.startswith("search_spaces/")}
    own = {name: text for name, text in files.items() if name not in shipped}
    if request.param == "a user's own":
        write(home, {**own, "swift/command.py": "raise SystemExit('was run')"})
        return lambda *arguments: run(home, ROOT, *arguments), True
    copy = tmp_path_factory.mktemp("product")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    write(copy, shipped)
    write(home, {"swift.yaml": own["swift.yaml"].replace("./swift", "swift")})
    return lambda *arguments: run(home, copy, *arguments), False


@pytest.fixture(scope="module")
def tuned(engine):
    return engine[0]("tune", "swift.yaml", "--no-track", "--study", "swift", "--json")


def test_it_is_listed(engine):
    command, _ = engine
    listed = command("list", "engines", "swift.yaml")
    assert listed.code == 0, listed.errors
    (line,) = (line for line in listed.output.splitlines() if line.split()[:1] == ["swift"])
    assert re.search(r"Swift +3\.1\.0, 3\.0\.2 .*those of vllm@0\.24\.0 stand in", line)


def test_it_is_simulated_with_the_kernel_times_that_stand_in(engine):
    command, _ = engine
    simulated = command("simulate", "swift.yaml", "--set", "layout.tensor=1", "--load", "4")
    assert simulated.code == 0, simulated.errors
    assert "Swift has no kernel times of its own: those of vLLM 0.24.0 stand in" in " ".join(simulated.output.split())


def test_it_is_searched_and_its_command_rendered(engine, tuned):
    _, own = engine
    assert tuned.code == 0, tuned.errors
    start = json.loads(tuned.output)["start"]
    program = "python -m swift" if own else "swift serve"
    assert f"{program} meta-llama/Llama-3.1-8B-Instruct --host 127.0.0.1 --port 8000 --shards 1 --seats " in start
    assert ("SWIFT_LOG=quiet" in start) == own
    assert '"kernel_times_of": "vllm 0.24.0"' in tuned.output


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize("target", ["swift", "docker-compose", "kubernetes"])
def test_it_is_deployed(engine, target, tmp_path):
    command, _ = engine
    deployed = command("deploy", "swift", "--target", target, "-o", str(tmp_path / "out"))
    assert deployed.code == 0, deployed.errors
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    everything = "\n".join(texts.values())
    assert "--shards" in everything
    assert "no kernel times of its own" in texts["README.md"]
    assert target == "swift" or "registry.example/swift:3.1.0" in everything


@pytest.mark.usefixtures("tuned")
def test_it_is_not_deployed_where_nobody_starts_it(engine, tmp_path):
    command, _ = engine
    refused = command("deploy", "swift", "--target", "llm-d", "-o", str(tmp_path / "out"))
    assert refused.code == 2
    assert "but the winner runs on swift; targets that fit: swift, docker-compose, kubernetes" in refused.errors
    assert "Traceback" not in refused.errors


def test_its_laws_are_asked(engine):
    command, own = engine
    refused = command("simulate", "swift.yaml", "--set", "layout.tensor=8")
    assert refused.code == 2
    assert own or "swift has at most 4 shards, but the workers have 8" in refused.errors
