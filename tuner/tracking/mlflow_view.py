"""How MLflow's UI shows a study: which runs, columns and charts, in the form of the UI's own shared views.

The form is that of MLflow 3.17's front end (ExperimentPageUIState and RunsChartsCardConfig), which is not documented:
a release that reads it otherwise falls back to its usual page.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from search_spaces.knobs import flatten
from tuner.scenario.scenario import Scenario
from tuner.search.trial import Trial

MEASURED_OF_STUDY = "tags.`mlflow.parentRunId` = '{run_id}' and tags.ending = 'measured'"
"""The runs that a view lists; `{run_id}` is the study's."""

MOST_RUNS = 100
MOST_KNOBS = 4
MOST_CURVES = 3
INTERACTIVITY = "tokens_per_s_per_user"


def view(scenario: Scenario, trials: Sequence[Trial]) -> dict[str, Any]:
    """The view of one study: measured trials by cost, the columns that matter first, and four charts.

    `searchFilter` has the placeholder of MEASURED_OF_STUDY.
    """
    knobs = varied_knobs(trials)
    columns = _columns(scenario, knobs)
    return {
        "searchFilter": MEASURED_OF_STUDY,
        "orderByKey": f"metrics.`{scenario.objective}`",
        "orderByAsc": True,
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": False,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        **_charts(scenario, knobs),
    }


def view_path(experiment_id: str, key: str) -> str:
    """Where an MLflow server shows the view of that key."""
    query = urlencode({"viewStateShareKey": key, "compareRunsMode": "CHART"})
    return f"/#/experiments/{experiment_id}/runs?{query}"


def varied_knobs(trials: Sequence[Trial]) -> list[str]:
    """Settings that differ between measured trials, those with the most values first."""
    values: dict[str, set[object]] = {}
    for trial in trials:
        if trial.ending == "measured" and trial.config is not None:
            for knob, value in flatten(trial.config).items():
                values.setdefault(knob, set()).add(value)
    varied = [knob for knob, found in values.items() if len(found) > 1]
    return sorted(varied, key=lambda knob: -len(values[knob]))


def _columns(scenario: Scenario, knobs: Sequence[str]) -> list[str]:
    metrics = [scenario.objective, *(slo.key for slo in scenario.sla.slos), INTERACTIVITY, "load"]
    columns = [f"metrics.`{name}`" for name in dict.fromkeys(metrics)]
    return [*columns, *(f"params.`{name}`" for name in knobs[:MOST_KNOBS]), "tags.`sla_met`"]


def _charts(scenario: Scenario, knobs: Sequence[str]) -> dict[str, Any]:
    section = str(uuid.uuid5(uuid.NAMESPACE_URL, "servetune"))
    cost = scenario.objective
    curves = [slo.key for slo in scenario.sla.slos][:MOST_CURVES]
    charts: list[dict[str, Any]] = [
        {
            "type": "PARALLEL",
            "displayName": "Settings and cost",
            "selectedParams": list(knobs[:MOST_KNOBS]),
            "selectedMetrics": [cost],
            "showAllRuns": False,
        },
        {
            "type": "SCATTER",
            "displayName": "Cost against interactivity",
            "xaxis": {"key": INTERACTIVITY, "type": "METRIC"},
            "yaxis": {"key": cost, "type": "METRIC"},
        },
        *(_curve(key, f"{key} against load") for key in curves),
        _curve(cost, "Cost against load"),
    ]
    return {
        "compareRunCharts": [_card(chart, index, section) for index, chart in enumerate(charts)],
        "compareRunSections": [
            {
                "uuid": section,
                "name": "Study",
                "display": True,
                "isReordered": True,
                "isGenerated": False,
                "columns": 2,
                "cardHeight": 420,
            }
        ],
    }


def _curve(metric: str, title: str) -> dict[str, Any]:
    """A line for each run over the loads that it was measured at."""
    return {
        "type": "LINE",
        "displayName": title,
        "metricKey": f"curve.{metric}",
        "selectedMetricKeys": [f"curve.{metric}"],
        "xAxisKey": "metric",
        "selectedXAxisMetricKey": "curve.load",
        "useGlobalXaxisKey": False,
        "xAxisScaleType": "log",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "displayPoints": True,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
    }


def _card(chart: Mapping[str, Any], index: int, section: str) -> dict[str, Any]:
    return {
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"servetune/{index}")),
        "runsCountToCompare": MOST_RUNS,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        **chart,
    }
