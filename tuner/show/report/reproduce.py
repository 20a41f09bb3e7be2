"""How to reproduce a report: the commands and the releases behind it."""

import platform
import shlex
from importlib.metadata import version

from tuner.show.report.report import Report


def commands(report: Report) -> list[str]:
    """What tunes again, and what makes this report."""
    finished = report.finished
    experiment = finished.experiment
    tune = ["servetune", "tune", experiment.path.name, "--trials", str(len(finished.trials))]
    if f"runner: {experiment.runner}" not in finished.text and experiment.runner != "simulated":
        tune += ["--runner", experiment.runner]
    if "sampler:" not in finished.text and experiment.sampler.name != "surrogate":
        tune += ["--sampler", experiment.sampler.name]
    return [shlex.join(tune), report.command or shlex.join(["servetune", "report", finished.name])]


def releases(report: Report) -> list[list[str]]:
    """Rows of name and release: of servetune, of the libraries that answer, and of the engine."""
    finished = report.finished
    asked, here = finished.release, version("servetune")
    rows = [["servetune", here if asked == here else f"{here} (the study was asked by {asked})"]]
    rows.append(["Python", platform.python_version()])
    rows += [[name, version(name)] for name in ("optuna", "numpy")]
    if finished.predicted:
        rows.append(["aiconfigurator-core (kernel times)", version("aiconfigurator-core")])
    rows += [["engine of the winner", str(finished.winning_config.engine)]]
    times = [trial.datetime_complete for trial in finished.study.get_trials(deepcopy=False)]
    ended = [time for time in times if time is not None]
    rows.append(["study", finished.name])
    if ended:
        rows.append(["trials ended", f"{min(ended):%Y-%m-%d %H:%M} to {max(ended):%Y-%m-%d %H:%M}"])
    engines = sorted({str(trial.config.engine) for trial in finished.trials if trial.config})
    rows.append(["engines tried", ", ".join(engines)])
    return rows
