"""The posterior, held to the laws of a Gaussian process and to an independent one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuner.search.surrogate.rows import TABLE, VLLM, a_config, features
from tuner.search.surrogate.features import FeatureTable, features_of
from tuner.search.surrogate.kernel import Kernel
from tuner.search.surrogate.process import Posterior
from tuner.search.surrogate.quantities import TPOT

WIDE = Kernel(overall=1.0, engine=0.5, precision=0.2, mode=0.1, local=0.7, noise=0.1)


def textbook(kernel: Kernel, table: FeatureTable, indices, residuals):
    """Mean and variance of a Gaussian process, by the inverse of the matrix (Rasmussen and Williams 2.25-2.26)."""
    whole = kernel.between(table, table)
    seen = np.linalg.inv(whole[np.ix_(indices, indices)] + kernel.noise**2 * np.eye(len(indices)))
    across = whole[:, indices]
    return across @ seen @ residuals, np.diag(whole) - np.diag(across @ seen @ across.T)


@settings(max_examples=30, deadline=None)
@given(data=st.lists(st.tuples(st.integers(0, 11), st.floats(-1, 1)), min_size=1, max_size=8))
def test_learning_one_by_one_is_learning_all_at_once(data):
    posterior = Posterior(TPOT, TABLE)
    for index, residual in data:
        posterior.observe(index, residual)
    mean, variance = textbook(TPOT, TABLE, [index for index, _ in data], np.array([value for _, value in data]))
    assert posterior.mean == pytest.approx(mean, abs=1e-6)
    assert posterior.variance == pytest.approx(variance, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(known=st.integers(1, 11), data=st.lists(st.integers(0, 11), min_size=1, max_size=8))
def test_rows_that_are_added_late_know_as_much_as_those_that_were_there(known, data):
    early, late = Posterior(TPOT, TABLE), Posterior(TPOT, TABLE[:known])
    for count, index in enumerate(data):
        early.observe(index, 0.1 * count)
        if index >= len(late.mean):
            late.extend(TABLE[: index + 1])
        late.observe(index, 0.1 * count)
    late.extend(TABLE)
    assert late.mean == pytest.approx(early.mean)
    assert late.variance == pytest.approx(early.variance)


@settings(max_examples=20, deadline=None)
@given(repeats=st.integers(1, 6), residual=st.floats(-0.5, 0.5))
def test_repeats_of_one_measurement_narrow_the_posterior(repeats, residual):
    posterior = Posterior(TPOT, TABLE)
    before = posterior.variance[3]
    for _ in range(repeats):
        posterior.observe(3, residual)
        assert posterior.variance[3] < before
        before = posterior.variance[3]


def test_an_error_is_expected_most_of_what_is_most_alike():
    near, far, other = features(1, 64), features(8, 64), features(8, 64, kv_cache="bf16", engine=VLLM)
    posterior = Posterior(TPOT, FeatureTable.of([near, far, other]))
    posterior.observe(0, 0.5)
    assert 0.5 > posterior.mean[0] > posterior.mean[1] > posterior.mean[2] > 0


def test_an_error_is_expected_more_of_the_same_release_than_of_another():
    rows = [features_of(a_config(), 64, release=name) for name in ("1.0", "1.0", "1.1")]
    posterior = Posterior(TPOT, FeatureTable.of(rows))
    posterior.observe(0, 0.5)
    assert posterior.mean[1] > posterior.mean[2] > 0


def test_another_kernel_learns_the_same_observations_as_if_it_had_seen_them_one_by_one():
    one, other = Posterior(TPOT, TABLE), Posterior(WIDE, TABLE)
    for index, residual in ((0, 0.3), (4, -0.1), (4, -0.2)):
        one.observe(index, residual)
        other.observe(index, residual)
    found = one.under(WIDE)
    assert found.mean == pytest.approx(other.mean)
    assert found.variance == pytest.approx(other.variance)
    for posterior in (found, other):
        posterior.observe(7, 0.4)
    assert found.mean == pytest.approx(other.mean)
    assert found.surprise == pytest.approx(other.surprise)
