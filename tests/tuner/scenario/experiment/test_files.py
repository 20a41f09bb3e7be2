"""Where experiments are found."""

import shutil
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.files import find_experiment, list_experiments
from tuner.scenario.experiment.reading import read_experiment

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_experiment_is_an_experiment_that_can_be_asked(path):
    experiment = read_experiment(path)
    scenario = experiment.scenario()
    assert scenario.name == path.stem
    assert scenario.gpus == scenario.system.max_gpus
    assert Experiment.model_validate(experiment.model_dump(by_alias=True), context={"path": path}) == experiment
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert first == "# yaml-language-server: $schema=experiment.schema.json"
    assert second.startswith("# Who asks: ")


def test_the_experiments_of_the_documentation_ship():
    assert set(list_experiments()) >= {
        "gpt-oss-120b-b200-chat",
        "gpt-oss-120b-b200-reasoning",
        "gpt-oss-120b-b200-retrieval",
        "gpt-oss-120b-b200-azure-conv",
        "llama-3.3-70b-b200-chat",
        "llama-3.3-70b-h200-chat",
        "deepseek-r1-gb200-nvl72-mlperf-server",
        "deepseek-r1-gb200-nvl72-mlperf-interactive",
        "deepseek-r1-gb300-nvl72-mlperf-server",
        "deepseek-r1-gb300-nvl72-mlperf-interactive",
        "deepseek-v4-pro-b300-chat",
        "qwen3-vl-235b-b200-chat",
    }


@pytest.mark.parametrize(("scenario", "slo"), [("server", (2000, 80)), ("interactive", (1500, 15))])
@pytest.mark.parametrize("system", ["gb200-nvl72", "gb300-nvl72"])
def test_the_mlperf_experiments_have_mlperfs_limits_and_mean_lengths(system, scenario, slo):
    asked = read_experiment(find_experiment(f"deepseek-r1-{system}-mlperf-{scenario}")).scenario()
    assert tuple(round(limit.limit_s * 1000) for limit in asked.sla.slos) == slo
    assert asked.workload.shape == "poisson"
    assert (asked.workload.input_tokens.mean, asked.workload.output_tokens.mean) == (804, 3750)


def test_an_experiment_is_found_by_name_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_experiment("gpt-oss-120b-b200-chat").name == "gpt-oss-120b-b200-chat.yaml"
    assert find_experiment("gpt-oss-120b-b200-chat.yaml").is_file()


def test_an_experiment_of_the_current_directory_goes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "experiments" / "gpt-oss-120b-b200-chat.yaml", tmp_path / "experiments")
    assert find_experiment("gpt-oss-120b-b200-chat") == Path("experiments/gpt-oss-120b-b200-chat.yaml")


def test_an_experiment_is_found_by_its_path(tmp_path):
    path = tmp_path / "mine.yml"
    path.touch()
    assert find_experiment(str(path)) == path


@pytest.mark.parametrize("asked", ["gpt-oss-120b-b200-cat", "experiments/gpt-oss-120b-b200-cat.yaml"])
def test_an_experiment_that_is_nowhere_is_answered_with_the_nearest(asked):
    with pytest.raises(InputError) as error:
        find_experiment(asked)
    assert str(error.value).startswith(
        f"no file and no experiment {asked!r}; valid experiments: gpt-oss-120b-b200-chat, "
    )


@pytest.mark.parametrize("asked", ["", "\0", "a" * 5000])
def test_a_name_that_no_file_can_have_is_refused(asked):
    with pytest.raises(InputError, match="no file and no experiment"):
        find_experiment(asked)
