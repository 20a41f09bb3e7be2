"""A search by any sampler of Optuna's: it ends, measures nothing twice, and leaves what any other goes on with."""

from importlib.util import find_spec

import optuna
import pytest
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from runners.runner import RunFailedError
from tests.tuner.search.landscape import Landscape, Log, Predictions, a_scenario, a_space, every_params, search_in
from tuner.search.search import SAME_PROPOSALS, Budget, Foresight, best_trial
from tuner.search.stored import REPEATS, finished_trials
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.trial import RECORD

SPACE = a_space(layout_tensor=(1, 2, 4, 8), batching_max_sequences=(32, 64, 128, 256))
SCENARIO = a_scenario(SPACE)
EVERY = every_params(SPACE)


def gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=4)


FOREIGN = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=4),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=5),
    "random": lambda seed: RandomSampler(seed=seed),
    "gp": gp,
}
NAMES = [
    pytest.param(name, marks=[] if name != "gp" or find_spec("torch") else pytest.mark.skip(reason="needs torch"))
    for name in FOREIGN
]


def capacity(config) -> float:
    """The best is tp2 with an FP8 KV cache and 256 sequences."""
    best = {1: 0.7, 2: 1.0, 4: 0.8, 8: 0.5}[config.layout.tensor] * (1.0 if config.precision.kv_cache == "fp8" else 0.9)
    return 100 * best * config.batching.max_sequences / 256


PRIOR = Predictions(SCENARIO, capacity, EVERY)


def run(study, sampler, *, trials=20, runner=None, **parts):
    runner = runner or Landscape(capacity)
    search = search_in(study, PRIOR, runner, sampler=sampler, trials=trials, **parts)
    search.run()
    return search


class Stubborn(RandomSampler):
    """Proposes the lowest of everything, whoever asks."""

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return getattr(param_distribution, "low", None) or param_distribution.choices[0]


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_of_optunas_searches_to_the_end_of_the_budget(study, name):
    runner = Landscape(capacity)
    search = run(study, FOREIGN[name](1), runner=runner)
    assert len(search.trials()) == 20
    assert len(set(runner.served)) == len(runner.served) == 20
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "gp"])  # which takes a second for each trial
def test_a_sampler_of_optunas_tries_all_of_a_small_space_and_stops(study, name):
    search = run(study, FOREIGN[name](2), trials=1000)
    assert len({trial.config for trial in search.trials()}) == len(search.trials()) == len(EVERY)
    assert best_trial(SCENARIO, search.trials()).config == max(map(SPACE.config, EVERY), key=capacity)


@pytest.mark.parametrize("first", ["tpe", "surrogate"])
def test_another_sampler_goes_on_with_the_study(study, first):
    samplers = {
        "tpe": TPESampler(seed=0),
        "surrogate": SurrogateSampler(PRIOR, PRIOR.rank(), seed=0),  # type: ignore[arg-type]
    }
    runner = Landscape(capacity)
    run(study, samplers.pop(first), trials=8, runner=runner)
    run(study, samplers.popitem()[1], trials=16, runner=runner)
    run(study, NSGAIISampler(seed=0), trials=20, runner=runner)
    assert len(finished_trials(study)) == len(set(runner.served)) == 20


def test_only_the_surrogate_knows_when_its_space_is_exhausted():
    assert isinstance(SurrogateSampler(PRIOR, PRIOR.rank(), seed=0), Foresight)  # type: ignore[arg-type]
    assert not isinstance(TPESampler(), Foresight)


# What was tried already


def test_what_was_tried_already_is_not_served_again_and_ends_the_search_when_nothing_else_comes(study):
    runner, log = Landscape(capacity), Log()
    search = run(study, Stubborn(), trials=1000, runner=runner, log=log)
    assert len(search.trials()) == len(runner.served) == len(EVERY)
    assert len(study.trials) == len(EVERY) + SAME_PROPOSALS
    assert log.logged == list(range(len(EVERY)))


def test_a_repeat_ends_for_optuna_as_the_first_one_did(study):
    def sometimes(config):
        if config.layout.tensor == 8:
            raise RunFailedError("died", "exit 1")
        return capacity(config)

    run(study, RandomSampler(seed=0), trials=1000, runner=Landscape(sometimes))
    repeats = [trial for trial in study.trials if REPEATS in trial.user_attrs]
    assert len(repeats) >= SAME_PROPOSALS
    assert {trial.state for trial in repeats} == {TrialState.COMPLETE, TrialState.FAIL}
    for trial in repeats:
        first = study.trials[trial.user_attrs[REPEATS]]
        assert (trial.params, trial.state, trial.value) == (first.params, first.state, first.value)
        assert trial.constraints == first.constraints
        assert RECORD not in trial.user_attrs
        assert trial.user_attrs.get("tpot_ms_p99") == first.user_attrs.get("tpot_ms_p99")


def test_repeats_are_no_trials_of_ours_when_the_search_goes_on(study):
    run(study, Stubborn(), trials=1000)
    again = run(study, SurrogateSampler(PRIOR, PRIOR.rank(), seed=0), trials=1000)  # type: ignore[arg-type]
    assert again.tried == 0
    assert len(again.trials()) == len(EVERY)


def test_what_is_enqueued_is_served_again(study):
    """Whoever enqueues a configuration asks for a repeat of its measurement."""
    run(study, TPESampler(seed=0), trials=3)
    study.enqueue_trial(study.trials[0].params)
    runner = Landscape(capacity)
    run(study, TPESampler(seed=1), trials=4, runner=runner)
    assert runner.served == [finished_trials(study)[0].config]


def test_a_sampler_without_foresight_ends_at_the_budget_whatever_a_trial_is_to_save(study):
    assert len(run(study, TPESampler(seed=0), budget=Budget(trials=6, monthly_tokens=1.0)).trials()) == 6
