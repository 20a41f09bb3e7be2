"""What a scenario charges for, worked out by hand."""

from dataclasses import replace

import pytest

from search_spaces.enumerated import enumerated
from tests.scenarios import CONFIG, SCENARIO, TRTLLM, level

B200 = replace(SCENARIO, price=replace(SCENARIO.price, usd_per_gpu_hour=1.73))


def test_gpus_left_over_are_charged():
    """Five of eight GPUs serve 31,775 tokens/s: 8 x $1.73 / 3600 s / 31,775/s x 1e6 is $0.121; five are $0.0756."""
    five = level(31_775, gpus=5)
    assert B200.usd_per_million(five) == pytest.approx(0.12099, abs=1e-5)
    assert B200.left_over(five.gpus) == 3


def test_every_rate_for_a_gpu_counts_the_gpus_that_are_charged():
    found = SCENARIO.cost(level(8000, gpus=5))
    assert found.output_tokens_per_s_per_gpu == 1000
    assert found.total_tokens_per_s_per_gpu == 2000
    assert found.tokens_per_s_per_mw == pytest.approx(8000 / 0.016)


def test_of_the_same_gpus_those_that_serve_more_are_cheaper_however_many_are_held():
    few, all_of_them = level(8000, gpus=5), level(8001, gpus=8)
    assert SCENARIO.usd_per_million(all_of_them) < SCENARIO.usd_per_million(few)


def test_a_prediction_is_charged_as_a_measurement_is():
    served = level(8000, gpus=5)
    predicted = SCENARIO.usd_per_million_at(8000 / SCENARIO.workload.mean_output_tokens, held=5)
    assert predicted == pytest.approx(SCENARIO.usd_per_million(served))


def test_published_runs_of_different_sizes_pay_for_what_they_held():
    replayed = replace(SCENARIO, space=enumerated([CONFIG], engines=(TRTLLM,), gpus=8))
    assert replayed.usd_per_million(level(8000, gpus=4)) == pytest.approx(0.5)
    assert replayed.left_over(4) == 0
