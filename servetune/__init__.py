"""Finds the cheapest way to serve a language model that meets its SLA. What scripts import: see docs/python.md."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runners.measurement import Measurement as Measurement
    from runners.workload.workload import Lengths as Lengths
    from runners.workload.workload import Workload as Workload
    from search_spaces.config import ServingConfig as ServingConfig
    from search_spaces.errors import InputError as InputError
    from search_spaces.hardware.system import System as System
    from search_spaces.models.model import Model as Model
    from tuner.app.library import Study as Study
    from tuner.app.library import open_study as open_study
    from tuner.app.library import read_experiment as read_experiment
    from tuner.app.library import tune as tune
    from tuner.scenario.cost import Cost as Cost
    from tuner.scenario.experiment.experiment import Experiment as Experiment
    from tuner.scenario.scenario import Scenario as Scenario
    from tuner.scenario.sla import Sla as Sla
    from tuner.scenario.sla import Slo as Slo
    from tuner.search.trial import Trial as Trial
    from tuner.study.answer import Answer as Answer

_HOMES = {
    "Answer": "tuner.study.answer",
    "Cost": "tuner.scenario.cost",
    "Experiment": "tuner.scenario.experiment.experiment",
    "InputError": "search_spaces.errors",
    "Lengths": "runners.workload.workload",
    "Measurement": "runners.measurement",
    "Model": "search_spaces.models.model",
    "Scenario": "tuner.scenario.scenario",
    "ServingConfig": "search_spaces.config",
    "Sla": "tuner.scenario.sla",
    "Slo": "tuner.scenario.sla",
    "Study": "tuner.app.library",
    "System": "search_spaces.hardware.system",
    "Trial": "tuner.search.trial",
    "Workload": "runners.workload.workload",
    "open_study": "tuner.app.library",
    "read_experiment": "tuner.app.library",
    "tune": "tuner.app.library",
}


def __getattr__(name: str) -> Any:
    """A name from its home, imported when it is first used: `import servetune` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(_HOMES)
