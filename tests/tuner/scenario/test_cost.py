"""Dollars per million tokens, worked out by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.measurement import Measurement, Percentiles
from search_spaces.hardware.system import Price
from tuner.scenario.cost import OBJECTIVES, cost, dollars_per_million


def measurement(*, input_tokens: int = 3_600_000, output_tokens: int = 1_200_000) -> Measurement:
    latency = Percentiles.of([0.02])
    return Measurement(
        load=1,
        gpus=8,
        duration_s=60,
        requests=1000,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        ttft=latency,
        tpot=latency,
        itl=latency,
        e2e=latency,
        source="simulated",
    )


def price(usd: float = 2.0, usd_per_kwh: float = 0.0, watts: float = 2000) -> Price:
    return Price(usd_per_gpu_hour=usd, all_in_watts_per_gpu=watts, usd_per_kwh=usd_per_kwh)


def test_rent_is_spread_over_the_tokens_of_an_hour():
    """Eight GPUs at $2 are $16 an hour; 20,000 output tokens/s are 72 M an hour, with the input 288 M."""
    found = cost(measurement(), price(), gpus=8)
    assert found.usd_per_million_output_tokens == pytest.approx(16 / 72)
    assert found.usd_per_million_total_tokens == pytest.approx(16 / 288)


def test_energy_is_added_where_it_is_charged_apart():
    """2 kW at $0.10 a kWh are $0.20 an hour for each GPU."""
    found = cost(measurement(), price(usd_per_kwh=0.10), gpus=8)
    assert found.usd_per_million_output_tokens == pytest.approx(8 * 2.2 / 72)


def test_rates_are_for_each_gpu_charged():
    found = cost(measurement(), price(), gpus=8)
    assert found.output_tokens_per_s_per_gpu == 2500
    assert found.total_tokens_per_s_per_gpu == 10_000
    assert found.tokens_per_s_per_user == pytest.approx(50)


def test_a_megawatt_is_all_in():
    """20,000 output tokens/s from 8 x 2 kW."""
    assert cost(measurement(), price(), gpus=8).tokens_per_s_per_mw == pytest.approx(20_000 / 0.016)


def test_idle_gpus_are_charged_too():
    assert cost(measurement(), price(), gpus=16).usd_per_million_output_tokens == pytest.approx(32 / 72)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_is_one_of_the_costs(objective):
    found = cost(measurement(), price(), gpus=8)
    assert found.objective(objective) == getattr(found, objective)


def test_a_request_of_one_token_has_a_cost_too():
    found = cost(replace(measurement(output_tokens=1000), tpot=Percentiles.of([0.0])), price(), gpus=8)
    assert 0 < found.usd_per_million_output_tokens < float("inf")
    assert found.tokens_per_s_per_user == float("inf")


@given(tokens=st.floats(1, 1e7), gpus=st.integers(1, 512), usd=st.floats(0.01, 100), factor=st.floats(1, 100))
def test_the_cost_is_proportional_to_the_price_and_inverse_to_throughput(tokens, gpus, usd, factor):
    one = dollars_per_million(tokens, gpus, price(usd))
    assert dollars_per_million(tokens, gpus, price(usd * factor)) == pytest.approx(one * factor)
    assert dollars_per_million(tokens * factor, gpus, price(usd)) == pytest.approx(one / factor)
    assert dollars_per_million(tokens, gpus * 2, price(usd)) == pytest.approx(one * 2)


@given(ins=st.integers(1, 10**8), outs=st.integers(1, 10**8))
def test_total_tokens_are_never_dearer_than_output_tokens(ins, outs):
    found = cost(measurement(input_tokens=ins, output_tokens=outs), price(), gpus=8)
    assert found.usd_per_million_total_tokens <= found.usd_per_million_output_tokens
    spent = found.usd_per_million_output_tokens * outs
    assert spent == pytest.approx(found.usd_per_million_total_tokens * (ins + outs))
