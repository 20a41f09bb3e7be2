"""Calibration, against a forward model whose answer is known by hand and against the simulator's own laws."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.simulated.calibration import (
    FEWEST,
    MOST,
    NOISE,
    PRIOR_SD,
    Abstained,
    Calibration,
    CorrectedSilicon,
    Correction,
    Domain,
    Latencies,
    Observation,
    Spread,
    calibrate,
    calibrate_search,
    simulated,
)
from runners.simulated.simulated import Simulated
from runners.simulated.steady_state import SteadyState, step_key
from runners.simulated.step_time import Curve, StepTimes, Surface
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Batching, Engine, Layout, Precision, ServingConfig
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model

if TYPE_CHECKING:
    from runners.measurement import Measurement
    from runners.simulated.silicon import StepKey

HERE = Domain(model="llama-3.1-8b", system="b200", engine="vllm", release="0.24.0", weights="fp8")
CONFIG = ServingConfig(
    engine=Engine(name="vllm", version="0.24.0"),
    batching=Batching(max_sequences=512),
    precision=Precision(weights="fp8"),
)


def linear(law):
    return Curve((0, 16384), (law(0), law(16384)))


STEPS = StepTimes(
    prefill_shared=linear(lambda tokens: 0.004 + 0.00002 * tokens),
    decode_shared=linear(lambda queries: 0.006 + 0.00004 * queries),
    prefill_attention=Surface((1, 2), (linear(lambda _: 0.0), linear(lambda _: 0.0))),
    decode_attention=Surface((1, 2), tuple(linear(lambda context, n=n: n * 2e-8 * context) for n in (1, 2))),
    draft=linear(lambda sequences: 0.0002 + 0.000001 * sequences),
    verify_intensity=0.0,
)


class FakeSilicon:
    longest_context = 8192

    def __init__(self, steps=STEPS, covered=True):
        self.model, self.system = find_model("llama-3.1-8b"), find_system("b200")
        self.steps = steps
        self.covered = covered

    def step_times(self, key):
        if not self.covered:
            raise InfeasibleError("no kernel data", str(key))
        return self.steps


def workload(inputs=1000, outputs=100, **parts):
    return Workload(
        input_tokens=Lengths(low=inputs, high=inputs),
        output_tokens=Lengths(low=outputs, high=outputs),
        requests=60,
        **parts,
    )


LOADS = [(Layout(tensor=2), 1, 1000), (Layout(tensor=2), 16, 4000), (Layout(), 4, 1000), (Layout(), 48, 4000)]


def measured(correction, forward, loads=LOADS, noise=lambda index: (1.0, 1.0)):
    """What a system with this correction would be measured to do."""
    for index, (layout, load, inputs) in enumerate(loads):
        config, loaded = replace(CONFIG, layout=layout), workload(inputs).at(load)
        true, factors = forward(correction, config, loaded), noise(index)
        latencies = Latencies(ttft=true.ttft * factors[0], tpot=true.tpot * factors[1])
        yield Observation(domain=HERE, config=config, loaded=loaded, latencies=latencies)


FORWARD = simulated(FakeSilicon())
TRUE = st.builds(
    Correction,
    prefill=st.floats(0.7, 1.5),
    decode=st.floats(0.7, 1.4),
    iteration_s=st.floats(-0.0005, 0.001),
    request_s=st.floats(0.0, 0.03),
)


@settings(max_examples=10, deadline=None)
@given(true=TRUE)
def test_known_corrections_are_recovered_within_the_stated_uncertainty(true):
    found = calibrate(measured(true, FORWARD), FORWARD)
    assert isinstance(found, Calibration), found
    off = np.log([found.correction.prefill / true.prefill, found.correction.decode / true.decode])
    off = np.array([*off, found.correction.iteration_s - true.iteration_s, found.correction.request_s - true.request_s])
    sd = np.sqrt(np.diag(found.covariance))
    assert np.all(np.abs(off) <= 3 * sd)
    assert np.all(sd <= np.array(PRIOR_SD) * 1.0001)


@settings(max_examples=10, deadline=None)
@given(true=TRUE)
def test_a_layout_that_was_not_measured_is_predicted_better_than_without_measurements(true):
    found = calibrate(measured(true, FORWARD), FORWARD)
    config, loaded = replace(CONFIG, layout=Layout(tensor=4)), workload(2000).at(24)
    wanted = FORWARD(true, config, loaded).tpot
    before = abs(math.log(FORWARD(Correction(), config, loaded).tpot / wanted))
    after = abs(math.log(FORWARD(found.correction, config, loaded).tpot / wanted))
    assert after <= max(before, 0.02)
    assert after < 0.08


def test_what_is_predicted_exactly_is_not_corrected():
    found = calibrate(measured(Correction(), FORWARD), FORWARD)
    assert found.correction.prefill == pytest.approx(1)
    assert found.correction.decode == pytest.approx(1)
    assert found.correction.iteration_s == pytest.approx(0, abs=1e-9)
    assert found.correction.request_s == pytest.approx(0, abs=1e-9)


def test_no_correction_leaves_step_times_as_they_are():
    assert Correction().apply(STEPS) is STEPS


@given(prefill=st.floats(0.5, 2), decode=st.floats(0.5, 2), tokens=st.integers(1, 8192), queries=st.integers(1, 512))
def test_factors_multiply_passes_with_prompts_and_decode_steps(prefill, decode, tokens, queries):
    corrected = Correction(prefill=prefill, decode=decode).apply(STEPS)
    chunk = [(0, tokens, tokens)]
    assert corrected.prefill(chunk) == pytest.approx(prefill * STEPS.prefill(chunk))
    plain, scaled = (steps.decode(queries).line(500)[0] for steps in (STEPS, corrected))
    assert scaled == pytest.approx(decode * plain)


def test_an_iteration_takes_the_extra_time_once():
    corrected = Correction(iteration_s=0.001).apply(STEPS)
    assert corrected.prefill([(0, 100, 100)]) == pytest.approx(STEPS.prefill([(0, 100, 100)]) + 0.001)
    assert corrected.decode(8).line(500)[0] == pytest.approx(STEPS.decode(8).line(500)[0] + 0.001)
    assert corrected.decode(8, 2, drafted=2).drafting == STEPS.decode(8, 2, drafted=2).drafting


def test_no_correction_makes_an_iteration_take_no_time():
    corrected = Correction(iteration_s=-1.0).apply(STEPS)
    assert corrected.decode(8).line(0)[0] == pytest.approx(0.1 * STEPS.decode(8).line(0)[0])


def test_the_posterior_of_one_factor_is_the_textbook_one():
    """TPOT alone answers to `decode`, in proportion; everything else answers to nothing.

    Three equal observations y of log decode on three layouts that share nothing but 20 % within a layout: precision
    1 / 0.3^2 + 3 / s^2, mean = y (3 / s^2) / that, with s the scatter that the calibration itself states.
    """

    def forward(correction, config, loaded):
        return Latencies(ttft=1.0, tpot=0.01 * correction.decode)

    factor = 1.2
    observations = [
        Observation(
            domain=HERE,
            config=replace(CONFIG, layout=Layout(tensor=tensor)),
            loaded=workload().at(4),
            latencies=Latencies(ttft=1.0, tpot=0.01 * factor),
        )
        for tensor in (1, 2, 4)
    ]
    found = calibrate(observations, forward)
    left = math.log(factor / found.correction.decode)
    weight = 6 / (5 + (left / found.noise[1]) ** 2)
    s2 = found.noise[1] ** 2 / weight
    assert found.correction.decode == pytest.approx(
        math.exp(math.log(factor) * (3 / s2) / (3 / s2 + 1 / 0.09)), rel=1e-3
    )
    assert found.covariance[1][1] == pytest.approx(1 / (3 / s2 + 1 / 0.09), rel=1e-3)
    assert found.covariance[0][0] == pytest.approx(0.09)
    assert found.correction.prefill == 1
    assert found.noise[0] == pytest.approx(math.sqrt(4 * NOISE[0] ** 2 / 7), rel=1e-6)


def test_one_wild_measurement_moves_little():
    true = Correction(decode=1.2)
    loads = [(Layout(tensor=size), load, 1000) for size in (1, 2) for load in (1, 4, 16, 48)]
    calm = calibrate(measured(true, FORWARD, loads), FORWARD)
    wild = calibrate(measured(true, FORWARD, loads, lambda index: (1, 2.0 if index == 3 else 1)), FORWARD)
    assert wild.correction.decode == pytest.approx(calm.correction.decode, rel=0.06)
    assert wild.noise[1] > calm.noise[1]


# Abstentions


def test_without_measurements_it_abstains():
    assert calibrate([], FORWARD) == Abstained(reason=f"0 measurements; a calibration needs {FEWEST}")


def test_too_few_measurements_are_counted_and_the_number_needed_is_named():
    found = calibrate(measured(Correction(), FORWARD, LOADS[:2]), FORWARD)
    assert str(found) == f"2 measurements of {HERE}; a calibration needs 3"


def test_repeats_of_one_measurement_do_not_make_several():
    found = calibrate(measured(Correction(), FORWARD, LOADS[:1] * 5), FORWARD)
    assert isinstance(found, Abstained)
    assert "1 measurements" in found.reason


def test_runs_of_single_tokens_and_broken_figures_are_not_counted():
    observations = list(measured(Correction(), FORWARD, LOADS[:3]))
    for tpot in (0.0, math.nan, math.inf):
        broken = replace(observations[0], latencies=replace(observations[0].latencies, tpot=tpot))
        assert isinstance(calibrate([broken, *observations[1:]], FORWARD), Abstained)


def test_measurements_that_no_correction_explains_make_it_abstain():
    found = calibrate(measured(Correction(), FORWARD, noise=lambda index: (1, 4.0 ** (-1) ** index)), FORWARD)
    assert isinstance(found, Abstained)
    assert "no correction explains" in found.reason


def test_a_correction_that_is_too_large_to_be_one_makes_it_abstain():
    found = calibrate(measured(Correction(decode=4.0), FORWARD, LOADS * 1 + [(Layout(), 9, 500)]), FORWARD)
    assert isinstance(found, Abstained)


def test_measurements_that_say_nothing_of_the_step_times_make_it_abstain():
    def forward(correction, config, loaded):
        return Latencies(ttft=1.0, tpot=0.01 * correction.decode**0.01)

    found = calibrate(measured(Correction(), forward), forward)
    assert isinstance(found, Abstained)
    assert "say too little" in found.reason


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": "llama-3.3-70b"}, "llama-3.3-70b in fp8 on b200, vllm 0.24.0"),
        ({"system": "b300"}, "on b300"),
        ({"engine": "sglang"}, "sglang 0.24.0"),
        ({"release": "0.27.0"}, "vllm 0.27.0"),
        ({"weights": "bf16"}, "in bf16"),
    ],
)
def test_it_does_not_hold_elsewhere_and_says_where_it_does(changed, named):
    found = calibrate(measured(Correction(decode=1.2), FORWARD), FORWARD)
    assert found.abstains(HERE) is None
    reason = found.abstains(replace(HERE, **changed)).reason
    assert reason.startswith(f"calibrated for {HERE}, not for ")
    assert named in reason


def test_measurements_of_two_domains_are_not_mixed():
    mixed = list(measured(Correction(), FORWARD))
    mixed[0] = replace(mixed[0], domain=replace(HERE, model="llama-3.3-70b"))
    with pytest.raises(ValueError, match="of one domain"):
        calibrate(mixed, FORWARD)


# Uncertainty


def test_an_interval_is_as_wide_as_the_normal_law_has_it():
    low, high = Spread(seconds=0.1, log_sd=0.2).interval(0.8)
    assert low == pytest.approx(0.1 * math.exp(-0.2 * 1.28155), rel=1e-4)
    assert high == pytest.approx(0.1 * math.exp(0.2 * 1.28155), rel=1e-4)


def test_more_measurements_narrow_what_is_predicted():
    few = calibrate(measured(Correction(decode=1.2), FORWARD, LOADS[:3]), FORWARD)
    loads = [(Layout(tensor=size), load, 1000) for size in (1, 2, 4) for load in (1, 2, 4, 8, 16, 32)]
    many = calibrate(measured(Correction(decode=1.2), FORWARD, loads), FORWARD)
    config, loaded = replace(CONFIG, layout=Layout(tensor=8)), workload().at(8)
    assert many.predict(FORWARD, config, loaded)[1].log_sd < few.predict(FORWARD, config, loaded)[1].log_sd


def test_a_long_study_is_thinned_to_what_is_read():
    loads = [(Layout(), load, 1000) for load in range(1, MOST + 20)]
    found = calibrate(measured(Correction(decode=1.1), FORWARD, loads), FORWARD)
    assert found.measurements == MOST


# The seam to a search


def finished(true, silicon, loads=LOADS, weights="fp8"):
    hidden = CorrectedSilicon(silicon, lambda _key: true)
    for layout, load, inputs in loads:
        config = replace(CONFIG, layout=layout, precision=Precision(weights=weights))
        loaded = workload(inputs).at(load)
        with Simulated(hidden).serve(config) as measure:
            yield config, loaded, measure(loaded)


def test_a_search_gets_step_times_that_its_measurements_have_corrected():
    true = Correction(decode=1.3)
    found = calibrate_search(FakeSilicon(), finished(true, FakeSilicon()))
    assert found.abstains(CONFIG) is None
    work = workload()
    plain, hidden, corrected = (
        SteadyState(silicon=silicon, config=replace(CONFIG, layout=Layout(tensor=4)), workload=work).at(16).tpot
        for silicon in (FakeSilicon(), CorrectedSilicon(FakeSilicon(), lambda _key: true), found.silicon)
    )
    assert abs(corrected / hidden - 1) < 0.05 < abs(plain / hidden - 1)


def test_what_was_not_measured_keeps_the_step_times_of_the_database_and_says_so():
    found = calibrate_search(FakeSilicon(), finished(Correction(decode=1.3), FakeSilicon()))
    elsewhere = replace(CONFIG, precision=Precision(weights="bf16"))
    key: StepKey = step_key(elsewhere, elsewhere.layout)
    assert found.silicon.step_times(key) is STEPS
    assert "no measurement of llama-3.1-8b in bf16" in found.abstains(elsewhere).reason
    assert str(HERE) in found.abstains(elsewhere).reason


def test_a_search_with_too_few_measurements_is_told_how_many_it_takes():
    found = calibrate_search(FakeSilicon(), finished(Correction(), FakeSilicon(), LOADS[:2]))
    assert found.abstains(CONFIG).reason == f"2 measurements of {HERE}; a calibration needs 3"
    assert found.silicon.step_times(step_key(CONFIG, CONFIG.layout)) is STEPS


def test_a_search_without_measurements_says_that_nothing_was_measured():
    found = calibrate_search(FakeSilicon(), [])
    assert found.abstains(CONFIG).reason == f"no measurement of {HERE}; measured: nothing"


def test_a_measured_configuration_without_kernel_data_makes_its_domain_abstain():
    runs: list[tuple[ServingConfig, object, Measurement]] = list(finished(Correction(), FakeSilicon()))
    found = calibrate_search(FakeSilicon(covered=False), runs)
    assert "cannot be predicted: no kernel data" in found.abstains(CONFIG).reason
