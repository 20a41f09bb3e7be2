"""SearchSpace: every configuration that it makes, by law."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.hardware.system import systems
from search_spaces.models.model import models
from search_spaces.space import PREFILL, SearchSpace, full_space

optuna.logging.set_verbosity(optuna.logging.ERROR)

ENGINES = tuple(find_engine(name) for name in ("trtllm", "vllm", "sglang"))


def space_of(model: str = "gpt-oss-120b", system: str = "b200", gpus: int = 8) -> SearchSpace:
    return full_space(models()[model], systems()[system], ENGINES, gpus)


SPACES = st.builds(space_of, st.sampled_from(sorted(models())), st.sampled_from(sorted(systems())), st.integers(1, 72))


@st.composite
def spaces_and_params(draw):
    """A space and parameters out of it, those of prefill workers only when there are some."""
    space = draw(SPACES)
    params = {name: draw(st.sampled_from(values)) for name, values in space.dimensions.items()}
    return space, space.drawn(params)


def made(space: SearchSpace, params):
    """The configuration, or None where the parts make none."""
    try:
        return space.config(params)
    except InfeasibleError:
        return None


@settings(deadline=None)
@given(spaces_and_params())
def test_a_configuration_is_the_same_after_its_parameters_and_back(drawn):
    space, params = drawn
    if (config := made(space, params)) is not None:
        assert space.params(config) == params
        assert space.config(space.params(config)) == config


@settings(deadline=None)
@given(spaces_and_params())
def test_no_configuration_has_more_gpus_than_there_are(drawn):
    space, params = drawn
    if (config := made(space, params)) is not None:
        assert config.gpus <= space.gpus
        assert config.gpus + config.layout.gpus_per_worker > space.gpus, "one more worker would fit"


@settings(deadline=None)
@given(spaces_and_params())
def test_a_pass_of_every_pool_has_room_for_each_sequence_and_its_drafts(drawn):
    space, params = drawn
    config = made(space, params)
    if config is not None and config.disaggregation is not None:
        batching = config.disaggregation.prefill_batching
        queries = config.speculation.draft_length + 1
        assert batching.max_sequences * queries <= batching.max_batched_tokens


@settings(deadline=None)
@given(spaces_and_params())
def test_a_trial_with_these_parameters_draws_the_same_configuration(drawn):
    space, params = drawn
    if (config := made(space, params)) is not None:
        assert space.draw(optuna.trial.FixedTrial(params)) == config


def test_a_random_trial_draws_what_its_parameters_say():
    space = space_of()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    modes = set()
    for _ in range(60):
        trial = study.ask()
        try:
            config = space.draw(trial)
        except InfeasibleError:
            continue
        modes.add(config.mode)
        assert trial.params == space.params(config)
    assert modes == {"aggregated", "disaggregated"}


def test_the_prefill_workers_of_an_aggregated_trial_are_not_drawn():
    space = space_of().restricted({"mode": ("aggregated",)})
    trial = optuna.trial.FixedTrial({name: values[0] for name, values in space.dimensions.items()})
    space.draw(trial)
    assert not [name for name in trial.params if name.startswith(PREFILL)]


def test_workers_that_the_gpus_do_not_hold_are_infeasible_with_both_numbers():
    space = space_of(gpus=8)
    params = {name: values[0] for name, values in space.dimensions.items()}
    too_many = params | {"mode": "disaggregated", "prefill.tensor": 4, "layout.tensor": 8}
    with pytest.raises(InfeasibleError, match="the workers need 12 GPUs, 8 are there") as caught:
        space.config(too_many)
    assert caught.value.cause == "GPUs"


@settings(deadline=None)
@given(SPACES)
def test_every_dimension_has_values_and_none_twice(space):
    for name, values in space.dimensions.items():
        assert values, name
        assert len(set(values)) == len(values), name


def test_one_gpu_is_not_disaggregated():
    assert space_of(gpus=1).dimensions["mode"] == ("aggregated",)


def test_only_drafts_that_exist_for_the_model_are_drawn():
    drafts = {str(value).partition(":")[0] for value in space_of("deepseek-r1").dimensions["speculation"]}
    assert drafts == {"none", *models()["deepseek-r1"].drafts}


def test_a_worker_is_not_larger_than_its_nvlink_domain():
    assert max(space_of("deepseek-r1", "b200", 72).dimensions["layout.expert"]) == 8
    assert max(space_of("deepseek-r1", "gb200-nvl72", 72).dimensions["layout.expert"]) == 64


# Restrictions


def test_a_restriction_keeps_the_order_of_the_space():
    space = space_of().restricted({"layout.tensor": (4, 1)})
    assert space.dimensions["layout.tensor"] == (1, 4)


def test_a_restriction_leaves_the_space_that_it_came_from():
    space = space_of()
    before = dict(space.dimensions)
    space.restricted({"layout.tensor": (1,)})
    assert space.dimensions == before


def test_restricting_to_everything_changes_nothing():
    space = space_of()
    assert space.restricted(space.dimensions).dimensions == space.dimensions


def test_an_unknown_dimension_is_refused_with_the_nearest_first():
    with pytest.raises(UnknownNameError, match=r"unknown dimension 'layout\.tensr'; valid: layout\.tensor, "):
        space_of().restricted({"layout.tensr": (1,)})


def test_a_value_outside_its_dimension_is_refused_with_the_valid_ones():
    with pytest.raises(UnknownNameError, match=r"unknown value of layout\.tensor '3'; valid: .*1"):
        space_of().restricted({"layout.tensor": (3,)})


def test_a_number_written_as_text_is_not_that_number():
    with pytest.raises(UnknownNameError, match=r"unknown value of layout\.tensor '4'"):
        space_of().restricted({"layout.tensor": ("4",)})


def test_a_dimension_without_values_is_refused():
    with pytest.raises(InputError, match=r"layout\.tensor needs at least one value"):
        space_of().restricted({"layout.tensor": ()})
