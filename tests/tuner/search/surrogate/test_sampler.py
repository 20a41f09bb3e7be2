"""The sampler: what it proposes next, from a ranking, from what was tried, and never the same twice."""

import random
from dataclasses import dataclass

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model
from search_spaces.space import SearchSpace, full_space
from tuner.scenario.sla import Sla, Slo
from tuner.search.ranking import Candidate, Ranking
from tuner.search.surrogate.sampler import SurrogateSampler, best_of
from tuner.search.trial import RECORD

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = full_space(find_model("gpt-oss-120b"), find_system("b200"), (find_engine("trtllm"),), 8).restricted(
    {
        "layout.tensor": (1, 2, 4, 8),
        "layout.pipeline": (1,),
        "layout.attention_dp": (1,),
        "layout.expert": (1,),
        "precision.weights": ("mxfp4_mxfp8",),
        "precision.kv_cache": ("fp8", "bf16"),
        "speculation.method": ("none", "eagle3"),
        "speculation.draft_length": (1,),
        "batching.max_sequences": (64, 128, 256),
        "batching.max_batched_tokens": (8192,),
        "prefill.tensor": (1, 2),
        "prefill.attention_dp": (1,),
        "prefill.expert": (1,),
        "prefill.max_batched_tokens": (8192,),
        "prefill.replicas": (1, 2, 3),
    }
)
FIRST = {name: values[0] for name, values in SPACE.dimensions.items()}
AGGREGATED = SPACE.drawn(FIRST)
DISAGGREGATED = SPACE.drawn(FIRST | {"mode": "disaggregated"})


SLA = Sla(slos=(Slo(metric="tpot", statistic="p99", limit_s=0.02),))


@dataclass
class AScenario:
    space: SearchSpace = SPACE
    sla: Sla = SLA


class Predicts:
    """A prior that predicts the `cost` of parameters; None is infeasible."""

    def __init__(self, cost) -> None:
        self.cost = cost
        self.scenario = AScenario()

    def predict(self, params) -> Candidate:
        SPACE.config(params)
        objective = self.cost(params)
        if objective is None:
            raise InfeasibleError("surrogate", "it cannot be")
        return Candidate(params=params, objective=objective, excess=0.0)


def numbers(params) -> float:
    return sum(value for value in params.values() if isinstance(value, int))


def ranking_of(*params) -> Ranking:
    candidates = (Candidate(params=one, objective=4.0**rank, excess=0.0) for rank, one in enumerate(params))
    return Ranking(candidates=tuple(candidates), excluded={})


def study_with(sampler: SurrogateSampler) -> optuna.Study:
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
    study = study_with(SurrogateSampler(Predicts(numbers), ranking_of(*ranked), seed=0))
    assert [take_turn(study) for _ in ranked] == ranked


def test_where_predictions_are_exact_the_first_proposal_is_the_best_of_all():
    """The predicted best stays the best whatever order the ranking has."""
    ranked = [AGGREGATED | {"layout.tensor": size} for size in (4, 1, 8, 2)]
    costs = {4: 3.0, 1: 4.0, 8: 1.0, 2: 2.0}
    candidates = tuple(Candidate(params=one, objective=costs[one["layout.tensor"]], excess=0.0) for one in ranked)
    predicts = Predicts(lambda params: costs[params["layout.tensor"]])
    study = study_with(SurrogateSampler(predicts, Ranking(candidates=candidates, excluded={}), seed=0))
    tried = [take_turn(study, lambda params: costs[params["layout.tensor"]]) for _ in ranked]
    assert tried[0]["layout.tensor"] == 8


def test_a_neighbour_that_is_predicted_better_than_the_whole_ranking_is_proposed():
    study = study_with(
        SurrogateSampler(Predicts(lambda params: 1000 / numbers(params)), ranking_of(AGGREGATED), seed=0)
    )
    assert take_turn(study)["batching.max_sequences"] > AGGREGATED["batching.max_sequences"]


def test_what_one_measurement_shows_of_its_kind_is_expected_of_its_kind():
    """FP8 is predicted a little cheaper, and measured three times as dear: BF16 is next, at every size."""
    kinds = [
        AGGREGATED | {"layout.tensor": size, "precision.kv_cache": kv} for kv in ("fp8", "bf16") for size in (1, 2)
    ]

    def predicted(params) -> float:
        return 1.0 if params["precision.kv_cache"] == "fp8" else 1.05

    candidates = tuple(Candidate(params=one, objective=predicted(one), excess=0.0) for one in kinds)
    study = study_with(SurrogateSampler(Predicts(predicted), Ranking(candidates=candidates, excluded={}), seed=0))
    assert take_turn(study, 3.0)["precision.kv_cache"] == "fp8"
    assert take_turn(study, 1.0)["precision.kv_cache"] == "bf16"


def test_a_configuration_predicted_to_miss_the_sla_comes_after_one_that_meets_it():
    meets, misses = AGGREGATED, AGGREGATED | {"layout.tensor": 8}
    candidates = (
        Candidate(params=misses, objective=0.5, excess=2.0, binding="tpot_ms_p99"),
        Candidate(params=meets, objective=1.0, excess=0.0),
    )
    sampler = SurrogateSampler(Predicts(lambda _params: None), Ranking(candidates=candidates, excluded={}), seed=0)
    assert sampler.propose([]) == meets


def test_without_predictions_the_first_proposal_is_the_first_of_the_ranking():
    ranked = [AGGREGATED | {"layout.tensor": size} for size in (4, 1, 8, 2)]
    candidates = tuple(Candidate(params=one, objective=None) for one in ranked)
    sampler = SurrogateSampler(Predicts(lambda _params: None), Ranking(candidates=candidates, excluded={}), seed=0)
    assert sampler.propose([]) == ranked[0]


def test_without_predictions_it_finds_the_best_in_fewer_turns_than_there_are_configurations():
    choices = [
        AGGREGATED | {"layout.tensor": size, "precision.kv_cache": kv, "batching.max_sequences": seats}
        for size in (1, 2, 4, 8)
        for kv in ("fp8", "bf16")
        for seats in (64, 128, 256)
    ]

    def cost(params) -> float:
        return (1 + params["layout.tensor"]) * (1.3 if params["precision.kv_cache"] == "bf16" else 1.0) + 50 / params[
            "batching.max_sequences"
        ]

    random.Random(1).shuffle(choices)
    candidates = tuple(Candidate(params=one, objective=None) for one in choices)
    study = study_with(
        SurrogateSampler(Predicts(lambda _params: None), Ranking(candidates=candidates, excluded={}), seed=0)
    )
    tried = [take_turn(study, cost) for _ in range(12)]
    assert min(map(cost, tried)) == min(map(cost, choices))


def test_a_neighbour_that_cannot_be_is_not_proposed():
    sampler = SurrogateSampler(Predicts(lambda _params: None), ranking_of(AGGREGATED), seed=0)
    study = study_with(sampler)
    take_turn(study)
    assert sampler.propose(study.trials) is None


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**16), disaggregated_first=st.booleans())
def test_nothing_is_proposed_twice(seed, disaggregated_first):
    def cost(params) -> float:
        return random.Random(f"{seed} {sorted(params.items())}").random() + 0.01

    first = DISAGGREGATED if disaggregated_first else AGGREGATED
    sampler = SurrogateSampler(Predicts(cost), ranking_of(first, AGGREGATED), seed=seed)
    study = study_with(sampler)
    tried = []
    while sampler.propose(study.get_trials(deepcopy=False)) is not None and len(tried) < 60:
        tried.append(take_turn(study, cost))
    assert len({frozenset(params.items()) for params in tried}) == len(tried)


def test_other_batch_limits_and_prefill_workers_follow_when_ranking_and_neighbours_are_used_up():
    study = study_with(SurrogateSampler(Predicts(numbers), ranking_of(AGGREGATED), seed=0))
    while study.sampler.propose(study.get_trials(deepcopy=False)) is not None:
        take_turn(study, lambda params: 1.0 if params == AGGREGATED else 2.0)
    tried = [trial.params for trial in study.trials]
    assert AGGREGATED | {"batching.max_sequences": 256} in tried
    assert len(tried) == len({frozenset(params.items()) for params in tried})


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**16), turns=st.integers(1, 14))
def test_a_sampler_rebuilt_from_the_study_proposes_the_same(seed, turns):
    def cost(params) -> float:
        return random.Random(f"{seed} {sorted(params.items())}").random() + 0.01

    def sampler() -> SurrogateSampler:
        return SurrogateSampler(Predicts(numbers), ranking_of(DISAGGREGATED, AGGREGATED), seed=0)

    study = study_with(sampler())
    for _ in range(turns):
        take_turn(study, cost)
    trials = study.get_trials(deepcopy=False)
    assert study.sampler.propose(trials) == sampler().propose(trials)


def test_a_ranking_of_another_experiment_is_refused():
    other = AGGREGATED | {"layout.tensor": 64}
    with pytest.raises(InputError, match=r"another experiment: it ranks layout\.tensor=64; valid here: 1, 2"):
        SurrogateSampler(Predicts(numbers), ranking_of(other), seed=0)


def test_what_was_interrupted_is_proposed_again():
    ranked = [AGGREGATED, AGGREGATED | {"layout.tensor": 2}]
    study = study_with(SurrogateSampler(Predicts(numbers), ranking_of(*ranked), seed=0))
    assert take_turn(study, record=False) == ranked[0]
    assert take_turn(study) == ranked[0]
    assert take_turn(study) == ranked[1]


def test_two_searches_of_the_same_seed_propose_the_same():
    def run():
        study = study_with(SurrogateSampler(Predicts(numbers), ranking_of(DISAGGREGATED, AGGREGATED), seed=3))
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
def test_the_best_meets_every_slo_and_is_the_cheapest_of_those(trials, best):
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
