"""The first screen: what was asked, what to do, at what cost, and what to know before believing it."""

from runners.simulated.known_errors import caveat
from search_spaces.wording import in_words, plural
from tuner.scenario.amounts import dollars, rate
from tuner.scenario.cost import OBJECTIVE_TITLES
from tuner.show.report.page import Tile
from tuner.show.report.report import Report
from tuner.show.report.sections.words import counted, law
from tuner.show.terminal import certainty, left_over_lines


def experiment(report: Report) -> str:
    scenario = report.finished.scenario
    workload = scenario.workload
    lengths = f"{workload.input_tokens} input and {workload.output_tokens} output tokens"
    if workload.trace is not None:
        lengths = f"{len(workload.trace.arrival):,} requests of {workload.trace.path.rpartition('/')[2]}"
    return (
        f"Which way of serving {scenario.model.name} on {plural(scenario.gpus, 'GPU')} of {scenario.system.title} "
        f"({lengths}, {workload.shape.replace('_', ' ')}) has the fewest {OBJECTIVE_TITLES[scenario.objective]} "
        f"and meets {law(scenario.sla)}?"
    )


def verdict(report: Report) -> str:
    """One sentence: what to do, at what cost, and against what."""
    finished = report.finished
    answer, winner = finished.answer, report.contenders[0]
    figure = f"{dollars(report.objective(winner))} for a million {counted(report)} tokens"
    words = in_words(winner.config)
    if not finished.meets_sla:
        binding = answer.binding()
        limit = f"{law(binding)} binds" if binding else "the server cannot keep up"
        return f"No configuration tried meets the SLA: {limit}. Nearest, at {figure}: {words}."
    return f"Serve with {words}. That is {figure}, and meets {law(finished.scenario.sla)}. {_against_default(report)}"


def _against_default(report: Report) -> str:
    answer = report.finished.answer
    if answer.baseline is None:
        return "What the engine's default configuration costs is not known."
    if answer.saving is None:
        return f"The engine's default configuration misses the SLA ({', '.join(answer.missed(answer.baseline))})."
    if answer.saving <= 0:
        return "The engine's default configuration is not dearer on the same GPUs."
    return (
        f"The engine's default configuration costs {dollars(report.objective(report.contenders[1]))} on the same GPUs."
    )


def tiles(report: Report) -> list[Tile]:
    winner = report.contenders[0]
    figures = report.finished.scenario.cost(winner.measurement)
    objective = OBJECTIVE_TITLES[report.finished.scenario.objective]
    made = [Tile(label=objective, value=dollars(report.objective(winner)))]
    saving = report.finished.answer.saving
    if saving is not None:
        made.append(Tile(label="against the default", value=f"{-saving:+.0%}".replace("-", "−")))  # noqa: RUF001
    made += [
        Tile(label="output tokens/s/GPU", value=rate(figures.output_tokens_per_s_per_gpu)),
        Tile(label="tokens/s/user", value=rate(figures.tokens_per_s_per_user)),
        Tile(
            label="what binds",
            value=_short(report.binding.limit),
            note=f"behind it: {report.binding.behind}" if report.binding.behind else "",
        ),
    ]
    return made


def _short(limit: str) -> str:
    return limit.removeprefix("the SLO ").partition(" <=")[0]


def caveats(report: Report) -> list[str]:
    """What the reader must know before believing a figure."""
    finished = report.finished
    found = []
    level = report.winner.measurement
    if note := caveat(level.source, report.finished.winning_config.engine) or level.lacks:
        found.append(note)
    found += left_over_lines(finished.answer)
    found += certainty(finished.answer)
    if finished.unfinished:
        found.append(f"The study is unfinished: {finished.unfinished}. Better configurations may be left to try.")
    if not report.winner.exact and finished.meets_sla:
        found.append("The winner's capacity was not made exact: a higher load may meet the SLA too.")
    return found
