"""Fitting: which kernel explains residuals, and what stays because nothing tells of it."""

import numpy as np

from tests.tuner.search.surrogate.rows import features
from tuner.search.surrogate.features import NUMBERS, FeatureTable
from tuner.search.surrogate.fitting import fitted
from tuner.search.surrogate.quantities import TPOT


def test_a_kernel_fitted_to_errors_that_no_batch_limit_explains_forgets_the_batch_limit():
    rows = [features(1, seats, kv_cache=kv) for kv in ("fp8", "bf16") for seats in (8, 16, 64, 256, 1024)]
    found = fitted(TPOT, FeatureTable.of(rows), np.array([0.4] * 5 + [-0.4] * 5))
    assert found.noise < TPOT.noise
    assert found.precision + found.local > TPOT.precision + TPOT.local


def test_errors_that_a_batch_limit_explains_shorten_its_length_and_leave_those_of_others():
    rows = [features(tensor, seats) for tensor in (1, 2, 4, 8) for seats in (16, 64)]
    found = fitted(TPOT, FeatureTable.of(rows), np.array([0.3, -0.3] * 4))
    at = NUMBERS.index("batching.max_sequences")
    assert found.lengths[at] < TPOT.lengths[at]
    unseen = NUMBERS.index("prefill.tensor")
    assert found.lengths[unseen] == TPOT.lengths[unseen]
    assert found.pool == TPOT.pool
