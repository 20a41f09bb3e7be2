"""Engines of one's own, named in an experiment by the folder that describes them."""

import pytest

from search_spaces.config import Engine
from search_spaces.errors import InputError
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.session import Session

ENGINE = """\
title: My engine
versions: [1.2.0]
times_of: vllm@0.27.0
command: [my-engine, '{checkpoint}', --port, '{port}']
knobs: {layout.tensor: --tp}
"""
EXPERIMENT = """\
model: llama-3.1-8b
system: b200
gpus: 2
engines: [./my-engine, vllm]
workload: {arrivals: closed_loop, input_tokens: 128, output_tokens: 32}
sla: {ttft_ms_p99: 1000}
price: {usd_per_gpu_hour: 2.5, all_in_watts_per_gpu: 1000}
objective: usd_per_million_output_tokens
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "my-engine").mkdir()
    (tmp_path / "my-engine" / "engine.yaml").write_text(ENGINE)
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    return tmp_path


def test_a_folder_is_looked_for_beside_the_experiment(home, monkeypatch):
    monkeypatch.chdir("/")
    space = read_experiment(home / "mine.yaml").scenario().space
    assert space.engines == (
        Engine(name="my-engine", version="1.2.0", folder=str(home / "my-engine")),
        Engine(name="vllm", version="0.24.0"),
    )
    assert space.dimensions["engine"] == ("my-engine", "vllm")


def test_another_engine_in_the_same_folder_is_another_study(home):
    before = Session(experiment=read_experiment(home / "mine.yaml")).asked
    (home / "my-engine" / "engine.yaml").write_text(ENGINE.replace("--tp", "--tensor"))
    after = Session(experiment=read_experiment(home / "mine.yaml")).asked
    assert before["own"]["./my-engine"]["knobs"] == {"layout.tensor": "--tp"}
    assert before != after


@pytest.mark.parametrize("runner", ["simulated", "estimated"])
def test_without_kernel_times_it_is_not_simulated(home, runner):
    (home / "my-engine" / "engine.yaml").write_text(ENGINE.replace("times_of: vllm@0.27.0\n", ""))
    with pytest.raises(
        InputError, match=r"mine\.yaml: engines: my-engine has no kernel times; name the engine"
    ) as said:
        read_experiment(home / "mine.yaml", runner=runner).scenario()
    assert "my-engine/engine.yaml" in str(said.value)


def test_without_kernel_times_it_is_served_and_searched_without_predictions(home):
    (home / "my-engine" / "engine.yaml").write_text(ENGINE.replace("times_of: vllm@0.27.0\n", ""))
    (home / "mine.yaml").write_text(EXPERIMENT.replace(", vllm]", "]") + "runner: served\n")
    session = Session(experiment=read_experiment(home / "mine.yaml"))
    assert type(session.prior).__name__ == "Uninformed"


def test_one_folder_is_listed_once(home):
    (home / "mine.yaml").write_text(EXPERIMENT.replace("vllm]", "./my-engine@1.2.0]"))
    with pytest.raises(InputError, match="each engine must be listed once, but got my-engine 2 times"):
        read_experiment(home / "mine.yaml")


def test_its_interpreter_is_named_as_it_is(home):
    serve = "runner: served\nserve: {python: {./my-engine: /opt/mine/python, vllm@0.32.0: /opt/vllm/python}}\n"
    (home / "mine.yaml").write_text(EXPERIMENT.replace("vllm]", "vllm@0.32.0]") + serve)
    scenario = read_experiment(home / "mine.yaml").scenario()
    assert [scenario.installation.python_of(engine) for engine in scenario.space.engines] == [
        "/opt/mine/python",
        "/opt/vllm/python",
    ]


def test_what_is_wrong_with_a_folder_is_said_with_its_file(home):
    (home / "my-engine" / "engine.yaml").write_text(ENGINE.replace("--tp", "tp"))
    with pytest.raises(InputError, match=r"my-engine/engine\.yaml: knobs\.layout\.tensor\.option: must be an option"):
        read_experiment(home / "mine.yaml").scenario()


def test_an_experiment_names_an_engine_as_it_was_found(home):
    experiment = read_experiment(home / "mine.yaml")
    (own, vllm) = experiment.used_engines
    again = experiment.model_copy(update={"engines": [own.asked_as, vllm.asked_as]})
    assert again.used_engines == (own, vllm)
