"""A space that is a list of configurations."""

import optuna
import pytest

from search_spaces.config import Disaggregation, Engine, Layout, Precision, ServingConfig
from search_spaces.enumerated import enumerated, listed_params
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError

TRTLLM = Engine(name="trtllm", version="1.3.0rc20")
SMALL = ServingConfig(engine=TRTLLM)
WIDE = ServingConfig(engine=TRTLLM, layout=Layout(tensor=8), precision=Precision(weights="nvfp4"))
SPLIT = ServingConfig(
    engine=TRTLLM,
    layout=Layout(tensor=8, replicas=3),
    disaggregation=Disaggregation(prefill_layout=Layout(tensor=4, replicas=2)),
)


@pytest.fixture
def space():
    return enumerated([WIDE, SPLIT, SMALL], engines=(TRTLLM,), gpus=64)


@pytest.mark.parametrize("config", [SMALL, WIDE, SPLIT])
def test_a_listed_configuration_comes_back_from_its_parameters(space, config):
    assert space.config(space.params(config)) == config
    assert space.lists(config)


def test_an_optuna_trial_draws_a_listed_configuration_workers_included(space):
    trial = optuna.trial.FixedTrial(listed_params(SPLIT))
    assert space.draw(trial) == SPLIT
    assert trial.params["prefill.replicas"] == 2
    assert trial.params["layout.replicas"] == 3


def test_a_combination_that_is_not_in_the_list_is_infeasible(space):
    with pytest.raises(InfeasibleError, match="not in the list"):
        space.config({**listed_params(SMALL), "layout.tensor": 8})


def test_the_dimensions_hold_what_the_list_takes_and_prefill_comes_after_the_mode(space):
    assert space.dimensions["layout.tensor"] == (1, 8)
    assert space.dimensions["precision.weights"] == ("bf16", "nvfp4")
    names = list(space.dimensions)
    assert names.index("mode") < names.index("prefill.tensor")
    assert not [name for name in names if name.startswith("batching")]


def test_a_restriction_leaves_what_has_the_value(space):
    assert set(space.restricted({"layout.tensor": (8,)}).configs.values()) == {WIDE, SPLIT}
    assert set(space.restricted({"mode": ("aggregated",)}).configs.values()) == {SMALL, WIDE}


def test_a_restriction_of_the_prefill_workers_leaves_aggregated_ones_alone(space):
    assert set(space.restricted({"prefill.tensor": (4,)}).configs.values()) == {SMALL, WIDE, SPLIT}


def test_restrictions_that_cannot_be_are_refused(space):
    with pytest.raises(UnknownNameError, match="batching"):
        space.restricted({"batching.max_sequences": (8,)})
    with pytest.raises(UnknownNameError, match=r"unknown value of layout.tensor '2'"):
        space.restricted({"layout.tensor": (2,)})
    with pytest.raises(InputError, match="none of the 3 configurations"):
        space.restricted({"layout.tensor": (1,), "precision.weights": ("nvfp4",)})
