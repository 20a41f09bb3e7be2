"""SearchSpace: every configuration that it makes, by law."""

import math
import random
from collections import Counter
from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.hardware.system import systems
from search_spaces.knobs import KNOBS, PREFILL
from search_spaces.models.model import Draft, models
from search_spaces.space import SearchSpace, full_space

optuna.logging.set_verbosity(optuna.logging.ERROR)

ENGINES = tuple(find_engine(name) for name in ("trtllm", "vllm", "sglang"))


def space_of(model: str = "gpt-oss-120b", system: str = "b200", gpus: int = 8) -> SearchSpace:
    return full_space(models()[model], systems()[system], ENGINES, gpus)


SPACES = st.builds(space_of, st.sampled_from(sorted(models())), st.sampled_from(sorted(systems())), st.integers(1, 72))


@st.composite
def spaces_and_params(draw):
    """A space and parameters out of it, those of prefill workers only when there are some."""
    space = draw(SPACES)
    params = {}
    for name in space.dimensions:
        if choices := space.choices(name, params):
            params[name] = draw(st.sampled_from(choices))
    return space, params


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
        study.enqueue_trial(space.nearest(study.ask(space.distributions()).params))
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
    space = space_of("deepseek-r1")
    assert set(space.dimensions["speculation.method"]) == {"none", *models()["deepseek-r1"].drafts}


def test_a_draft_is_as_long_as_its_method_was_measured_and_none_has_no_length():
    space = space_of()
    for method, draft in models()["gpt-oss-120b"].drafts.items():
        lengths = space.choices("speculation.draft_length", {"speculation.method": method})
        assert lengths == tuple(range(1, min(len(draft.tokens_per_step), 8) + 1))
    assert space.choices("speculation.draft_length", {"speculation.method": "none"}) == ()


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
    with pytest.raises(UnknownNameError, match=r"unknown setting 'layout\.tensr'; valid: layout\.tensor, "):
        space_of().restricted({"layout.tensr": (1,)})


def test_a_value_outside_its_dimension_is_refused_with_the_valid_ones():
    with pytest.raises(UnknownNameError, match=r"unknown value of layout\.tensor '3'; valid: 2, 4, 1, 8$"):
        space_of().restricted({"layout.tensor": (3,)})


def test_a_number_written_as_text_is_not_that_number():
    with pytest.raises(InputError, match="must be a whole number, but got '4'"):
        space_of().restricted({"layout.tensor": ("4",)})


def test_a_dimension_without_values_is_refused():
    with pytest.raises(InputError, match="must list at least one value"):
        space_of().restricted({"layout.tensor": ()})


@pytest.mark.parametrize(
    ("name", "values", "law"),
    [
        ("layout.tensor", (True,), "must be a whole number, but got True"),
        ("layout.tensor", (2.0,), r"must be a whole number, but got 2\.0"),
        ("layout.tensor", (0,), r"`layout\.tensor >= 1` must hold, but got 0"),
        ("layout.tensor", (1, 1), "must list each value once, but got 1 2 times"),
        ("batching.max_sequences", (0,), r"`batching\.max_sequences >= 1` must hold, but got 0"),
        ("batching.max_sequences", (-5,), r"`batching\.max_sequences >= 1` must hold, but got -5"),
        ("batching.max_sequences", (10**30,), r"`batching\.max_sequences <= 16777216` must hold, but got 1000"),
        ("speculation.draft_length", (0,), r"unknown value of speculation\.draft_length '0'; valid: 1, 2, "),
        ("speculation", ("eagle3:2",), r"speculation is called speculation\.method now, with the length apart"),
        ("prefill.workers", (2,), r"prefill\.workers is called prefill\.replicas now"),
        ("engine.version", ("1",), r"engine\.version is not searched here: the release stands with the engine"),
        ("layout.replicas", (2,), r"layout\.replicas is not searched here: there are as many workers as fill the GPUs"),
        ("variant", ("a",), "variant is not searched here: there is nothing to choose from"),
    ],
)
def test_what_cannot_be_listed_is_refused_with_the_law_and_what_was_found(name, values, law):
    with pytest.raises(InputError, match=law):
        space_of().restricted({name: values})


def test_any_integer_may_be_listed_for_a_batch_limit():
    limits = {"batching.max_sequences": (300, 7), "prefill.max_batched_tokens": (5000,), "prefill.max_sequences": (3,)}
    space = space_of().restricted(limits)
    assert space.dimensions["batching.max_sequences"] == (7, 300)
    assert space.dimensions["prefill.max_batched_tokens"] == (5000,)
    params = {name: values[0] for name, values in space.dimensions.items()} | {"mode": "disaggregated"}
    prefill = space.config(params).disaggregation.prefill_batching
    assert (prefill.max_sequences, prefill.max_batched_tokens) == (3, 5000)


def test_a_knob_without_a_grid_is_searched_where_values_are_listed():
    assert "batching.receive_interval" not in space_of().dimensions
    space = space_of().restricted({"batching.receive_interval": (4, 1)})
    assert space.dimensions["batching.receive_interval"] == (1, 4)
    params = space.nearest({name: values[0] for name, values in space.dimensions.items()})
    params["batching.receive_interval"] = 4
    assert space.config(params).batching.receive_interval == 4


def test_listed_draft_lengths_hold_with_speculation_only():
    space = space_of().restricted({"speculation.draft_length": (1, 2)})
    assert "none" in space.dimensions["speculation.method"]
    assert space.choices("speculation.draft_length", {"speculation.method": "eagle3"}) == (1, 2)


def with_drafts(**lengths):
    model = models()["gpt-oss-120b"]
    drafts = {
        name: Draft(parameters=0, tokens_per_step=(1.5,) * length, source="made up") for name, length in lengths.items()
    }
    return full_space(replace(model, drafts=drafts), systems()["b200"], ENGINES, 8)


def test_a_method_that_no_listed_length_was_measured_for_is_not_drawn():
    space = with_drafts(mtp=1, eagle3=3)
    assert space.dimensions["speculation.draft_length"] == (1, 2, 3)
    longer = space.restricted({"speculation.draft_length": (2, 3)})
    assert longer.dimensions["speculation.method"] == ("none", "eagle3")


def test_lengths_that_none_of_the_listed_methods_was_measured_for_are_refused():
    only = with_drafts(mtp=1, eagle3=3).restricted({"speculation.method": ("none", "mtp")})
    with pytest.raises(InputError, match="no draft length 2, 3 was measured, but mtp at 1"):
        only.restricted({"speculation.draft_length": (2, 3)})


def test_without_speculation_a_draft_length_is_not_drawn():
    space = space_of().restricted({"speculation.method": ("none",)})
    params = {name: values[0] for name, values in space.dimensions.items()}
    assert "speculation.draft_length" not in space.nearest(params)


@pytest.mark.parametrize(
    ("runner", "name", "reason"),
    [
        ("simulated", "variant", "runner: simulated cannot price it; it is searched with runner: served"),
        (
            "estimated",
            "prefill.tensor",
            "runner: estimated cannot price it; it is searched with runner: simulated, served",
        ),
    ],
)
def test_what_a_runner_cannot_price_is_no_dimension_and_said_to_be_none(runner, name, reason):
    space = full_space(models()["gpt-oss-120b"], systems()["b200"], ENGINES, 8, runner=runner, variants=("a", "b"))
    assert name not in space.dimensions
    with pytest.raises(InputError, match=f"{name} is not searched here: {reason}"):
        space.restricted({name: (KNOBS[name].least if KNOBS[name].is_number else "a",)})


def test_a_real_runner_searches_variants():
    space = full_space(models()["gpt-oss-120b"], systems()["b200"], ENGINES, 8, runner="served", variants=("a", "b"))
    assert space.dimensions["variant"] == ("a", "b")


# Drawing with any sampler


@settings(deadline=None)
@given(spaces_and_params())
def test_lawful_parameters_are_nearest_to_themselves(drawn):
    space, params = drawn
    assert space.nearest(params) == params == space.drawn(params)


@settings(deadline=None)
@given(SPACES, st.data())
def test_numbers_between_values_are_put_on_the_nearest_and_what_is_not_drawn_is_left_out(space, data):
    distributions = space.distributions()
    params = {
        name: data.draw(st.integers(one.low, one.high) if KNOBS[name].is_number else st.sampled_from(one.choices))
        for name, one in distributions.items()
    }
    nearest = space.nearest(params)
    found = {}
    for name in space.dimensions:
        choices = space.choices(name, found)
        assert (name in nearest) == bool(choices)
        if choices:
            assert nearest[name] in choices
            found[name] = nearest[name]


def test_numbers_are_drawn_in_order_and_sizes_on_a_logarithmic_scale():
    distributions = space_of().distributions()
    assert distributions["layout.tensor"] == optuna.distributions.IntDistribution(1, 8, log=True)
    assert distributions["speculation.draft_length"] == optuna.distributions.IntDistribution(1, 5)
    assert distributions["mode"] == optuna.distributions.CategoricalDistribution(("aggregated", "disaggregated"))


def test_a_number_off_its_grid_is_infeasible():
    space = space_of()
    params = {name: values[0] for name, values in space.dimensions.items()}
    with pytest.raises(InfeasibleError, match=r"layout\.tensor 3 is none of 1, 2, 4, 8") as caught:
        space.draw(optuna.trial.FixedTrial(params | {"layout.tensor": 3}))
    assert caught.value.cause == "grid"


# What there is to choose


def test_every_combination_is_lawful_and_none_comes_twice():
    space = space_of(gpus=2)
    names = [name for name in space.dimensions if not name.startswith(("prefill.", "batching."))]
    found = list(space.combinations(names))
    assert len({frozenset(params.items()) for params in found}) == len(found)
    assert all(space.drawn(params) == params for params in found)
    drafts = 1 + sum(map(len, space.draft_lengths.values()))
    others = [len(space.dimensions[name]) for name in names if not name.startswith("speculation")]
    assert len(found) == drafts * math.prod(others)


def test_at_random_each_way_of_drafting_is_as_likely_as_not_to_draft():
    space = full_space(models()["gpt-oss-120b"], systems()["b200"], ENGINES[:1], 8)
    rng = random.Random(0)
    drawn = [space.at_random(rng, {"layout.tensor": 2, "layout.pipeline": 3}) for _ in range(2200)]
    assert all(params == space.drawn(params) for params in drawn)
    assert {params["layout.tensor"] for params in drawn} == {2}
    assert {params["layout.pipeline"] for params in drawn} == {*space.dimensions["layout.pipeline"]}
    ways = Counter((params["speculation.method"], params.get("speculation.draft_length")) for params in drawn)
    assert len(ways) == 1 + sum(map(len, space.draft_lengths.values()))
    assert max(ways.values()) < 1.5 * min(ways.values())


def test_neighbours_are_one_step_away_and_another_method_comes_with_each_of_its_lengths():
    space = space_of()
    here = next(space.combinations([name for name in space.dimensions if not name.startswith("prefill.")]))
    found = list(space.neighbours(here | {"layout.tensor": 2}))
    assert [params["layout.tensor"] for params in found if params["layout.tensor"] != 2] == [1, 4]
    drafting = [(p["speculation.method"], p["speculation.draft_length"]) for p in found if len(p) > len(here)]
    assert drafting == [(method, length) for method, lengths in space.draft_lengths.items() for length in lengths]


def test_limits_of_which_no_pass_holds_the_fewest_sequences_are_refused():
    few = space_of().restricted({"batching.max_batched_tokens": (200, 100)})
    with pytest.raises(InputError, match="must hold for some, but got 300 at least and 200 at most"):
        few.restricted({"batching.max_sequences": (300, 400)})
    assert few.restricted({"batching.max_sequences": (200, 400)})
