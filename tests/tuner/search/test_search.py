"""The search: what each ending leaves in the study, what survives an interruption, and that it finds the best."""

import itertools
from contextlib import contextmanager
from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from runners.runner import OUT_OF_MEMORY, RunFailedError
from search_spaces.config import ServingConfig
from search_spaces.errors import InfeasibleError
from tests.tuner.search import landscape
from tests.tuner.search.landscape import (
    Landscape,
    Log,
    Predictions,
    a_scenario,
    a_space,
    every_params,
    measurement,
    usual_capacity,
)
from tuner.search.ranking import Ranking, Uninformed
from tuner.search.search import (
    Budget,
    Search,
    best_trial,
    broken_environment,
    check_memory,
    measure_capacity,
    objective,
    ranked_trials,
)
from tuner.search.stored import finished_trials
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.tracker import Untracked
from tuner.search.trial import RECORD, Trial

SPACE = a_space(
    layout_tensor=(1, 2, 4, 8),
    speculation_method=("none", "eagle3"),
    speculation_draft_length=(1,),
    batching_max_sequences=(64, 128, 256),
)
SCENARIO = a_scenario(SPACE)
EVERY = [(params, SPACE.config(params)) for params in every_params(SPACE)]


def predictions(capacity=usual_capacity, *, impossible=()) -> Predictions:
    scenario = a_scenario(SPACE, impossible=tuple(impossible))
    return Predictions(scenario, capacity, [params for params, _ in EVERY])


def search_in(study: optuna.Study, runner=None, *, prior=None, ranking=None, **parts) -> Search:
    prior = prior or predictions()
    sampler = SurrogateSampler(prior, ranking or prior.rank(), seed=0)  # type: ignore[arg-type]
    return landscape.search_in(study, prior, runner or Landscape(), sampler=sampler, **parts)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def best_config(capacity=usual_capacity) -> ServingConfig:
    return max((config for _, config in EVERY), key=lambda config: capacity(config) / config.gpus)


# The three endings


def test_a_measured_trial_is_complete_with_its_cost_and_constraints(study):
    search_in(study, trials=1).run()
    (frozen,) = study.trials
    trial = finished_trials(study)[0]
    assert frozen.state == TrialState.COMPLETE
    assert frozen.value == pytest.approx(objective(SCENARIO, trial))
    assert frozen.constraints == pytest.approx(SCENARIO.sla.excess(trial.measurement))
    assert max(frozen.constraints.values()) <= 0


def test_a_trial_that_misses_the_sla_is_complete_and_infeasible_for_optuna(study):
    search_in(study, Landscape(lambda _config: 0), trials=3).run()
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert all(max(trial.constraints.values()) > 0 for trial in study.trials)


def test_an_infeasible_trial_is_pruned_with_its_reason_and_never_served(study):
    runner = Landscape()
    search_in(study, runner, prior=predictions(impossible=[config for _, config in EVERY]), trials=2).run()
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED] * 2
    assert runner.served == []
    trial = finished_trials(study)[0]
    assert (trial.ending, trial.cause, trial.detail) == ("infeasible", "memory", "it needs 300 GiB, 180 are there")
    assert trial.config in [config for _, config in EVERY]


def test_a_runner_too_may_find_a_configuration_infeasible(study):
    def refuses(_config):
        raise InfeasibleError("no kernel data", "none")

    search_in(study, Landscape(refuses), trials=1).run()
    assert study.trials[0].state == TrialState.PRUNED


def test_a_failed_trial_is_failed_with_the_tail_of_its_log(study):
    def dies(_config):
        raise RunFailedError("died", "exit 1 while loading: /tmp/log: out of memory")

    search_in(study, Landscape(dies), trials=2).run()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2
    trial = finished_trials(study)[0]
    assert (trial.ending, trial.cause) == ("failed", "died")
    assert "out of memory" in trial.detail


def test_a_server_that_dies_under_load_is_failed_too(study):
    class DiesLater(Landscape):
        @contextmanager
        def serve(self, config):
            def measure(loaded):
                raise RunFailedError("died", f"under {loaded.load} requests")

            yield measure

    search_in(study, DiesLater(), trials=1).run()
    assert study.trials[0].state == TrialState.FAIL


@pytest.mark.parametrize("bug", [ValueError, KeyError, ZeroDivisionError, AssertionError, OSError, MemoryError])
def test_anything_else_is_a_bug_and_stops_the_search(study, bug):
    def has_a_bug(_config):
        raise bug("a bug")

    log = Log()
    with pytest.raises(bug, match="a bug"):
        search_in(study, Landscape(has_a_bug), log=log).run()
    assert finished_trials(study) == []
    assert log.logged == []


def test_a_search_goes_on_after_infeasible_and_failed_trials(study):
    def sometimes(config):
        if config.layout.tensor == 2:
            raise RunFailedError("died", "exit 1")
        return usual_capacity(config)

    impossible = [config for _, config in EVERY if config.layout.tensor == 1]
    log = Log()
    search = search_in(study, Landscape(sometimes), prior=predictions(impossible=impossible), trials=40, log=log)
    search.run()
    assert {trial.ending for trial in search.trials()} == {"infeasible", "failed", "measured"}
    assert log.logged == list(range(40))
    assert best_trial(SCENARIO, search.trials()).config.layout.tensor == 4


# Budgets


def test_no_more_trials_than_the_budget(study):
    search = search_in(study, trials=7)
    search.run()
    assert len(search.trials()) == len(study.trials) == 7


def test_infeasible_trials_count_in_the_budget(study):
    search_in(study, prior=predictions(impossible=[config for _, config in EVERY]), trials=5).run()
    assert len(study.trials) == 5


def test_time_that_is_up_ends_the_search_after_the_trial_that_runs(study):
    ticks = itertools.count(step=10)
    search_in(study, budget=Budget(trials=40, wall_clock_s=100), clock=lambda: next(ticks)).run()
    assert 1 <= len(study.trials) < 10


def test_no_configuration_is_tried_twice(study):
    runner = Landscape()
    search_in(study, runner, trials=1000).run()
    assert len(set(runner.served)) == len(runner.served) == len(EVERY)


def test_a_small_space_ends_when_all_was_tried(study):
    best_batching_only = [one for one in predictions().rank().candidates if one.params["batching.max_sequences"] == 256]
    ranking = Ranking(candidates=tuple(best_batching_only), excluded={})
    search = search_in(study, ranking=ranking, trials=1000)
    search.run()
    assert {trial.config for trial in search.trials()} == {config for _, config in EVERY}


def test_progress_is_shown_from_the_first_trial_to_the_last(study):
    log = Log()
    search_in(study, trials=5, log=log).run()
    assert [done for done, _ in log.shown] == [0, 1, 2, 3, 4, 5]
    assert log.shown[0][1] is None
    costs = [objective(SCENARIO, best) for _, best in log.shown[1:]]
    assert costs == sorted(costs, reverse=True)


# Going on


def test_a_finished_search_that_is_run_again_tries_nothing_and_finds_the_same(study):
    first = search_in(study, trials=9)
    first.run()
    runner, log = Landscape(), Log()
    again = search_in(study, runner, trials=9, log=log)
    again.run()
    assert runner.served == []
    assert again.trials() == first.trials()
    assert log.logged == list(range(9))


def test_a_search_in_two_parts_tries_what_one_search_tries(study):
    whole = Landscape()
    search_in(study, whole, trials=20).run()
    parts, two = Landscape(), optuna.create_study()
    for trials in (3, 11, 12, 20):
        search_in(two, parts, trials=trials).run()
    assert parts.served == whole.served


@pytest.mark.parametrize("turn", [1, 2, 9, 12])
def test_an_interrupted_trial_is_asked_again_and_nothing_finished_is_lost(study, turn):
    whole = Landscape()
    search_in(optuna.create_study(), whole, trials=20).run()

    class Interrupted(Landscape):
        @contextmanager
        def serve(self, config):
            if len(self.served) == turn - 1:
                raise KeyboardInterrupt
            with super().serve(config) as measure:
                yield measure

    runner = Interrupted()
    search = search_in(study, runner, trials=20)
    search.run()
    assert search.interrupted
    assert len(search.trials()) == turn - 1
    runner_again = Landscape()
    search = search_in(study, runner_again, trials=20)
    search.run()
    assert not search.interrupted
    assert runner.served + runner_again.served == whole.served
    assert len(search.trials()) == 20


class InterruptedThere(optuna.storages.InMemoryStorage):
    """Storage in which Ctrl-C comes right before the n-th call, or right after it."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self.calls = 10**9
        self.after = after

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if not name.startswith(("set_trial", "create_new_trial")):
            return found
        self.calls -= 1
        if self.calls:
            return found
        if not self.after:
            raise KeyboardInterrupt

        def interrupted(*args, **options):
            found(*args, **options)
            raise KeyboardInterrupt

        return interrupted


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("calls", range(1, 60))
def test_ctrl_c_at_any_moment_ends_the_search_in_order_and_the_next_goes_on(calls, after):
    storage = InterruptedThere(after=after)
    study = optuna.create_study(storage=storage)
    storage.calls = calls
    log = Log()
    first = search_in(study, log=log, trials=20)
    first.run()
    assert first.interrupted
    assert first.trials() == finished_trials(study)
    assert first.tried == len(first.trials())
    assert log.logged == [trial.number for trial in first.trials()]
    storage.calls = 10**9
    again = search_in(study, trials=20)
    again.run()
    assert [trial for trial in again.trials() if trial in first.trials()] == first.trials()
    assert len(again.trials()) == 20
    assert len({trial.config for trial in again.trials()}) == 20
    states = {frozen.number: frozen.state for frozen in study.trials}
    assert all(states[trial.number] == TrialState.COMPLETE for trial in again.trials())
    assert TrialState.RUNNING not in states.values()


def test_a_trial_that_had_ended_when_the_process_was_killed_is_not_tried_again(study, monkeypatch):
    def killed(*_args, **_kwargs):
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(study, "tell", killed)
        search_in(study, trials=1).run()
    assert study.trials[0].state == TrialState.RUNNING

    runner = Landscape()
    again = search_in(study, runner, trials=1)
    again.run()
    assert runner.served == []
    assert len(again.trials()) == 1
    assert study.trials[0].state == TrialState.COMPLETE
    assert study.trials[0].value == pytest.approx(objective(SCENARIO, again.trials()[0]))
    assert study.trials[0].constraints


def test_a_trial_killed_while_its_parameters_were_drawn_leaves_no_half_a_configuration(study):
    search_in(study, trials=2).run()
    study.ask().suggest_categorical("mode", ("aggregated",))
    runner = Landscape()
    again = search_in(study, runner, trials=6)
    again.run()
    assert len(again.trials()) == 6
    assert len({trial.config for trial in again.trials()}) == 6


# What it finds


def test_it_finds_the_best_of_a_small_space(study):
    search = search_in(study, trials=1000)
    search.run()
    assert best_trial(SCENARIO, search.trials()).config == best_config()


def misled(config: ServingConfig) -> float:
    """What a prior predicts that is off by up to half, and expects nothing of speculation."""
    shift = {1: 1.4, 2: 0.6, 4: 1.2, 8: 1.5}[config.layout.tensor]
    return usual_capacity(config) * shift / (1.5 if config.speculation.method == "eagle3" else 1.0)


def test_a_misled_ranking_is_put_right_by_what_was_measured(study):
    search = search_in(study, prior=predictions(misled), trials=28)
    search.run()
    assert best_trial(SCENARIO, search.trials()).config == best_config()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(20, 200), min_size=12, max_size=12))
def test_stopping_early_at_a_hopeless_server_never_hides_a_better_one(capacities):
    configs = [config for _, config in EVERY[: len(capacities)]]
    runner = Landscape(dict(zip(configs, capacities, strict=True)).__getitem__)
    prior = predictions()
    to_beat = float("inf")
    for config in configs:
        trial = measure_capacity(config, prior, runner, number=0, to_beat=to_beat)  # type: ignore[arg-type]
        to_beat = min(to_beat, objective(SCENARIO, trial))
    patiently = [measure_capacity(config, prior, runner, number=0) for config in configs]  # type: ignore[arg-type]
    assert to_beat == min(objective(SCENARIO, trial) for trial in patiently)


def test_a_server_that_cannot_win_takes_few_levels(study):
    search = search_in(study, trials=1000)
    search.run()
    best, *others = ranked_trials(SCENARIO, search.trials())
    assert best.exact
    hopeless = [trial for trial in others if not trial.exact]
    assert hopeless
    assert max(len(trial.levels) for trial in hopeless) <= 4


def test_a_cost_that_falls_while_the_load_falls_too_hides_nothing(study):
    """Overloaded, this server wastes its time: it is dear beyond its capacity, and the cheapest below."""

    class Thrashes(Landscape):
        @contextmanager
        def serve(self, config):
            with super().serve(config) as measure:

                def slower(loaded):
                    level = measure(loaded)
                    over = loaded.load > self.capacity(config)
                    return replace(level, output_tokens=level.output_tokens // 4) if over else level

                yield slower

    prior = predictions(lambda config: 0.6 * usual_capacity(config))
    worst_first = Ranking(candidates=prior.rank().candidates[::-1], excluded={})
    search = search_in(study, Thrashes(), prior=prior, ranking=worst_first, trials=1000)
    search.run()
    best = best_trial(SCENARIO, search.trials())
    assert best.config == best_config()
    assert best.measurement.load >= usual_capacity(best.config) / 1.03 - 1


def test_the_best_meets_the_sla_even_where_a_cheaper_one_does_not(study):
    def some_never_keep_it(config):
        return 0 if config.precision.kv_cache == "fp8" else usual_capacity(config)

    search = search_in(study, Landscape(some_never_keep_it), trials=1000)
    search.run()
    best = best_trial(SCENARIO, search.trials())
    assert best.config.precision.kv_cache == "bf16"
    assert SCENARIO.sla.met_by(best.measurement)


def trial_of(number: int, load: float, *, tpot_s: float, **changes) -> Trial:
    level = measurement(load, tpot_s=tpot_s)
    return replace(Trial(number=number, ending="measured", config=EVERY[number][1], levels=(level,)), **changes)


def test_trials_are_ranked_by_cost_then_by_how_little_they_miss():
    dear = trial_of(0, 10, tpot_s=0.01)
    cheap = trial_of(1, 20, tpot_s=0.02)
    near = trial_of(2, 40, tpot_s=0.021)
    far = trial_of(3, 80, tpot_s=0.04)
    failed = Trial(number=4, ending="failed", cause="died")
    assert ranked_trials(SCENARIO, [far, failed, dear, near, cheap]) == [cheap, dear, near, far]


def test_nothing_is_best_where_nothing_was_measured():
    assert best_trial(SCENARIO, [Trial(number=0, ending="failed", cause="died")]) is None


def test_a_server_that_does_not_keep_up_with_its_arrivals_does_not_meet_the_sla():
    behind = trial_of(0, 80, tpot_s=0.01)
    behind = replace(behind, levels=(replace(behind.levels[0], backlog_growth=500),))
    slow = trial_of(1, 10, tpot_s=0.01)
    assert ranked_trials(SCENARIO, [behind, slow]) == [slow, behind]


def test_an_untracked_search_is_a_search(study):
    search = search_in(study, log=Log(), trials=2)
    search.tracker = Untracked()
    search.run()
    assert RECORD in study.trials[1].user_attrs


class Held(Landscape):
    """A landscape of real servers: each holds its GPUs for 100 s."""

    gpu_seconds = 0.0

    @contextmanager
    def serve(self, config):
        self.gpu_seconds += 100 * config.gpus
        with super().serve(config) as measure:
            yield measure


def test_a_trial_is_charged_the_gpu_time_that_its_server_held(study):
    search = search_in(study, Held(), trials=3)
    search.run()
    assert [trial.gpu_seconds for trial in search.trials()] == [800, 800, 800]


@pytest.mark.parametrize("budget", [{"gpu_seconds": 2400}, {"usd": 2.4}])
def test_a_search_stops_when_its_trials_have_cost_what_they_may(study, budget):
    search_in(study, Held(), budget=Budget(trials=40, **budget)).run()  # 800 GPU-seconds, $0.8, a trial
    assert len(finished_trials(study)) == 3
    search_in(study, Held(), budget=Budget(trials=40, **budget)).run()
    assert len(finished_trials(study)) == 3


def test_a_search_goes_on_while_a_trial_is_expected_to_pay_for_itself_within_a_month(study):
    def done(monthly_tokens):
        fresh = optuna.create_study()
        search_in(fresh, Held(), budget=Budget(trials=12, monthly_tokens=monthly_tokens)).run()
        return len(finished_trials(fresh))

    assert done(1.0) < 12
    assert done(1e15) >= done(1.0)


def failing(cause, *, environment):
    def capacity(config):
        raise RunFailedError(cause, "as the log says", environment=environment)

    return Landscape(capacity)


def test_three_equal_failures_of_the_environment_end_a_search_with_their_cause(study):
    search = search_in(study, failing("engine not installed", environment=True), trials=20)
    search.run()
    assert search.broken == "engine not installed: as the log says"
    assert len(search.trials()) == 3


def test_failures_of_configurations_end_no_search(study):
    search = search_in(study, failing("crashed", environment=False), trials=6)
    search.run()
    assert not search.broken
    assert len(search.trials()) == 6


def test_failures_of_the_environment_with_different_causes_end_no_search():
    trials = [Trial(number=n, ending="failed", cause=cause, environment=True) for n, cause in enumerate("aab")]
    assert not broken_environment(trials)
    assert broken_environment([*trials, trials[-1], trials[-1]])


def test_what_needs_as_much_memory_as_one_that_ran_out_is_infeasible():
    config = EVERY[0][1]
    hungry = replace(config, batching=replace(config.batching, max_batched_tokens=16384))
    ran_out = Trial(number=4, ending="failed", config=config, cause=OUT_OF_MEMORY)
    with pytest.raises(InfeasibleError, match="trial 4 ran out"):
        check_memory(SCENARIO, hungry, [ran_out])
    check_memory(SCENARIO, replace(config, batching=replace(config.batching, max_batched_tokens=2048)), [ran_out])
    check_memory(SCENARIO, hungry, [replace(ran_out, cause="crashed")])


def test_without_predictions_a_search_still_finds_the_best_of_a_small_space(study):
    uninformed = Uninformed(SCENARIO)
    ranking = uninformed.rank()
    assert all(candidate.objective is None for candidate in ranking.candidates)
    search_in(study, prior=uninformed, ranking=ranking, trials=60).run()
    best = best_trial(SCENARIO, finished_trials(study))
    assert best.config.layout.tensor == best_config().layout.tensor
    assert best.config.batching == best_config().batching


def test_without_predictions_the_first_trial_is_the_nearest_to_the_engines_default():
    first = Uninformed(SCENARIO).rank().candidates[0].params
    assert (first["speculation.method"], first["precision.kv_cache"], first["layout.tensor"]) == ("none", "bf16", 1)
