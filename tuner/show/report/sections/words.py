"""Words that several sections use."""

from runners.measurement import Measurement
from runners.simulated.known_errors import PREDICTION
from tuner.scenario.amounts import milliseconds
from tuner.scenario.sla import Slo
from tuner.show.report.report import Report


def counted(report: Report) -> str:
    """Which tokens the objective counts."""
    objective = report.finished.scenario.objective
    return "output" if objective == "usd_per_million_output_tokens" else "input and output"


def law(slos: object) -> str:
    return str(slos).replace("<=", "≤")


def kind(level: Measurement) -> str:
    return "predicted" if level.source in PREDICTION else "measured"


def reached(slo: Slo, level: Measurement) -> str:
    return f"{milliseconds(slo.observed(level))}{'' if slo.excess(level) <= 0 else ' (missed)'}"


def whole_dollars(value: float) -> str:
    return f"-${-value:,.0f}" if value < 0 else f"${value:,.0f}"
