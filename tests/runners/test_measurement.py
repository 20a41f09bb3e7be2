"""Percentiles and rates, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.measurement import METRICS, NO_METRICS, PERCENTILES, Measurement, Percentiles

SAMPLES = st.lists(st.floats(0, 1e3), min_size=1, max_size=60)


def measurement(**parts) -> Measurement:
    facts = {
        "load": 4,
        "gpus": 2,
        "duration_s": 20.0,
        "requests": 50,
        "input_tokens": 5000,
        "output_tokens": 1000,
        "source": "simulated",
    }
    latencies = {metric: Percentiles.of([number]) for number, metric in enumerate(METRICS, start=1)}
    return Measurement(**(latencies | facts | parts))


def test_a_hundred_samples_have_the_percentiles_that_one_counts_out():
    found = Percentiles.of(np.arange(1, 101))
    assert found.values == (50, 75, 90, 95, 99, 100)
    assert found.mean == 50.5


def test_the_median_of_an_even_number_is_the_lower_of_the_two_in_the_middle():
    assert Percentiles.of([4, 1, 3, 2]).at(50) == 2


def test_what_could_not_be_had_is_a_sentence():
    assert measurement().lacks == ""
    assert measurement(not_had=("tokens", "metrics")).lacks == "Not had of this server: tokens; metrics."
    assert measurement().knows_cache
    assert not measurement(not_had=("tokens", NO_METRICS)).knows_cache


def test_one_sample_is_every_percentile():
    assert Percentiles.of([0.25]).values == (0.25,) * len(PERCENTILES)


def test_weights_count_a_sample_so_many_times():
    found = Percentiles.of([1.0, 2.0, 9.0], [6, 3, 1])
    # 1 1 1 1 1 1 2 2 2 9
    assert found.values == (1, 2, 2, 9, 9, 9)
    assert found.mean == pytest.approx(2.1)


@given(samples=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=20))
def test_weighing_is_repeating(samples):
    values, weights = zip(*samples, strict=True)
    weighed = Percentiles.of(values, weights)
    repeated = Percentiles.of(np.repeat(values, weights))
    assert weighed.values == repeated.values
    assert weighed.mean == pytest.approx(repeated.mean)


@given(samples=SAMPLES)
def test_a_percentile_is_the_smallest_sample_that_so_many_do_not_exceed(samples):
    found = Percentiles.of(samples)
    for percentile in PERCENTILES:
        value = found.at(percentile)
        assert value in samples
        not_above = sum(sample <= value for sample in samples) / len(samples)
        below = sum(sample < value for sample in samples) / len(samples)
        assert not_above >= percentile / 100 - 1e-9
        assert below < percentile / 100 + 1e-9


@given(samples=SAMPLES)
def test_percentiles_rise_and_the_mean_is_between_the_extremes(samples):
    found = Percentiles.of(samples)
    assert list(found.values) == sorted(found.values)
    assert min(samples) - 1e-9 <= found.mean <= max(samples) + 1e-9


def test_nothing_has_no_distribution():
    with pytest.raises(ValueError, match="at least one sample"):
        Percentiles.of([])


def test_a_percentile_that_is_not_kept_is_refused():
    with pytest.raises(ValueError):
        Percentiles.of([1]).at(42)


def test_rates_are_over_the_measured_window():
    found = measurement()
    assert found.output_rate == 50
    assert found.total_rate == 300
    assert found.request_rate == 2.5


def test_a_latency_is_found_by_its_name():
    found = measurement()
    assert [found.latency(metric).mean for metric in METRICS] == [1, 2, 3, 4]


def test_interactivity_is_what_the_median_user_sees():
    assert measurement(tpot=Percentiles.of([0.01, 0.02, 0.04])).interactivity == pytest.approx(50)


def test_interactivity_has_no_bound_where_no_token_follows_the_first():
    assert measurement(tpot=Percentiles.of([0.0])).interactivity == np.inf


@pytest.mark.parametrize(("growth", "kept_up"), [(-3, True), (0, True), (5, True), (6, False), (500, False)])
def test_a_backlog_that_grows_by_over_a_tenth_is_not_kept_up_with(growth, kept_up):
    assert measurement(backlog_growth=growth).kept_up is kept_up
