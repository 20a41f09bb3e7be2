"""What is said where nothing can be predicted."""

import pytest
from typer.testing import CliRunner

from search_spaces.errors import InputError
from tests.own_facts import MODEL, SYSTEM
from tuner.cli import app
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.kernel_data import lacks_kernel_data
from tuner.search.ranking import Ranking
from tuner.search.session import Session

EXPERIMENT = """\
model: {model}
system: {system}
gpus: 2
engines: [{engine}]
workload: {{arrivals: closed_loop, input_tokens: 32, output_tokens: 16, requests: 60}}
sla: {{ttft_ms_p95: 1000}}
price: {{usd_per_gpu_hour: 0.1, all_in_watts_per_gpu: 100}}
objective: usd_per_million_output_tokens
"""


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "system.yaml").write_text(SYSTEM.replace("8.0e+9", "8.0e+10"))

    def write(model: str, system: str, engine: str):
        path = tmp_path / "experiment.yaml"
        path.write_text(EXPERIMENT.format(model=model, system=system, engine=engine))
        return path

    return write


def complaint(path) -> str:
    with pytest.raises(InputError) as caught:
        Session(experiment=read_experiment(path)).rank()
    return str(caught.value)


def test_a_system_that_nothing_was_measured_on_is_named_with_those_that_were(experiment):
    said = complaint(experiment("llama-3.1-8b", "system.yaml", "vllm"))
    assert "experiment.yaml: no kernel times to predict llama-3.1-8b with on cpu by vllm " in said
    assert "on silicon_name 'cpu' (system) nothing was measured; valid: " in said
    assert "b200_sxm" in said
    assert "measured elsewhere: vllm" in said
    assert "`runner: served` measures real engines" in said


def test_a_model_that_nothing_was_measured_of_is_named_with_the_nearest(experiment):
    said = complaint(experiment("model.yaml", "b200", "vllm"))
    assert "of silicon_name 'tiny' (model) nothing was measured; the nearest: " in said
    assert "known of tiny on b200: nothing." in said


def test_tune_and_simulate_end_with_2_and_begin_no_study(experiment, tmp_path):
    path = str(experiment("llama-3.1-8b", "system.yaml", "vllm"))
    studies = tmp_path / "studies"
    for command in (["tune", path, "--no-track", "--studies", str(studies)], ["simulate", path]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, InputError)
        assert "no kernel times to predict" in str(result.exception)
    assert not list(studies.glob("*"))


@pytest.mark.parametrize(("excluded", "lacks"), [({"no kernel data": 3, "memory": 1}, True), ({"memory": 4}, False)])
def test_what_cannot_be_served_is_told_from_what_cannot_be_predicted(excluded, lacks):
    assert lacks_kernel_data(Ranking(candidates=(), excluded=excluded)) is lacks


def test_formats_and_releases_that_are_known_are_named(experiment):
    path = experiment("deepseek-v4-pro", "h200", "vllm")
    with pytest.raises(InputError, match=r"known of deepseek-v4-pro on h200: .*vllm 0\.24\.0 \(fp8_block\)"):
        Session(experiment=read_experiment(path)).changed([])
