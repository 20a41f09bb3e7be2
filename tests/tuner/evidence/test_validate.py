"""Comparing predictions with measurements: the scores by hand, and one real row from end to end."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from runners.recorded.recording import Recordings
from runners.recorded.sample import recordings
from search_spaces.errors import InputError, UnknownNameError
from tuner.cli import app
from tuner.evidence.held_out import HALVES
from tuner.evidence.replay import cases, limits_of, quality
from tuner.evidence.validate import (
    GROUPS,
    SPLITS,
    Compared,
    Prediction,
    compare,
    coverage,
    decisions,
    dollars,
    gpu_price,
    grouped,
    measured_dollars,
    rank_correlation,
    sample,
    score,
    select,
    splits,
)
from tuner.scenario.recorded import case_of
from tuner.show.fidelity.page import Fidelity, to_html, to_markdown, write


@pytest.fixture(scope="module")
def rows():
    found = [
        row
        for row in recordings().clean
        if row.scenario == ("llama-3.3-70b", "b200", 1024, 1024) and row.config.layout.tensor == 4
    ]
    return sorted(found, key=lambda row: row.concurrency)


def predicted(row, ttft=1.0, tpot=1.0):
    """Predictions at these multiples of what was measured."""
    return Compared(
        row=row,
        predictions={"simulator": Prediction(ttft=row.ttft * ttft, tpot=row.tpot * tpot)},
        uncovered={"AIConfigurator": "no kernel data"},
    )


def test_a_ratio_is_predicted_over_measured(rows):
    found = predicted(rows[0], ttft=0.5, tpot=1.2)
    assert found.ratio("simulator", "ttft") == pytest.approx(0.5)
    assert found.ratio("simulator", "tpot") == pytest.approx(1.2)


def test_throughput_of_a_closed_loop_falls_as_latency_rises_and_dollars_rise_with_it(rows):
    found = predicted(rows[0], ttft=2, tpot=2)
    assert found.ratio("simulator", "throughput") == pytest.approx(0.5)
    assert found.ratio("simulator", "cost") == pytest.approx(2)


def test_a_score_is_the_median_and_the_mean_of_relative_errors_and_the_median_ratio(rows):
    compared = [predicted(row, tpot=ratio) for row, ratio in zip(rows, (0.5, 1.1, 1.2), strict=False)]
    found = score(compared, "simulator", "tpot")
    assert found.rows == 3
    assert found.median_error == pytest.approx(0.2)
    assert found.mean_error == pytest.approx((0.5 + 0.1 + 0.2) / 3)
    assert found.bias == pytest.approx(1.1)


def test_rows_that_are_not_covered_are_not_scored_but_counted_by_reason(rows):
    compared = [predicted(row) for row in rows[:3]]
    assert score(compared, "AIConfigurator", "tpot") is None
    assert coverage(compared, "AIConfigurator") == (0, {"no kernel data": 3})
    assert coverage(compared, "simulator") == (3, {})


def test_a_constant_factor_does_not_hurt_the_rank_correlation(rows):
    assert rank_correlation([predicted(row, tpot=3) for row in rows], "simulator", "tpot") == pytest.approx(1)


def test_a_reversed_order_has_rank_correlation_minus_one(rows):
    by_tpot = {row.tpot: row for row in rows}
    ordered = [by_tpot[tpot] for tpot in sorted(by_tpot)][:6]
    compared = [predicted(row, tpot=(7 - index) / row.tpot) for index, row in enumerate(ordered)]
    assert rank_correlation(compared, "simulator", "tpot") == pytest.approx(-1)


def test_too_few_rows_have_no_rank(rows):
    assert rank_correlation([predicted(row) for row in rows[:4]], "simulator", "tpot") is None


def test_groups_keep_every_row_once(rows):
    compared = [predicted(row) for row in rows]
    for by in GROUPS:
        assert sum(len(group) for group in grouped(compared, by).values()) == len(rows)


def test_a_sample_is_the_same_for_the_same_seed(rows):
    assert sample(rows, 5, seed=1) == sample(rows, 5, seed=1)
    assert len(sample(rows, 5, seed=1)) == 5
    assert sample(rows, None, seed=1) == rows


def test_blackwell_is_meant_unless_a_system_is_named():
    systems = {row.system for row in select(recordings().clean)}
    assert systems == {"b200", "b300", "gb200-nvl72", "gb300-nvl72"}
    assert {row.system for row in select(recordings().clean, ["h200"])} == {"h200"}


def test_an_unknown_system_lists_the_valid_ones():
    with pytest.raises(UnknownNameError, match="valid: b200"):
        select(recordings().clean, ["b20"])


def test_a_system_and_engine_without_recordings_is_an_input_error():
    with pytest.raises(InputError, match="nothing was recorded for vllm on gb300-nvl72"):
        select(recordings().clean, ["gb300-nvl72"], "vllm")


def test_the_halves_are_apart_and_make_up_the_whole():
    seen, late = (select(recordings().clean, of_half=half) for half in HALVES[::-1])
    assert not set(seen) & set(late)
    assert sorted(map(id, seen + late)) == sorted(map(id, select(recordings().clean)))
    with pytest.raises(UnknownNameError, match="unknown half 'sen'; valid: seen, held-out"):
        select(recordings().clean, of_half="sen")


def test_one_measured_row_is_predicted_by_both(rows):
    told = []
    (found,) = compare(rows[:1], done=lambda: told.append(1))
    assert set(found.predictions) == {"simulator", "AIConfigurator"}
    assert 0.5 < found.ratio("simulator", "tpot") < 2
    assert told == [1]


def test_the_peer_is_not_run_on_disaggregated_rows():
    row = next(row for row in recordings().clean if row.config.mode == "disaggregated" and row.concurrency < 16)
    (found,) = compare([row])
    assert found.uncovered["AIConfigurator"] == "not estimated"
    assert "simulator" in found.predictions


# Splits


@pytest.mark.parametrize("by", SPLITS)
def test_no_row_is_fitted_on_and_scored_in_one_split(by):
    known = select(recordings().clean)[::7]
    for _name, fitted, scored in splits(known, by):
        assert not set(fitted) & set(scored)
        assert not {GROUPS[by](row) for row in fitted} & {GROUPS[by](row) for row in scored}


def test_only_the_past_is_fitted_on_to_score_a_quarter():
    known = select(recordings().clean)
    for _name, fitted, scored in splits(known, "quarter"):
        assert all(before.date < min(row.date for row in scored) for before in fitted)
    assert [name for name, fitted, _ in splits(known, "quarter") if not fitted] == ["2025 Q4"]


def test_every_row_is_scored_once_by_group():
    known = select(recordings().clean)[::7]
    assert sum(len(scored) for _, _, scored in splits(known, "model")) == len(known)


def test_replicas_do_not_tell_layouts_apart():
    (row, *_) = recordings().clean
    more = replace(row, config=replace(row.config, layout=replace(row.config.layout, replicas=5)))
    assert GROUPS["layout"](more) == GROUPS["layout"](row)


# Dollars


def test_dollars_are_those_of_the_gpus_held(rows):
    """By hand: 4 GPUs at the list price, for 3,600 x output tokens/s."""
    (row, *_) = rows
    hourly = gpu_price("b200").usd_per_gpu_hour
    assert measured_dollars(row) == pytest.approx(4 * hourly / (row.output_rate * 3600 / 1e6))


def test_dollars_are_predicted_in_inverse_proportion_to_the_rate(rows):
    found = dollars([predicted(row, ttft=2, tpot=2) for row in rows[:1]], "simulator")
    assert found.predicted == pytest.approx(2 * found.measured)
    assert found.error == pytest.approx(found.measured)
    assert dollars([predicted(row) for row in rows], "AIConfigurator") is None


# Decisions


@pytest.fixture(scope="module")
def scenario():
    return [row for row in recordings().clean if row.scenario == ("llama-3.3-70b", "b200", 1024, 1024)]


def test_an_oracle_breaks_no_limit_and_reaches_the_best(scenario):
    found = quality(decisions([predicted(row) for row in scenario], "simulator"))
    assert found.decisions == len(limits_of(case_of(scenario[0].scenario, scenario)))
    assert (found.broken, found.none, found.share) == (0, 0, 1)


def test_an_optimist_breaks_limits(scenario):
    found = quality(decisions([predicted(row, ttft=0.2, tpot=0.2) for row in scenario], "simulator"))
    assert found.broken > 0.5
    assert found.share < 0.5


def test_a_runner_that_abstains_from_everything_finds_nothing(scenario):
    found = quality(decisions([predicted(row) for row in scenario], "AIConfigurator"))
    assert (found.broken, found.none, found.share) == (0, 1, 0)


def test_rows_left_out_are_as_if_not_measured(scenario):
    compared = [predicted(row) for row in scenario]
    found = decisions(compared, "simulator", only=lambda row: row.row.config.engine.name == "vllm")
    assert {decision.best.config.engine.name for decision in found} == {"vllm"}


def test_a_scenario_of_few_configurations_asks_nothing(rows):
    assert decisions([predicted(row) for row in rows], "simulator") == []


# The report


@pytest.fixture
def report(rows):
    known = Recordings(rows=tuple(rows), total=len(rows), dropped={"a rule": 2}, changed={})
    return Fidelity(compared=[predicted(row) for row in rows], recordings=known, command="servetune validate")


def test_the_report_names_its_command_the_rules_and_what_was_not_predicted(report):
    text = to_markdown(report)
    assert "Made by `servetune validate`" in text
    assert "| dropped | a rule | 2 |" in text
    assert f"no kernel data {len(report.compared)}" in text
    assert "MLPerf Inference v5.1 and v6.0" in text


def test_the_html_report_has_a_dot_for_each_row_and_figure(report):
    assert to_html(report).count("<circle") == 3 * len(report.compared)


def test_the_markdown_report_shows_the_pictures_written_beside_it(report, tmp_path):
    write(report, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert pictures == ["page-throughput-simulator.svg", "page-tpot-simulator.svg", "page-ttft-simulator.svg"]
    assert all(f"({name})" in text for name in pictures)
    for path in tmp_path.glob("*.svg"):
        ET.parse(path)


def test_an_unknown_kind_of_report_is_refused(report, tmp_path):
    with pytest.raises(InputError, match=r"valid: \.md, \.html"):
        write(report, tmp_path / "report.pdf")


def test_labels_are_escaped_in_html(report):
    odd = replace(report, command="<script>")
    assert "<script>" not in to_html(odd)


def test_the_command_writes_its_report(tmp_path):
    path = tmp_path / "fidelity.md"
    options = ["--system", "b200", "--engine", "vllm", "--rows", "3", "--seed", "1", "-o", str(path)]
    result = CliRunner().invoke(app, ["validate", *options])
    assert result.exit_code == 0, result.output
    text = path.read_text(encoding="utf-8")
    assert "servetune validate --system b200 --engine vllm --rows 3 --seed 1" in text


def test_recordings_are_listed():
    result = CliRunner().invoke(app, ["list", "recordings"])
    assert result.exit_code == 0
    assert "recorded/gpt-oss-120b-b200-1024-1024" in result.output
    assert "MLPerf" in result.output


def test_experiments_are_written_where_asked(tmp_path):
    result = CliRunner().invoke(app, ["list", "recordings", "--write", str(tmp_path / "experiments")])
    assert result.exit_code == 0
    assert len(list((tmp_path / "experiments").glob("*.yaml"))) == 31


def test_only_recordings_are_written(tmp_path):
    result = CliRunner().invoke(app, ["list", "models", "--write", str(tmp_path)])
    assert isinstance(result.exception, InputError)


def test_the_report_asks_what_the_benchmarks_ask():
    """An oracle over every clean Blackwell row decides once for each limit of each case."""
    found = decisions([predicted(row) for row in select(recordings().clean)], "simulator")
    assert len(found) == sum(len(limits_of(case)) for case in cases())
    assert all(decision.share == 1 for decision in found)
