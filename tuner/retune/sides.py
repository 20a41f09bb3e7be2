"""Sides: one experiment on the release in production and on the one to judge."""

from collections.abc import Callable
from dataclasses import dataclass

from search_spaces.config import Engine
from search_spaces.engines.engine import facts_of
from search_spaces.errors import InputError
from tuner.retune.champion import Champion
from tuner.retune.installations import check_both_installed
from tuner.scenario.experiment.experiment import Experiment
from tuner.search.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The same experiment on the release in production and on the one to judge.

    `moved` says whether the champion's own engine is the one that changed.
    """

    old: Session
    new: Session
    before: Engine
    after: Engine

    @property
    def moved(self) -> bool:
        return self.before != self.after and self.before.name == self.after.name

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def name(self) -> str:
        if not self.changed:
            return str(self.before)
        return f"{self.before} -> {self.after.version if self.moved else self.after}"


def sides(
    experiment: Experiment, champion: Champion, to: Engine | None, make: Callable[[Experiment], Session] | None = None
) -> Sides:
    """Both sides of a retune to a release of any engine, or of none, where only the experiment changed.

    Raises InputError where the champion's own release is gone, or a release of a real engine is not installed.
    """
    session = make or (lambda asked: Session(experiment=asked))
    before = champion.config.engine
    after = to or before
    check_both_installed(experiment, before, after)
    old = session(on_release(experiment, before))
    if not old.is_real and before.version not in facts_of(before).versions:
        there = ", ".join(facts_of(before).versions)
        raise InputError(
            f"the champion of {experiment.name} runs on {before}, for which there are no kernel times any more "
            f"(only for {there}): tune again and promote: servetune champion promote {experiment.name}"
        )
    new = session(on_release(experiment, after)) if after != before else old
    return Sides(old=old, new=new, before=before, after=after)


def on_release(experiment: Experiment, engine: Engine) -> Experiment:
    return experiment.model_copy(update={"engines": [engine.asked_as]})
