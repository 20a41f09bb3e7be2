"""What is recorded of a trial."""

import json
import re
from dataclasses import replace

import pytest

from runners.measurement import Measurement
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Layout, Precision, ServingConfig, Speculation
from tests import scenarios
from tests.scenarios import TRTLLM, always, level
from tuner.search.tracker import Tracker, Untracked
from tuner.search.trial import Trial
from tuner.tracking.record import record, scenario_params

SCENARIO = replace(
    scenarios.SCENARIO,
    workload=Workload(input_tokens=Lengths(low=1024, high=1024), output_tokens=Lengths(low=512, high=1024)),
)
CONFIG = ServingConfig(
    engine=TRTLLM,
    layout=Layout(tensor=2, expert=2, replicas=4),
    precision=Precision(weights="nvfp4", kv_cache="fp8"),
    speculation=Speculation(method="mtp", draft_length=2),
)


def served(load: float, **changes) -> Measurement:
    """Of 8 GPUs: `load` x 100 output and as many input tokens/s; TTFT `load` x 10 ms, TPOT `load` x 1 ms."""
    return level(load * 100, ttft_ms=load * 10, tpot_ms=load, **{"e2e": always(load), **changes})


def measured(number: int = 0, loads: tuple[float, ...] = (10, 30, 20), chosen: int = 2, **changes) -> Trial:
    """Of those loads, 10 and 20 meet the SLA and 30 does not."""
    levels = tuple(served(load) for load in loads)
    trial = Trial(number=number, ending="measured", config=CONFIG, levels=levels, chosen=chosen, seconds=1.5)
    return replace(trial, **changes)


def test_a_trial_is_named_after_its_configuration():
    assert record(measured(), SCENARIO).name == str(CONFIG)


def test_a_trial_without_configuration_is_named_after_its_reason():
    trial = Trial(number=3, ending="infeasible", cause="memory", detail="needs 300 GB")
    row = record(trial, SCENARIO)
    assert row.name == "infeasible: memory"
    assert row.params == {}
    assert row.metrics == {}
    assert row.curve == ()
    assert row.tags == {"ending": "infeasible", "reason": "memory", "detail": "needs 300 GB"}


def test_params_are_flat_and_readable():
    params = record(measured(), SCENARIO).params
    assert params["layout.tensor"] == "2"
    assert params["engine"] == "trtllm"
    assert params["speculation.draft_length"] == "2"


def test_what_could_not_be_had_is_a_tag():
    trial = measured()
    lacking = replace(trial, levels=tuple(replace(level, not_had=("a", "b")) for level in trial.levels))
    assert record(lacking, SCENARIO).tags["not_had"] == "a; b"
    assert "not_had" not in record(trial, SCENARIO).tags


def test_costs_and_rates_are_those_worked_out_by_hand():
    # 2,000 output tokens/s on 8 GPUs at $3.60/h, which is $0.001/s for each: 0.008 / 2,000 x 1e6 = $4.
    metrics = record(measured(), SCENARIO).metrics
    assert metrics["usd_per_million_output_tokens"] == pytest.approx(4)
    assert metrics["usd_per_million_total_tokens"] == pytest.approx(2)
    assert metrics["output_tokens_per_s_per_gpu"] == pytest.approx(250)
    assert metrics["total_tokens_per_s_per_gpu"] == pytest.approx(500)
    assert metrics["tokens_per_s_per_user"] == pytest.approx(50)
    assert metrics["tokens_per_s_per_mw"] == pytest.approx(2000 / 0.016)
    assert metrics["gpus"] == 8
    assert metrics["gpus_left_over"] == 0
    assert metrics["load"] == 20


@pytest.mark.parametrize("objective", ["usd_per_million_output_tokens", "usd_per_million_total_tokens"])
def test_the_objective_is_the_first_metric(objective):
    row = record(measured(), replace(SCENARIO, objective=objective))
    assert next(iter(row.metrics)) == objective


def test_slos_are_in_milliseconds_with_their_excess():
    metrics = record(measured(), SCENARIO).metrics
    assert metrics["ttft_ms_p99"] == pytest.approx(200)
    assert metrics["excess.ttft_ms_p99"] == pytest.approx(-0.8)
    assert metrics["tpot_ms_p99"] == pytest.approx(20)
    assert metrics["excess.tpot_ms_p99"] == pytest.approx(0)
    assert metrics["excess.backlog"] == 0


def test_the_curve_goes_from_the_lowest_load_to_the_highest_whatever_was_tried_first():
    curve = record(measured(loads=(10, 30, 20)), SCENARIO).curve
    assert [step["load"] for step in curve] == [10, 20, 30]
    assert [step["ttft_ms_p99"] for step in curve] == pytest.approx([100, 200, 300])
    assert [step["usd_per_million_output_tokens"] for step in curve] == pytest.approx([8, 4, 8 / 3])


def test_a_number_that_is_none_is_not_recorded():
    broken = served(20, kv_cache_peak=float("nan"), ttft=always(float("inf")))
    row = record(measured(levels=(broken,), chosen=0), SCENARIO)
    assert "kv_cache_peak" not in row.metrics
    assert "ttft_ms_p99" not in row.metrics
    assert "ttft_ms_p99" not in row.curve[0]
    assert "NaN" not in json.dumps([dict(row.metrics), *map(dict, row.curve)])


def test_tags_are_there_to_filter_by():
    assert record(measured(), SCENARIO).tags == {
        "ending": "measured",
        "engine": "trtllm",
        "engine_version": "1.3.0rc20",
        "precision": "nvfp4",
        "mode": "aggregated",
        "sla_met": "true",
        "source": "simulated",
    }


def test_a_missed_sla_is_told():
    assert record(measured(chosen=1), SCENARIO).tags["sla_met"] == "false"


def test_a_failure_keeps_its_cause_and_the_tail_of_its_log():
    trial = Trial(number=1, ending="failed", config=CONFIG, cause="died", detail="exit 1\nCUDA out of memory")
    tags = record(trial, SCENARIO).tags
    assert tags["reason"] == "died"
    assert tags["detail"] == "exit 1\nCUDA out of memory"
    assert "sla_met" not in tags


def test_every_name_is_one_that_mlflow_takes():
    row = record(measured(), SCENARIO)
    names = [*row.metrics, *row.params, *row.tags, *row.curve[0], *scenario_params(SCENARIO)]
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9_\-. :/]+", name)] == []


def test_the_experiment_is_a_row_too():
    params = scenario_params(SCENARIO)
    assert params["model"] == "gpt-oss-120b"
    assert params["gpus"] == "8"
    assert params["engines"] == "trtllm 1.3.0rc20"
    assert params["sla.ttft_ms_p99"] == "1000"
    assert params["workload.output_tokens"] == "512 to 1024"
    assert params["price.usd_per_gpu_hour"] == "3.6"


def test_untracked_keeps_nothing():
    tracker: Tracker = Untracked()
    tracker.log(measured())
