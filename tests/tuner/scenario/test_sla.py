"""SLOs: what is observed, by how much it misses, and what cannot be promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_one_latency_may_be_promised_several_times():
    twice = sla(ttft_ms_p50=300, ttft_ms_p99=700)
    assert set(twice.excess(measurement())) == {"ttft_ms_p50", "ttft_ms_p99", BACKLOG}
    assert not twice.met_by(measurement())


def test_nothing_promised_is_kept_unless_the_server_falls_behind():
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
