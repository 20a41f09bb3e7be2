"""The surrogate: what it makes of predictions and measurements together."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tests.tuner.search.surrogate.rows import features
from tuner.search.surrogate.features import Features
from tuner.search.surrogate.quantities import COST
from tuner.search.surrogate.surrogate import Option, Surrogate

TTFT = "ttft_ms_mean"


def an_option(cost: float | None, of: Features | None = None, **changes) -> Option:
    return Option(params={}, features=of or features(), cost=cost, **changes)


def test_with_exact_predictions_the_most_is_expected_of_the_predicted_best():
    surrogate = Surrogate([an_option(math.log(cost), features(size)) for cost, size in ((3, 1), (1, 2), (2, 4))], ())
    assert surrogate.acquisition(None).argmax() == 1


@settings(max_examples=30, deadline=None)
@given(limit=st.floats(0.01, 10), looser=st.floats(1.001, 10), observed=st.floats(0.01, 10))
def test_p_sla_met_grows_with_the_limit(limit, looser, observed):
    def met(limit: float) -> float:
        surrogate = Surrogate([an_option(0.0, ratios={TTFT: math.log(1 / limit)})], (TTFT,))
        surrogate.observe(0, {TTFT: math.log(observed / limit)})
        return float(surrogate.outlook().met[0])

    assert met(limit) <= met(limit * looser)


def test_errors_larger_than_expected_widen_the_posterior_of_the_rest():
    def sd(error: float) -> float:
        surrogate = Surrogate([an_option(0.0, features(size)) for size in (1, 8)], ())
        for _ in range(3):
            surrogate.observe(0, {COST: error})
        return float(surrogate.outlook().sd[1])

    assert sd(2.0) > 2 * sd(0.01)


def test_a_variant_that_was_cheaper_than_predicted_is_expected_to_be_so_elsewhere():
    rows = [features(size, variant=name) for name in ("plain", "graphs") for size in (1, 8)]
    surrogate = Surrogate([an_option(0.0, row) for row in rows], ())
    surrogate.observe(0, {COST: 0.0})
    surrogate.observe(2, {COST: -0.4})
    plain, graphs = surrogate.outlook().cost[[1, 3]]
    assert graphs < plain - 0.1


def test_a_cost_that_follows_from_an_slo_is_expected_as_an_independent_draw_says():
    """One option with normal log TPOT, cost equal to it: E[(best/cost - 1)+] by quadrature, weighed by P(SLA met)."""
    surrogate = Surrogate([an_option(0.0, ratios={TTFT: -0.1})], (TTFT,), cost_of=lambda ratios: ratios[TTFT])
    outlook = surrogate.outlook()
    values = norm.ppf((np.arange(20001) + 0.5) / 20001) * outlook.sd[0] + outlook.cost[0]
    gain = (np.maximum(np.exp(-values) - 1, 0) * (values <= 0)).mean()
    met = (values <= 0).mean()
    assert surrogate.acquisition(0.0)[0] == pytest.approx(gain * met**0.45, rel=0.05)
