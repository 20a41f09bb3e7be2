"""Confidence: P(SLA met), intervals, pooled repeats and ties."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.measurement import Measurement
from search_spaces.config import ServingConfig
from search_spaces.default import default_configs
from tests import scenarios
from tests.scenarios import CONFIG, MODEL, TRTLLM
from tuner.evidence.confidence import judge, ranked, settings_changed
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, Slo
from tuner.search.ranking import Ranking
from tuner.search.search import best_trial
from tuner.search.trial import Trial
from tuner.show.terminal import certainty
from tuner.study.answer import Answer

P99 = Slo(metric="ttft", statistic="p99", limit_s=1.0)
SCENARIO = replace(scenarios.SCENARIO, sla=Sla(slos=(P99,)))
DEFAULT = next(next(default_configs(MODEL, TRTLLM, 8)))


def level(rate: float = 1000.0, *, ttft: float = 0.5, source="measured") -> Measurement:
    return scenarios.level(
        rate, load=10, ttft_ms=ttft * 1000, tpot_ms=ttft * 1000, e2e=scenarios.always(ttft), source=source
    )


def a_trial(number: int, measurement: Measurement, config: ServingConfig = CONFIG) -> Trial:
    return Trial(number=number, ending="measured", config=config, levels=(measurement,))


def with_confidence(confidence: float) -> Scenario:
    return replace(SCENARIO, sla=Sla(slos=(P99,), confidence=confidence))


@settings(max_examples=50)
@given(limit=st.floats(0.01, 10), looser=st.floats(1, 10), observed=st.floats(0.01, 10))
def test_p_kept_grows_with_the_limit(limit, looser, observed):
    tight, loose = (Sla(slos=(replace(P99, limit_s=one),)) for one in (limit, limit * looser))
    assert tight.probability_met(level(ttft=observed)) <= loose.probability_met(level(ttft=observed))


def test_one_run_at_the_limit_is_a_toss_up_and_one_sigma_below_it_is_84_per_cent():
    assert SCENARIO.sla.probability_met(level(ttft=1.0)) == pytest.approx(0.5)
    assert SCENARIO.sla.probability_met(level(ttft=math.exp(-0.12))) == pytest.approx(0.8413, abs=1e-4)


def test_a_prediction_is_kept_as_likely_as_its_known_error_says_however_often_it_is_asked():
    """TTFT is measured at exp(0.31) of what is predicted, give or take exp(0.36)."""
    once = level(ttft=math.exp(-0.31), source="simulated")
    assert SCENARIO.sla.probability_met(once) == pytest.approx(0.5)
    assert SCENARIO.sla.probability_met(*[level(ttft=math.exp(-0.31 - 0.36), source="simulated")] * 3) == pytest.approx(
        0.8413, abs=1e-4
    )


@settings(max_examples=20)
@given(repeats=st.integers(2, 9))
def test_pooled_repeats_narrow_the_interval(repeats):
    once = judge(SCENARIO, [a_trial(0, level())])[0]
    pooled = judge(SCENARIO, [a_trial(number, level()) for number in range(repeats)])[0]
    assert pooled.repeats == repeats
    assert math.log(pooled.high / pooled.low) == pytest.approx(math.log(once.high / once.low) / math.sqrt(repeats))


def test_repeats_are_pooled_into_one_candidate_of_their_mean():
    (judged,) = judge(SCENARIO, [a_trial(0, level(1000)), a_trial(1, level(1010))])
    assert judged.cost == pytest.approx(8 / math.sqrt(1000 * 1010) * 1000)


def test_the_confidence_that_is_asked_for_is_respected():
    """Cheap, but 10 % below a p99 TTFT with a noise of 12 %: kept with 81 %."""
    trials = [a_trial(0, level(2000, ttft=0.9)), a_trial(1, level(1000, ttft=0.5), DEFAULT)]
    assert ranked(SCENARIO, trials)[0].trial.number == 0
    assert ranked(with_confidence(0.8), trials)[0].trial.number == 0
    assert ranked(with_confidence(0.9), trials)[0].trial.number == 1


def test_a_search_counts_only_loads_that_meet_the_sla_with_the_confidence():
    measurement = level(ttft=0.9)
    assert SCENARIO.sla.met_by(measurement)
    assert not with_confidence(0.9).sla.met_by(measurement)
    assert not with_confidence(0.9).sla.met_by(level(ttft=0.5, source="simulated"))
    assert with_confidence(0.9).sla.met_by(level(ttft=math.exp(-0.31 - 1.29 * 0.36), source="simulated"))


def test_a_difference_inside_the_noise_is_a_tie_for_the_fewer_changed_settings():
    trials = [a_trial(0, level(1003), CONFIG), a_trial(1, level(1000), DEFAULT)]
    assert settings_changed(SCENARIO, DEFAULT) == 0 < settings_changed(SCENARIO, CONFIG)
    assert ranked(SCENARIO, trials)[0].trial.number == 1


def test_a_difference_beyond_the_noise_is_none():
    trials = [a_trial(0, level(1100), CONFIG), a_trial(1, level(1000), DEFAULT)]
    assert ranked(SCENARIO, trials)[0].trial.number == 0


def test_predictions_never_tie_and_carry_their_known_error():
    trials = [a_trial(0, level(1001, source="simulated"), CONFIG), a_trial(1, level(1000, source="simulated"), DEFAULT)]
    answer = Answer(scenario=SCENARIO, trials=trials, ranking=Ranking(candidates=(), excluded={}), baseline=None)
    assert answer.best == trials[0]
    sure, hint = certainty(answer)
    assert sure == "On real hardware, by the known error: P(SLA met) 86%; $5.85 to $12.07 with 90 %."
    assert hint == "`sla: {confidence: 0.9}` in the experiment asks for that much certainty."
    assert len(certainty(replace(answer, scenario=with_confidence(0.9)))) == 1


def test_a_measured_answer_says_how_sure_it_is_and_who_ties():
    trials = [a_trial(0, level(1003), CONFIG), a_trial(1, level(1000), DEFAULT), a_trial(2, level(1000), DEFAULT)]
    answer = Answer(scenario=SCENARIO, trials=trials, ranking=Ranking(candidates=(), excluded={}), baseline=None)
    sure, tie = certainty(answer)
    assert sure == "P(SLA met) over 99 %; $7.94 to $8.07 with 90 % (2 runs pooled)."
    assert tie == "A tie within the noise with trial 0: this one changes the fewest settings."


def test_search_answer_and_runners_up_mean_the_same_confidence():
    """TTFT and E2E p99 are each met with 90 %, together with 81 %: the cheaper one is no answer at 85 %."""
    slos = (P99, Slo(metric="e2e", statistic="p99", limit_s=math.exp((0.05 - 0.12) * 1.2815516)))
    scenario = replace(SCENARIO, sla=Sla(slos=slos, confidence=0.85))
    close = a_trial(0, level(2000, ttft=math.exp(-0.12 * 1.2815516)))
    safe = a_trial(1, level(1000, ttft=0.5), DEFAULT)
    assert scenario.sla.probability_met(close.measurement) == pytest.approx(0.81)
    assert best_trial(scenario, [close, safe]) == safe
    first, second = ranked(scenario, [close, safe])
    assert (first.trial, second.trial) == (safe, close)
    assert (first.meets_sla, second.meets_sla) == (True, False)
    answer = Answer(scenario=scenario, trials=[close], ranking=Ranking(candidates=(), excluded={}), baseline=None)
    assert not answer.meets_sla
    assert answer.binding() in slos


def test_what_repeats_make_sure_of_is_an_answer():
    """One run 10 % below a limit with a noise of 12 % is met with 81 %, four with 96 %."""
    trials = [a_trial(number, level(ttft=0.9)) for number in range(4)]
    answers = [
        Answer(scenario=with_confidence(0.9), trials=some, ranking=Ranking(candidates=(), excluded={}), baseline=None)
        for some in (trials[:1], trials)
    ]
    assert [answer.meets_sla for answer in answers] == [False, True]
