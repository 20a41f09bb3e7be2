"""A retune's verdict in one line, as Markdown, as HTML, and as a run for MLflow."""

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from runners.served.shell import how_to_start
from search_spaces.wording import in_words
from tuner.retune.retune import Retuned
from tuner.retune.verdict import NOISELESS, Outcome, percent
from tuner.scenario.amounts import dollars, milliseconds
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.search.search import objective
from tuner.search.trial import Trial, trial_to_json
from tuner.tracking.mlflow_tracker import config_yaml

TITLES: dict[Outcome, str] = {
    "keep": "Keep",
    "keep_regressed": "Keep, and note a regression",
    "switch": "Switch",
    "upgrade": "Upgrade, and keep the configuration",
    "do_not_upgrade": "Do not upgrade",
}


def verdict_line(found: Retuned) -> str:
    """The outcome, why, and its effect in $/M tokens and in dollars a month."""
    verdict = found.verdict
    title = TITLES[verdict.outcome] + ("" if verdict.decided else " (not decided)")
    if verdict.outcome in ("keep", "keep_regressed") and verdict.decided:
        return f"{title}: {_why_kept(found)}; {_money(found)}."
    if not verdict.decided:
        return f"{title}: {verdict.evidence[0][:1].lower()}{verdict.evidence[0][1:]}" if verdict.evidence else title
    if verdict.outcome == "do_not_upgrade":
        return f"{title}: {_why_not(found)}."
    where = f"to {found.winner.config}" if verdict.outcome == "switch" else f"to {found.sides.after}"
    on = f" on {found.sides.after}" if verdict.outcome == "switch" else ""
    return f"{title} {where}{on}: {_money(found)}."


def _why_kept(found: Retuned) -> str:
    findings = found.findings
    if findings.release is None and not findings.lost:
        where = found.sides.after if found.sides.changed else "the space"
        return f"nothing on {where} is cheaper by what matters ({found.plan.minimum_effect:.1%})"
    if found.verdict.outcome == "keep":
        return f"{found.sides.name} changes the champion's cost by {percent(found.verdict.effect)}"
    release = findings.release
    if release is not None and release.cost.reading(found.plan.minimum_effect) == "same":
        slower = ", ".join(f"{name} {percent(effect)}" for name, effect in release.slower.items())
        return f"{found.sides.after} costs the same but is slower ({slower})"
    assert found.challenger is not None
    return f"the champion lost on {found.sides.after}, where {found.challenger.config} makes up for it"


def _why_not(found: Retuned) -> str:
    if found.findings.lost:
        return f"on {found.sides.after} the champion does not serve ({found.findings.lost[:160]})"
    missed = found.findings.release.missed if found.findings.release else {}
    breaks = f", breaks {', '.join(missed)}" if missed else ""
    return f"{found.sides.after} would cost {_money(found)}{breaks}"


def _money(found: Retuned) -> str:
    unit = OBJECTIVE_TITLES[found.scenario.objective]
    effect = found.verdict.effect
    if found.verdict.outcome == "keep" and abs(effect.estimate) <= NOISELESS:
        return f"{dollars(found.today)} {unit}, $0 a month"
    return (
        f"{_signed(found.per_million)} {unit} ({percent(effect)}), {_monthly(found.per_month)} a month at "
        f"{found.monthly_tokens / 1e9:,.3g} billion tokens"
    )


def _signed(values: tuple[float, float, float]) -> str:
    estimate, low, high = (_sign(value) + dollars(abs(value)) for value in values)
    return estimate if low == high else f"{estimate} ({low} to {high})"


def _monthly(values: tuple[float, float, float]) -> str:
    estimate, low, high = (f"{_sign(value)}${abs(value):,.0f}" for value in values)
    return estimate if low == high else f"{estimate} ({low} to {high})"


def _sign(value: float) -> str:
    return "-" if value < 0 else "+"


def to_markdown(found: Retuned) -> str:
    """The verdict, what was measured, the evidence, what changed, and what to do."""
    lines = [f"# {found.champion.experiment}: {found.sides.name}", "", f"**{verdict_line(found)}**", ""]
    header = ["", "release", OBJECTIVE_TITLES[found.scenario.objective], *_slo_names(found), "configuration"]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(found)]
    for title, items in _sections(found):
        lines += ["", f"## {title}", "", *(f"- {item}" for item in items)]
    winner = found.winner
    assert winner.config is not None
    lines += ["", "## What to serve", "", f"{in_words(winner.config)}.", ""]
    lines += ["```", how_to_start(found.scenario.model, winner.config), "```", ""]
    if found.sides.new.experiment.runner in ("simulated", "estimated"):
        lines += ["Predictions, not measurements: both releases were simulated.", ""]
    return "\n".join(lines)


def _rows(found: Retuned) -> Iterator[list[str]]:
    yield _row(found, "champion", str(found.sides.before), found.before)
    if found.after is not None:
        yield _row(found, "champion", str(found.sides.after), found.after)
    if found.challenger is not None:
        yield _row(found, "challenger", str(found.sides.after), found.challenger)


def _row(found: Retuned, who: str, release: str, trial: Trial) -> list[str]:
    scenario = found.scenario
    observed = [milliseconds(slo.observed(trial.measurement)) for slo in scenario.sla.slos]
    return [who, release, dollars(objective(scenario, trial)), *observed, str(trial.config)]


def _slo_names(found: Retuned) -> list[str]:
    return [f"{slo.metric.upper()} {slo.statistic}" for slo in found.scenario.sla.slos]


def _sections(found: Retuned) -> Iterator[tuple[str, Sequence[str]]]:
    measured = sum(trial.ending == "measured" for trial in found.trials)
    search = f"{measured} of {len(found.trials)} configurations were measured on {found.sides.after}."
    yield "Evidence", (*found.verdict.evidence, search)
    if found.changes:
        yield "What changed since the champion was promoted", [str(change) for change in found.changes]
    if found.settings:
        yield "Settings", found.settings


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #ccc;text-align:left}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}"
)


def to_html(found: Retuned) -> str:
    """The same as a page that needs nothing else."""
    title = html.escape(f"{found.champion.experiment}: {found.sides.name}")
    body: list[str] = []
    block: list[str] = []
    for line in [*to_markdown(found).splitlines(), ""]:
        if block and _kind(block[0]) != _kind(line) and not block[0].startswith("```"):
            body.append(_block(block))
            block = []
        block.append(line)
        if line.startswith("```") and len(block) > 1 and block[0].startswith("```"):
            body.append(_block(block))
            block = []
    head = f"<meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en>{head}{''.join(body)}</html>\n"


def _kind(line: str) -> str:
    return line[:1] if line[:1] in ("#", "|", "-", "`") else "text" if line else "blank"


def _block(lines: Sequence[str]) -> str:
    """One block of the Markdown that this module writes."""
    first = lines[0]
    if first.startswith("```"):
        return f"<pre>{html.escape(chr(10).join(lines[1:-1]))}</pre>"
    if first.startswith("#"):
        return "".join(f"<h{_level(line)}>{html.escape(line.lstrip('# '))}</h{_level(line)}>" for line in lines)
    if first.startswith("|"):
        return f"<table>{''.join(_table_row(line) for line in lines if not line.startswith('|--'))}</table>"
    if first.startswith("-"):
        return f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in lines)}</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>" if first else ""


def _level(line: str) -> int:
    return len(line) - len(line.lstrip("#"))


def _table_row(line: str) -> str:
    cells = (html.escape(cell.strip()) for cell in line.strip("|").split("|"))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))


def to_record(found: Retuned) -> dict[str, Any]:
    """What MLflow keeps of a retune: a run's name, params, metrics, tags and files, as JSON."""
    estimate, low, high = found.per_million
    month = found.per_month
    effect = found.verdict.effect
    metrics = {
        f"champion.{found.scenario.objective}": found.today,
        "effect": effect.estimate,
        "effect.low": effect.low,
        "effect.high": effect.high,
        "effect.usd_per_million": estimate,
        "effect.usd_per_million.low": low,
        "effect.usd_per_million.high": high,
        "effect.usd_per_month": month[0],
        "effect.usd_per_month.low": month[1],
        "effect.usd_per_month.high": month[2],
    }
    if found.after is not None:
        metrics["champion_on_new"] = objective(found.scenario, found.after)
    if found.challenger is not None:
        metrics["challenger"] = objective(found.scenario, found.challenger)
    winner = found.winner
    assert winner.config is not None
    return {
        "experiment": found.champion.experiment,
        "name": f"retune {found.sides.name}",
        "params": {
            "from": str(found.sides.before),
            "to": str(found.sides.after),
            "minimum_effect": str(found.plan.minimum_effect),
            "champion_version": found.champion.version,
            "study": found.study,
        },
        "metrics": metrics,
        "tags": {
            "servetune.retune": found.verdict.outcome,
            "decided": str(found.verdict.decided).lower(),
            "exit_code": str(found.verdict.exit_code),
            "priors": f"{len(found.champion.others) + 1} trials of {found.champion.study}",
            "mlflow.note.content": verdict_line(found),
        },
        "files": {
            "summary.md": to_markdown(found),
            "summary.html": to_html(found),
            "winner/config.yaml": config_yaml(winner.config),
            "winner/commands.txt": how_to_start(found.scenario.model, winner.config) + "\n",
            "winner/trial.json": trial_to_json(winner) + "\n",
            "repeats.json": json.dumps([asdict(repeat) for repeat in found.repeats], indent=1) + "\n",
        },
    }
