"""The answer: what a finished search is summed up to."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.measurement import Measurement
from tests.scenarios import CONFIG, SCENARIO, answer_of, level, measured
from tuner.search.ranking import Candidate, Ranking
from tuner.search.trial import Trial

KEPT = measured(0, level(2000))
CHEAPER = measured(1, level(4000))
MISSED = measured(2, level(8000, tpot_ms=22))
FAR = measured(3, level(16000, tpot_ms=40, ttft_ms=3000))
FAILED = Trial(number=4, ending="failed", config=CONFIG, cause="died")
INFEASIBLE = Trial(number=5, ending="infeasible", cause="memory")


def test_the_best_is_the_cheapest_that_meets_the_sla():
    answer = answer_of(MISSED, KEPT, FAILED, CHEAPER, INFEASIBLE, FAR)
    assert answer.best == CHEAPER
    assert answer.meets_sla
    assert answer.ranked == [CHEAPER, KEPT, MISSED, FAR]
    assert answer.cost(CHEAPER).usd_per_million_output_tokens == pytest.approx(2)


def test_where_none_meets_the_sla_the_best_is_the_nearest():
    answer = answer_of(FAR, FAILED, MISSED)
    assert answer.best == MISSED
    assert not answer.meets_sla


def test_there_is_no_best_where_nothing_was_measured():
    answer = answer_of(FAILED, INFEASIBLE)
    assert answer.best is None
    assert not answer.meets_sla
    assert answer.saving is None
    assert answer.binding() is None
    assert answer.pareto() == []
    assert answer.ended() == {"failed: died": 1, "infeasible: memory": 1}


def test_the_saving_is_against_the_default_where_both_meet_the_sla():
    assert answer_of(CHEAPER, baseline=KEPT).saving == pytest.approx(0.5)
    assert answer_of(KEPT, baseline=CHEAPER).saving == pytest.approx(-1)
    assert answer_of(KEPT, baseline=MISSED).saving is None
    assert answer_of(MISSED, baseline=KEPT).saving is None
    assert answer_of(KEPT).saving is None


def test_the_binding_slo_is_the_one_that_the_nearest_misses_most():
    both = measured(0, level(2000, tpot_ms=30, ttft_ms=1100))
    assert answer_of(both).binding() == SCENARIO.sla.slos[1]
    assert list(answer_of(both).missed(both)) == ["tpot_ms_p99", "ttft_ms_p99"]
    assert answer_of(KEPT).binding() is None
    assert answer_of(KEPT).missed(KEPT) == {}


def test_no_slo_binds_where_the_server_cannot_keep_up():
    behind = measured(0, level(2000, backlog_growth=90))
    assert not answer_of(behind).meets_sla
    assert answer_of(behind).binding() is None
    assert answer_of(behind).missed(behind) == {"backlog": 1.0}


LEVELS = st.builds(level, st.integers(1, 30).map(float), tpot_ms=st.integers(1, 30).map(float))


@settings(deadline=None)
@given(st.lists(LEVELS, min_size=1, max_size=20))
def test_no_point_of_the_pareto_table_is_beaten_in_both_and_every_other_is(levels):
    # All have the same GPUs: the most tokens/s are the cheapest, the least TPOT is the quickest.
    front = [point.measurement for point in answer_of(measured(0, *levels)).pareto()]
    assert [one.output_rate for one in front] == sorted((one.output_rate for one in front), reverse=True)
    for place in front:
        assert not [one for one in levels if beats(one, place)]
    for one in levels:
        assert [place for place in front if not beats(one, place) and at_least_as_good(place, one)]


def at_least_as_good(one: Measurement, other: Measurement) -> bool:
    return one.output_rate >= other.output_rate and one.tpot.mean <= other.tpot.mean


def beats(one: Measurement, other: Measurement) -> bool:
    return at_least_as_good(one, other) and not at_least_as_good(other, one)


def test_the_pareto_table_has_the_loads_that_miss_the_sla_and_says_so():
    keeps = {point.measurement.tpot.mean: point.meets_sla for point in answer_of(MISSED, KEPT).pareto()}
    assert keeps == {0.022: False, 0.01: True}


def test_a_load_that_was_not_kept_up_with_is_no_state_to_serve_in():
    assert len(answer_of(measured(0, level(9000, backlog_growth=90), level(2000), chosen=1)).pareto()) == 1


def test_loads_measured_for_the_frontier_only_are_in_the_pareto_table_but_never_best():
    quick = level(1000, tpot_ms=1)
    cheap = level(9000, tpot_ms=15)
    answer = replace(answer_of(KEPT), frontier=[(CONFIG, quick), (CONFIG, cheap)])
    assert [point.measurement for point in answer.pareto()] == [cheap, KEPT.measurement, quick]
    assert answer.best == KEPT


def test_the_objective_decides_what_is_cheap():
    many_inputs = measured(0, replace(level(1000), input_tokens=1_000_000))
    many_outputs = measured(1, level(2000))
    assert answer_of(many_inputs, many_outputs).best == many_outputs
    total = answer_of(many_inputs, many_outputs, objective="usd_per_million_total_tokens")
    assert total.best == many_inputs


def test_why_combinations_excluded_is_counted_by_law_and_by_slo():
    def candidate(binding: str) -> Candidate:
        return Candidate(params={}, objective=1.0, excess=0.5 if binding else 0.0, binding=binding)

    candidates = tuple(map(candidate, ["", "tpot_ms_p99", "tpot_ms_p99", "ttft_ms_p99"]))
    answer = answer_of(KEPT, ranking=Ranking(candidates=candidates, excluded={"memory": 7}))
    assert answer.excluded() == {
        "memory": 7,
        "over tpot_ms_p99 (predicted)": 2,
        "over ttft_ms_p99 (predicted)": 1,
    }
    assert sum(answer.excluded().values()) == answer.ranking.combinations - 1


def test_how_trials_ended_adds_up():
    trials = (KEPT, CHEAPER, MISSED, FAR, FAILED, INFEASIBLE)
    assert answer_of(*trials).ended() == {
        "met the SLA": 2,
        "over tpot_ms_p99": 1,
        "over ttft_ms_p99": 1,
        "failed: died": 1,
        "infeasible: memory": 1,
    }


def test_a_winner_that_leaves_gpus_over_saves_no_more_than_its_throughput_is_higher():
    """gpt-oss-120b at TPOT p99 3.3 ms: 31,775 tokens/s on 5 of 8 GPUs against 8,488 on 8 are 73 % cheaper, not 83 %."""
    winner = measured(0, level(31_775, gpus=5))
    answer = answer_of(winner, baseline=measured(1, level(8_488)))
    assert answer.saving == pytest.approx(1 - 8_488 / 31_775)
    assert round(answer.saving, 2) == 0.73
    assert answer.pareto()[0].cost.output_tokens_per_s_per_gpu == pytest.approx(31_775 / 8)
