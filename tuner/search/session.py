"""Session: an experiment's scenario, prior and runner, the parts of one search."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runners.measurement import Measurement, Source
from runners.recorded.recorded import Recorded
from runners.recorded.recording import Recording
from runners.runner import RunFailedError, Runner
from runners.simulated.calibration import Calibrated
from runners.simulated.estimated import Estimated
from runners.simulated.silicon import Silicon
from runners.simulated.simulated import Simulated
from search_spaces.config import Engine, ServingConfig
from search_spaces.default import default_configs
from search_spaces.enumerated import EnumeratedSpace
from search_spaces.errors import InfeasibleError, InputError
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.serve import Serve
from tuner.scenario.recorded import recorded_rows
from tuner.scenario.scenario import Scenario
from tuner.scenario.settings import parse_settings
from tuner.search.kernel_data import has_kernel_data, lacks_kernel_data, what_is_known
from tuner.search.ranking import Prior, Ranking, Uninformed
from tuner.search.recorded import RecordedPrior
from tuner.search.search import Budget, best_trial, measure_capacity
from tuner.search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Session:
    """An experiment's parts, made when they are first asked for.

    `calibrate` corrects the step times that predictions are made of by what was measured.
    """

    experiment: Experiment
    calibrate: Callable[[Silicon], Calibrated] | None = field(default=None, compare=False)

    @cached_property
    def scenario(self) -> Scenario:
        """Without what the runner cannot evaluate. Raises InputError."""
        scenario = self.experiment.scenario()
        if self.experiment.runner != "estimated":
            return scenario
        modes = scenario.space.dimensions["mode"]
        if "aggregated" not in modes:
            raise InputError(
                f"{self.experiment.path}: runner: estimated takes mode aggregated only, but got {modes[0]}"
            )
        return replace(scenario, space=scenario.space.restricted({"mode": ("aggregated",)}))

    @property
    def silicon(self) -> Silicon:
        return self.calibrated.silicon if self.calibrated else self.tables

    @cached_property
    def calibrated(self) -> Calibrated | None:
        return self.calibrate(self.tables) if self.calibrate else None

    @cached_property
    def tables(self) -> Silicon:
        """Step times as the database has them."""
        scenario = self.scenario
        longest = scenario.workload.max_request_tokens
        return Silicon(scenario.model, scenario.system, longest_context=longest, stand_in=self.is_real)

    @property
    def is_real(self) -> bool:
        """Whether real engines are measured, which may be of releases without kernel times."""
        return self.experiment.runner not in ("simulated", "estimated", "recorded")

    @cached_property
    def prior(self) -> Prior | Uninformed:
        """A real engine may be searched without predictions, too; a simulated one cannot."""
        if self.recorded:
            return RecordedPrior(self.scenario, self.silicon, self.recorded)
        if self.is_real and not has_kernel_data(self.scenario, self.silicon):
            return Uninformed(self.scenario, seed=self.experiment.seed)
        return Prior(self.scenario, self.silicon, source=SOURCES[self.experiment.runner])

    def rank(self) -> Ranking:
        """Every combination of the space, predicted. Raises InputError where there are no kernel times for any."""
        ranking = self.prior.rank()
        if lacks_kernel_data(ranking) and not self.is_real:
            raise self._unpredictable()
        return ranking

    def _unpredictable(self) -> InputError:
        return InputError(f"{self.experiment.path}: {what_is_known(self.scenario, self.silicon)}")

    @cached_property
    def recorded(self) -> Sequence[Recording]:
        """What was measured of the scenario and is in its space; nothing with another runner. Raises InputError."""
        scenario = self.scenario
        if not isinstance(scenario.space, EnumeratedSpace):
            return ()
        rows = recorded_rows(scenario.model.name, scenario.system.name, scenario.workload)
        return [row for row in rows if scenario.space.lists(row.config)]

    @cached_property
    def runner(self) -> Runner:
        return RUNNERS[self.experiment.runner](self)

    @property
    def study_name(self) -> str:
        """The experiment's name and a hash of what it asks: another experiment is another study."""
        return f"{self.experiment.name}-{_digest(json.dumps(self.asked, sort_keys=True).encode())}"

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the answer, as JSON: the experiment without budgets and sampler, what its trace holds, and the
        release whose tables and simulator answer.
        """
        asked = self.experiment.model_dump(
            mode="json", exclude={"budget": True, "retune": True, "sampler": True, "serve": {"logs"}}, warnings=False
        )
        if asked["serve"] is None:
            del asked["serve"]
        # As JSON has it, whose keys are text: a study keeps it so, and what it asks is compared with this.
        asked |= {"own": json.loads(json.dumps(own))} if (own := self.experiment.own_facts) else {}
        asked["servetune"] = version("servetune")
        if self.recorded:
            asked["recordings"] = _digest("\n".join(map(_written, self.recorded)).encode())
        trace = self.scenario.workload.trace
        if trace is not None:
            columns = (trace.arrival, trace.input_tokens, trace.output_tokens)
            asked["trace"] = _digest(b"".join(column.tobytes() for column in columns))
        return asked

    def default_trial(self, engine: Engine) -> Trial:
        """The best of an engine's untuned configurations, at the highest load that meets the SLA.

        Raises InputError where nothing of it can be served.
        """
        scenario = self.scenario
        sizes = default_configs(scenario.model, engine, scenario.gpus)
        trials = [trial for size in sizes if (trial := self._first_served(size))]
        best = best_trial(scenario, trials)
        if best is None and not self.is_real and not has_kernel_data(scenario, self.silicon):
            raise self._unpredictable()
        if best is None:
            raise InputError(f"{engine} cannot serve {scenario.model.name} here untuned")
        return best

    def _first_served(self, configs: Iterator[ServingConfig]) -> Trial | None:
        for config in configs:
            with suppress(InfeasibleError, RunFailedError):
                return measure_capacity(config, self.prior, self.runner, number=0)
        return None

    def changed(self, settings: Sequence[str]) -> ServingConfig:
        """The first engine's untuned configuration with settings such as `layout.tensor=4` changed.

        What is not set follows: as many replicas as the GPUs hold, and experts split or whole where they cannot be
        as before. Raises InputError for a setting that is unknown or breaks a law of its own.
        """
        untuned = self._untuned(self.scenario.space.engines[0])
        config = parse_settings(settings, untuned)
        chosen = {setting.partition("=")[0] for setting in settings}
        layout = config.layout
        if "layout.replicas" not in chosen:
            left = self.scenario.gpus - (config.gpus - layout.gpus)
            layout = replace(layout, replicas=max(left // layout.gpus_per_worker, 1))
        experts = [layout.expert]
        if "layout.expert" not in chosen:
            experts += [1, layout.tensor * layout.attention_dp]
        configs = [replace(config, layout=replace(layout, expert=expert)) for expert in experts]
        return next(filter(self._can_serve, configs), configs[0])

    def _untuned(self, engine: Engine) -> ServingConfig:
        """The best untuned configuration or, where finding it means real GPUs, the first that is legal."""
        if not self.experiment.is_served:
            config = self.default_trial(engine).config
            assert config is not None
            return config
        sizes = default_configs(self.scenario.model, engine, self.scenario.gpus)
        configs = [config for size in sizes for config in size]
        return next(filter(self._can_serve, configs), configs[0])

    def _can_serve(self, config: ServingConfig) -> bool:
        with suppress(InfeasibleError, RunFailedError):
            self.scenario.check(config)
            if self.experiment.is_served:
                return True
            with self.runner.serve(config):
                return True
        return False

    def measure(self, config: ServingConfig, load: float | None) -> Measurement:
        """One configuration at a load, or at the highest load that meets the SLA.

        Raises InfeasibleError or RunFailedError.
        """
        if load is None:
            return measure_capacity(config, self.prior, self.runner, number=0).measurement
        self.scenario.check(config)
        with self.runner.serve(config) as measure:
            return measure(self.scenario.workload.at(load))


def _served(experiment: Experiment, scenario: Scenario) -> Runner:
    from runners.served.installed import OwnParser
    from runners.served.nvml import driver
    from runners.served.served import Served

    serve = experiment.serve or Serve()
    gpus = driver() if serve.device == "gpu" else None
    devices = gpus.devices if gpus else ()
    installation = serve.installation(experiment.path.parent, devices=devices)
    return Served(
        scenario.model,
        installation,
        logs=Path(serve.logs) / experiment.name,
        limits=serve.limits,
        slos=scenario.sla.limits,
        prompt_tokens=max(round(scenario.workload.mean_input_tokens), 1),
        own_parsers={python: OwnParser(Path(python)) for python in installation.interpreters},
    )


PREDICTING = ("simulated", "estimated")
"""Runners that answer from tables: asking them again costs seconds, not GPUs."""


SOURCES: Mapping[str, Source] = {
    "simulated": "simulated",
    "estimated": "estimated",
    "recorded": "recorded",
    "served": "measured",
}

RUNNERS: Mapping[str, Callable[[Session], Runner]] = {
    "simulated": lambda session: Simulated(session.silicon),
    "estimated": lambda session: Estimated(session.silicon),
    "recorded": lambda session: Recorded(session.recorded),
    "served": lambda session: _served(session.experiment, session.scenario),
}


SINCE = (", folder=None", ", settings=()")
"""Empty fields that configurations did not have when recordings were first digested: no study is another for them."""


def _written(row: Recording) -> str:
    text = repr(row)
    for field_text in SINCE:
        text = text.replace(field_text, "")
    return text


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def budget_of(experiment: Experiment, trials: int | None) -> Budget:
    """The experiment's budget, in seconds and dollars, for `trials` trials where a number is given."""
    asked = experiment.budget
    return Budget(
        trials=trials or asked.trials,
        wall_clock_s=_limit(asked.wall_clock_min) * 60,
        gpu_seconds=_limit(asked.gpu_hours) * 3600,
        usd=_limit(asked.usd),
        monthly_tokens=asked.monthly_tokens,
    )


def _limit(value: float | None) -> float:
    return float("inf") if value is None else value
