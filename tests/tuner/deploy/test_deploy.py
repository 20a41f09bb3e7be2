"""servetune deploy: from a study to a folder that starts its winner, and nothing lost on the way."""

import json
import os
import re
import shlex
import subprocess
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from runners.served.deployment import Installation
from runners.simulated.known_errors import PREDICTION
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Disaggregation, Layout, ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.errors import InputError
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model
from tests.scenarios import CONFIG, level, measured
from tests.search_spaces.engines.options import known
from tests.studies import CHAT, CHEAPER, FAILED, INFEASIBLE, KEPT, study_of
from tuner.cli import app
from tuner.deploy.deploy import bench_script, deployment, plan_of, rendered
from tuner.deploy.folder import MARKER, write_folder
from tuner.deploy.targets import find_target, targets
from tuner.study.finished_study import open_finished

ABOUT = {"made_by": "servetune"}


@pytest.fixture
def finished(tmp_path):
    study_of(tmp_path / "studies", KEPT, CHEAPER, INFEASIBLE)
    return open_finished(tmp_path / "studies", CHAT)


def run(tmp_path, *arguments):
    return CliRunner().invoke(app, ["deploy", CHAT, "--studies", str(tmp_path / "studies"), *arguments])


@pytest.mark.parametrize("target", [name for name, target in targets().items() if "trtllm" in target.engines])
def test_a_study_becomes_a_folder_that_starts_its_winner(finished, tmp_path, target):
    folder = tmp_path / "out"
    files = deployment(finished, plan_of(finished), find_target(target))
    write_folder(folder, files, about=ABOUT)
    assert {path.name for path in folder.iterdir()} == {*files, MARKER}
    assert os.access(folder / "bench.sh", os.X_OK)
    assert "tp2 x4" in (folder / "README.md").read_text()
    assert (folder / "experiment.yaml").read_text() == finished.text


def test_the_page_says_how_to_start_measure_and_verify(finished):
    page = deployment(finished, plan_of(finished), find_target("kubernetes"))["README.md"]
    assert "8 GPUs of HGX/DGX B200" in page
    assert "kubectl apply -f kubernetes.yaml" in page
    assert f"servetune measure experiment.yaml --url http://{finished.name}:8000 --gpus 8" in page
    assert "Predicted at 1,000 requests in flight" in page
    assert "kubectl create secret generic hf-token" in page


def test_the_page_says_how_many_gpus_are_left_over_and_verifies_with_those_charged(tmp_path):
    three = replace(CONFIG, layout=replace(CONFIG.layout, replicas=3))
    study_of(tmp_path / "studies", measured(0, level(4000, gpus=6), config=three))
    finished = open_finished(tmp_path / "studies", CHAT)
    page = deployment(finished, plan_of(finished), find_target("trtllm"))["README.md"]
    assert "6 GPUs of HGX/DGX B200" in page
    assert "2 of the 8 GPUs are left over, and charged too." in page
    assert "--gpus 8" in page


def test_a_service_over_several_workers_is_not_measured_through_a_port_forward(finished):
    several = plan_of(finished)
    page = deployment(finished, several, find_target("kubernetes"))["README.md"]
    assert "kubectl port-forward service" not in page
    assert "Both from a pod in the cluster: the Service spreads connections over 4 workers" in page
    sole = replace(several, config=replace(several.config, layout=replace(several.config.layout, replicas=1)))
    page = deployment(finished, sole, find_target("kubernetes"))["README.md"]
    assert f"kubectl port-forward service/{sole.name} 8000:8000" in page
    assert "--url http://127.0.0.1:8000" in page


def test_the_page_says_that_pods_download_the_checkpoint_unless_a_folder_holds_it(finished):
    target = find_target("kubernetes")
    assert "No volume is mounted" in deployment(finished, plan_of(finished), target)["README.md"]
    kept = plan_of(finished, checkpoint="/models/mine")
    assert "No volume is mounted" not in deployment(finished, kept, target)["README.md"]


def test_a_prediction_carries_its_errors_into_the_page(finished):
    best = finished.winner.measurement
    page = deployment(finished, plan_of(finished), find_target("trtllm"))["README.md"]
    assert PREDICTION[best.source] in page


def test_the_page_says_what_a_command_cannot(finished):
    newer = replace(finished.winner.config, engine=replace(finished.winner.config.engine, version="1.3.0rc23"))
    plan = replace(plan_of(finished), config=newer)
    page = deployment(finished, plan, find_target("dynamo"))["README.md"]
    assert "Dynamo 1.5.1 brings trtllm 1.3.0rc25, the nearest to trtllm 1.3.0rc23." in page
    assert "load balancer has to stand" not in page


def flags(script: str) -> dict[str, str]:
    line = script[script.index("vllm bench serve") :].replace("\\\n", " ")
    words = shlex.split(line)[3:]
    return dict(zip(words[:-1:2], words[1::2], strict=False))


def test_the_benchmark_sends_the_load_at_which_the_winner_was_chosen(finished):
    workload = Workload(
        input_tokens=Lengths(low=800, high=1200), output_tokens=Lengths(low=400, high=600), requests=300
    )
    plan = plan_of(finished)
    closed = flags(bench_script(plan, workload, load=64.0))
    assert closed["--model"] == "openai/gpt-oss-120b"
    assert (closed["--random-input-len"], closed["--random-output-len"]) == ("1000", "500")
    assert closed["--random-range-ratio"] == "0.2"
    assert (closed["--max-concurrency"], closed["--num-prompts"]) == ("64", "320")
    poisson = flags(bench_script(plan, replace(workload, shape="poisson", shared_prefix_tokens=300), load=2.5))
    assert (poisson["--request-rate"], poisson["--random-prefix-len"], poisson["--random-input-len"]) == (
        "2.5",
        "300",
        "700",
    )
    assert "--max-concurrency" not in poisson


@pytest.mark.parametrize("version", ["0.24.0", "0.27.0"])
def test_vllm_s_client_knows_every_option_of_the_benchmark(finished, version):
    for shape in ("closed_loop", "poisson"):
        workload = replace(finished.scenario.workload, shape=shape)
        script = bench_script(plan_of(finished), workload, load=2.0)
        assert {*flags(script), "--ignore-eos"} <= known(f"vllm-bench-{version}")
        assert "--ignore-eos" in script


def test_the_benchmark_is_a_script_that_bash_reads(finished):
    text = deployment(finished, plan_of(finished), find_target("trtllm"))["bench.sh"]
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_what_the_winner_was_given_beside_its_configuration_is_given_again(finished):
    plan = replace(plan_of(finished), args=("--num_postprocess_workers", "4"), env={"TLLM_LOG_LEVEL": "INFO"})
    script = rendered(plan, find_target("trtllm"))["serve.sh"]
    assert script.count("--num_postprocess_workers 4 &") == 4
    assert script.count("TLLM_LOG_LEVEL=INFO") == 4
    assert "TLLM_LOG_LEVEL" in rendered(plan, find_target("kubernetes"))["kubernetes.yaml"]
    with pytest.raises(InputError, match="dynamo does not take arguments of trtllm-serve"):
        rendered(plan, find_target("dynamo"))


def test_a_served_winner_keeps_its_installation_s_arguments_and_its_variant(finished, monkeypatch):
    had = Installation(args=("--a",), variants={"fast": ("--b",)}, env={"E": "1"}, checkpoint="/models/mine")
    scenario = replace(finished.scenario, installation=had)
    monkeypatch.setattr(type(finished), "scenario", scenario)
    monkeypatch.setattr(type(finished), "winning_config", replace(CONFIG, variant="fast"))
    plan = plan_of(finished)
    assert (plan.args, plan.env, plan.checkpoint) == (("--a", "--b"), {"E": "1"}, "/models/mine")
    assert plan_of(finished, checkpoint="org/other").checkpoint == "org/other"


# What cannot be deployed.


def test_a_target_that_nobody_knows_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="unknown target 'kubernets'; valid: kubernetes, "):
        find_target("kubernets")


def test_a_target_of_another_engine_is_answered_with_those_that_fit(finished):
    with pytest.raises(InputError) as error:
        rendered(plan_of(finished), find_target("llm-d"))
    assert str(error.value) == (
        "target llm-d starts vllm, but the winner runs on trtllm; "
        "targets that fit: trtllm, docker-compose, kubernetes, dynamo"
    )


def test_a_study_without_a_measured_trial_has_no_winner(tmp_path):
    study_of(tmp_path, INFEASIBLE, FAILED)
    with pytest.raises(InputError, match="none of its 2 trials was measured"):
        plan_of(open_finished(tmp_path, CHAT))


def test_a_study_whose_best_misses_the_sla_has_none_to_deploy(tmp_path):
    study_of(tmp_path, measured(0, level(8000, tpot_ms=900, ttft_ms=90_000)))
    with pytest.raises(InputError, match="none of its configurations meets the SLA"):
        plan_of(open_finished(tmp_path, CHAT))


def test_a_winner_that_its_engine_cannot_express_is_told(finished):
    config = replace(CONFIG, layout=replace(CONFIG.layout, attention_dp=2))
    with pytest.raises(InputError, match="the winner cannot be started: trtllm makes attention data-parallel"):
        rendered(replace(plan_of(finished), config=config), find_target("trtllm"))


# The folder.


def test_an_earlier_deployment_is_replaced_and_what_it_no_longer_has_is_gone(tmp_path):
    folder = tmp_path / "out"
    write_folder(folder, {"a.sh": "1", "b.yaml": "1"}, about=ABOUT)
    (folder / "mine.txt").write_text("kept")
    write_folder(folder, {"a.sh": "2"}, about=ABOUT)
    assert {path.name for path in folder.iterdir()} == {"a.sh", "mine.txt", MARKER}
    assert (folder / "a.sh").read_text() == "2"
    assert json.loads((folder / MARKER).read_text()) == {"made_by": "servetune", "files": ["a.sh"]}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_not_ours_is_left_alone_unless_forced(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.sh").write_text("theirs")
    (folder / "other").write_text("theirs")
    with pytest.raises(InputError, match="holds files that servetune did not write"):
        write_folder(folder, {"a.sh": "ours"}, about=ABOUT)
    assert (folder / "a.sh").read_text() == "theirs"
    assert {path.name for path in folder.iterdir()} == {"a.sh", "other"}
    write_folder(folder, {"a.sh": "ours"}, about=ABOUT, force=True)
    assert (folder / "a.sh").read_text() == "ours"
    assert (folder / "other").read_text() == "theirs"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", {"a.sh": "ours"}, about=ABOUT)
    assert (tmp_path / "out" / "a.sh").read_text() == "ours"


@pytest.mark.parametrize("marker", ["", "[]", '{"files": 3}', "\x00"])
def test_a_folder_with_a_broken_marker_is_not_ours(tmp_path, marker):
    (tmp_path / MARKER).write_text(marker)
    with pytest.raises(InputError, match="did not write"):
        write_folder(tmp_path, {"a.sh": ""}, about=ABOUT)


def test_a_marker_that_points_outside_removes_nothing_there(tmp_path):
    folder = tmp_path / "out"
    write_folder(folder, {"a.sh": "1"}, about=ABOUT)
    (tmp_path / "precious").write_text("kept")
    (folder / MARKER).write_text(json.dumps({"files": ["../precious"]}))
    write_folder(folder, {"a.sh": "2"}, about=ABOUT)
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_folder(tmp_path / "out", {"a.sh": ""}, about=ABOUT)


def test_where_nothing_can_be_written_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written there"):
        write_folder(tmp_path / "file" / "out", {"a.sh": ""}, about=ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# The command.


def test_the_command_writes_the_folder_and_says_how_to_start(finished, tmp_path):
    done = run(tmp_path, "--target", "docker-compose", "-o", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "8 GPUs" in done.output
    assert "docker compose -f docker-compose.yaml up --detach" in done.output
    assert (tmp_path / "out" / "docker-compose.yaml").exists()


def test_the_command_speaks_json(finished, tmp_path):
    done = run(tmp_path, "--target", "trtllm", "-o", str(tmp_path / "out"), "--json")
    said = json.loads(done.output)
    assert said["gpus"] == 8
    assert said["target"] == "trtllm"
    assert set(said["files"]) <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nowhere"], "unknown target 'nowhere'"),
        (["--target", "vllm"], "targets that fit: trtllm"),
    ],
)
def test_the_command_refuses_what_cannot_be(finished, tmp_path, arguments, message):
    done = run(tmp_path, *arguments, "-o", str(tmp_path / "out"))
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_local_checkpoint_and_another_secret_reach_the_files(finished, tmp_path):
    done = run(
        tmp_path,
        "--target",
        "kubernetes",
        "-o",
        str(tmp_path / "out"),
        "--checkpoint",
        "/models/mine",
        "--secret",
        "mine",
    )
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "kubernetes.yaml").read_text()
    assert "/models/mine" in text
    assert re.search(r"secretKeyRef:\s+name: mine", text)


def test_disaggregated_winners_are_deployed_with_their_router(finished):
    config = replace(CONFIG, layout=replace(CONFIG.layout, replicas=2), disaggregation=Disaggregation())
    files = rendered(replace(plan_of(finished), config=config), find_target("trtllm"))
    assert "trtllm-serve disaggregated -c trtllm-router.yaml &" in files["serve.sh"]


# An engine of one's own


OWN = """\
title: Swift
versions: [1.0.0]
command: [swift, '{checkpoint}', --port, '{port}']
knobs: {layout.tensor: --shards, batching.max_sequences: --seats, batching.max_batched_tokens: --pass}
server: {model_name: '{checkpoint}@main'}
"""


@pytest.fixture
def own_plan(finished, tmp_path):
    (tmp_path / "swift").mkdir()
    (tmp_path / "swift" / "engine.yaml").write_text(OWN)
    engine = find_engine("./swift", directory=tmp_path)
    return replace(plan_of(finished), model=find_model("llama-3.1-8b"), config=ServingConfig(engine=engine))


def test_the_benchmark_calls_the_model_as_its_server_does(own_plan, finished):
    text = bench_script(own_plan, finished.scenario.workload, load=8)
    assert "--model meta-llama/Llama-3.1-8B-Instruct@main" in text


def test_a_worker_of_one_s_own_engine_that_is_larger_than_a_machine_is_refused(own_plan):
    system = find_system("gb200-nvl72")
    larger = replace(own_plan, config=replace(own_plan.config, layout=Layout(tensor=8)), system=system)
    with pytest.raises(InputError, match=r"swift has no way known to span machines, but .* take 8 GPUs"):
        rendered(larger, find_target("swift", "swift"))


def test_a_container_needs_an_image(own_plan):
    with pytest.raises(InputError, match=r"targets that fit: swift \(docker-compose and kubernetes need an `image`"):
        rendered(own_plan, find_target("docker-compose", "swift"))
