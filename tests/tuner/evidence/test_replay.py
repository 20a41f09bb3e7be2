"""Decisions over recorded rows: worked by hand on three rows, and the cases that ship."""

from dataclasses import replace
from functools import partial

import pytest

from runners.recorded.recording import served
from runners.recorded.sample import recordings
from tuner.evidence.replay import (
    GRID,
    Decision,
    Limits,
    Prediction,
    best_row,
    cases,
    decide,
    limits_of,
    quality,
    rate_per_gpu,
)

LIMITS = Limits(ttft=1.0, tpot=0.02)


@pytest.fixture(scope="module")
def rows():
    """Three loads of one server with 10 GPUs' worth of nothing special: 1, 2 and 3 requests in flight."""
    like = recordings().clean[0]
    return [
        replace(like, concurrency=1, ttft=0.5, tpot=0.01),
        replace(like, concurrency=2, ttft=0.5, tpot=0.015),
        replace(like, concurrency=8, ttft=0.5, tpot=0.03),
    ]


def exact(rows):
    return [Prediction(ttft=row.ttft, tpot=row.tpot) for row in rows]


def test_a_perfect_prediction_picks_the_best_measured_row(rows):
    decision = decide(rows, exact(rows), LIMITS)
    assert decision.picked is rows[1]
    assert decision.share == 1
    assert not decision.broken


def test_a_pick_that_breaks_the_limits_scores_nothing_however_quick_it_is(rows):
    rosy = [Prediction(ttft=0.1, tpot=0.01) for _ in rows]
    decision = decide(rows, rosy, LIMITS)
    assert decision.picked is rows[2]
    assert decision.broken
    assert decision.share == 0


def test_a_cautious_pick_is_kept_and_reaches_its_share_of_the_best(rows):
    bleak = [Prediction(ttft=0.5, tpot=2 * row.tpot) for row in rows]
    decision = decide(rows, bleak, LIMITS)
    assert decision.picked is rows[0]
    assert decision.share == pytest.approx(rate_per_gpu(rows[0], rows[0]) / rate_per_gpu(rows[1], rows[1]))
    assert 0.5 < decision.share < 1


def with_headroom(headroom, _row, point, limits) -> bool:
    return limits.met_by(point, headroom=headroom)


def test_headroom_keeps_a_distance_from_the_limits(rows):
    """Row 1 has a TPOT of 15 ms, the SLO is 20 ms: a third of headroom still fits, half does not."""
    for headroom, picked in ((0.33, rows[1]), (0.5, rows[0])):
        found = decide(rows, exact(rows), LIMITS, meets=partial(with_headroom, headroom))
        assert found.picked is picked


def test_what_a_predictor_abstains_from_is_not_picked_but_may_be_the_best(rows):
    first, _, third = exact(rows)
    decision = decide(rows, [first, None, third], LIMITS)
    assert decision.picked is rows[0]
    assert decision.best is rows[1]


def test_a_predictor_that_finds_nothing_scores_nothing_and_breaks_nothing(rows):
    decision = decide(rows, [None] * 3, LIMITS)
    assert decision.picked is None
    assert (decision.share, decision.broken) == (0, False)


def test_limits_that_no_row_keeps_ask_nothing(rows):
    assert decide(rows, exact(rows), Limits(ttft=0.1, tpot=0.02)) is None
    assert best_row(rows, Limits(ttft=0.1, tpot=0.02)) is None


def test_predictions_go_with_their_rows(rows):
    with pytest.raises(ValueError):
        decide(rows, exact(rows)[:2], LIMITS)


def test_quality_counts_what_broke_what_found_nothing_and_the_mean_share(rows):
    made = [Decision(picked=picked, best=rows[1], limits=LIMITS) for picked in (rows[1], rows[2], None, rows[1])]
    found = quality(made)
    assert (found.decisions, found.broken, found.none, found.share) == (4, 0.25, 0.25, 0.5)
    assert found.excess == pytest.approx(0.03 / 0.02 - 1)
    assert quality([]) is None


def test_the_cases_are_the_blackwell_scenarios_with_eight_configurations_and_limits_that_can_be_kept():
    found = cases()
    assert len(found) == 17
    assert len({case.name for case in found}) == len(found)
    for case in found:
        assert len(case.configs) >= 8
        assert limits_of(case)
        assert all(best_row(case.rows, limits) for limits in limits_of(case))
        assert set(limits_of(case)) <= set(GRID)


def test_a_case_holds_each_configuration_at_each_load_once_the_newest_measurement_of_it():
    everything = recordings().scenarios()
    for case in cases():
        kept = {(served(row.config), row.concurrency): row for row in case.rows}
        assert len(kept) == len(case.rows)
        for row in everything[case.scenario]:
            known = kept[served(row.config), row.concurrency]
            assert row.date is None or (known.date and known.date >= row.date)


def test_limits_are_slos_on_means():
    assert [str(slo) for slo in LIMITS.sla.slos] == ["TTFT mean <= 1000 ms", "TPOT mean <= 20 ms"]
