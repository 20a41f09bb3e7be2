"""The errors that predictions carry are those of the published table."""

import re
from pathlib import Path

import pytest

from runners.simulated.known_errors import SIMULATED, SPREADS, KnownErrors, Spread, caveat
from search_spaces.engines.engine import find_engine

PAGE = Path(__file__).parents[3] / "docs" / "fidelity.md"


def published(mode: str) -> KnownErrors:
    table = PAGE.read_text(encoding="utf-8").partition("## Errors by mode")[2].partition("\n## ")[0]
    line = next(line for line in table.splitlines() if line.startswith(f"| {mode} | simulator |"))
    rows, ttft, tpot, throughput, _ = (cell.strip() for cell in line.strip("| ").split("|")[2:])
    medians = [int(re.match(r"(\d+)%", cell)[1]) / 100 for cell in (ttft, tpot, throughput)]
    return KnownErrors(
        rows=int(rows.replace(",", "")),
        **dict(zip(("ttft", "tpot", "throughput"), medians, strict=True)),
        ttft_bias=float(ttft.rpartition("/")[2]),
    )


@pytest.mark.parametrize("mode", SIMULATED)
def test_the_errors_stated_are_those_of_the_fidelity_page(mode):
    assert SIMULATED[mode] == published(mode)


@pytest.mark.parametrize("mode", SIMULATED)
def test_a_prediction_carries_those_errors(mode):
    from runners.simulated.known_errors import PREDICTION

    known = SIMULATED[mode]
    assert f"{known.ttft:.0%} on TTFT, {known.tpot:.0%} on TPOT" in PREDICTION["simulated"]
    assert f"({known.rows:,} measured {mode} Blackwell runs)" in PREDICTION["simulated"]
    assert "too low" in PREDICTION["simulated"]
    assert known.ttft_bias < 1


@pytest.mark.parametrize(("source", "name"), [("simulated", "simulator"), ("estimated", "AIConfigurator")])
def test_the_spreads_stated_are_those_of_the_fidelity_page(source, name):
    table = PAGE.read_text(encoding="utf-8").partition("## How measurements spread")[2].partition("\n## ")[0]
    line = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
    cells = [cell.split("/") for cell in line.strip("| ").split("|")[1:]]
    published = [Spread(median=float(middle), sd=float(sd)) for middle, sd in cells]
    assert [SPREADS[source][what] for what in ("ttft", "tpot", "throughput")] == published


def test_a_prediction_with_another_engine_s_kernel_times_says_so(tmp_path):
    (tmp_path / "my-engine").mkdir()
    (tmp_path / "my-engine" / "engine.yaml").write_text(
        "title: My engine\nversions: [1.0.0]\ntimes_of: vllm@0.27.0\ncommand: [mine, '{checkpoint}', '{port}']\n"
    )
    engine = find_engine("./my-engine", directory=tmp_path)
    said = caveat("simulated", engine)
    assert said.startswith(caveat("simulated", find_engine("vllm")))
    assert "My engine has no kernel times of its own: those of vLLM 0.27.0 stand in" in said
    assert not caveat("served", engine)
