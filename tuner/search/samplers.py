"""Samplers by name: the surrogate's and those of Optuna that an experiment may ask for."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.sampler import Sampler
from tuner.search.ranking import Prior, Ranking, Uninformed
from tuner.search.surrogate.sampler import SurrogateSampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

STARTUP_TRIALS = 10
POPULATION_SIZE = 10
"""Optuna's own population of 50 is a whole budget here, so that no generation would follow the first."""

MakeSampler = Callable[[Prior | Uninformed, Ranking, "Study"], "BaseSampler"]


def sampler_of(experiment: Experiment) -> MakeSampler:
    """Makes the sampler that an experiment asks for.

    Optuna's are seeded by the experiment's seed and the trials that the study has, so that one that goes on does not
    begin again with what it proposed first.

    Raises InputError for a sampler that is not installed, or that cannot do what the budget asks.
    """
    asked = experiment.sampler
    if asked.name == "surrogate":
        return lambda prior, ranking, _study: SurrogateSampler(prior, ranking, seed=experiment.seed)
    if experiment.budget.monthly_tokens is not None:
        raise InputError(
            f"{experiment.path}: budget.monthly_tokens: goes with sampler surrogate, which knows what a trial is "
            f"expected to save, but got sampler {asked.name}"
        )
    if asked.name == "gp" and find_spec("torch") is None:
        raise InputError(
            f"{experiment.path}: sampler.name: gp needs torch, which is not installed: pip install 'servetune[gp]'; "
            "valid without it: surrogate, tpe, nsga2, random"
        )
    return lambda _prior, _ranking, study: optuna_sampler(asked, _seed(experiment.seed, study))


def optuna_sampler(asked: Sampler, seed: int) -> "BaseSampler":
    """Optuna's own of that name, to be made `Lawful`; the surrogate is none of them."""
    from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

    startup_trials = asked.startup_trials or STARTUP_TRIALS
    match asked.name:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=startup_trials)
        case "gp":
            # What only some trials have, such as a prefill pool, is not in its model.
            apart = TPESampler(seed=seed, n_startup_trials=startup_trials, multivariate=False)
            return GPSampler(
                seed=seed, n_startup_trials=startup_trials, independent_sampler=apart, warn_independent_sampling=False
            )
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=asked.population_size or POPULATION_SIZE)
        case _:
            return RandomSampler(seed=seed)


def _seed(seed: int, study: "Study") -> int:
    import numpy as np

    return int(np.random.SeedSequence([seed, len(study.get_trials(deepcopy=False))]).generate_state(1)[0])
