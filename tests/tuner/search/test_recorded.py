"""Searching what was recorded: the prior over its rows, and what a search over them comes to."""

import optuna
import pytest

from runners.recorded.recorded import Recorded
from runners.recorded.recording import served
from search_spaces.errors import InfeasibleError
from tests.recordings import GPT_OSS, asked
from tuner.scenario.experiment.files import find_experiment
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.recorded import RecordedPrior
from tuner.search.session import Session
from tuner.search.trial import RECORD, trial_from_json


@pytest.fixture(scope="module")
def session():
    return Session(experiment=read_experiment(find_experiment(f"recorded/{GPT_OSS}")))


def test_the_ranking_holds_every_recorded_configuration_and_no_other(session):
    ranking = session.prior.rank()
    configs = {served(session.scenario.space.config(candidate.params)) for candidate in ranking.candidates}
    assert configs == {served(row.config) for row in session.recorded}
    assert list(ranking.candidates) == sorted(ranking.candidates, key=lambda candidate: candidate.rank)


def test_the_loads_of_a_configuration_are_those_recorded(session):
    for config in session.scenario.space.configs.values():
        loads = session.prior.load_range(config)
        rows = [row for row in session.recorded if served(row.config) == served(config)]
        assert loads.only == tuple(sorted(float(row.concurrency) for row in rows))


def test_what_was_measured_is_never_infeasible_but_anything_else_is(session):
    from dataclasses import replace

    config = session.recorded[0].config
    session.scenario.check(config)
    with pytest.raises(InfeasibleError, match="not in the list"):
        session.scenario.check(replace(config, layout=replace(config.layout, replicas=99)))


class NoKernelData:
    """A silicon database that knows nothing."""

    def __init__(self, model, system):
        self.model, self.system = model, system

    def step_times(self, _key):
        raise InfeasibleError("no kernel data", "none at all")


def test_configurations_that_the_prior_cannot_predict_are_tried_all_the_same(session):
    scenario = session.scenario
    prior = RecordedPrior(scenario, NoKernelData(scenario.model, scenario.system), session.recorded)
    ranking = prior.rank()
    assert len(ranking.candidates) == len(scenario.space.configs)
    assert all(candidate.objective is None for candidate in ranking.candidates)
    config = next(iter(scenario.space.configs.values()))
    loads = prior.load_range(config)
    assert loads.lowest <= loads.guess <= loads.highest


def replay(session, **budget):
    """Trials and study of a search over a session's rows."""
    from tuner.search.search import Budget, Search
    from tuner.search.surrogate.sampler import SurrogateSampler
    from tuner.search.tracker import Untracked

    sampler = SurrogateSampler(session.prior, session.prior.rank(), seed=0)
    study = optuna.create_study(sampler=sampler)
    search = Search(
        prior=session.prior,
        runner=Recorded(session.recorded),
        study=study,
        sampler=sampler,
        tracker=Untracked(),
        budget=Budget(**{"trials": 100} | budget),
        progress=lambda _done, _best: None,
    )
    search.run()
    return search, study


def test_a_search_to_the_end_measures_every_configuration_once_and_finds_the_best_recorded(session):
    from tuner.search.replayed import replayed
    from tuner.search.search import best_trial

    search, study = replay(session)
    trials = search.trials()
    assert [trial.ending for trial in trials] == ["measured"] * len(session.scenario.space.configs)
    best = best_trial(session.scenario, trials)
    found = replayed(session.scenario, session.recorded, trials, best)
    assert found.tried == found.configs == len(trials)
    assert found.found is not None
    assert found.found.output_rate / found.found.config.gpus == pytest.approx(
        found.best.output_rate / found.best.config.gpus
    )
    for told, trial in zip(study.trials, trials, strict=True):
        assert trial_from_json(told.user_attrs[RECORD]) == trial
        assert told.params["layout.tensor"] == trial.config.layout.tensor


def test_a_search_is_charged_the_gpu_hours_of_the_runs_that_it_replayed(session):
    from tuner.search.replayed import replayed

    search, _ = replay(session, trials=1)
    (trial,) = search.trials()
    found = replayed(session.scenario, session.recorded, [trial], trial)
    rows = {(served(row.config), row.concurrency): row for row in session.recorded}
    replayed_rows = [rows[served(trial.config), level.load] for level in trial.levels]
    assert found.seconds == pytest.approx(sum(row.seconds for row in replayed_rows))
    assert found.gpu_seconds == pytest.approx(sum(row.seconds * row.config.gpus for row in replayed_rows))
    assert 0 < found.gpu_seconds < found.all_gpu_seconds
    assert search.runner.spent_s == pytest.approx(found.seconds)
    assert trial.gpu_seconds == pytest.approx(found.gpu_seconds)


def test_a_budget_of_gpu_hours_holds_for_replayed_runs(session):
    search, _ = replay(session, gpu_seconds=1.0)
    assert len(search.trials()) == 1


def test_another_experiment_of_the_same_rows_is_another_study(tmp_path, session):
    other = Session(experiment=asked(tmp_path, sla="{ttft_ms_mean: 500}"))
    assert other.study_name.rpartition("-")[2] != session.study_name.rpartition("-")[2]
