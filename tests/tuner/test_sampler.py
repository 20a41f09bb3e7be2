"""The sampler: what it proposes next, from a ranking, from what was tried, and never the same twice."""

import random
from dataclasses import dataclass

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.engine import find_engine
from search_spaces.errors import InfeasibleError
from search_spaces.hardware import find_system
from search_spaces.model import find_model
from search_spaces.space import PREFILL, SearchSpace, full_space
from tuner.prior import Candidate, Ranking
from tuner.sampler import OPENING, RECORD, RankedSampler, best_of

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = full_space(find_model("gpt-oss-120b"), find_system("b200"), (find_engine("trtllm"),), 8).restricted(
    {
        "layout.tensor": (1, 2, 4, 8),
        "layout.pipeline": (1,),
        "layout.attention_dp": (1,),
        "layout.expert": (1,),
        "precision.weights": ("mxfp4_mxfp8",),
        "precision.kv_cache": ("fp8", "bf16"),
        "speculation": ("none", "eagle3:1"),
        "batching.max_sequences": (64, 128, 256),
        "batching.max_batched_tokens": (8192,),
        "prefill.tensor": (1, 2),
        "prefill.attention_dp": (1,),
        "prefill.expert": (1,),
        "prefill.max_batched_tokens": (8192,),
        "prefill.workers": (1, 2, 3),
    }
)
AGGREGATED = {name: values[0] for name, values in SPACE.dimensions.items() if not name.startswith(PREFILL)}
DISAGGREGATED = {name: values[0] for name, values in SPACE.dimensions.items()} | {"mode": "disaggregated"}


@dataclass
class AScenario:
    space: SearchSpace = SPACE


class Believes:
    """A prior that believes in `cost` of parameters; None is infeasible."""

    def __init__(self, cost) -> None:
        self.cost = cost
        self.scenario = AScenario()

    def predict(self, params) -> Candidate:
        SPACE.config(params)
        objective = self.cost(params)
        if objective is None:
            raise InfeasibleError("belief", "it cannot be")
        return Candidate(params=params, objective=objective, excess=0.0)


def numbers(params) -> float:
    return sum(value for value in params.values() if isinstance(value, int))


def ranking_of(*params) -> Ranking:
    candidates = (Candidate(params=one, objective=float(place), excess=0.0) for place, one in enumerate(params))
    return Ranking(candidates=tuple(candidates), fell_out={})


def study_with(sampler: RankedSampler) -> optuna.Study:
    return optuna.create_study(sampler=sampler)


def take_turn(study: optuna.Study, value=1.0, *, excess: float = 0.0, record: bool = True):
    """Asks for a configuration and finishes it with `value`, a number or a function of its parameters."""
    trial = study.ask()
    try:
        SPACE.draw(trial)
    except InfeasibleError:
        trial.set_user_attr(RECORD, "infeasible")
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return trial.params
    trial.set_constraint("tpot_ms_p99", excess)
    if not record:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return trial.params
    trial.set_user_attr(RECORD, "measured")
    study.tell(trial, value(trial.params) if callable(value) else value)
    return trial.params


def test_it_follows_the_ranking_from_the_first():
    ranked = [AGGREGATED | {"layout.tensor": size} for size in (4, 1, 8, 2)]
    study = study_with(RankedSampler(Believes(numbers), ranking_of(*ranked), seed=0))
    assert [take_turn(study) for _ in ranked] == ranked


def test_after_the_opening_every_second_proposal_is_one_step_from_the_best():
    ranked = [
        AGGREGATED | {"layout.tensor": size, "precision.kv_cache": kv, "batching.max_sequences": seats}
        for size in (8, 4, 2)
        for kv in ("fp8", "bf16")
        for seats in (64, 256)
    ]
    study = study_with(RankedSampler(Believes(numbers), ranking_of(*ranked), seed=0))
    tried = [take_turn(study, value=lambda params: 1.0 if params == ranked[0] else 2.0) for _ in range(OPENING + 4)]
    assert tried[:OPENING] == ranked[:OPENING]
    for turn, params in enumerate(tried[OPENING:], start=OPENING):
        if turn % 2 == 0:
            assert one_step_apart(params, ranked[0])
        else:
            assert params in ranked


def one_step_apart(one, other) -> bool:
    changed = [name for name in one if one[name] != other.get(name)]
    if len(changed) != 1 or not isinstance(one[changed[0]], int):
        return len(changed) == 1
    places = [SPACE.dimensions[changed[0]].index(params[changed[0]]) for params in (one, other)]
    return abs(places[0] - places[1]) == 1


def test_the_neighbour_that_the_prior_likes_best_comes_first():
    sampler = RankedSampler(Believes(lambda params: -numbers(params)), ranking_of(AGGREGATED), seed=0)
    study = study_with(sampler)
    take_turn(study)
    assert sampler.propose(study.trials)["batching.max_sequences"] == 128


def test_a_neighbour_that_cannot_be_is_not_proposed():
    sampler = RankedSampler(Believes(lambda _params: None), ranking_of(AGGREGATED), seed=0)
    study = study_with(sampler)
    take_turn(study)
    assert sampler.propose(study.trials) is None


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), disaggregated_first=st.booleans())
def test_nothing_is_proposed_twice_and_it_ends_when_all_was_proposed(seed, disaggregated_first):
    def cost(params) -> float:
        return random.Random(f"{seed} {sorted(params.items())}").random()

    first = DISAGGREGATED if disaggregated_first else AGGREGATED
    sampler = RankedSampler(Believes(cost), ranking_of(first, AGGREGATED), seed=seed)
    study = study_with(sampler)
    tried = []
    while sampler.propose(study.get_trials(deepcopy=False)) is not None and len(tried) < 200:
        tried.append(take_turn(study, cost))
    assert len({frozenset(params.items()) for params in tried}) == len(tried) < 200


def test_other_batch_limits_and_prefill_workers_follow_when_ranking_and_neighbours_are_used_up():
    study = study_with(RankedSampler(Believes(numbers), ranking_of(AGGREGATED), seed=0))
    while study.sampler.propose(study.get_trials(deepcopy=False)) is not None:
        take_turn(study, lambda params: 1.0 if params == AGGREGATED else 2.0)
    assert AGGREGATED | {"batching.max_sequences": 256} in [trial.params for trial in study.trials]


def test_a_step_back_to_aggregated_leaves_the_prefill_workers_behind():
    sampler = RankedSampler(Believes(numbers), ranking_of(DISAGGREGATED), seed=0)
    study = study_with(sampler)
    take_turn(study)
    stepped = [params for params in sampler._neighbours(study.trials) if params["mode"] == "aggregated"]
    assert stepped == [AGGREGATED]


def test_what_was_interrupted_is_proposed_again():
    ranked = [AGGREGATED, AGGREGATED | {"layout.tensor": 2}]
    study = study_with(RankedSampler(Believes(numbers), ranking_of(*ranked), seed=0))
    assert take_turn(study, record=False) == ranked[0]
    assert take_turn(study) == ranked[0]
    assert take_turn(study) == ranked[1]


def test_two_searches_of_the_same_seed_propose_the_same():
    def run():
        study = study_with(RankedSampler(Believes(numbers), ranking_of(DISAGGREGATED, AGGREGATED), seed=3))
        return [take_turn(study, numbers) for _ in range(12)]

    assert run() == run()


# The best so far


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        (((1.0, 0.1), (5.0, 0.0)), 1),
        (((5.0, -0.1), (4.0, -0.1)), 1),
        (((1.0, 0.5, 0.0), (9.0, 0.1, 0.4)), 1),
        (((1.0, 0.2), (2.0, 0.2)), 0),
    ],
)
def test_the_best_keeps_every_promise_and_is_the_cheapest_of_those(trials, best):
    study = optuna.create_study()
    for value, *excess in trials:
        trial = study.ask()
        for number, one in enumerate(excess):
            trial.set_constraint(str(number), one)
        study.tell(trial, value)
    assert best_of(study.trials).number == best


def test_nothing_is_best_where_nothing_was_measured():
    study = optuna.create_study()
    study.tell(study.ask(), state=optuna.trial.TrialState.PRUNED)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.ask()
    assert best_of(study.trials) is None
