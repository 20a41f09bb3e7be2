"""Calibration judged on recorded runs: what is fitted is never scored, and it earns its keep on a few of them."""

from dataclasses import replace
from statistics import median

import pytest
from typer.testing import CliRunner

import tuner.evidence.calibrated
from runners.recorded.sample import recordings
from search_spaces.errors import InputError
from tuner.cli import app
from tuner.evidence.calibrated import AFTER, BEFORE, domain_of, handful, judge, observed
from tuner.show.fidelity.calibrated import Page, check_kind, to_markdown


@pytest.fixture(scope="module")
def rows():
    """MiniMax-M2.5 on b200 with vLLM 0.19.0: up to 16 requests in flight, short prompts, a layout at a time."""
    return [
        row
        for row in recordings().clean
        if (row.model, row.system, row.release) == ("minimax-m2.5", "b200", "0.19.0")
        and row.config.precision.weights == "nvfp4"
        and row.workload.input_tokens.high == 1024
        and row.concurrency <= 64
    ]


@pytest.fixture(scope="module")
def evidence(rows):
    return judge(rows, processes=1)


def test_every_row_is_judged_once(rows, evidence):
    assert sorted(one.row.provenance for one in evidence.judged) == sorted(row.provenance for row in rows)


def test_no_row_is_scored_by_a_calibration_that_has_seen_its_layout(rows, monkeypatch):
    seen, genuine = [], tuner.evidence.calibrated.calibrate

    def spying(observations, forward):
        fitted = list(observations)
        seen.append(fitted)
        return genuine(fitted, forward)

    judged = []

    def scored(row, outcome, forward, *, interval):
        judged.append((row, seen[-1]))
        return kept(row, outcome, forward, interval=interval)

    kept = tuner.evidence.calibrated._one
    monkeypatch.setattr(tuner.evidence.calibrated, "calibrate", spying)
    monkeypatch.setattr(tuner.evidence.calibrated, "_one", scored)
    judge(rows[:12], processes=1)
    assert len(judged) == 12
    for row, fitted in judged:
        assert all(one.domain == domain_of(row) for one in fitted)
        assert all(one.layouts != observed(row).layouts for one in fitted)


def test_unseen_layouts_are_predicted_better_with_measurements_of_others(evidence):
    """Loose bounds on a small share of the rows; the whole table is docs/calibration.md."""
    covered = [one.compared for one in evidence.judged if not one.abstained]
    assert len(covered) > 0.7 * len(evidence.judged)
    before, after = (median(abs(row.ratio(name, "tpot") - 1) for row in covered) for name in (BEFORE, AFTER))
    assert after < 0.12
    assert after < before
    assert median(abs(row.ratio(AFTER, "ttft") - 1) for row in covered) < 0.22


def test_rows_of_a_layout_without_others_abstain_and_say_why(rows):
    alone = [row for row in rows if row.config.layout == rows[0].config.layout]
    found = judge(alone, processes=1).judged
    assert {one.abstained for one in found} == {"0 measurements; a calibration needs 3"}


def test_the_page_counts_abstentions_by_their_kind(rows, evidence):
    alone = [row for row in rows if row.config.layout == rows[0].config.layout]
    page = Page(evidence=judge(alone, processes=1), measurements=6, command="servetune validate --calibrated")
    text = to_markdown(page)
    assert f"abstained: fewer measurements of other layouts than it needs | {len(alone)} | 100%" in text
    assert "Made by `servetune validate --calibrated`" in text


def test_rows_that_the_simulator_cannot_predict_make_no_page(rows, monkeypatch):
    monkeypatch.setattr(tuner.evidence.calibrated, "_covered", lambda forward, row: False)
    with pytest.raises(InputError, match="none of the 3 rows can be predicted"):
        judge(rows[:3], processes=1)


def test_rows_that_do_not_say_their_release_are_of_one_release_for_each_day(rows):
    silent = replace(rows[0], release="unknown")
    assert domain_of(silent).release == f"unknown of {rows[0].date}"
    assert domain_of(rows[0]).release == "0.19.0"


def test_a_handful_is_spread_over_layouts_and_is_the_same_every_time(rows):
    chosen = handful(rows, 6)
    assert len(chosen) == 6
    assert handful(list(reversed(rows)), 6) == chosen
    assert len({row.config.layout for row in chosen}) >= 3
    assert handful(rows[:3], 6) == sorted(rows[:3], key=tuner.evidence.calibrated._order)


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(InputError, match=r"valid with --calibrated: \.md"):
        check_kind(tmp_path / "calibration.html")


def test_the_command_writes_its_report(tmp_path):
    path = tmp_path / "calibration.md"
    options = ["--calibrated", "--measurements", "4", "--rows", "12", "--seed", "3", "-o", str(path)]
    result = CliRunner().invoke(app, ["validate", *options])
    assert result.exit_code == 0, result.output
    text = path.read_text(encoding="utf-8")
    assert "servetune validate --rows 12 --seed 3 --calibrated --measurements 4" in text
