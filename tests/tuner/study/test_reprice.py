"""Reprice: other prices and SLOs from measured loads, and an honest word where they do not suffice."""

import datetime as dt
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.workload.workload import Lengths
from search_spaces.errors import InputError
from tests.scenarios import SCENARIO, level, measured
from tests.studies import CHAT, study_of
from tuner.scenario.sla import read_slo
from tuner.search.capacity import PRECISION
from tuner.show.reprice_view import open_experiments, verdict
from tuner.study.finished_study import open_finished
from tuner.study.reprice import Terms, read_terms, reprice, rescore, rescored_scenario


def loaded(load, *, tpot_ms, rate=None):
    """A load with a TPOT and output tokens/s that grow with it."""
    return replace(level(rate or 1000 * load, tpot_ms=tpot_ms), load=float(load))


def terms(price=None, date=None, **slos):
    return Terms(price_list=price, date=date, slos=slos)


def scenario_with(**slos):
    sla = replace(SCENARIO.sla, slos=tuple(read_slo(key, limit) for key, limit in slos.items()))
    return replace(SCENARIO, sla=sla)


def dollars(one):
    return SCENARIO.usd_per_million(one)


LEVELS = (loaded(100, tpot_ms=10), loaded(200, tpot_ms=18), loaded(204, tpot_ms=21), loaded(400, tpot_ms=40))


def test_the_cheapest_measured_load_that_keeps_the_new_slo_counts():
    one = rescore(scenario_with(tpot_ms_p99=12), measured(0, *LEVELS))
    assert one.level == LEVELS[0]
    assert one.cost == pytest.approx(dollars(LEVELS[0]))


def test_a_capacity_between_two_loads_close_together_is_exact():
    one = rescore(scenario_with(tpot_ms_p99=20), measured(0, *LEVELS))
    assert (one.level, one.gap) == (LEVELS[1], "")


def test_a_capacity_between_two_loads_far_apart_is_bounded():
    one = rescore(scenario_with(tpot_ms_p99=30), measured(0, *LEVELS))
    assert one.level == LEVELS[2]
    assert one.gap == "its capacity lies between the loads 204 and 400"
    assert one.least == pytest.approx(one.cost * 204 / 400)


def test_a_slo_looser_than_every_load_bounds_nothing():
    one = rescore(scenario_with(tpot_ms_p99=100), measured(0, *LEVELS))
    assert one.level == LEVELS[3]
    assert one.gap.startswith("it meets the SLA at every load that was measured, up to 400")
    assert one.least == 0


def test_a_slo_tighter_than_every_load_leaves_no_answer_and_no_cheaper_one_below():
    one = rescore(scenario_with(tpot_ms_p99=5), measured(0, *LEVELS))
    assert one.level is None
    assert one.cost == math.inf
    assert one.least == pytest.approx(dollars(LEVELS[0]))


@given(
    st.lists(st.floats(1, 1e4), min_size=1, max_size=7, unique=True),
    st.floats(0.2, 1.0),
    st.floats(1, 100),
    st.floats(1, 1e4),
)
def test_the_bounds_hold_the_cost_at_the_true_capacity(loads, power, limit, capacity):
    """A server whose throughput grows with a power of the load and whose TPOT reaches the limit at `capacity`."""

    def at(load):
        return loaded(load, tpot_ms=limit * load / capacity, rate=1e5 * load**power)

    one = rescore(scenario_with(tpot_ms_p99=limit), replace(measured(0, *map(at, sorted(loads))), exact=False))
    truth = dollars(at(capacity))
    assert one.least <= truth * (PRECISION if one.exact else 1 + 1e-6)
    if one.level is not None and not one.exact:
        assert truth <= one.cost * (1 + 1e-6)
    if one.exact:
        assert one.cost == pytest.approx(truth, rel=PRECISION - 1)


@pytest.fixture
def finished(tmp_path):
    levels = (loaded(100, tpot_ms=10), loaded(200, tpot_ms=19.5), loaded(205, tpot_ms=21))
    quick = measured(0, *levels, chosen=1)
    dear = measured(1, loaded(100, tpot_ms=19, rate=60_000), loaded(102, tpot_ms=21, rate=61_000))
    study_of(tmp_path, quick, dear)
    return open_finished(tmp_path, CHAT)


def test_another_price_scales_every_cost_and_changes_no_order(finished):
    other = reprice(finished, terms(price="3.46"))
    before = finished.scenario.price.usd_per_gpu_hour
    for one, trial in zip(other.rescored, finished.ranked, strict=True):
        assert one.trial == trial
        was = finished.scenario.usd_per_million(trial.measurement)
        assert one.cost == pytest.approx(was * 3.46 / before)
    assert other.suffices


def test_time_between_tokens_cannot_be_asked_of_answers_of_one(finished):
    one = replace(finished.scenario.workload, output_tokens=Lengths(low=1, high=1))
    slos = tuple(slo for slo in finished.scenario.sla.slos if slo.metric == "ttft")
    single = replace(finished.scenario, workload=one, sla=replace(finished.scenario.sla, slos=slos))
    with pytest.raises(InputError, match="`output_tokens >= 2` must hold for ITL"):
        rescored_scenario(single, terms(itl_ms_p99=30.0))


def test_another_limit_keeps_the_confidence(finished):
    sure = replace(finished.scenario, sla=replace(finished.scenario.sla, confidence=0.9))
    found = rescored_scenario(sure, terms(tpot_ms_p99=30.0))
    assert found.sla.confidence == 0.9
    assert found.sla.slos[1].limit_s == 0.03


def test_a_price_list_is_read_on_its_date(finished):
    found = rescored_scenario(finished.scenario, terms(price="neocloud", date=dt.date(2026, 7, 31)))
    assert "neocloud list price of 2026-07-31" in found.price.source
    later = rescored_scenario(finished.scenario, terms(date=dt.date(2026, 3, 20)))
    assert "hyperscaler list price of 2026-03-18" in later.price.source


def test_an_unchanged_experiment_suffices_and_answers_the_same(finished):
    same = reprice(finished, terms())
    assert same.suffices
    assert same.best.trial == finished.best
    assert "still the cheapest" in verdict(same)


def test_a_looser_slo_says_what_is_not_known(finished):
    found = reprice(finished, terms(tpot_ms_p99=50.0))
    assert not found.suffices
    assert verdict(found).startswith("at most $")
    said = open_experiments(found)
    assert any("up to 205; higher ones were not tried" in line for line in said)
    assert any("Trial 1" in line and "may be cheaper" in line for line in said)


def test_an_impossible_slo_says_so(finished):
    found = reprice(finished, terms(tpot_ms_p99=1.0))
    assert found.best is None
    assert verdict(found) == "No load that was measured meets the SLA."


def test_a_slo_can_be_dropped_but_not_all(finished):
    keys = [slo.key for slo in finished.scenario.sla.slos]
    found = rescored_scenario(finished.scenario, terms(**{keys[0]: None}))
    assert [slo.key for slo in found.sla.slos] == keys[1:]
    with pytest.raises(InputError, match="no SLO is left"):
        rescored_scenario(finished.scenario, terms(**dict.fromkeys(keys)))


@pytest.mark.parametrize(
    ("price", "date", "slos", "message"),
    [
        (None, "31.7.2026", (), "must be a date such as 2026-07-31"),
        (None, None, ("ttft_ms_p99",), "must read KEY=MILLISECONDS"),
        (None, None, ("ttft_p99=3",), "unknown SLO 'ttft_p99'; valid: ttft_ms_p99"),
        (None, None, ("ttft_ms_p99=soon",), "must be a number of milliseconds"),
        (None, None, ("ttft_ms_p99=-1",), "`ttft_ms_p99 > 0` must hold"),
    ],
)
def test_terms_that_cannot_be_read_say_why(price, date, slos, message):
    with pytest.raises(InputError, match=message):
        read_terms(price, date, slos)


@pytest.mark.parametrize(
    ("price", "message"), [("neocluod", "valid: neocloud"), ("-2", "`price > 0` must hold"), ("0", "`price > 0`")]
)
def test_a_price_that_cannot_be_says_why(finished, price, message):
    with pytest.raises(InputError, match=message):
        reprice(finished, terms(price=price))


def test_rivals_are_those_whose_bound_is_below_the_best(finished):
    found = reprice(finished, terms(tpot_ms_p99=20.5))
    assert found.best is not None
    for rival in found.rivals:
        assert rival.least < found.best.cost
    assert [one.least for one in found.rivals] == sorted(one.least for one in found.rivals)
