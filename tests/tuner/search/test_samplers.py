"""Samplers by name: what an experiment's `sampler` becomes, and what is refused."""

from importlib.util import find_spec

import optuna
import pytest
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

from search_spaces.errors import InputError
from tests.commands import EXPERIMENT
from tuner.scenario.experiment.reading import read_experiment
from tuner.scenario.experiment.sampler import SAMPLERS
from tuner.search.samplers import sampler_of
from tuner.search.session import Session
from tuner.search.surrogate.sampler import SurrogateSampler


@pytest.fixture
def session(tmp_path):
    def made(more: str = "", *, sampler: str | None = None) -> Session:
        path = tmp_path / "experiment.yaml"
        path.write_text(EXPERIMENT + more)
        return Session(experiment=read_experiment(path, sampler=sampler))

    return made


def make(session: Session, study: optuna.Study | None = None):
    prior = session.prior
    return sampler_of(session.experiment)(prior, prior.rank(), study or optuna.create_study())


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ("", SurrogateSampler),
        ("sampler: {}\n", SurrogateSampler),
        ("sampler: {name: surrogate}\n", SurrogateSampler),
        ("sampler: {name: tpe, startup_trials: 5}\n", TPESampler),
        ("sampler: {name: nsga2, population_size: 8}\n", NSGAIISampler),
        ("sampler: {name: random}\n", RandomSampler),
    ],
)
def test_the_sampler_is_the_one_that_is_named(session, asked, kind):
    assert isinstance(make(session(asked)), kind)


def test_a_name_on_the_command_line_goes_before_the_file(session):
    asked = session("sampler: {name: tpe, startup_trials: 5}\n", sampler="random").experiment.sampler
    assert (asked.name, asked.startup_trials) == ("random", None)
    asked = session("sampler: {name: tpe, startup_trials: 5}\n", sampler="tpe").experiment.sampler
    assert (asked.name, asked.startup_trials) == ("tpe", 5)


def test_another_sampler_asks_the_same(session):
    names = {session(sampler=name).study_name for name in SAMPLERS}
    assert names == {session().study_name}


def test_a_sampler_that_goes_on_does_not_begin_again(session):
    """One seeded by the experiment alone would propose once more what it proposed first."""

    def first(study) -> float:
        return make(session(sampler="random"), study).sample_independent(
            study, study.ask(), "x", optuna.distributions.FloatDistribution(0, 1)
        )

    study = optuna.create_study()
    drawn = first(study)
    assert first(optuna.create_study()) == drawn
    assert first(study) != drawn


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_gp_without_torch_says_what_to_install(session):
    with pytest.raises(InputError, match=r"sampler\.name: gp needs torch.*pip install 'servetune\[gp\]'"):
        make(session(sampler="gp"))


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
def test_gp_is_optunas_where_torch_is_there(session):
    assert isinstance(make(session(sampler="gp")), optuna.samplers.GPSampler)


def test_only_the_surrogate_knows_what_a_trial_is_expected_to_save(session, tmp_path):
    path = tmp_path / "pays.yaml"
    path.write_text(EXPERIMENT.replace("{trials: 3}", "{trials: 3, monthly_tokens: 1e9}"))
    assert sampler_of(read_experiment(path))
    with pytest.raises(InputError, match=r"budget\.monthly_tokens: goes with sampler surrogate.*but got sampler tpe"):
        sampler_of(read_experiment(path, sampler="tpe"))
