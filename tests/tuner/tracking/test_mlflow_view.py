"""What MLflow's UI is told to show of a study."""

import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from search_spaces.config import Batching, Engine, Layout, ServingConfig
from tests.tuner.tracking.trials import CONFIG, FAILED, SCENARIO, measured
from tuner.tracking.mlflow_view import varied_knobs, view, view_path

TWO = replace(measured(1), config=replace(CONFIG, layout=Layout(tensor=4, replicas=2), batching=Batching()))
THREE = replace(measured(2), config=replace(CONFIG, layout=Layout(tensor=8)))


def test_the_settings_shown_are_those_that_differ_most_between_measured_trials():
    other = ServingConfig(engine=Engine(name="vllm", version="0.24.0"))
    assert varied_knobs([measured(0), TWO, THREE, replace(FAILED, config=other)]) == [
        "layout.tensor",
        "layout.replicas",
        "layout.expert",
    ]


def test_the_columns_begin_with_the_cost_then_the_slos():
    columns = view(SCENARIO, [measured(0), TWO])["selectedColumns"]
    assert columns[:2] == ["metrics.`usd_per_million_output_tokens`", "metrics.`ttft_ms_p99`"]
    assert "params.`layout.tensor`" in columns


def test_runs_are_the_measured_ones_of_one_study_cheapest_first():
    shown = view(SCENARIO, [measured(0)])
    query = shown["searchFilter"].format(run_id="abc")
    assert query == "tags.`mlflow.parentRunId` = 'abc' and tags.ending = 'measured'"
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`usd_per_million_output_tokens`", True)


def test_a_view_with_many_slos_fits_an_experiments_tag():
    crowded = replace(SCENARIO.sla, slos=SCENARIO.sla.slos * 20)
    text = json.dumps(view(replace(SCENARIO, sla=crowded), [measured(0), TWO, THREE]))
    assert len(text) + 40 < 5000


def test_the_path_names_the_view_by_its_key_and_opens_the_charts():
    path = view_path("7", "abc")
    assert path.startswith("/#/experiments/7/runs?")
    query = parse_qs(urlsplit(path.replace("#/", "")).query)
    assert query == {"viewStateShareKey": ["abc"], "compareRunsMode": ["CHART"]}
