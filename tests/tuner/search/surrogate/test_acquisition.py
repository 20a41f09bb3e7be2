"""Acquisition: the expected gain, against independent integrals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tuner.search.surrogate.acquisition import Outlook, acquisition, expected_gain, quantiles


@settings(max_examples=40, deadline=None)
@given(mean=st.floats(-2, 2), sd=st.floats(0.05, 1), best=st.floats(-2, 2))
def test_the_expected_gain_is_the_mean_over_the_normal(mean, sd, best):
    """Against quadrature over 20,001 quantiles."""
    values = np.exp(norm.ppf((np.arange(20001) + 0.5) / 20001) * sd + mean - best)
    oracle = np.maximum(values - 1, 0).mean()
    found = expected_gain(np.array([mean]), np.array([sd]), best)[0]
    assert found == pytest.approx(oracle, rel=2e-2, abs=1e-4)


def test_a_gain_is_weighed_by_the_probability_that_the_sla_is_met():
    """A half gains 2^(1 + 0.45) less than a certain one, and before anything met the SLA 2^(1 + 1)."""
    same = np.zeros(2)
    outlook = Outlook(cost=same, sd=same + 0.1, met=np.array([1.0, 0.5]))
    certain, half = acquisition(outlook, 0.0)
    assert certain / half == pytest.approx(2**1.45)
    certain, half = acquisition(outlook, None)
    assert certain / half == pytest.approx(4)


def test_quantiles_have_the_moments_of_a_standard_normal():
    drawn = quantiles(2, 256)
    assert drawn.mean(axis=1) == pytest.approx([0, 0], abs=0.03)
    assert np.cov(drawn) == pytest.approx(np.eye(2), abs=0.08)
