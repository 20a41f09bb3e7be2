"""Kernels: what two configurations have in common, held to the laws of covariances and to formulas worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.config import Speculation
from tests.search_spaces.configs import CONFIGS
from tests.tuner.search.surrogate.rows import VLLM, a_config, features, with_pool
from tuner.search.surrogate.features import NUMBERS, FeatureTable, features_of
from tuner.search.surrogate.kernel import Kernel, matern
from tuner.search.surrogate.quantities import DOLLARS, TPOT, TTFT, UNINFORMED

NOTHING = Kernel(overall=0, engine=0, precision=0, mode=0, local=0, noise=0.1)


def covariance(kernel: Kernel, *rows) -> np.ndarray:
    table = FeatureTable.of(rows)
    return kernel.between(table, table)


@settings(max_examples=30, deadline=None)
@given(st.lists(CONFIGS, min_size=1, max_size=12), st.sampled_from([TTFT, TPOT, DOLLARS, UNINFORMED]))
def test_covariances_of_any_configurations_are_positive_and_their_diagonal_is_the_variance(configs, kernel):
    table = FeatureTable.of([features_of(config, 64) for config in configs])
    matrix = kernel.between(table, table)
    assert np.diag(matrix) == pytest.approx(kernel.variances(table))
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_matern_is_as_rasmussen_and_williams_have_it():
    """(1 + sqrt 3 r) exp(-sqrt 3 r), at r = 0, 1 and 2."""
    assert matern(np.array([0.0, 1.0, 2.0])) == pytest.approx([1.0, 0.4833577245, 0.1397313501])


def test_a_part_is_shared_by_those_of_a_kind_only():
    rows = features(), features(2), features(kv_cache="bf16"), features(engine=VLLM)
    assert covariance(replace(NOTHING, overall=2), *rows)[0] == pytest.approx([4, 4, 4, 4])
    assert covariance(replace(NOTHING, engine=2), *rows)[0] == pytest.approx([4, 4, 4, 0])
    assert covariance(replace(NOTHING, precision=2), *rows)[0] == pytest.approx([4, 4, 0, 0])


def test_the_local_part_fades_with_the_distance_and_with_each_name_that_differs():
    """Two workers' sizes apart: GPUs 1 and 4 are 2 units, 2 / 1.4 lengths; load for each GPU 2 units, 2 / 1.7."""
    near, far = features(1), features(4)
    local = replace(NOTHING, local=1)
    assert covariance(local, near, far)[0, 1] == pytest.approx(float(matern(np.array(math.hypot(2 / 1.4, 2 / 1.7)))))
    drafting = features(speculation=Speculation(method="mtp", draft_length=1))
    expected = float(matern(np.array(1 / 1.4))) * 0.5
    assert covariance(local, near, drafting)[0, 1] == pytest.approx(expected)


def test_what_no_predictor_prices_is_shared_by_the_same_name():
    rows = features(variant="a"), features(4, variant="a"), features(variant="b"), features()
    unpriced = replace(NOTHING, unpriced=2)
    assert covariance(unpriced, *rows)[0] == pytest.approx([4, 4, 0, 0])
    assert unpriced.variances(FeatureTable.of(rows)) == pytest.approx([4, 4, 4, 0])


def test_errors_of_prefill_workers_are_shared_by_like_ones_whoever_decodes():
    same, larger, aggregated = with_pool(2, decode_tensor=4), with_pool(8), features()
    found = covariance(replace(NOTHING, pool=2), with_pool(2), same, larger, aggregated)[0]
    assert found == pytest.approx([4, 4, 4 * float(matern(np.array(2 / 1.4))), 0])


def test_an_infinite_length_takes_no_notice_of_a_number():
    blind = replace(NOTHING, local=1, lengths=tuple(math.inf for _ in NUMBERS))
    assert covariance(blind, features(1, 16), features(8, 256))[0, 1] == pytest.approx(1)


def test_pipeline_stages_are_told_from_tensor_ranks():
    one = a_config(2)
    other = replace(one, layout=replace(one.layout, tensor=1, pipeline=2))
    assert covariance(replace(NOTHING, local=1), features_of(one, 64), features_of(other, 64))[0, 1] < 0.9
