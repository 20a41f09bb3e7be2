"""The search of a new release, which begins with what served on the old one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from search_spaces.config import Engine, Value
from search_spaces.space import Params
from tuner.retune.champion import Champion
from tuner.retune.change import space_changes
from tuner.retune.rank_release import informed, rank_release
from tuner.retune.sides import Sides
from tuner.scenario.amounts import dollars
from tuner.scenario.experiment.budget import Retune
from tuner.search.search import Budget, Search
from tuner.search.session import Session
from tuner.search.stored import finished_trials
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.tracker import Tracker, Untracked
from tuner.search.trial import Trial

if TYPE_CHECKING:
    import optuna

ENQUEUED = 2
"""Old trials, best first, that are measured on the new release before the search goes its own way."""

PRIOR = "prior"
"""User attribute of an Optuna trial: what another release said of its configuration. It is no result of this one."""


class InterruptedRetuneError(Exception):
    """Ctrl-C ended the search: there is no verdict, and what was measured is in the study."""


def search_release(
    champion: Champion,
    both: Sides,
    plan: Retune,
    *,
    study: "optuna.Study",
    tracker: Tracker | None,
    on_step: Callable[[str], None],
    clock: Callable[[], float],
) -> tuple[list[Trial], tuple[str, ...]]:
    """The trials of the new release, the champion's configuration among the first, and what of the space changed.

    Old trials only say what to try first. Raises InterruptedRetuneError.
    """
    session = both.new
    settings = [str(change) for change in space_changes(champion.dimensions, session.scenario.space.dimensions)]
    settings += [f"setting {name} of the champion is gone" for name in champion.removed]
    settings += enqueue_priors(champion, session, both.after, study)
    ranking = informed(rank_release(champion, both, clock), champion, both)
    sampler = SurrogateSampler(session.prior, ranking, seed=session.experiment.seed)
    done = len(finished_trials(study))
    search = Search(
        prior=session.prior,
        runner=session.runner,
        study=study,
        sampler=sampler,
        tracker=Marked(tracker or Untracked(), study),
        budget=Budget(trials=done + plan.trials),
        progress=lambda tried, _best: on_step(f"Searching the new release: {tried - done} of {plan.trials} trials"),
    )
    search.run()
    if search.interrupted:
        raise InterruptedRetuneError(study.study_name)
    return search.trials(), tuple(settings)


class Marked:
    """A tracker that tells of each trial what another release had said of its configuration."""

    def __init__(self, tracker: Tracker, study: "optuna.Study") -> None:
        self._tracker = tracker
        self._study = study

    def log(self, trial: Trial) -> None:
        said = self._study.get_trials(deepcopy=False)[trial.number].user_attrs.get(PRIOR, "")
        self._tracker.log(replace(trial, prior=said) if said else trial)


def enqueue_priors(champion: Champion, session: Session, engine: Engine, study: "optuna.Study") -> list[str]:
    """Has the champion's and the best old configurations tried first; says which could not be.

    Each carries, as the user attribute PRIOR, what it cost on its release: a reason to try it, and nothing else.
    """
    space = session.scenario.space
    left_out = []
    for trial in (champion.trial, *champion.others)[: ENQUEUED + 1]:
        assert trial.config is not None
        if trial.config.engine.name != engine.name:
            continue
        params = space.drawn({**_defaults(space.dimensions), **space.params(replace(trial.config, engine=engine))})
        gone = [f"{name}={value}" for name, value in params.items() if value not in space.dimensions.get(name, ())]
        if gone:
            left_out.append(f"trial {trial.number} of {champion.study} is not tried: no {', '.join(gone)} any more")
            continue
        figure = dollars(session.scenario.usd_per_million(trial.measurement))
        said = f"{figure} on {trial.config.engine} (study {champion.study}, trial {trial.number}); a prior, no result"
        study.enqueue_trial(params, user_attrs={PRIOR: said}, skip_if_exists=True)
    return left_out


def _defaults(dimensions: Mapping[str, Sequence[Value]]) -> Params:
    """The first value of each setting: what a knob that is new has in configurations that did not know it."""
    return {name: values[0] for name, values in dimensions.items()}
