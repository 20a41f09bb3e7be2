"""The files of every target: GPUs add up to the plan's, schemas hold, arguments are known, scripts start the plan."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

import jsonschema
import kubernetes_validate
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from search_spaces.config import Disaggregation, Engine, Layout, Precision, ServingConfig, Speculation
from search_spaces.engines.engine import find_engine
from search_spaces.engines.folders import engine_names
from search_spaces.engines.laws import unsupported
from search_spaces.errors import InputError
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model
from tests.search_spaces.engines.configs import configs
from tests.search_spaces.engines.options import known
from tuner.deploy.deploy import rendered
from tuner.deploy.gpus_asked import gpus_asked
from tuner.deploy.plan import Plan, yaml_text
from tuner.deploy.targets import targets

SCHEMAS = Path(__file__).parent / "schemas"
COMPOSE_SCHEMA = json.loads(
    package_files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
)
TARGETS = targets()
EVERY_TARGET = pytest.mark.parametrize("target", TARGETS)
EVERY_ENGINE = pytest.mark.parametrize("engine", engine_names())
PD = Disaggregation(prefill_layout=Layout(tensor=1, replicas=2))


def plan_of(config: ServingConfig, system: str = "b200", **changes) -> Plan:
    named = {"checkpoint": "org/checkpoint", "draft": "org/draft"} | changes
    return Plan(
        title="llama-3.1-8b chat", model=find_model("llama-3.1-8b"), config=config, system=find_system(system), **named
    )


def plan(engine: str, system: str = "b200", **parts) -> Plan:
    return plan_of(ServingConfig(engine=find_engine(engine), **parts), system)


def files_of(target: str, made: Plan) -> dict[str, str]:
    return rendered(made, TARGETS[target])


def documents(text: str) -> list[dict]:
    return list(YAML(typ="safe", pure=True).load_all(text))


# GPUs.


small = st.integers(1, 2).flatmap(
    lambda replicas: st.builds(
        lambda config, size: replace(config, layout=Layout(tensor=size, replicas=replicas), disaggregation=None),
        configs,
        st.sampled_from([1, 2, 4]),
    )
)


def attempted(target: str, config: ServingConfig, system: str = "b200") -> dict[str, str]:
    """The files, or none where engine or target cannot start the plan, which only a plan that spans machines allows."""
    of_target = replace(config, engine=find_engine(TARGETS[target].engines[config.gpus % len(TARGETS[target].engines)]))
    if unsupported(of_target):
        return {}
    try:
        files = files_of(target, plan_of(of_target, system))
    except InputError:
        per_node = find_system(system).gpus_per_node
        assert config.gpus > per_node if target == "docker-compose" else largest_worker(config) > per_node
        return {}
    return files


def largest_worker(config: ServingConfig) -> int:
    layouts = [config.layout, *([config.disaggregation.prefill_layout] if config.disaggregation else [])]
    return max(layout.gpus_per_worker for layout in layouts)


@EVERY_TARGET
@given(config=small | configs, system=st.sampled_from(["b200", "gb200-nvl72", "h100"]))
@settings(deadline=None, max_examples=60)
def test_every_target_asks_for_exactly_the_gpus_of_the_plan(target, config, system):
    files = attempted(target, config, system)
    assert not files or gpus_asked(files) == config.gpus


THEIR_LAYOUT = {
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 8,
    "moe_tensor_parallel_size": 1,
    "moe_expert_parallel_size": 8,
    "max_batch_size": 128,
}


def test_aiconfigurator_counts_attention_dp_twice_for_tensorrt_llm_and_we_do_not():
    from aiconfigurator.generator.api import generate_backend_artifacts

    asked = {
        "ServiceConfig": {"model_path": "openai/gpt-oss-120b", "served_model_name": "m", "include_frontend": True},
        "K8sConfig": {"name_prefix": "x", "k8s_namespace": "d", "k8s_image": "i"},
        "DynConfig": {"mode": "agg"},
        "ModelConfig": {"is_moe": True},
        "SlaConfig": {"isl": 1024, "osl": 1024},
        "NodeConfig": {"num_gpus_per_node": 72},
        "WorkerConfig": {"agg_workers": 1},
        "params": {"agg": THEIR_LAYOUT},
    }
    theirs = generate_backend_artifacts(asked, "trtllm", backend_version="1.3.0rc23", deployment_target="dynamo-j2")
    assert gpus_asked({"theirs.yaml": theirs["k8s_deploy.yaml"]}) == 64
    ours = ServingConfig(engine=find_engine("trtllm"), layout=Layout(attention_dp=8, expert=8))
    assert gpus_asked(files_of("dynamo", replace(plan_of(ours), model=find_model("gpt-oss-120b")))) == 8


def test_a_gpu_that_is_given_twice_is_noticed():
    with pytest.raises(InputError, match="GPUs 1 of one machine are given to two workers"):
        gpus_asked({"serve.sh": "env CUDA_VISIBLE_DEVICES=0,1 a &\nenv CUDA_VISIBLE_DEVICES=1 b &\n"})


POD = "{containers: [{resources: {limits: {nvidia.com/gpu: 2}}}, {}]}"
GRAPH_WORKER = "{replicas: 2, multinode: {nodeCount: 3}, resources: {limits: {gpu: '4'}}}"


@pytest.mark.parametrize(
    ("name", "text", "gpus"),
    [
        ("serve.sh", "env CUDA_VISIBLE_DEVICES=0,1 a &\nenv CUDA_VISIBLE_DEVICES=2 b &\n", 3),
        ("serve-node-0.sh", "env X=1 mpirun -n 16 -H a:8 -x CUDA_VISIBLE_DEVICES=0,1 c &\n", 16),
        ("bench.sh", "env CUDA_VISIBLE_DEVICES=0 a &\n", 0),
        (
            "a.yaml",
            "kind: Deployment\nspec: {replicas: 3, template: {spec: " + POD + "}}",
            6,
        ),
        (
            "a.yaml",
            "kind: DynamoGraphDeployment\nspec: {services: {F: {replicas: 1}, W: " + GRAPH_WORKER + "}}",
            24,
        ),
    ],
)
def test_gpus_are_added_up_from_the_text_alone(name, text, gpus):
    assert gpus_asked({name: text}) == gpus


# Schemas.


@given(config=small | configs)
@settings(deadline=None, max_examples=40)
def test_every_compose_file_keeps_the_compose_specification(config):
    files = attempted("docker-compose", config)
    if not files:
        return
    (compose,) = documents(files["docker-compose.yaml"])
    jsonschema.validate(compose, COMPOSE_SCHEMA)
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:8000:8000"]
    for service in compose["services"].values():
        assert not any(re.search(r"(?<!\$)\$(?!\$)", part) for part in service.get("entrypoint", ()))


CUSTOM = {"LeaderWorkerSet": "leaderworkerset", "DynamoGraphDeployment": "dynamographdeployment"}


def pods_of(document: dict) -> list[dict]:
    """Pods inside a custom resource, which its own schema leaves to Kubernetes'."""
    if document["kind"] == "LeaderWorkerSet":
        group = document["spec"]["leaderWorkerTemplate"]
        return [group["leaderTemplate"]["spec"], group["workerTemplate"]["spec"]]
    pods = []
    for service in document["spec"]["services"].values():
        pod = dict(service["extraPodSpec"])
        container = {"name": "main", **pod.pop("mainContainer")}
        pods.append({**pod, "containers": [container | {"env": service.get("envs", [])}]})
    return pods


def check_manifest(document: dict) -> None:
    if document["kind"] not in CUSTOM:
        kubernetes_validate.validate(document, "1.32", strict=True)
        return
    jsonschema.validate(document, json.loads((SCHEMAS / f"{CUSTOM[document['kind']]}.json").read_text()))
    for pod in pods_of(document):
        wrapped = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod}
        kubernetes_validate.validate(wrapped, "1.32", strict=True)


@pytest.mark.parametrize("target", ["kubernetes", "dynamo"])
@given(config=configs, system=st.sampled_from(["b200", "gb200-nvl72"]))
@settings(deadline=None, max_examples=20)
def test_every_manifest_keeps_its_schema(target, config, system):
    for text in attempted(target, config, system).values():
        for document in documents(text):
            check_manifest(document)


def test_the_schemas_would_notice_a_field_that_does_not_exist():
    made = plan("vllm", "gb200-nvl72", layout=Layout(tensor=8))
    (_, text), *_ = files_of("kubernetes", made).items()
    workers = next(document for document in documents(text) if document["kind"] == "LeaderWorkerSet")
    workers["spec"]["leaderWorkerTemplate"]["nodes"] = 2
    with pytest.raises(jsonschema.ValidationError):
        check_manifest(workers)
    (graph,) = documents(files_of("dynamo", made)["dynamo.yaml"])
    graph["spec"]["services"]["Worker"]["gpus"] = 2
    with pytest.raises(jsonschema.ValidationError):
        check_manifest(graph)


@given(config=small | configs)
@settings(deadline=None, max_examples=40)
def test_every_set_of_llm_d_values_keeps_the_chart_s_schema(config):
    schema = json.loads((SCHEMAS / "llm-d-modelservice-values.json").read_text())
    for text in attempted("llm-d", config).values():
        (values,) = documents(text)
        jsonschema.validate(values, schema)


# What is started.


def argvs(document: dict) -> list[list[str]]:
    """Every command of a manifest, a compose file or values."""
    if isinstance(document, dict):
        own = [*document.get("command", ()), *document.get("args", ())] or list(document.get("entrypoint", ()))
        return ([own] if own else []) + [argv for part in document.values() for argv in argvs(part)]
    return [argv for part in document for argv in argvs(part)] if isinstance(document, list) else []


@EVERY_ENGINE
@pytest.mark.parametrize("target", ["docker-compose", "kubernetes"])
@pytest.mark.parametrize("disaggregation", [None, PD], ids=["aggregated", "disaggregated"])
def test_containers_run_exactly_the_engine_s_commands(engine, target, disaggregation):
    made = plan(engine, layout=Layout(tensor=2, replicas=2), disaggregation=disaggregation)
    started = [
        argv
        for text in files_of(target, made).values()
        if text.startswith("#")
        for document in documents(text)
        for argv in argvs(document)
    ]
    for command in made.commands(host="0.0.0.0"):
        expected = ["python3" if part == "python" else part for part in command.argv]
        assert started.count(expected) == (command.copies if target == "docker-compose" else 1)


@EVERY_ENGINE
@pytest.mark.parametrize("target", ["docker-compose", "kubernetes", "dynamo"])
@pytest.mark.parametrize("disaggregation", [None, PD], ids=["aggregated", "disaggregated"])
@pytest.mark.parametrize("system", ["b200", "gb200-nvl72"])
def test_every_option_in_the_files_is_known_to_its_program(engine, target, disaggregation, system):
    wide = (
        system == "gb200-nvl72" and target != "docker-compose" and not (engine == "trtllm" and target == "kubernetes")
    )
    made = plan(engine, system, layout=Layout(tensor=8 if wide else 2), disaggregation=disaggregation)
    version = made.config.engine.version
    engine_s = known(f"{engine}-{version}")
    programs = {
        "-m dynamo.frontend": known("dynamo-frontend-1.4.2"),
        f"-m dynamo.{engine}": known(f"dynamo-{engine}-1.4.2") | (set() if engine == "trtllm" else engine_s),
        "-m sglang_router.launch_router": known("sglang-router-0.3.2"),
        "vllm-router": known("vllm-router-0.1.17"),
        "": engine_s,
    }
    for text in files_of(target, made).values():
        if not text.startswith("#"):
            continue
        for argv in [argv for document in documents(text) for argv in argvs(document)]:
            program = next(name for name in programs if name in " ".join(argv))
            options = {part for part in argv if part.startswith("-") and part not in {"-m", "-c"}}
            assert options - programs[program] == set(), program


FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$0" "$@" > "$RECORDS/$$.tmp"
printf '%s' "${CUDA_VISIBLE_DEVICES:-}" > "$RECORDS/$$.gpus"
mv "$RECORDS/$$.tmp" "$RECORDS/$$.argv"
exec sleep 300
"""


@EVERY_ENGINE
@pytest.mark.parametrize("disaggregation", [None, PD], ids=["aggregated", "disaggregated"])
def test_the_script_starts_exactly_the_plan_and_ends_all_of_it(engine, disaggregation, tmp_path):
    made = plan(
        engine, layout=Layout(tensor=2, replicas=2), disaggregation=disaggregation, precision=Precision(kv_cache="fp8")
    )
    for name, text in files_of(engine, made).items():
        (tmp_path / name).write_text(text)
    programs, records = tmp_path / "bin", tmp_path / "records"
    programs.mkdir(), records.mkdir()
    for name in ("vllm", "trtllm-serve", "python", "nginx", "vllm-router"):
        (programs / name).write_text(FAKE)
        (programs / name).chmod(0o755)
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "RECORDS": str(records)}
    script = subprocess.Popen(["bash", str(tmp_path / "serve.sh")], env=env, start_new_session=True)
    workers = 5 if disaggregation else 3
    until = time.monotonic() + 30
    while len(list(records.glob("*.argv"))) < workers and time.monotonic() < until:
        time.sleep(0.02)
    started = {path.stem: path.read_text().splitlines() for path in records.glob("*.argv")}
    script.send_signal(signal.SIGTERM)
    script.wait(30)
    assert [pid for pid in started if alive(int(pid))] == []
    assert len(started) == workers
    gpus = sorted(gpu for pid in started for gpu in (records / f"{pid}.gpus").read_text().split(",") if gpu)
    assert gpus == [str(gpu) for gpu in range(made.config.gpus)]
    ports = [argv[argv.index("--port") + 1] for argv in started.values() if "--port" in argv]
    assert len(set(ports)) == len(ports)
    for command in made.commands():
        expected = {part for part in command.argv[1:] if not part.isdigit()}
        assert sum(expected <= set(argv) for argv in started.values()) >= command.copies


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@EVERY_ENGINE
def test_a_worker_that_spans_machines_has_a_part_on_each(engine):
    made = plan(engine, "gb200-nvl72", layout=Layout(tensor=8))
    files = files_of(engine, made)
    first, second = files["serve-node-0.sh"], files["serve-node-1.sh"]
    for text in (first, second):
        assert ': "${NODE_1:?the address of machine 1}"' in text
        assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    if engine == "trtllm":
        assert (
            'mpirun -n 8 -H "$NODE_0":4,"$NODE_1":4 -x CUDA_VISIBLE_DEVICES=0,1,2,3 trtllm-llmapi-launch trtllm-serve'
            in first
        )
        assert "Started from another machine by mpirun" in second
    else:
        assert "--nnodes 2 --node-rank 0" in first
        assert "--nnodes 2 --node-rank 1" in second
        assert ("--headless" in second) == (engine == "vllm")
        assert "--headless" not in first


def test_disaggregated_workers_on_many_machines_know_each_other_by_address():
    made = plan(
        "vllm", "gb200-nvl72", layout=Layout(tensor=4), disaggregation=Disaggregation(prefill_layout=Layout(tensor=4))
    )
    files = files_of("vllm", made)
    first = files["serve-node-0.sh"]
    assert 'VLLM_NIXL_SIDE_CHANNEL_HOST="$NODE_0"' in first
    assert '--prefill http://"$NODE_0":8100 --decode http://"$NODE_1":8200' in first
    assert '--host "$NODE_1" --port 8200' in files["serve-node-1.sh"]


def test_a_script_puts_addresses_into_the_router_s_file(tmp_path):
    made = plan(
        "trtllm", "gb200-nvl72", layout=Layout(tensor=4), disaggregation=Disaggregation(prefill_layout=Layout(tensor=4))
    )
    files = files_of("trtllm", made)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "trtllm-serve").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "trtllm-serve").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NODE_0": "10.0.0.1", "NODE_1": "10.0.0.2"}
    subprocess.run(["bash", str(tmp_path / "serve-node-0.sh")], env=env, check=True, timeout=60)
    (routed,) = documents((tmp_path / "resolved-trtllm-router.yaml").read_text())
    assert routed["hostname"] == "10.0.0.1"
    assert routed["context_servers"]["urls"] == ["10.0.0.1:8100"]
    assert routed["generation_servers"]["urls"] == ["10.0.0.2:8200"]


@EVERY_TARGET
def test_no_file_holds_a_token_and_each_image_is_pinned(target):
    engine = TARGETS[target].engines[0]
    text = "\n".join(files_of(target, plan(engine, layout=Layout(replicas=2), disaggregation=PD)).values())
    assert "hf_" not in text
    for image in re.findall(r"image: (\S+)", text):
        assert re.search(r":v?\d+\.\d+\.\d+", image), image
        assert "latest" not in image


def test_the_load_balancer_in_front_of_equal_workers_reaches_each():
    files = files_of("docker-compose", plan("vllm", layout=Layout(replicas=3)))
    assert re.findall(r"server (\S+);", files["nginx.conf"]) == ["serve-0:8000", "serve-1:8000", "serve-2:8000"]
    scripts = files_of("vllm", plan("vllm", layout=Layout(replicas=2)))
    assert re.findall(r"server (\S+);", scripts["nginx.conf"]) == ["127.0.0.1:8001", "127.0.0.1:8002"]
    assert "listen 127.0.0.1:8000;" in scripts["nginx.conf"]


def test_the_load_balancer_holds_thousands_of_requests_in_flight():
    conf = files_of("vllm", plan("vllm", layout=Layout(replicas=2)))["nginx.conf"]
    connections, files = (int(re.search(rf"{name} (\d+);", conf)[1]) for name in ("connections", "rlimit_nofile"))
    assert files >= connections + connections // 2
    assert "worker_processes auto;" in conf
    assert "zone workers" in conf, "without shared counts each process has a least busy worker of its own"


def test_workers_that_pass_no_kv_cache_have_no_side_channel():
    scripts = files_of("vllm", plan("vllm", "gb200-nvl72", layout=Layout(attention_dp=4, replicas=3)))
    assert "SIDE_CHANNEL" not in "".join(scripts.values())


def test_addresses_are_exported_once_for_all_machines():
    start = TARGETS["vllm"].start(plan("vllm", "gb200-nvl72", layout=Layout(tensor=4, replicas=3)))
    assert start.splitlines() == [
        "export NODE_0=ADDRESS NODE_1=ADDRESS NODE_2=ADDRESS  # on every machine",
        *(f"bash serve-node-{node}.sh  # on machine {node}" for node in range(3)),
    ]


def test_a_kubernetes_router_knows_every_worker_by_name():
    made = plan("sglang", disaggregation=PD, layout=Layout(replicas=1))
    (argv,) = [
        argv
        for document in documents(files_of("kubernetes", made)["kubernetes.yaml"])
        for argv in argvs(document)
        if "sglang_router.launch_router" in argv
    ]
    name = made.name
    line = shlex.join(argv)
    assert f"--prefill http://{name}-prefill-0.{name}-prefill:8100 8998" in line
    assert f"--prefill http://{name}-prefill-1.{name}-prefill:8100 8998" in line
    assert f"--decode http://{name}-decode-0.{name}-decode:8200" in line


FOLDERS = {"checkpoint": "/models/mine", "draft": "/models/draft"}


@pytest.mark.parametrize("target", ["docker-compose", "kubernetes", "dynamo"])
def test_a_local_checkpoint_is_mounted_where_it_lies(target):
    config = ServingConfig(engine=find_engine("vllm"), speculation=Speculation(method="eagle3", draft_length=1))
    (text,) = files_of(target, plan_of(config, **FOLDERS)).values()
    if target == "docker-compose":
        assert "- /models/mine:/models/mine:ro" in text
        return
    for document in documents(text):
        check_manifest(document)
    assert re.search(r"hostPath:\s+path: /models/mine", text)
    assert text.count("mountPath: /models/draft") == 1


def test_llm_d_takes_checkpoints_by_name():
    with pytest.raises(InputError, match="by their name on the Hub, but got /models/mine"):
        files_of("llm-d", plan_of(ServingConfig(engine=find_engine("vllm")), **FOLDERS))


@pytest.mark.parametrize("folder", ["./model", "../model", "~/model"])
def test_a_relative_folder_is_refused(folder):
    with pytest.raises(InputError, match="needs its absolute path"):
        replace(plan("vllm"), checkpoint=folder)


def test_a_title_of_several_lines_adds_none_to_a_script():
    made = replace(plan("vllm"), title="a\nrm -rf b")
    assert not any(line.startswith("rm") for line in files_of("vllm", made)["serve.sh"].splitlines())


# What cannot be.


def test_one_machine_is_not_enough_for_a_larger_plan():
    with pytest.raises(InputError, match="docker-compose starts one machine, but this plan takes 2 with 8 GPUs each"):
        files_of("docker-compose", plan("vllm", layout=Layout(tensor=8, replicas=2)))


def test_kubernetes_leaves_mpi_to_others():
    with pytest.raises(InputError, match=r"takes MPI; targets that can: dynamo, trtllm"):
        files_of("kubernetes", plan("trtllm", "gb200-nvl72", layout=Layout(tensor=8)))


def test_llm_d_takes_no_worker_larger_than_a_machine():
    with pytest.raises(InputError, match="at most one machine"):
        files_of("llm-d", plan("vllm", "gb200-nvl72", layout=Layout(tensor=8)))


def test_a_checkpoint_that_nobody_published_has_to_be_named():
    unnamed = replace(plan("vllm", precision=Precision(weights="mxfp4")), checkpoint=None)
    with pytest.raises(InputError, match="name yours with --checkpoint"):
        files_of("vllm", unnamed)
    draft = plan("vllm", speculation=Speculation(method="eagle3", draft_length=1))
    llama = replace(draft, model=find_model("llama-3.1-405b"), draft=None)
    with pytest.raises(InputError, match="name yours with --draft"):
        files_of("vllm", llama)


@pytest.mark.parametrize(
    ("title", "name"), [("Llama-3.1 chat!", "llama-3-1-chat"), ("3b", "llm-3b"), ("a" * 60, "a" * 40)]
)
def test_a_plan_s_name_is_a_dns_label(title, name):
    assert replace(plan("vllm"), title=title).name == name


def test_a_word_that_yaml_1_1_takes_for_a_boolean_stays_a_word():
    assert yaml_text({"a": "on", "b": ["No", "plain"], "c": True}) == 'a: "on"\nb:\n  - "No"\n  - plain\nc: true\n'


def test_another_release_pins_another_image():
    newer = plan_of(ServingConfig(engine=Engine(name="vllm", version="0.27.0")))
    assert "image: vllm/vllm-openai:v0.27.0" in files_of("kubernetes", newer)["kubernetes.yaml"]
    assert "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.5.1" in files_of("dynamo", newer)["dynamo.yaml"]
