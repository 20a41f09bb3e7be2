"""Charts: plotly figures of a study, without colours of their own for text and grid, which the page's theme gives."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runners.measurement import Measurement, Metric
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import facts_of
from tuner.scenario.amounts import dollars, milliseconds, rate
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Slo
from tuner.show.report.contender import Contender
from tuner.show.report.importance import Importance
from tuner.show.report.page import Chart

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("#3b7dd8", "#d9730d", "#159570", "#9b5de5", "#c2417a", "#8a7a1f")
"""Told apart on white and on black, and by people who see few colours; the shapes tell them apart, too."""

SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "x")
STANDOUT = "#e5484d"
HEIGHT = 430
LOG_ROOM = 1.15
"""A logarithmic axis ends so far beyond its values."""
MANY_DECADES = 1e4
WIDE = 20
"""Latencies that differ by more than this factor are drawn on a logarithmic axis."""

SHOWN_PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a chart shows of a load: its name, its value, how it is written, and whether more is better."""

    title: str
    of: Callable[[Measurement], float]
    shown: Callable[[float], str]
    more_is_better: bool


Served = tuple[ServingConfig, Measurement]


def pareto_charts(scenario: Scenario, served: Sequence[Served], contenders: Sequence[Contender]) -> list[Chart]:
    """Throughput for each GPU, and cost, against interactivity, as InferenceX draws them."""
    throughput = Measure(
        title="output tokens/s/GPU",
        of=lambda level: scenario.cost(level).output_tokens_per_s_per_gpu,
        shown=rate,
        more_is_better=True,
    )
    objective = Measure(
        title=OBJECTIVE_TITLES[scenario.objective],
        of=scenario.usd_per_million,
        shown=dollars,
        more_is_better=False,
    )
    served = [(config, level) for config, level in served if math.isfinite(level.interactivity)]
    return [_pareto(scenario, served, contenders, measure) for measure in (throughput, objective)] if served else []


def _pareto(scenario: Scenario, served: Sequence[Served], contenders: Sequence[Contender], measure: Measure) -> Chart:
    figure = _figure("tokens/s/user (1 / median TPOT)", measure.title, legend_rows=4)
    values = [measure.of(level) for _, level in served]
    _log_axis(figure.update_xaxes, [level.interactivity for _, level in served], lambda x: f"{x:,g}")
    if not measure.more_is_better:
        _log_axis(figure.update_yaxes, values, dollars)
    _draw_slos(figure, scenario, min(values), max(values))
    groups = sorted({_group(config) for config, _ in served})
    for index, group in enumerate(groups):
        points = [item for item in served if _group(item[0]) == group]
        _draw_group(figure, scenario, points, measure, name=group, index=index)
    for contender in contenders:
        _draw_contender(figure, contender, measure)
    front = _front(served, measure)
    slowest, quickest = front[0][1].interactivity, front[-1][1].interactivity
    summary = (
        f"{measure.title} against tokens/s for each user, {len(served)} loads: from "
        f"{measure.shown(measure.of(front[0][1]))} at {rate(slowest)} tokens/s/user to "
        f"{measure.shown(measure.of(front[-1][1]))} at {rate(quickest)}. "
        + " ".join(
            f"{item.label}: {measure.shown(measure.of(item.measurement))} at {rate(item.measurement.interactivity)}."
            for item in contenders
        )
    )
    better = "up and to the right" if measure.more_is_better else "down and to the right"
    caption = f"{measure.title[0].upper()}{measure.title[1:]} against interactivity: better is {better}"
    return Chart(caption=caption, summary=summary, figure=_json(figure))


def _group(config: ServingConfig) -> str:
    return f"{facts_of(config.engine).title}, {config.mode}"


def _front(points: Sequence[Served], measure: Measure) -> list[Served]:
    """Points that no other beats in both, from slow to quick."""
    sign = -1 if measure.more_is_better else 1
    front: list[Served] = []
    for config, level in sorted(points, key=lambda item: (-item[1].interactivity, sign * measure.of(item[1]))):
        if not front or sign * measure.of(level) < sign * measure.of(front[-1][1]):
            front.append((config, level))
    return front[::-1]


def _draw_slos(figure: "go.Figure", scenario: Scenario, low: float, high: float) -> None:
    """A line where the SLO on the time per token lies; it is drawn at the SLO's own statistic."""
    for slo in scenario.sla.slos:
        if slo.metric == "tpot":
            x = 1 / slo.limit_s
            figure.add_scatter(
                x=[x, x],
                y=[low, high],
                mode="lines",
                line={"color": STANDOUT, "width": 2, "dash": "dash"},
                name=f"SLO: {slo.metric.upper()} {slo.statistic} ≤ {slo.limit_s * 1000:g} ms",
                hoverinfo="name",
            )


def _draw_group(
    figure: "go.Figure", scenario: Scenario, points: Sequence[Served], measure: Measure, *, name: str, index: int
) -> None:
    colour, shape = COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]
    front = _front(points, measure)
    figure.add_scatter(
        x=[level.interactivity for _, level in front],
        y=[measure.of(level) for _, level in front],
        mode="lines",
        line={"color": colour, "width": 2},
        name=name,
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )
    for met in (True, False):
        chosen = [item for item in points if scenario.sla.met_by(item[1]) == met]
        if chosen:
            figure.add_scatter(
                x=[level.interactivity for _, level in chosen],
                y=[measure.of(level) for _, level in chosen],
                mode="markers",
                marker={"color": colour, "size": 7, "symbol": shape if met else f"{shape}-open", "opacity": 0.8},
                name=f"{name}{'' if met else ', SLA missed'}",
                legendgroup=name,
                text=[_hover(scenario, config, level, measure) for config, level in chosen],
                hovertemplate="%{text}<extra></extra>",
            )


def _hover(scenario: Scenario, config: ServingConfig, level: Measurement, measure: Measure) -> str:
    slos = ", ".join(
        f"{slo.metric.upper()} {slo.statistic} {milliseconds(slo.observed(level))}" for slo in scenario.sla.slos
    )
    return (
        f"{config}<br>{measure.shown(measure.of(level))} at {rate(level.interactivity)} tokens/s/user<br>"
        f"{slos}<br>load {level.load:,.4g} {scenario.workload.load_unit}"
    )


MARKS = {"winner": ("star", STANDOUT), "default": ("hexagon", "#808080"), "champion": ("hourglass", "#b8860b")}


def _draw_contender(figure: "go.Figure", contender: Contender, measure: Measure) -> None:
    shape, colour = MARKS[contender.role]
    figure.add_scatter(
        x=[contender.measurement.interactivity],
        y=[measure.of(contender.measurement)],
        mode="markers",
        marker={"symbol": shape, "size": 17, "color": colour, "line": {"width": 1.5, "color": "#ffffff"}},
        name=contender.label,
        hovertemplate=f"{contender.label}: {contender.config}<extra></extra>",
    )


def load_charts(scenario: Scenario, levels: Sequence[Measurement], chosen: Measurement) -> list[Chart]:
    """Percentiles of TTFT and TPOT, and of what else has an SLO, against the load. Levels come lowest first."""
    with_slo = {slo.metric for slo in scenario.sla.slos}
    metrics: list[Metric] = [
        metric for metric in ("ttft", "tpot", "itl", "e2e") if metric in with_slo | {"ttft", "tpot"}
    ]
    return [_load_chart(scenario, levels, chosen, metric) for metric in metrics]


def _load_chart(scenario: Scenario, levels: Sequence[Measurement], chosen: Measurement, metric: Metric) -> Chart:
    figure = _figure(f"load ({scenario.workload.load_unit})", f"{metric.upper()} (ms)", legend_rows=2)
    spread = chosen.latency(metric)
    loads = [level.load for level in levels]
    slos = [slo for slo in scenario.sla.slos if slo.metric == metric]
    shown = sorted({*SHOWN_PERCENTILES, *_slo_percentiles(slos)})
    for index, percentile in enumerate(shown):
        figure.add_scatter(
            x=loads,
            y=[level.latency(metric).at(percentile) * 1000 for level in levels],
            mode="lines+markers",
            line={"color": COLOURS[index % len(COLOURS)], "width": 2},
            marker={"symbol": SHAPES[index % len(SHAPES)], "size": 8},
            name=f"p{percentile:g}",
        )
    for slo in slos:
        figure.add_scatter(
            x=[min(loads), max(loads)] if len(loads) > 1 else [loads[0] * 0.9, loads[0] * 1.1],
            y=[slo.limit_s * 1000] * 2,
            mode="lines",
            line={"color": STANDOUT, "width": 2, "dash": "dash"},
            name=f"SLO: {slo.statistic} ≤ {slo.limit_s * 1000:g} ms",
        )
    drawn = [level.latency(metric).at(p) * 1000 for level in levels for p in shown]
    reach = [*drawn, *(slo.limit_s * 1000 for slo in slos)]
    if max(reach) > WIDE * min(reach):
        _log_axis(figure.update_yaxes, reach, lambda ms: f"{ms:,g}")
    else:
        figure.update_yaxes(rangemode="tozero")
    figure.add_scatter(
        x=[chosen.load] * len(shown),
        y=[spread.at(percentile) * 1000 for percentile in shown],
        mode="markers",
        marker={"symbol": "star", "size": 13, "color": STANDOUT, "line": {"width": 1, "color": "#ffffff"}},
        name="the load that counts",
    )
    values = ", ".join(f"p{percentile:g} {milliseconds(spread.at(percentile))}" for percentile in shown)
    summary = (
        f"{metric.upper()} percentiles at {len(levels)} loads from {loads[0]:,.4g} to {loads[-1]:,.4g} "
        f"{scenario.workload.load_unit}. At the load that counts, {chosen.load:,.4g}: {values}."
    )
    return Chart(caption=f"{metric.upper()} against load", summary=summary, figure=_json(figure))


def _slo_percentiles(slos: Sequence[Slo]) -> Iterator[float]:
    return (float(slo.statistic.removeprefix("p")) for slo in slos if slo.statistic != "mean")


def importance_chart(found: Importance) -> Chart:
    """Bars, the knob that explains most on top."""
    named = sorted(found.explained.items(), key=lambda item: item[1])
    figure = _figure("share of the difference in cost explained", "", legend_rows=1)
    figure.add_bar(
        x=[value for _, value in named],
        y=[name for name, _ in named],
        orientation="h",
        marker={"color": COLOURS[0]},
        text=[f"{value:.0%}" for _, value in named],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_layout(height=90 + 34 * len(named), showlegend=False)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(automargin=True)
    summary = "Knobs by importance: " + ", ".join(f"{name} {value:.0%}" for name, value in named[::-1]) + "."
    return Chart(
        caption="Knobs by the share of the difference in cost that they explain", summary=summary, figure=_json(figure)
    )


def _figure(x: str, y: str, *, legend_rows: int) -> "go.Figure":
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=HEIGHT + 24 * legend_rows,
        margin={"l": 64, "r": 16, "t": 12, "b": 56},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom"},
        hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13, "family": "system-ui, sans-serif"},
    )
    figure.update_xaxes(title={"text": x}, zeroline=False, automargin=True)
    figure.update_yaxes(title={"text": y}, zeroline=False, automargin=True)
    return figure


def _log_axis(update: Callable[..., object], values: Sequence[float], shown: Callable[[float], str]) -> None:
    """A logarithmic axis, labelled at 1, 2 and 5 times the powers of ten."""
    positive = [value for value in values if value > 0]
    if not positive:
        return
    low, high = min(positive) / LOG_ROOM, max(positive) * LOG_ROOM
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    if high / low > MANY_DECADES:
        ticks = ticks[::3]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) < 2:  # noqa: PLR2004 an axis needs two labels: plotly finds its own
        update(type="log")
        return
    update(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=inside,
        ticktext=[shown(tick) for tick in inside],
    )


def _json(figure: "go.Figure") -> dict[str, Any]:
    import json

    layout: dict[str, Any] = json.loads(figure.to_json())
    layout["layout"].pop("template", None)
    return layout
