"""The prior: its ranking against brute force, on kernels that take time in straight lines."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest

from runners.simulated.silicon import StepKey
from runners.simulated.steady_state import SteadyState
from runners.simulated.step_time import Curve, StepTimes, Surface
from runners.workload.workload import Lengths, Workload
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InfeasibleError
from search_spaces.hardware.system import Price, System, find_system
from search_spaces.knobs import PREFILL
from search_spaces.models.model import Model, find_model
from search_spaces.space import full_space
from tuner.scenario.cost import dollars_per_million
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, Slo
from tuner.search.ranking import Candidate, Prior

MODEL, SYSTEM = find_model("gpt-oss-120b"), find_system("b200")
BATCHES = {"batching.max_sequences": (8, 64, 512, 1024), "batching.max_batched_tokens": (8192,)}
SMALL = {
    "layout.tensor": (1, 2, 4),
    "layout.pipeline": (1,),
    "layout.attention_dp": (1, 2),
    "layout.expert": (1, 2),
    "precision.weights": ("mxfp4_mxfp8",),
    "precision.kv_cache": ("fp8",),
    "speculation.method": ("none", "eagle3"),
    "speculation.draft_length": (3,),
    "prefill.tensor": (1, 2, 4),
    "prefill.attention_dp": (1,),
    "prefill.expert": (1,),
    "prefill.max_batched_tokens": (2048,),
    "prefill.replicas": (1, 2, 3, 4, 5, 6),
    **BATCHES,
}


def line(base: float, slope: float) -> Curve:
    return Curve((0, 1), (base, base + slope))


def flat_surface(base: float, slope_x: float, slope_y: float) -> Surface:
    """base + slope_x x + slope_y x y"""
    return Surface((0, 1), (line(base, 0), line(base + slope_x, slope_y)))


class LinearSilicon:
    """A GPU whose time grows in a straight line with tokens and contexts; `speed` GPUs' worth for each GPU added.

    The database has no kernels for the layouts in `missing`.
    """

    def __init__(self, model: Model = MODEL, system: System = SYSTEM, *, speed: float = 0.8, missing=()) -> None:
        self.model, self.system = model, system
        self.longest_context = 131072
        self.speed = speed
        self.missing = missing

    def step_times(self, key: StepKey) -> StepTimes:
        layout = key.layout
        if layout.tensor in self.missing:
            raise InfeasibleError("no kernel data", f"nothing for {layout}")
        pace = 1 / layout.gpus_per_worker**self.speed
        return StepTimes(
            prefill_shared=line(1e-3, 1e-5 * pace),
            decode_shared=line(2e-3 * pace, 2e-5 * pace),
            prefill_attention=flat_surface(0, 1e-8 * pace, 1e-8 * pace),
            decode_attention=flat_surface(0, 0, 1e-8 * pace),
            draft=line(2e-4, 1e-7),
            verify_intensity=0.1,
        )


def prior(
    *,
    tpot_ms: float = 20,
    ttft_ms: float = 1000,
    gpus: int = 8,
    shape="closed_loop",
    silicon: LinearSilicon | None = None,
    objective="usd_per_million_output_tokens",
    **changes,
) -> Prior:
    """Of a small space; `changes` are dimensions, `layout_tensor` for `layout.tensor`."""
    space = full_space(MODEL, SYSTEM, (find_engine("trtllm"),), gpus)
    restrictions = SMALL | {name.replace("_", ".", 1): values for name, values in changes.items()}
    there = {name: set(space.dimensions.get(name, ())) for name in restrictions}
    space = space.restricted(
        {name: kept for name, values in restrictions.items() if (kept := tuple(v for v in values if v in there[name]))}
    )
    slos = (
        Slo(metric="ttft", statistic="p99", limit_s=ttft_ms / 1000),
        Slo(metric="tpot", statistic="p99", limit_s=tpot_ms / 1000),
    )
    scenario = Scenario(
        name="small",
        model=MODEL,
        system=SYSTEM,
        gpus=gpus,
        workload=Workload(
            shape=shape, input_tokens=Lengths(low=1024, high=1024), output_tokens=Lengths(low=512, high=512)
        ),
        sla=Sla(slos=slos),
        price=Price(usd_per_gpu_hour=3.6, all_in_watts_per_gpu=2000),
        objective=objective,
        space=space,
    )
    return Prior(scenario, silicon or LinearSilicon())  # type: ignore[arg-type]


def every(one: Prior, *, without: tuple[str, ...] = ()):
    """All parameters of the space, those of prefill workers for the disaggregated only."""
    space = one.scenario.space
    return space.combinations([name for name in space.dimensions if not name.startswith(without)])


def predicted(one: Prior, params) -> Candidate | None:
    try:
        return one.predict(params)
    except InfeasibleError:
        return None


def best_by_brute_force(one: Prior) -> Candidate:
    found = [candidate for params in every(one) if (candidate := predicted(one, params))]
    return min(found, key=lambda candidate: candidate.rank)


SCENARIOS = {
    "an SLO with room": {},
    "an SLO that binds": {"tpot_ms": 4},
    "an SLO that nothing keeps": {"tpot_ms": 0.1},
    "a first token that binds": {"ttft_ms": 14},
    "two GPUs": {"gpus": 2},
    "total tokens": {"objective": "usd_per_million_total_tokens"},
    "no gain from more GPUs": {"silicon": LinearSilicon(speed=0.0)},
    "a gain beyond the GPUs": {"silicon": LinearSilicon(speed=1.2)},
}
EVERY_SCENARIO = pytest.mark.parametrize("scenario", SCENARIOS)


@EVERY_SCENARIO
def test_the_first_of_the_ranking_is_the_best_of_all_there_are(scenario):
    one = prior(**SCENARIOS[scenario])
    first, best = one.rank().candidates[0], best_by_brute_force(one)
    assert first.excess == pytest.approx(best.excess)
    assert first.objective == pytest.approx(best.objective, rel=0.02)


@EVERY_SCENARIO
def test_candidates_are_in_order_and_each_is_what_predict_says(scenario):
    one = prior(**SCENARIOS[scenario])
    candidates = one.rank().candidates
    assert list(candidates) == sorted(candidates, key=lambda candidate: candidate.rank)
    for candidate in candidates:
        again = one.predict(candidate.params)
        assert again.objective == pytest.approx(candidate.objective)
        assert (again.excess, again.binding) == (candidate.excess, candidate.binding)


@EVERY_SCENARIO
@pytest.mark.parametrize("shape", ["closed_loop", "poisson"])
def test_candidates_are_legal_and_each_is_there_once(scenario, shape):
    one = prior(shape=shape, **SCENARIOS[scenario])
    seen = set()
    for candidate in one.rank().candidates:
        one.scenario.check(one.scenario.space.config(candidate.params))
        for name, value in candidate.params.items():
            assert value in one.scenario.space.dimensions[name]
        seen.add(frozenset(candidate.params.items()))
    assert len(seen) == len(one.rank().candidates)


def test_answers_of_one_token_are_ranked_too():
    one = prior()
    single = replace(one.scenario.workload, output_tokens=Lengths(low=1, high=1))
    one.scenario = replace(one.scenario, workload=single)
    assert one.rank().candidates


@EVERY_SCENARIO
def test_every_combination_is_a_candidate_or_has_fallen_out(scenario):
    one = prior(**SCENARIOS[scenario])
    ranking = one.rank()
    assert ranking.combinations == len(list(every(one, without=("batching.", PREFILL))))
    assert all(count > 0 for count in ranking.excluded.values())


def test_aggregated_combinations_fall_out_for_the_reason_that_the_laws_give():
    one = prior(mode=("aggregated",), silicon=LinearSilicon(missing=(4,)))
    reasons = Counter()
    for params in every(one, without=("batching.",)):
        # Batch limits that break no law of their own.
        whole = params | {"batching.max_sequences": 8, "batching.max_batched_tokens": 8192}
        try:
            one.predict(whole)
        except InfeasibleError as error:
            reasons[error.cause] += 1
    assert one.rank().excluded == reasons
    assert set(reasons) == {"no kernel data", "divisibility", "engine"}


def test_disaggregated_deployments_speculate_too():
    candidates = prior(mode=("disaggregated",)).rank().candidates
    assert {candidate.params["speculation.method"] for candidate in candidates} == {"none", "eagle3"}


def gain_from_other_prefill_workers(one: Prior, candidate: Candidate) -> float:
    """How much cheaper the best other number of them is, 0.1 for 10 %."""
    counts = one.scenario.space.dimensions["prefill.replicas"]
    others = [predicted(one, candidate.params | {"prefill.replicas": count}) for count in counts]
    legal = [other.objective for other in others if other is not None and other.excess <= candidate.excess]
    return 1 - min(legal) / candidate.objective


# Rate matching fills the prefill workers to a fixed share of their time. Where the SLO on TTFT allows less, a worker
# more is better, and left for the search to find.
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "a first token that binds"])
def test_no_other_number_of_prefill_workers_is_better(scenario):
    one = prior(mode=("disaggregated",), **SCENARIOS[scenario])
    for candidate in one.rank().candidates:
        assert gain_from_other_prefill_workers(one, candidate) <= 0.01


def test_a_prefill_worker_that_fits_is_found_where_the_thriftiest_do_not():
    # Four kinds of 4 and 2 GPUs do more for each GPU, but beside a decode worker of 4 on 5 GPUs there is room for 1.
    one = prior(
        mode=("disaggregated",),
        gpus=5,
        layout_tensor=(4,),
        prefill_attention_dp=(1, 2, 4),
        silicon=LinearSilicon(speed=1.5),
    )
    candidates = one.rank().candidates
    assert candidates
    assert {candidate.params["prefill.tensor"] for candidate in candidates} == {1}


def test_prefill_workers_fill_the_gpus_that_a_decode_worker_leaves():
    """Where decoding binds, one prefill worker serves as many requests as four; all eight GPUs are paid for."""
    one = prior(mode=("disaggregated",), layout_tensor=(4,), prefill_tensor=(1,), tpot_ms=1.5)
    held = {one.scenario.space.config(candidate.params).gpus for candidate in one.rank().candidates}
    assert held == {8}


@pytest.mark.parametrize("tpot_ms", [1.6, 2.2, 4, 20])
@pytest.mark.parametrize("speed", [0.0, 0.8, 1.1, 1.5])
def test_no_other_prefill_workers_are_better_however_many_of_any_kind(tpot_ms, speed):
    one = prior(
        mode=("disaggregated",),
        layout_tensor=(1, 2),
        layout_attention_dp=(1,),
        prefill_attention_dp=(1, 2, 4),
        silicon=LinearSilicon(speed=speed),
        tpot_ms=tpot_ms,
    )
    dimensions = one.scenario.space.dimensions
    names = [name for name in dimensions if name.startswith(PREFILL)]
    choices = [dict(zip(names, values, strict=True)) for values in itertools.product(*(dimensions[n] for n in names))]
    for candidate in one.rank().candidates:
        others = [predicted(one, candidate.params | choice) for choice in choices]
        best = min((other for other in others if other is not None), key=lambda other: other.rank)
        assert candidate.excess <= best.excess
        assert candidate.objective <= best.objective * 1.05


def test_candidates_that_meet_the_slo_come_before_those_that_do_not():
    ranking = prior(tpot_ms=1.5).rank()
    kept = [not candidate.excess for candidate in ranking.candidates]
    assert True in kept
    assert False in kept
    assert kept == sorted(kept, reverse=True)


def test_the_slo_that_binds_is_named():
    assert {c.binding for c in prior(tpot_ms=0.1).rank().candidates} == {"tpot_ms_p99"}
    assert {c.binding for c in prior(ttft_ms=0.1).rank().candidates} == {"ttft_ms_p99"}
    assert {c.binding for c in prior().rank().candidates} == {""}


def test_nothing_is_ranked_where_nothing_can_be_served():
    ranking = prior(silicon=LinearSilicon(missing=(1, 2, 4))).rank()
    assert ranking.candidates == ()
    assert ranking.combinations == sum(ranking.excluded.values()) > 0


# The frontier


@pytest.mark.parametrize("most", [2, 3, 10, 1000])
@pytest.mark.parametrize("shape", ["closed_loop", "poisson"])
def test_no_point_of_the_frontier_beats_another_in_both(most, shape):
    one = prior(shape=shape)
    points = one.frontier(one.rank(), most=most)
    assert 0 < len(points) <= most
    places = [(objective(one, config, point), point.tpot) for config, point in points]
    assert [cost for cost, _ in places] == sorted(cost for cost, _ in places)
    assert [tpot for _, tpot in places] == sorted((tpot for _, tpot in places), reverse=True)


def test_the_frontier_reaches_from_the_cheapest_load_to_the_quickest():
    one = prior()
    ranking = one.rank()
    configs = [one.scenario.space.config(candidate.params) for candidate in ranking.candidates]
    points = [
        (objective(one, config, point), point.tpot)
        for config in configs
        for point in SteadyState(silicon=one.silicon, config=config, workload=one.scenario.workload).levels()
    ]
    frontier = [(objective(one, config, point), point.tpot) for config, point in one.frontier(ranking, most=10)]
    assert frontier[0][0] == pytest.approx(min(cost for cost, _ in points), rel=0.05)
    assert frontier[-1][1] <= min(tpot for _, tpot in points) / 0.95 + 1e-12


def test_there_is_no_frontier_of_nothing():
    one = prior(silicon=LinearSilicon(missing=(1, 2, 4)))
    assert one.frontier(one.rank(), most=10) == []


def objective(one: Prior, _config, point) -> float:
    tokens = one.scenario.workload.mean_output_tokens
    return dollars_per_million(point.request_rate * tokens, one.scenario.gpus, one.scenario.price)


# Where a capacity may lie


@pytest.mark.parametrize("shape", ["closed_loop", "poisson"])
@EVERY_SCENARIO
def test_the_guess_lies_inside_the_range_of_loads(scenario, shape):
    one = prior(shape=shape, **SCENARIOS[scenario])
    for candidate in one.rank().candidates:
        loads = one.load_range(one.scenario.space.config(candidate.params))
        assert 0 < loads.lowest <= loads.guess <= loads.highest


def test_in_a_closed_loop_every_scheduler_gets_the_same():
    one = prior()
    for candidate in one.rank().candidates:
        config = one.scenario.space.config(candidate.params)
        loads = one.load_range(config)
        for load in (loads.lowest, loads.guess, loads.highest, 1.0, 1e9):
            assert loads.snap(load) % config.layout.schedulers == 0
