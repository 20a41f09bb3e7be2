"""The surrogate: what measurements teach, held to the laws of a Gaussian process and to an independent one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from search_spaces.config import Batching, Layout, Precision, ServingConfig
from search_spaces.engines.engine import find_engine
from tuner.search.surrogate.acquisition import expected_gain, quantiles
from tuner.search.surrogate.features import Place, Places, place_of
from tuner.search.surrogate.kernel import TPOT, Kernel
from tuner.search.surrogate.process import Posterior
from tuner.search.surrogate.surrogate import COST, Option, Surrogate

TRTLLM, VLLM = find_engine("trtllm"), find_engine("vllm")
TTFT = "ttft_ms_mean"


def a_place(tensor: int = 1, seats: int = 64, *, kv_cache="fp8", engine=TRTLLM) -> Place:
    config = ServingConfig(
        engine=engine,
        layout=Layout(tensor=tensor),
        batching=Batching(max_sequences=seats),
        precision=Precision(weights="mxfp4", kv_cache=kv_cache),
    )
    return place_of(config, seats)


PLACES = Places.of([a_place(tensor, seats) for tensor in (1, 2, 4, 8) for seats in (16, 64, 256)])


def an_option(cost: float | None, place: Place | None = None, **changes) -> Option:
    return Option(params={}, place=place or a_place(), cost=cost, **changes)


# The posterior


def textbook(kernel: Kernel, places: Places, indices, residuals):
    """Mean and variance of a Gaussian process, by the inverse of the matrix (Rasmussen and Williams 2.25-2.26)."""
    whole = kernel.between(places, places)
    seen = np.linalg.inv(whole[np.ix_(indices, indices)] + kernel.noise**2 * np.eye(len(indices)))
    across = whole[:, indices]
    return across @ seen @ residuals, np.diag(whole) - np.diag(across @ seen @ across.T)


@settings(max_examples=30, deadline=None)
@given(data=st.lists(st.tuples(st.integers(0, 11), st.floats(-1, 1)), min_size=1, max_size=8))
def test_learning_one_by_one_is_learning_all_at_once(data):
    posterior = Posterior(TPOT, PLACES)
    for index, residual in data:
        posterior.observe(index, residual)
    mean, variance = textbook(TPOT, PLACES, [index for index, _ in data], np.array([value for _, value in data]))
    assert posterior.mean == pytest.approx(mean, abs=1e-6)
    assert posterior.variance == pytest.approx(variance, abs=1e-6)


def test_places_that_are_added_late_know_as_much_as_those_that_were_there():
    early, late = Posterior(TPOT, PLACES), Posterior(TPOT, PLACES[:6])
    for posterior in (early, late):
        posterior.observe(0, 0.3)
        posterior.observe(4, -0.1)
    late.extend(PLACES[6:])
    assert late.mean == pytest.approx(early.mean)
    assert late.variance == pytest.approx(early.variance)


@settings(max_examples=20, deadline=None)
@given(repeats=st.integers(1, 6), residual=st.floats(-0.5, 0.5))
def test_repeats_of_one_measurement_narrow_what_is_believed(repeats, residual):
    posterior = Posterior(TPOT, PLACES)
    before = posterior.sd[3]
    for _ in range(repeats):
        posterior.observe(3, residual)
        assert posterior.sd[3] < before
        before = posterior.sd[3]


def test_an_error_is_believed_most_of_what_is_most_alike():
    near, far, other = a_place(1, 64), a_place(8, 64), a_place(8, 64, kv_cache="bf16", engine=VLLM)
    posterior = Posterior(TPOT, Places.of([near, far, other]))
    posterior.observe(0, 0.5)
    assert 0.5 > posterior.mean[0] > posterior.mean[1] > posterior.mean[2] > 0


def test_a_kernel_fitted_to_errors_that_no_batch_limit_explains_forgets_the_batch_limit():
    places = Places.of([a_place(1, seats, kv_cache=kv) for kv in ("fp8", "bf16") for seats in (8, 16, 64, 256, 1024)])
    residuals = np.array([0.4] * 5 + [-0.4] * 5)
    fitted = TPOT.fitted(places, residuals)
    assert fitted.noise < TPOT.noise
    assert fitted.precision + fitted.local > TPOT.precision + TPOT.local


# What is worth trying


def test_with_exact_predictions_the_most_is_expected_of_the_predicted_best():
    surrogate = Surrogate([an_option(math.log(cost), a_place(size)) for cost, size in ((3, 1), (1, 2), (2, 4))], ())
    assert surrogate.acquisition(None).argmax() == 1


@settings(max_examples=30, deadline=None)
@given(limit=st.floats(0.01, 10), looser=st.floats(1.001, 10), observed=st.floats(0.01, 10))
def test_p_kept_grows_with_the_limit(limit, looser, observed):
    def kept(limit: float) -> float:
        surrogate = Surrogate([an_option(0.0, ratios={TTFT: math.log(1 / limit)})], (TTFT,))
        surrogate.observe(0, {TTFT: math.log(observed / limit)})
        return float(surrogate.outlook().kept[0])

    assert kept(limit) <= kept(limit * looser)


def test_what_takes_more_gpu_time_is_worth_a_little_less():
    surrogate = Surrogate([an_option(0.0, gpu_time=100), an_option(0.0, gpu_time=10)], ())
    assert surrogate.acquisition(None).argmax() == 1


def test_errors_larger_than_expected_widen_what_is_believed_of_the_rest():
    def sd(error: float) -> float:
        surrogate = Surrogate([an_option(0.0, a_place(size)) for size in (1, 8)], ())
        for _ in range(3):
            surrogate.observe(0, {COST: error})
        return float(surrogate.outlook().sd[1])

    assert sd(2.0) > 2 * sd(0.01)


@settings(max_examples=40, deadline=None)
@given(mean=st.floats(-2, 2), sd=st.floats(0.05, 1), best=st.floats(-2, 2))
def test_the_expected_gain_is_the_mean_over_the_normal(mean, sd, best):
    """Against quadrature over 20,001 quantiles."""
    values = np.exp(norm.ppf((np.arange(20001) + 0.5) / 20001) * sd + mean - best)
    oracle = np.maximum(values - 1, 0).mean()
    found = expected_gain(np.array([mean]), np.array([sd]), best)[0]
    assert found == pytest.approx(oracle, rel=2e-2, abs=1e-4)


def test_another_kernel_learns_the_same_observations_as_if_it_had_seen_them_one_by_one():
    one, other = Posterior(TPOT, PLACES), Posterior(Kernel(**WIDE), PLACES)
    for index, residual in ((0, 0.3), (4, -0.1), (4, -0.2)):
        one.observe(index, residual)
        other.observe(index, residual)
    assert one.under(other.kernel).mean == pytest.approx(other.mean)
    assert one.under(other.kernel).variance == pytest.approx(other.variance)


WIDE = {"overall": 1.0, "engine": 0.5, "precision": 0.2, "mode": 0.1, "local": 0.7, "noise": 0.1}


def test_an_error_is_believed_more_of_the_same_release_than_of_another():
    config = ServingConfig(engine=TRTLLM, layout=Layout(), precision=Precision(weights="mxfp4", kv_cache="fp8"))
    posterior = Posterior(TPOT, Places.of([place_of(config, 64, release=name) for name in ("1.0", "1.0", "1.1")]))
    posterior.observe(0, 0.5)
    assert posterior.mean[1] > posterior.mean[2] > 0


def test_a_cost_that_follows_from_a_slo_is_expected_as_an_independent_draw_says():
    """One option with normal log TPOT, cost equal to it: E[(best/cost - 1)+] by quadrature, weighed by P kept."""
    surrogate = Surrogate([an_option(0.0, ratios={TTFT: -0.1})], (TTFT,), cost_of=lambda ratios: ratios[TTFT])
    outlook = surrogate.outlook()
    values = norm.ppf((np.arange(20001) + 0.5) / 20001) * outlook.sd[0] + outlook.cost[0]
    gain = (np.maximum(np.exp(-values) - 1, 0) * (values <= 0)).mean()
    kept = (values <= 0).mean()
    assert surrogate.acquisition(0.0)[0] == pytest.approx(gain * kept**0.45, rel=0.05)


def test_quantiles_have_the_moments_of_a_standard_normal():
    drawn = quantiles(2, 256)
    assert drawn.mean(axis=1) == pytest.approx([0, 0], abs=0.03)
    assert np.cov(drawn) == pytest.approx(np.eye(2), abs=0.08)
