"""A retune as a job: what is due, one at a time for each experiment, its verdict kept and sent."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runners.runner import RunFailedError
from search_spaces.config import Engine, EngineName
from search_spaces.engines.folders import name_of
from search_spaces.errors import InputError, UnknownNameError
from tuner.retune import outbox
from tuner.retune.champion import Champion, Champions, candidate
from tuner.retune.change import Change, changes
from tuner.retune.installations import installed_releases
from tuner.retune.lease import Lease, ModelTags, TakenError
from tuner.retune.registry import Store, StoreError, model_name
from tuner.retune.release import Index, Releases, newest_known, release_named, release_of_image, releases
from tuner.retune.retune import Retuned, retune
from tuner.retune.sides import Sides, sides
from tuner.retune.summary import to_html, to_markdown, to_record, verdict_line
from tuner.retune.verdict import EXIT_KEEP, EXIT_SWITCH, Outcome
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.session import Session
from tuner.study.asked import study_of
from tuner.study.attributes import EXPERIMENT, keep_end
from tuner.study.finished_study import as_yaml, open_finished
from tuner.study.journal import open_study

if TYPE_CHECKING:
    from tuner.tracking.mlflow_tracker import MlflowTracker

EXIT_FAILED = 1
UNSENT_TRIALS = ".unsent-trials"
"""Ends the name of a note that MLflow lacks trials of a study; it holds the folder of the studies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user wants of a retune."""

    engine: EngineName | None = None
    to: str | None = None
    image: str | None = None
    promote: bool = False
    force: bool = False
    check: bool = False
    wait_s: float = 0.0
    studies: Path
    output: Path
    index: Index | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One experiment's champion, what changed since, and the release to judge (None: only the experiment changed)."""

    experiment: Experiment
    champion: Champion
    known: Releases
    to: Engine | None
    changes: tuple[Change, ...]
    note: str = ""

    @property
    def anything(self) -> bool:
        return bool(self.changes) or (self.to is not None and self.to != self.champion.config.engine)

    @property
    def both(self) -> Sides:
        return sides(self.experiment, self.champion, self.to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one experiment's retune ended: its line, exit code, and verdict where there is one."""

    experiment: str
    line: str
    code: int
    outcome: Outcome | None = None
    retuned: Retuned | None = None


class Job:
    """Retunes experiments whose champions are in one store."""

    def __init__(self, store: Store, asked: Asked, console: Console) -> None:
        self.champions = Champions(store)
        self.store = store
        self.asked = asked
        self.console = console

    def due(self, name: str) -> Due:
        """Looks, and measures nothing. Raises InputError or StoreError."""
        experiment = read_experiment(find_experiment(name))
        champion = self.champions.current(experiment.name)
        name = self.asked.engine or champion.config.engine.name
        listed = {engine.name: engine for engine in experiment.used_engines}
        if name not in listed:
            raise UnknownNameError(f"engine of {experiment.path}", name, listed)
        engine = listed[name]
        session = Session(experiment=_as_promoted(experiment, champion))
        index = self.asked.index if self.asked.check or session.is_real else None
        elsewhere = installed_releases(experiment, engine) if experiment.is_served else ()
        known = releases(engine, index, elsewhere=elsewhere)
        to, note = self._release(engine, champion, known, real=session.is_real)
        return Due(
            experiment=experiment,
            champion=champion,
            known=known,
            to=to,
            changes=tuple(changes(champion, session)),
            note=note,
        )

    def run(self, name: str) -> Ended:
        """Measures and judges, while no other retune of the experiment does.

        Raises InputError, StoreError where nothing was measured, TakenError, or InterruptedRetuneError.
        """
        self._send_what_waits()
        due = self.due(name)
        if not due.anything and not self.asked.force:
            line = (
                f"Keep: nothing changed since version {due.champion.version} was promoted{due.note and '; '}{due.note}"
            )
            return Ended(experiment=due.experiment.name, line=f"{line}.", code=EXIT_KEEP, outcome="keep")
        if (judged := self.judged(due)) is not None:
            return judged
        with self._lease(due) as lease:
            found = self._measured(due)
            return self._ended(due, found, lease)

    def judged(self, due: Due) -> Ended | None:
        """The verdict of this very retune where it was judged before: champion, release and experiment are the same."""
        kept = self.champions.judged(due.experiment.name, judgement_key(due))
        if not kept or self.asked.force:
            return None
        judged = json.loads(kept)
        line = f"Not due (--force measures again), judged on {judged['at'][:10]}: {judged['line']}"
        return Ended(experiment=due.experiment.name, line=line, code=judged["code"])

    def _release(self, engine: Engine, champion: Champion, known: Releases, *, real: bool) -> tuple[Engine | None, str]:
        """The release to go to, and what to say where there is none."""
        asked = self.asked.to or (release_of_image(self.asked.image) if self.asked.image else None)
        if asked is not None:
            return release_named(engine, asked, real=real, known=known), ""
        now = champion.config.engine
        if now.name != engine.name:
            raise InputError(f"the champion runs on {now}; say to which release of {engine.name}: --to VERSION")
        newest = newest_known(now, real=real, known=known)
        if newest is not None:
            return replace(engine, version=newest), ""
        newer = known.newer(now.version)
        why = (
            f"the simulator has no kernel times for {engine.name} {', '.join(newer[-3:])}" if newer and not real else ""
        )
        return None, why or known.problem

    @contextmanager
    def _lease(self, due: Due) -> "Iterator[Lease]":
        def on_wait(other: str) -> None:
            self.console.print(f"Waiting: {other}", markup=False)

        tags = ModelTags(self.store, model_name(due.experiment.name))
        with Lease(tags=tags, wait_s=self.asked.wait_s, on_wait=on_wait) as lease:
            yield lease

    def _measured(self, due: Due) -> Retuned:
        both = due.both
        session = both.new
        name = study_of(self.asked.studies, session)
        with (
            self.console.status(f"Retuning {due.experiment.name}") as status,
            open_study(self.asked.studies, name, experiment=session.asked) as study,
            self._tracker(session, name) as tracker,
        ):
            kept = {"path": str(due.experiment.path.absolute()), "text": as_yaml(session.asked), "budget": {}}
            if study.user_attrs.get(EXPERIMENT) is None:
                study.set_user_attr(EXPERIMENT, kept)
            found = retune(
                due.champion,
                both,
                due.changes,
                study=study,
                tracker=tracker,
                on_step=lambda what: status.update(f"{due.experiment.name}: {what}"),
            )
            keep_end(study, len(found.trials))
            return found

    @contextmanager
    def _tracker(self, session: Session, study: str) -> "Iterator[MlflowTracker]":
        with _tracking(session, study, self.store) as tracker:
            yield tracker
        if tracker.problem:
            self.asked.output.mkdir(parents=True, exist_ok=True)
            (self.asked.output / f"{study}{UNSENT_TRIALS}").write_text(str(self.asked.studies), encoding="utf-8")
            self.console.print(f"Not all trials are in MLflow yet: {tracker.problem}", markup=False)

    def _ended(self, due: Due, found: Retuned, lease: Lease) -> Ended:
        """The verdict is on this disk first; then it goes to MLflow, and only then is anything promoted."""
        line = verdict_line(found)
        for path, text in self._summaries(found):
            path.write_text(text, encoding="utf-8")
        outbox.keep(self.asked.output, to_record(found))
        ended = Ended(
            experiment=due.experiment.name,
            line=line,
            code=found.verdict.exit_code,
            outcome=found.verdict.outcome,
            retuned=found,
        )
        if not self._send_what_waits():
            return ended
        try:
            at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            judged = json.dumps({"at": at, "line": line, "code": ended.code})
            self.champions.keep_judgement(due.experiment.name, judgement_key(due), judged)
            return replace(ended, line=line + self._promoted(found, lease, line))
        except StoreError as error:
            self.console.print(f"Nothing was promoted: {error}", markup=False)
            return ended

    def _summaries(self, found: Retuned) -> Iterator[tuple[Path, str]]:
        self.asked.output.mkdir(parents=True, exist_ok=True)
        after = found.sides.after
        stem = f"{found.champion.experiment}-{after.name}-{after.version}"
        yield self.asked.output / f"{stem}.md", to_markdown(found)
        yield self.asked.output / f"{stem}.html", to_html(found)

    def _promoted(self, found: Retuned, lease: Lease, line: str) -> str:
        if not self.asked.promote or found.verdict.outcome not in ("switch", "upgrade"):
            return ""
        if not lease.held:
            return " Not promoted: another retune may have begun."
        session = found.sides.new
        text = as_yaml(session.asked)
        made = candidate(session, found.winner, study=found.study, text=text, others=found.trials)
        version = self.champions.promote(made, why=line).version
        return f" Promoted as version {version}."

    def _send_what_waits(self) -> bool:
        """Verdicts of earlier retunes that MLflow has not; whether it has all now."""
        _, problem = outbox.send(self.store, self.asked.output)
        problem = problem or self._send_trials()
        if problem:
            self.console.print(
                f"{problem}. Nothing was promoted; the verdict is kept in {self.asked.output} and the next retune "
                "sends it.",
                markup=False,
            )
        return not problem

    def _send_trials(self) -> str:
        """Trials of earlier searches that MLflow did not take, from their studies; why not all of them went."""
        for note in sorted(self.asked.output.glob(f"*{UNSENT_TRIALS}")):
            study = note.name.removesuffix(UNSENT_TRIALS)
            finished = open_finished(Path(note.read_text(encoding="utf-8")), study)
            with _tracking(finished.session, study, self.store) as tracker:
                for trial in finished.trials:
                    tracker.log(trial)
            if tracker.problem:
                return tracker.problem
            note.unlink()
        return ""


def _tracking(session: Session, study: str, store: Store) -> "MlflowTracker":
    from tuner.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(
        session.scenario,
        study=study,
        tracking_uri=store.uri,
        experiment_text=as_yaml(session.asked),
        experiment_path=session.experiment.path,
    )


def _as_promoted(experiment: Experiment, champion: Champion) -> Experiment:
    """The file's experiment on the champion's release, where that is all that differs."""
    asked = champion.asked.get("engines")
    return experiment.model_copy(update={"engines": asked}) if _same_engines(experiment.engines, asked) else experiment


def _same_engines(now: list[str], asked: object) -> bool:
    return isinstance(asked, list) and {*map(name_of, now)} >= {name_of(str(text)) for text in asked}


def judgement_key(due: Due) -> str:
    """What decides a retune: champion, release and experiment."""
    both = due.both
    asked = json.dumps([due.champion.version, str(both.before), str(both.after), both.new.asked], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:12]


def run_all(job: Job, names: list[str]) -> list[Ended]:
    """Every experiment that is due; what goes wrong with one is its end, not that of the others."""
    ended = []
    for name in names:
        stem = Path(name).stem
        try:
            one = job.run(name)
        except (InputError, StoreError, TakenError, RunFailedError, OSError) as error:
            one = Ended(experiment=stem, line=f"Failed: {error}", code=EXIT_FAILED)
        ended.append(one)
    return ended


def worst(codes: list[int]) -> int:
    """One exit code for many: a failure before a regression before a switch."""
    return EXIT_FAILED if EXIT_FAILED in codes else max(codes, default=EXIT_KEEP)


def table(ended: list[Ended]) -> Table:
    shown = Table(title="Retuned", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("experiment", "exit", "verdict"):
        shown.add_column(name)
    for one in ended:
        shown.add_row(one.experiment, str(one.code), Text(one.line))
    return shown


def check_table(due: Due) -> Table:
    """What a retune would begin with."""
    shown = Table.grid(padding=(0, 2))
    champion = due.champion
    shown.add_row("experiment", due.experiment.name)
    shown.add_row("champion", Text(f"version {champion.version} on {champion.config.engine}: {champion.config}"))
    shown.add_row("installed", ", ".join(due.known.installed) or "none here")
    if due.known.indexed:
        newer = [one for one in due.known.newer(champion.config.engine.version) if one in due.known.indexed]
        shown.add_row("newer on the index", ", ".join(newer[-5:]) or "none")
    if due.known.problem:
        shown.add_row("index", Text(due.known.problem))
    shown.add_row("release to judge", str(due.to) if due.to else "none")
    if due.note:
        shown.add_row("", Text(due.note))
    for change in due.changes:
        shown.add_row("changed", Text(str(change)))
    shown.add_row("so", "a retune is due" if due.anything else "nothing is due")
    return shown


def check_code(due: Due) -> int:
    return EXIT_SWITCH if due.anything else EXIT_KEEP
