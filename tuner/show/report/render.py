"""A report as HTML, Markdown, JSON or CSV."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from runners.measurement import Measurement
from search_spaces.knobs import flatten
from tuner.show.figures import candidate_figures, certainty_figures, config_figures, level_figures
from tuner.show.report.contender import Contender
from tuner.show.report.page import Chart, Code, Section, Table
from tuner.show.report.report import Report
from tuner.show.report.sections.order import sections
from tuner.show.report.sections.verdict import caveats, experiment, tiles, verdict
from tuner.study.frames import trials_frame


def to_html(report: Report) -> str:
    """One self-contained page: plotly's script is inside it once, and nothing is loaded from anywhere."""
    from jinja2 import Environment

    here = files("tuner.show.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["kind"] = lambda block: type(block).__name__
    environment.filters |= {"script": _script, "inline": _inline}
    template = environment.from_string(here.joinpath("page.html.j2").read_text(encoding="utf-8"))
    made = sections(report)
    return template.render(
        report=report,
        title=f"{report.finished.experiment.name}: the cheapest way to serve",
        experiment=experiment(report),
        verdict=verdict(report),
        tiles=tiles(report),
        caveats=caveats(report),
        sections=made,
        plotly=here.joinpath("plotly-basic.min.js").read_text(encoding="utf-8"),
    )


def _inline(text: str) -> Any:
    """Text whose `code` is shown as such."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 escaped


def _script(value: object) -> Any:
    """JSON that cannot end the script element it stands in."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))  # noqa: S704 no tag can begin in it


def to_markdown(report: Report) -> str:
    """Everything but the charts."""
    lines = [f"# {report.finished.experiment.name}", "", f"**Experiment.** {experiment(report)}", ""]
    lines += [f"**Verdict.** {verdict(report)}", ""]
    lines += [line for note in caveats(report) for line in (f"> {note}", "")]
    for section in sections(report):
        lines += _markdown_section(section)
    return "\n".join(lines).rstrip() + "\n"


def _markdown_section(section: Section) -> list[str]:
    lines = [f"## {section.title}", ""]
    for text in section.text:
        lines += [text, ""]
    for block in section.blocks:
        if isinstance(block, Table):
            lines += [f"**{block.caption}**", "", *_markdown_table(block), ""]
        elif isinstance(block, Code):
            lines += [f"**{block.caption}**", "", "```", block.text, "```", ""]
        elif isinstance(block, Chart):
            lines += [f"**{block.caption}.** {block.summary}", ""]
    return lines


def _markdown_table(table: Table) -> list[str]:
    rule = ["---" if index in table.words else "---:" for index in range(len(table.heads))]
    return [_markdown_row(row) for row in (table.heads, rule, *table.rows)]


def _markdown_row(cells: Any) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def to_csv(report: Report) -> str:
    """A row for each trial: see `tuner.study.frames.trials_frame`. Raises InputError where nothing was measured."""
    _, finished = report.winner, report.finished
    out = io.StringIO()
    trials_frame(finished.scenario, finished.trials).to_csv(out, quoting=csv.QUOTE_MINIMAL)
    return out.getvalue()


def to_json(report: Report) -> str:
    """Every figure of the report as a number, in the units that its key names."""
    return json.dumps(_finite(figures(report)), indent=2, ensure_ascii=False) + "\n"


def figures(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    finished = report.finished
    answer = finished.answer
    binding, nearest = report.binding, report.nearest_cheaper
    return {
        "study": finished.name,
        "experiment": finished.experiment.name,
        "asked": {**finished.experiment.model_dump(mode="json"), "in_words": experiment(report)},
        "verdict": {
            "in_words": verdict(report),
            "meets_sla": finished.meets_sla,
            "saving_against_default": answer.saving,
            "caveats": caveats(report),
        },
        "certainty": certainty_figures(answer.judged[0]),
        "unfinished": finished.unfinished,
        "predicted": finished.predicted,
        **{item.role: _contender(report, item) for item in report.contenders},
        "runners_up": [
            {
                "trial": judged.trial.number,
                "config": flatten(judged.trial.config),
                **_level(report, judged.trial.measurement),
                **certainty_figures(judged),
            }
            for judged in answer.judged[1:6]
            if judged.trial.config
        ],
        "candidates": candidate_figures(answer),
        "pareto": [{"config": str(point.config), **_level(report, point.measurement)} for point in answer.pareto()],
        "levels": [_level(report, level) for level in report.winner.levels],
        "binding": asdict(binding),
        "importance": asdict(report.importance) if report.importance else None,
        "shadow_prices": [
            {
                "slo": price.slo.key,
                "limit_ms": price.slo.limit_s * 1000,
                "observed_ms": price.observed_s * 1000,
                "saved_usd_per_million_and_ms_by_loads_tried": price.measured,
                "saved_usd_per_million_and_ms_by_closed_form": price.closed_form,
            }
            for price in report.shadow_prices
        ],
        "nearest_cheaper": {"config": flatten(nearest.config), **_level(report, nearest.measurement)}
        if nearest
        else None,
        "ended": dict(answer.ended()),
        "excluded": finished.summary.excluded if finished.summary else None,
        "month": {**asdict(report.month), "return_on_cost": report.month.return_on_cost},
        "energy": asdict(report.energy),
    }


def _contender(report: Report, contender: Contender) -> dict[str, Any]:
    return {"config": config_figures(contender.config), **_level(report, contender.measurement)}


def _level(report: Report, level: Measurement) -> dict[str, Any]:
    return level_figures(report.finished.scenario, level)


def _finite(value: Any) -> Any:
    """Without infinities, which JSON does not know: null stands for them."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "html": to_html,
    "md": to_markdown,
    "json": to_json,
    "csv": to_csv,
}
