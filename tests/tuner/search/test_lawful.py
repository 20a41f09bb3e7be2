"""Lawful: what any sampler proposes is on the grid, legal and new, and Optuna stores what was served."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from search_spaces.engines.engine import find_engine
from search_spaces.enumerated import enumerated
from search_spaces.errors import InfeasibleError
from search_spaces.space import full_space
from tests.tuner.search.landscape import MODEL, SYSTEM, Predictions, a_scenario, a_space, every_params
from tuner.search.lawful import Lawful
from tuner.search.trial import RECORD

SPACE = full_space(MODEL, SYSTEM, (find_engine("trtllm"), find_engine("vllm")), 8)
SAMPLERS = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=3),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=4),
}


def cost(config) -> float:
    return config.layout.gpus_per_worker + 100 / config.batching.max_sequences


class Says(BaseSampler):
    """Proposes the same values again and again, those of IntDistributions wherever they lie."""

    def __init__(self, **values) -> None:
        self.values = {name.replace("_", ".", 1): value for name, value in values.items()}

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        if param_name in self.values:
            return self.values[param_name]
        return getattr(param_distribution, "low", None) or param_distribution.choices[0]


class Knows(Predictions):
    """A prior that knows what is possible."""

    def predict(self, params):
        self.scenario.check(self.scenario.space.config(params))
        return super().predict(params)


def lawful(sampler: BaseSampler, space=SPACE, impossible=()) -> optuna.Study:
    prior = Knows(a_scenario(space, impossible=tuple(impossible)), cost)
    return optuna.create_study(sampler=Lawful(sampler, prior))  # type: ignore[arg-type]


def take_turn(study: optuna.Study, space=SPACE):
    trial = study.ask()
    config = space.draw(trial)
    trial.set_user_attr(RECORD, "measured")
    study.tell(trial, cost(config))
    return config, trial.params


@pytest.mark.parametrize("name", SAMPLERS)
def test_all_that_a_sampler_proposes_is_legal_and_new(name):
    study = lawful(SAMPLERS[name](0))
    tried = [take_turn(study) for _ in range(40)]
    assert len({config for config, _ in tried}) == 40
    assert {config.mode for config, _ in tried} == {"aggregated", "disaggregated"}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), name=st.sampled_from(sorted(SAMPLERS)))
def test_parameters_and_configuration_never_differ(seed, name):
    study = lawful(SAMPLERS[name](seed))
    for _ in range(8):
        config, params = take_turn(study)
        assert SPACE.params(config) == params
        assert all(value in SPACE.dimensions[at] for at, value in params.items())


@pytest.mark.parametrize(("proposed", "nearest"), [(1, 64), (90, 64), (91, 128), (200, 256), (4096, 256)])
def test_a_number_between_values_moves_to_the_nearest_on_its_scale(proposed, nearest):
    """Half way between 64 and 128 on a logarithmic scale is 90.5."""
    space = a_space(batching_max_sequences=(64, 128, 256))
    study = lawful(Says(batching_max_sequences=proposed), space)
    assert take_turn(study, space)[1]["batching.max_sequences"] == nearest


def test_what_is_impossible_is_changed_in_as_few_dimensions_as_can_be():
    space = a_space(layout_tensor=(1, 2, 4, 8), batching_max_sequences=(64, 128, 256))
    wish = every_params(space)[0]
    study = lawful(Says(), space, impossible=[space.config(wish)])
    _, params = take_turn(study, space)
    assert len(wish.items() - params.items()) == 1


def test_a_sampler_that_repeats_itself_tries_all_there_is():
    space = a_space(layout_tensor=(1, 2), batching_max_sequences=(64, 128))
    study = lawful(Says(), space)
    tried = {take_turn(study, space)[0] for _ in range(8)}
    assert len(tried) == 8
    assert take_turn(study, space)[0] in tried


def test_of_a_list_the_most_alike_stands_in():
    wide = a_space(layout_tensor=(1, 2, 4, 8))
    first = every_params(wide)[0]
    listed = [(8, "bf16"), (1, "fp8"), (2, "bf16")]
    configs = [wide.config(first | {"layout.tensor": size, "precision.kv_cache": kv}) for size, kv in listed]
    space = enumerated(configs, engines=(find_engine("trtllm"),), gpus=8)
    study = lawful(Says(layout_tensor=1, layout_replicas=8, precision_kv_cache="bf16"), space)
    tried = [take_turn(study, space)[0] for _ in range(3)]
    assert tried[0] == configs[1]
    assert {*tried} == {*configs}


def test_the_space_that_optuna_sees_has_its_numbers_in_order():
    found = lawful(RandomSampler()).sampler.infer_relative_search_space(None, None)  # type: ignore[arg-type]
    tensor = found["layout.tensor"]
    assert (tensor.low, tensor.high, tensor.log) == (1, 8, True)
    assert found["engine"].choices == ("trtllm", "vllm")


def test_a_search_that_goes_on_repairs_as_one_that_never_stopped():
    def run(turns):
        study = lawful(Says())
        for _ in range(turns):
            take_turn(study)
        study.sampler = lawful(Says()).sampler
        return [take_turn(study)[1] for _ in range(6 - turns)]

    assert run(0)[3:] == run(3)


def test_an_infeasible_proposal_stays_where_nothing_else_is_possible():
    space = a_space(layout_tensor=(1,), batching_max_sequences=(64,), precision_kv_cache=("fp8",))
    wish = every_params(space)[0]
    prior = Knows(a_scenario(space, impossible=(space.config(wish),)), cost)
    study = optuna.create_study(sampler=Lawful(Says(), prior))  # type: ignore[arg-type]
    config = space.draw(study.ask())
    with pytest.raises(InfeasibleError):
        prior.scenario.check(config)
