"""The champion: the configuration in production of an experiment, kept in MLflow's model registry with its history."""

import datetime as dt
import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runners.measurement import Measurement
from runners.served.shell import how_to_start
from search_spaces.config import ServingConfig, Value
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.knobs import EARLIER, KNOBS, flatten, unflatten
from tuner.retune.machine import machine
from tuner.retune.registry import PREFIX, Store, model_name
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.reading import rebuilt_experiment
from tuner.scenario.scenario import Scenario
from tuner.search.search import objective, ranked_trials
from tuner.search.session import Session
from tuner.search.trial import Trial, trial_from_json, trial_to_json
from tuner.study.finished_study import FinishedStudy
from tuner.study.migration import asked_now, values_now
from tuner.tracking.mlflow_tracker import config_yaml
from tuner.tracking.store import EXPERIMENTS

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"
FOLDER = "champion"
DEPLOY = "deploy"
"""The folder in FOLDER with the files that start a champion."""

AUDIT = "audit."
RETUNED = "retuned."
MOST_OTHERS = 64
"""Trials kept with a champion, best first: what is known when the next release is searched."""

Action = Literal["promote", "rollback"]
BEGUN, DONE = "begun", "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """A configuration that was promoted, with the experiment that it answered and the trial that measured it.

    `asked` is the experiment as the study kept it, `machine` what it was measured on, `others` the best trials of the
    same study, as priors for another search. `level` is the load in production. `price` and `dimensions` are what was
    in force and could be chosen then; `removed` are settings of the champion that servetune no longer has.
    """

    experiment: str
    version: str
    trial: Trial
    asked: Mapping[str, Any]
    machine: Mapping[str, str]
    text: str
    home: str
    study: str
    price: Mapping[str, float] = field(default_factory=dict)
    dimensions: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    others: tuple[Trial, ...] = ()
    run_id: str = ""
    promoted: str = ""
    by: str = ""
    why: str = ""
    replaces: str = ""

    @property
    def config(self) -> ServingConfig:
        assert self.trial.config is not None, "only a measured trial is promoted"
        return self.trial.config

    @property
    def level(self) -> Measurement:
        return self.trial.measurement

    @property
    def asked_experiment(self) -> Experiment:
        """The experiment as it was when this was promoted. Raises InputError where this release cannot ask it."""
        return rebuilt_experiment(Path(self.home), self.asked, Path(self.home))


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One move of the alias: from which version to which, by whom, when and why; not `done` where it broke off."""

    action: Action
    before: str
    after: str
    by: str
    at: str
    why: str
    done: bool


class Champions:
    """The champions of all experiments in one store.

    A promotion first writes everything (the files, a version with its tags, an entry in the audit), then moves the
    alias, which is one call: whoever asks for the champion gets the old or the new one, whole. Versions are never
    deleted, so a rollback is another move of the alias. Methods raise StoreError where the store does not answer.
    """

    def __init__(self, store: Store, *, now: Callable[[], dt.datetime] | None = None, user: str | None = None) -> None:
        self.store = store
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._user = user or _user()

    def current(self, experiment: str) -> Champion:
        """Raises InputError, with the way to make one, where the experiment has no champion."""
        version = self.store.aliased(model_name(experiment), ALIAS)
        if version is None:
            raise InputError(
                f"{experiment} has no champion in {self.store.shown}; tune it and promote what is in production: "
                f"servetune tune {experiment}, then servetune champion promote {experiment}{self._others(experiment)}"
            )
        return self._champion(experiment, version)

    def promote(self, candidate: Champion, *, why: str) -> Champion:
        """Makes this the champion."""
        name = model_name(candidate.experiment)
        self.store.make_model(name, {"servetune.experiment": candidate.experiment})
        before = self._version_now(name)
        run_id = self._run_of(candidate)
        self.store.write_files(run_id, {f"{FOLDER}/{path}": text for path, text in _files(candidate).items()})
        tags = {
            "promoted": self._stamp(),
            "by": self._user,
            "why": why,
            "replaces": before,
            "study": candidate.study,
            "trial": str(candidate.trial.number),
            "experiment_hash": candidate.study.rpartition("-")[2],
            "release": str(candidate.config.engine),
        }
        with self.store.errors():
            made = self.store.client.create_model_version(
                name, f"runs:/{run_id}/{FOLDER}", run_id=run_id, tags=tags, description=str(candidate.config)
            )
        self._move(name, "promote", before, str(made.version), why)
        return self.current(candidate.experiment)

    def rollback(self, experiment: str, *, why: str, to: str | None = None) -> Champion:
        """Makes the version that the champion replaced, or version `to`, the champion again.

        Raises InputError where there is none.
        """
        name = model_name(experiment)
        champion = self.current(experiment)
        versions = [str(version.version) for version in self.store.versions(name)]
        target = to or self._previous(name, champion)
        if target not in versions:
            known = ", ".join(versions)
            found = f"no version {target!r}" if target else "nothing before version " + champion.version
            raise InputError(f"the champion of {experiment} cannot go back: {found}; versions: {known}")
        self._move(name, "rollback", champion.version, target, why)
        return self.current(experiment)

    def history(self, experiment: str) -> list[Audited]:
        """Every move of the alias, the newest first."""
        model = self.store.model(model_name(experiment))
        entries = [value for key, value in (model.tags if model else {}).items() if key.startswith(AUDIT)]
        return sorted((_audited(entry) for entry in entries), key=lambda entry: entry.at, reverse=True)

    def experiments(self) -> list[str]:
        """Those that have a champion."""
        with self.store.errors():
            models = self.store.client.search_registered_models(f"name LIKE '{PREFIX}%'", max_results=1000)
        return sorted(model.name.removeprefix(PREFIX) for model in models if ALIAS in model.aliases)

    def judged(self, experiment: str, key: str) -> str:
        """What the last retune under this key came to, as JSON; empty where there was none."""
        model = self.store.model(model_name(experiment))
        return model.tags.get(RETUNED + key, "") if model else ""

    def keep_judgement(self, experiment: str, key: str, value: str) -> None:
        self.store.set_tag(model_name(experiment), RETUNED + key, value)

    def _version_now(self, name: str) -> str:
        version = self.store.aliased(name, ALIAS)
        return str(version.version) if version else ""

    def _previous(self, name: str, champion: Champion) -> str:
        """What was champion before: by the audit, since a version that came back replaced nothing new."""
        moves = [entry for entry in self.history(name.removeprefix(PREFIX)) if entry.done]
        promoted = next((e for e in moves if e.after == champion.version and e.action == "promote"), None)
        return promoted.before if promoted else champion.replaces

    def _move(self, name: str, action: Action, before: str, after: str, why: str) -> None:
        """The alias, by one call, between two entries in the audit: that it begins, and that it is done."""
        at = self._stamp()
        entry = {"action": action, "before": before, "after": after, "by": self._user, "at": at, "why": why}
        key = f"{AUDIT}{at}-{after}".replace(":", ".")
        self.store.set_tag(name, key, json.dumps(entry | {"state": BEGUN}))
        with self.store.errors():
            self.store.client.set_registered_model_alias(name, ALIAS, after)
        self.store.set_tag(name, key, json.dumps(entry | {"state": DONE}))

    def _run_of(self, candidate: Champion) -> str:
        """The trial's run, or a run of its own for a trial that was not tracked."""
        where = self.store.experiment_id(EXPERIMENTS + candidate.experiment)
        run = self.store.trial_run(where, candidate.study, candidate.trial.number)
        if run is not None:
            return str(run.info.run_id)
        with self.store.errors():
            made = self.store.client.create_run(where, run_name=f"champion {candidate.config}")
            self.store.client.set_terminated(made.info.run_id)
        return str(made.info.run_id)

    def _champion(self, experiment: str, version: "ModelVersion") -> Champion:
        files = self.store.read_files(version.run_id, FOLDER)
        kept = json.loads(files["champion.json"])
        trial = trial_from_json(json.dumps(kept["trial"]))
        config, removed = known_settings(kept["config"])
        if trial.config is not None:
            config = replace(config, engine=trial.config.engine)  # one of the user's own has a folder beside its name
        return Champion(
            experiment=experiment,
            version=str(version.version),
            trial=replace(trial, config=config),
            price=kept["price"],
            dimensions=values_now(kept["dimensions"]),
            removed=removed,
            asked=asked_now(kept["asked"]),
            machine=kept["machine"],
            text=files.get("experiment.yaml", ""),
            home=kept["home"],
            study=kept["study"],
            others=tuple(trial_from_json(line) for line in files.get("others.jsonl", "").splitlines()),
            run_id=version.run_id,
            promoted=version.tags.get("promoted", ""),
            by=version.tags.get("by", ""),
            why=version.tags.get("why", ""),
            replaces=version.tags.get("replaces", ""),
        )

    def _others(self, experiment: str) -> str:
        known = [name for name in self.experiments() if name != experiment]
        return f" (champions there: {', '.join(known)})" if known else ""

    def _stamp(self) -> str:
        return self._now().isoformat(timespec="microseconds").replace("+00:00", "Z")


def candidate_of(finished: FinishedStudy, number: int | None = None) -> Champion:
    """A finished study's best trial, or trial `number`, as a champion to be.

    Raises InputError for a trial that was not measured or breaks the SLA.
    """
    trial = finished.winner if number is None else _numbered(finished, number)
    scenario = finished.scenario
    if not scenario.sla.met_by(trial.measurement):
        raise InputError(f"{finished.name}: trial {trial.number} breaks the SLA ({scenario.sla}); it is no champion")
    return candidate(finished.session, trial, study=finished.name, text=finished.text, others=finished.trials)


def candidate(session: Session, trial: Trial, *, study: str, text: str, others: Sequence[Trial]) -> Champion:
    """A measured trial as a champion to be."""
    return Champion(
        experiment=session.scenario.name,
        version="",
        trial=trial,
        asked=session.asked,
        machine=machine() if session.is_real else {},
        text=text,
        home=str(session.experiment.path),
        study=study,
        price=price_in_force(session),
        dimensions=session.scenario.space.dimensions,
        others=tuple(_bare(one) for one in ranked_trials(session.scenario, others) if one is not trial)[:MOST_OTHERS],
    )


def price_in_force(session: Session) -> dict[str, float]:
    """What the price table, or the experiment, says now."""
    price = session.scenario.price
    return {
        "usd_per_gpu_hour in force": price.usd_per_gpu_hour,
        "all_in_watts_per_gpu in force": price.all_in_watts_per_gpu,
    }


def known_settings(values: Mapping[str, Any]) -> tuple[ServingConfig, tuple[str, ...]]:
    """A configuration from settings that another servetune kept, and those of them that there are no more.

    Settings that are new since have their default.
    """
    named = {EARLIER.get(name, name): value for name, value in values.items()}
    removed = tuple(f"{name}={value}" for name, value in named.items() if name not in KNOBS)
    return unflatten({name: value for name, value in named.items() if name in KNOBS}), removed


def _bare(trial: Trial) -> Trial:
    """Without the loads that do not count."""
    return replace(trial, levels=(trial.measurement,), chosen=0)


def _numbered(finished: FinishedStudy, number: int) -> Trial:
    for trial in finished.trials:
        if trial.number == number and trial.ending == "measured":
            return trial
    best = ", ".join(str(trial.number) for trial in finished.ranked[:5])
    raise InputError(f"{finished.name}: no trial {number} was measured; its best are {best}")


def _files(candidate: Champion) -> dict[str, str]:
    """config.yaml, the commands and files that start it, the experiment, and the facts that a retune reads.

    Under `deploy/` lie the files of the engine's own deployment target, or why there are none.
    """
    scenario = Session(experiment=candidate.asked_experiment).scenario
    facts = {
        "study": candidate.study,
        "home": candidate.home,
        "asked": candidate.asked,
        "machine": candidate.machine,
        "price": candidate.price,
        "dimensions": candidate.dimensions,
        "config": flatten(candidate.config),
        "objective": objective(scenario, candidate.trial),
        "trial": json.loads(trial_to_json(candidate.trial)),
    }
    return {
        "config.yaml": config_yaml(candidate.config),
        "commands.txt": how_to_start(scenario.model, candidate.config, scenario.installation) + "\n",
        "experiment.yaml": candidate.text,
        "champion.json": json.dumps(facts, indent=1) + "\n",
        "others.jsonl": "".join(trial_to_json(trial) + "\n" for trial in candidate.others),
        **{f"{DEPLOY}/{name}": text for name, text in _deploy_files(scenario, candidate).items()},
    }


def _deploy_files(scenario: Scenario, candidate: Champion) -> dict[str, str]:
    """What `servetune deploy` renders for the engine itself. A champion without such files is one all the same."""
    from tuner.deploy.deploy import plan_as_measured, rendered
    from tuner.deploy.targets import find_target

    config = candidate.config
    try:
        plan = plan_as_measured(scenario, config, title=candidate.experiment)
        return rendered(plan, find_target(config.engine.name, config.engine.name))
    except (InputError, InfeasibleError) as error:
        return {"none.txt": f"No files: {error}\n"}


def _audited(text: str) -> Audited:
    entry = json.loads(text)
    done = entry.pop("state") == DONE
    return Audited(**entry, done=done)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user, as in a container
        return "unknown"
