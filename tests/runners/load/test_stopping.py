"""When a run may stop: the laws, worked by hand or simulated, and how often it stops on the wrong side."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runners.load.stopping import FALSE_DECISIONS, Limit, Stopping, at_most, dependence
from runners.measurement import Percentiles


def limit(percentile=50, limit_s=1.0, metric="ttft"):
    return Limit(metric=metric, percentile=percentile, limit_s=limit_s)


def decide(stopping, seconds, metric="ttft", **options):
    """The decision, and after how many requests."""
    for answered, value in enumerate(seconds, start=1):
        decision = stopping.take({metric: value}, **options)
        if decision is not None:
            return decision, answered
    return None, len(seconds)


def independent(rng, count):
    return rng.exponential(size=count)


def queueing(rng, count):
    """Waits of an M/D/1 queue that is busy four fifths of the time: long spells of long waits."""
    waits = itertools.accumulate(
        rng.exponential(1.25, size=count + 500), lambda wait, gap: max(wait + 1 - gap, 0.0), initial=0.0
    )
    return 0.1 + np.array(list(waits)[501:])


@given(st.integers(1, 300), st.sampled_from([50, 90, 99]), st.floats(0, 1))
def test_the_binomial_law_is_scipys(count, percentile, part):
    events = int(part * count)
    share = 1 - percentile / 100
    assert at_most(events, count, share) == pytest.approx(stats.binom.cdf(events, count, share), abs=1e-9)


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=200), st.sampled_from([50.0, 90.0, 99.0]))
def test_as_many_may_exceed_the_limit_as_leave_the_observed_percentile_below_it(seconds, percentile):
    slo = limit(percentile, limit_s=1.0)
    above = sum(value > 1.0 for value in seconds)
    assert (above <= slo.allowed(len(seconds))) == (Percentiles.of(seconds).at(percentile) <= 1.0)


@given(st.lists(st.booleans(), min_size=20, max_size=60))
def test_curtailment_never_decides_otherwise_than_the_whole_run(slow):
    seconds = [2.0 if is_slow else 0.5 for is_slow in slow]
    slo = limit(90)
    decision, _ = decide(Stopping([slo], planned=len(seconds), steady=False), seconds)
    met = sum(slow) <= slo.allowed(len(seconds))
    assert decision == ("SLOs met" if met else "SLO missed")


def test_five_slow_requests_of_400_decide_a_p99():
    assert decide(Stopping([limit(99)], planned=400, steady=False), [2.0] * 400) == ("SLO missed", 5)


def test_a_mean_is_missed_once_the_sum_exceeds_that_of_the_whole_run():
    assert decide(Stopping([limit(None)], planned=100, steady=True), [10.0] * 100) == ("SLO missed", 11)
    assert decide(Stopping([limit(None)], planned=100, steady=True), [0.5] * 100) == (None, 100)


def test_chunks_are_not_independent_so_a_limit_on_itl_keeps_the_run_going():
    assert decide(Stopping([limit(metric="itl")], planned=100, steady=True), [0.1] * 100, metric="itl")[0] is None


def test_nothing_is_kept_while_the_server_falls_behind():
    assert decide(Stopping([limit()], planned=400, steady=True), [0.1] * 399, keeps_up=False)[0] is None


def test_a_trace_is_not_judged_by_its_beginning():
    _, steady = decide(Stopping([limit()], planned=1000, steady=True), [0.1] * 1000)
    _, trace = decide(Stopping([limit()], planned=1000, steady=False), [0.1] * 1000)
    assert (steady, trace) == (50, 500)


def test_all_slos_must_be_kept_and_one_missed_is_enough():
    slo = [limit(limit_s=1.0), limit(metric="tpot", limit_s=1.0)]
    both = Stopping(slo, planned=1000, steady=True)
    decisions = [both.take({"ttft": 0.1, "tpot": 2.0}) for _ in range(50)]
    assert decisions[-1] == "SLO missed"
    undecided = Stopping(slo, planned=1000, steady=True)
    sides = itertools.cycle([0.5, 2.0])
    assert {undecided.take({"ttft": 0.1, "tpot": next(sides)}) for _ in range(200)} == {None}


def test_dependence_is_1_without_any_and_that_of_an_autoregressive_series():
    rng = np.random.default_rng(0)
    assert dependence(rng.exponential(size=20_000)) == pytest.approx(1, abs=0.1)
    series = list(itertools.accumulate(rng.normal(size=20_000), lambda last, noise: 0.8 * last + noise))
    assert dependence(series) == pytest.approx((1 + 0.8) / (1 - 0.8), rel=0.15)


@pytest.mark.parametrize("percentile", [50, 95])
def test_independent_requests_stop_on_the_wrong_side_no_oftener_than_said(percentile):
    """At worst, with the true percentile at the limit: curtailment is out of reach."""
    rng = np.random.default_rng(percentile)
    at_limit = -np.log(1 - percentile / 100)  # of the exponential law
    ends = [
        decide(Stopping([limit(percentile, at_limit)], planned=10_000, steady=True), independent(rng, 1000))[0]
        for _ in range(100)
    ]
    for side in ("SLOs met", "SLO missed"):
        assert stats.binomtest(ends.count(side), len(ends), FALSE_DECISIONS, alternative="greater").pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", [independent, queueing])
@pytest.mark.parametrize("percentile", [50, 95, 99])
@pytest.mark.parametrize("headroom", [0.8, 1.0, 1.25])
def test_stopping_early_decides_as_the_whole_run_would_have(kind, percentile, headroom):
    rng = np.random.default_rng(1)
    slo = limit(percentile, float(np.quantile(kind(rng, 100_000), percentile / 100)) * headroom)
    agreed = 0
    for _ in range(40):
        seconds = kind(rng, 1000)
        decision, _ = decide(Stopping([slo], planned=1000, steady=True), seconds)
        met = int((seconds > slo.limit_s).sum()) <= slo.allowed(1000)
        agreed += decision == ("SLOs met" if met else "SLO missed")
    assert agreed >= 38
