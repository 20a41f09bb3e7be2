"""What a study holds: Optuna's own plots, frames and best trial say what ours do."""

import math
from contextlib import contextmanager

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.visualization import plot_parallel_coordinate, plot_param_importances, plot_slice

from tests.tuner.search.landscape import (
    Landscape,
    Predictions,
    a_scenario,
    a_space,
    every_params,
    measurement,
    search_in,
)
from tuner.search.search import best_trial
from tuner.search.stored import figures, finished_trials

SPACE = a_space(layout_tensor=(1, 2, 4, 8), batching_max_sequences=(8, 64, 128, 1024))
SCENARIO = a_scenario(SPACE)
EVERY = every_params(SPACE)


def capacity(config) -> float:
    return 10 * {1: 0.7, 2: 1.0, 4: 0.8, 8: 0.5}[config.layout.tensor] * math.log2(config.batching.max_sequences)


class LateWithBf16(Landscape):
    """Servers with a BF16 KV cache serve any load, and miss the SLO at each by a quarter."""

    @contextmanager
    def serve(self, config):
        with super().serve(config) as measure:
            late = config.precision.kv_cache == "bf16"
            yield (lambda loaded: measurement(loaded.load, tpot_s=0.025)) if late else measure


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    found = optuna.create_study()
    prior = Predictions(SCENARIO, lambda _config: 1000, EVERY)
    search_in(found, prior, LateWithBf16(capacity), sampler=RandomSampler(seed=0), trials=24).run()
    return found


def test_the_value_is_called_by_the_objective(study):
    assert study.metric_names == ["usd_per_million_output_tokens"]
    assert "usd_per_million_output_tokens" in plot_param_importances(study).to_json()


def test_numbers_are_ordered_and_names_are_not(study):
    distributions = study.trials[0].distributions
    assert distributions["layout.tensor"] == IntDistribution(1, 8, log=True)
    assert distributions["precision.kv_cache"] == CategoricalDistribution(("bf16", "fp8"))


def test_optunas_importances_are_of_the_knobs_that_differ(study):
    bars = plot_param_importances(study).data[0]
    shares = dict(zip(bars.y, bars.x, strict=True))
    assert {name for name, share in shares.items() if share > 0} <= {
        "layout.tensor",
        "batching.max_sequences",
        "precision.kv_cache",
    }
    assert sum(shares.values()) == pytest.approx(1)


def test_a_slice_shows_latency_over_a_knob_in_numerical_order(study):
    plot = plot_slice(
        study,
        params=["batching.max_sequences"],
        target=lambda trial: trial.user_attrs["tpot_ms_p99"],
        target_name="TPOT p99 (ms)",
    )
    shown = {(x, y) for points in plot.data for x, y in zip(points.x, points.y, strict=True)}
    assert shown == {
        (trial.params["batching.max_sequences"], trial.user_attrs["tpot_ms_p99"]) for trial in study.trials
    }
    assert plot.layout.xaxis.type == "log"


def test_parallel_coordinates_run_from_the_smallest_to_the_largest(study):
    """On an axis from 0 to 1, tensor parallelism of 1, 2, 4 and 8 stands at 0, 1/3, 2/3 and 1."""
    lines = plot_parallel_coordinate(study, params=["layout.tensor", "precision.kv_cache"]).data
    at = sorted({round(line.y[1], 6) for line in lines if line.mode == "lines" and len(line.y) == 3})
    assert at == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_frame_has_figures_as_numbers(study):
    frame = study.trials_dataframe()
    assert frame["params_layout.tensor"].dtype.kind == "i"
    for name in (
        "value_usd_per_million_output_tokens",
        "user_attrs_output_tokens_per_s_per_gpu",
        "user_attrs_tpot_ms_p99",
        "user_attrs_tpot_ms_p50",
        "user_attrs_ttft_ms_p50",
        "user_attrs_probability_sla_met",
    ):
        assert frame[name].dtype.kind == "f", name


def test_figures_are_those_of_the_load_that_counts(study):
    """50 tokens/s for each request in flight (see Landscape), over the 8 GPUs that are paid for."""
    trial = finished_trials(study)[0]
    shown = figures(trial, SCENARIO)
    assert shown["load"] == trial.measurement.load
    assert shown["output_tokens_per_s_per_gpu"] == pytest.approx(trial.measurement.load * 50 / 8)
    assert shown["tpot_ms_p99"] == shown["tpot_ms_p50"] == pytest.approx(trial.measurement.tpot.mean * 1000)
    assert 0 <= shown["probability_sla_met"] <= 1


def test_optunas_best_trial_is_ours(study):
    ours = best_trial(SCENARIO, finished_trials(study))
    assert study.best_trial.number == ours.number
    assert study.best_value == pytest.approx(SCENARIO.usd_per_million(ours.measurement))
    assert study.best_trial.user_attrs["tpot_ms_p99"] <= 20


def test_the_cheapest_trial_is_not_best_where_it_misses_the_sla(study):
    cheapest = min((trial for trial in study.trials if trial.value), key=lambda trial: trial.value)
    assert max(cheapest.constraints.values()) > 0
    assert study.best_trial.number != cheapest.number
