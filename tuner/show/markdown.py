"""An answer as Markdown: the description of a study's run in MLflow."""

from search_spaces.wording import in_words, plural
from tuner.scenario.amounts import dollars, milliseconds
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.study.answer import Answer


def to_markdown(answer: Answer) -> str:
    """Experiment, verdict and figures."""
    scenario = answer.scenario
    experiment = (
        f"**Experiment.** The cheapest way to serve {scenario.model.name} on {scenario.gpus} GPUs of "
        f"{scenario.system.title}, meeting {scenario.sla}."
    )
    lines = [experiment, ""]
    best = answer.best
    if best is None or best.config is None:
        return "\n".join([*lines, "**Verdict.** No configuration could be served."])
    figure = dollars(answer.scenario.usd_per_million(best.measurement))
    met = "meets the SLA" if answer.meets_sla else "comes nearest, but no configuration meets the SLA"
    verdict = (
        f"**Verdict.** {figure} ({OBJECTIVE_TITLES[scenario.objective]}), trial {best.number}, {met}: "
        f"{in_words(best.config)}."
    )
    lines += [verdict, "", "| SLO | limit | value |", "|---|---|---|"]
    lines += [
        f"| {slo.metric.upper()} {slo.statistic} | {milliseconds(slo.limit_s)} | "
        f"{milliseconds(slo.observed(best.measurement))} |"
        for slo in scenario.sla.slos
    ]
    if best.measurement.source == "recorded":
        lines += ["", "Replayed from published runs, which hold means only: every SLO is judged on the mean."]
    lines += ["", best.measurement.lacks] if best.measurement.lacks else []
    judged = answer.judged[0]
    interval = f"{dollars(judged.low)} to {dollars(judged.high)}"
    by = f"from {plural(judged.repeats, 'run')}" if judged.noise else "by the prediction's known error"
    lines += ["", f"P(SLA met) {judged.probability_met:.1%}; {interval} with 90 %, {by}."]
    rest = scenario.left_over_in_words(best.measurement.gpus)
    lines += ["", rest] if rest else []
    if answer.saving is not None and answer.saving > 0:
        lines += ["", f"{answer.saving:.0%} cheaper than the engine's default configuration."]
    return "\n".join(lines)
