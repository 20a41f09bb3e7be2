"""SLOs: what is observed, by how much it misses, and what cannot be one."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from runners.measurement import METRICS, Measurement, Percentiles
from search_spaces.errors import InputError, UnknownNameError
from tuner.scenario.sla import BACKLOG, SLOS, STATISTICS, Sla, Slo, read_slo

LATENCIES = {
    "ttft": Percentiles(mean=0.40, values=(0.3, 0.4, 0.6, 0.7, 0.8, 0.9)),
    "tpot": Percentiles(mean=0.010, values=(0.009, 0.010, 0.011, 0.012, 0.013, 0.014)),
    "itl": Percentiles(mean=0.011, values=(0.009, 0.010, 0.011, 0.012, 0.050, 0.090)),
    "e2e": Percentiles(mean=5.0, values=(5.0, 6.0, 7.0, 8.0, 9.0, 10.0)),
}


def measurement(**parts) -> Measurement:
    facts = {
        "load": 1,
        "gpus": 1,
        "duration_s": 1,
        "requests": 100,
        "input_tokens": 1,
        "output_tokens": 1,
        "source": "simulated",
    }
    return Measurement(**(facts | LATENCIES | parts))


def sla(**limits_ms: float) -> Sla:
    return Sla(slos=tuple(read_slo(key, limit) for key, limit in limits_ms.items()))


@pytest.mark.parametrize(
    ("key", "seconds"),
    [
        ("ttft_ms_p50", 0.3),
        ("ttft_ms_p75", 0.4),
        ("tpot_ms_p90", 0.011),
        ("tpot_ms_p95", 0.012),
        ("itl_ms_p99", 0.05),
        ("itl_ms_p99.9", 0.09),
        ("e2e_ms_mean", 5.0),
    ],
)
def test_a_slo_observes_its_own_statistic(key, seconds):
    assert read_slo(key, 1).observed(measurement()) == seconds


def test_every_latency_has_every_statistic():
    assert len(SLOS) == len(METRICS) * len(STATISTICS) == 28
    assert "itl_ms_p99.9" in SLOS
    for key in SLOS:
        assert read_slo(key, 250).key == key


def test_milliseconds_are_read_as_seconds():
    assert read_slo("ttft_ms_p99", 1500).limit_s == 1.5


def test_the_excess_is_relative_and_kept_means_at_most_nought():
    assert read_slo("ttft_ms_p99", 1000).excess(measurement()) == pytest.approx(-0.2)
    assert read_slo("ttft_ms_p99", 800).excess(measurement()) == 0
    assert read_slo("ttft_ms_p99", 400).excess(measurement()) == pytest.approx(1.0)


def test_all_slos_must_be_kept():
    assert sla(ttft_ms_p99=800, tpot_ms_p99=13).met_by(measurement())
    assert not sla(ttft_ms_p99=800, tpot_ms_p99=12.9).met_by(measurement())
    assert not sla(ttft_ms_p99=799, tpot_ms_p99=13).met_by(measurement())


def test_each_slo_has_its_own_excess():
    excess = sla(ttft_ms_p99=1600, tpot_ms_p99=6.5).excess(measurement())
    assert excess == pytest.approx({"ttft_ms_p99": -0.5, "tpot_ms_p99": 1.0, BACKLOG: 0.0})


def test_one_latency_may_have_several_slos():
    twice = sla(ttft_ms_p50=300, ttft_ms_p99=700)
    assert set(twice.excess(measurement())) == {"ttft_ms_p50", "ttft_ms_p99", BACKLOG}
    assert not twice.met_by(measurement())


def test_without_slos_the_sla_is_met_unless_the_server_falls_behind():
    assert sla().met_by(measurement())
    assert not sla().met_by(measurement(backlog_growth=50))


def test_a_failed_request_breaks_any_sla():
    assert not sla(ttft_ms_p99=1e6).met_by(measurement(failed_requests=1))


LIMITS = st.fixed_dictionaries({}, optional={key: st.floats(0.1, 1e5) for key in SLOS[::3]})


@given(limits=LIMITS, looser=st.floats(1, 10))
def test_what_meets_an_sla_keeps_every_looser_one(limits, looser):
    strict = sla(**limits)
    loose = sla(**{key: limit * looser for key, limit in limits.items()})
    if strict.met_by(measurement()):
        assert loose.met_by(measurement())
    for key, excess in strict.excess(measurement()).items():
        assert loose.excess(measurement())[key] <= excess


@given(limits=LIMITS)
def test_dropping_a_slo_never_breaks_an_sla(limits):
    whole = sla(**limits)
    for key in limits:
        fewer = sla(**{other: limit for other, limit in limits.items() if other != key})
        assert fewer.met_by(measurement()) or not whole.met_by(measurement())


def test_an_unknown_slo_is_refused_with_the_nearest_first():
    with pytest.raises(UnknownNameError) as raised:
        read_slo("ttft_ms_p98", 100)
    assert "'ttft_ms_p98'" in str(raised.value)
    assert "valid: ttft_ms_p9" in str(raised.value)


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan")])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(InputError, match="`tpot_ms_p99 > 0` must hold, but got"):
        read_slo("tpot_ms_p99", limit)


def test_an_sla_reads_as_people_say_it():
    assert str(sla(ttft_ms_p99=1000, tpot_ms_mean=12.5)) == "TTFT p99 <= 1000 ms, TPOT mean <= 12.5 ms"


def test_a_slo_knows_its_key():
    assert Slo(metric="e2e", statistic="p99.9", limit_s=1).key == "e2e_ms_p99.9"


# With a confidence: all SLOs together

TWICE = {"ttft_ms_p95": 1000, "ttft_ms_p99": 1000}


def at(seconds: float, source="measured") -> Measurement:
    return measurement(ttft=Percentiles(mean=seconds, values=(seconds,) * 6), source=source)


def likely(confidence: float, **limits_ms: float) -> Sla:
    return replace(sla(**limits_ms), confidence=confidence)


def test_two_slos_that_are_each_met_with_90_per_cent_are_met_together_with_81():
    """One run's tail of TTFT is off by 12 %: 1.2816 of those below the limit, it is met with 90 %."""
    level = at(math.exp(-0.12 * 1.2815516))
    assert likely(0.9, ttft_ms_p99=1000).probability_met(level) == pytest.approx(0.9)
    assert likely(0.9, **TWICE).probability_met(level) == pytest.approx(0.81)
    assert likely(0.9 - 1e-6, ttft_ms_p99=1000).met_by(level)
    assert not likely(0.9, **TWICE).met_by(level)
    assert likely(0.81 - 1e-6, **TWICE).met_by(level)


def test_the_excess_is_by_how_much_all_would_have_to_shrink():
    """Two alike are met together with 90 % where each is with sqrt(0.9) = 94.868 %: 1.63219 deviations below."""
    excess = likely(0.9, **TWICE).excess(at(1.0))
    assert excess == pytest.approx(dict.fromkeys(TWICE, math.exp(0.12 * 1.63219) - 1) | {BACKLOG: 0}, abs=1e-5)
    shrunk = at(1 / (1 + excess["ttft_ms_p99"]))
    assert likely(0.9, **TWICE).probability_met(shrunk) == pytest.approx(0.9)


def test_of_one_slo_the_excess_is_that_of_its_own_margin():
    assert likely(0.9, ttft_ms_p99=1000).excess(at(1.0))["ttft_ms_p99"] == pytest.approx(math.exp(0.12 * 1.2815516) - 1)


def test_an_slo_far_below_its_limit_changes_nothing():
    one, both = likely(0.9, ttft_ms_p99=1000), likely(0.9, ttft_ms_p99=1000, tpot_ms_p50=1e6)
    assert both.excess(at(0.95))["ttft_ms_p99"] == pytest.approx(one.excess(at(0.95))["ttft_ms_p99"])


KEYS = ("ttft_ms_p99", "tpot_ms_p50", "tpot_ms_p99", "itl_ms_mean", "e2e_ms_p90")
SOURCES = ("simulated", "estimated", "measured", "recorded")
HEADROOMS = st.dictionaries(st.sampled_from(KEYS), st.floats(0.3, 1.5), min_size=1)


@given(headrooms=HEADROOMS, confidence=st.floats(0.5, 0.99), source=st.sampled_from(SOURCES))
def test_the_sla_is_met_where_it_is_as_likely_as_asked(headrooms, confidence, source):
    level = measurement(source=source)
    asked = likely(confidence, **{key: 1000 * read_slo(key, 1).observed(level) / by for key, by in headrooms.items()})
    probability = asked.probability_met(level)
    if abs(probability - confidence) > 1e-9:
        assert asked.met_by(level) == (probability > confidence)


@given(headrooms=HEADROOMS, confidence=st.floats(0.5, 0.99), source=st.sampled_from(SOURCES))
def test_the_largest_excess_is_what_another_solver_finds(headrooms, confidence, source):
    level = measurement(source=source)
    asked = likely(confidence, **{key: 1000 * read_slo(key, 1).observed(level) / by for key, by in headrooms.items()})
    spreads = [slo.spread(source) for slo in asked.slos]
    middles = [math.log(by) + spread.median for by, spread in zip(headrooms.values(), spreads, strict=True)]

    def missing(log_factor: float) -> float:
        pairs = zip(middles, spreads, strict=True)
        return math.prod(norm.cdf(log_factor, middle, spread.sd) for middle, spread in pairs) - confidence

    factor = math.exp(brentq(missing, -20, 20, xtol=1e-12))
    assert max(asked.excess(level).values()) == pytest.approx(max(factor - 1, 0), abs=1e-8)


def test_repeats_of_a_measurement_make_it_surer_and_those_of_a_prediction_do_not():
    asked = likely(0.9, ttft_ms_p99=1000)
    assert asked.excess(*[at(1.0)] * 4)["ttft_ms_p99"] == pytest.approx(math.exp(0.06 * 1.2815516) - 1)
    predicted = at(0.5, source="simulated")
    assert asked.excess(*[predicted] * 4) == pytest.approx(asked.excess(predicted))


def test_a_failed_request_is_no_met_sla_however_often_it_is_tried():
    level = measurement(failed_requests=1)
    assert likely(0.9, ttft_ms_p99=1e6).probability_met(level) == 0
    assert likely(0.9, ttft_ms_p99=1e6).excess(measurement(), level)[BACKLOG] == 1


def test_the_least_limit_of_one_slo_is_the_one_with_which_the_sla_is_just_met():
    level = measurement(source="measured")
    for asked in (sla(ttft_ms_p99=500, tpot_ms_p99=14), likely(0.9, ttft_ms_p99=500, tpot_ms_p99=14)):
        ttft = asked.slos[0]
        limit = asked.least_limit(ttft, level)
        for scale, met in ((1 + 1e-9, True), (1 - 1e-9, False)):
            slos = (replace(ttft, limit_s=limit * scale), *asked.slos[1:])
            assert replace(asked, slos=slos).met_by(level) == met


def test_no_limit_of_one_slo_makes_up_for_another_that_is_missed():
    asked = sla(ttft_ms_p99=500, tpot_ms_p99=1)
    assert asked.least_limit(asked.slos[0], measurement()) == math.inf


def test_a_run_under_load_watches_limits_that_leave_its_noise():
    (limit,) = likely(0.9, ttft_ms_p99=1000).limits
    assert limit.limit_s == pytest.approx(math.exp(-0.12 * 1.2815516))
    assert sla(ttft_ms_p99=1000).limits[0].limit_s == 1.0


def test_an_sla_with_a_confidence_says_so_of_all_together():
    said = str(likely(0.9, ttft_ms_p99=1000, tpot_ms_p99=20))
    assert said == "TTFT p99 <= 1000 ms, TPOT p99 <= 20 ms, SLA met with a probability of at least 90 %"
