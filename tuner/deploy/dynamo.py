"""A DynamoGraphDeployment (nvidia.com/v1alpha1) that starts a plan under Dynamo's operator."""

from typing import Any

from search_spaces.engines import dynamo
from search_spaces.engines.commands import Command
from tuner.deploy.compose import EVERYWHERE, in_container
from tuner.deploy.kubernetes import MOUNT, folder_mounts, folder_volumes
from tuner.deploy.plan import Files, Plan, yaml_text

GRAPH = "dynamo.yaml"
INTERPRETER = 3
"""`python -m MODULE`: the part of a command that is the container's `command`."""


def dynamo_files(plan: Plan) -> Files:
    """The operator multiplies `limits.gpu` by `replicas`, and by `nodeCount` for a worker that spans machines."""
    release = dynamo.release_for(plan.config.engine)
    rendered = plan.commands("dynamo", host=EVERYWHERE)
    services = {_title(command): _service(plan, command, release.image) for command in rendered}
    documents: list[dict[str, Any]] = []
    files = {name: text for command in rendered for name, text in command.files.items()}
    if files:
        metadata = {"name": f"{plan.name}-files"}
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files})
    graph = {
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": plan.name},
        "spec": {"backendFramework": plan.engine, "services": services},
    }
    return {GRAPH: yaml_text(*documents, graph, comment=f"{plan.described}, Dynamo {release.version}")}


def _title(command: Command) -> str:
    return {"router": "Frontend", "serve": "Worker", "prefill": "PrefillWorker", "decode": "DecodeWorker"}[command.role]


def _service(plan: Plan, command: Command, image: str) -> dict[str, Any]:
    argv = in_container(command.argv)
    container: dict[str, Any] = {"image": image, "command": argv[:INTERPRETER], "args": argv[INTERPRETER:]}
    if command.role == "router":
        return {"componentType": "frontend", "replicas": 1, "extraPodSpec": {"mainContainer": container}}
    nodes = plan.nodes_of(command)
    service: dict[str, Any] = {
        "componentType": "worker",
        "replicas": command.copies,
        "envFromSecret": plan.secret,
        "resources": {"limits": {"gpu": str(command.gpus // nodes)}},
    }
    if command.role != "serve":
        service["subComponentType"] = command.role
    if nodes > 1:
        service["multinode"] = {"nodeCount": nodes}
    if command.env:
        service["envs"] = [{"name": name, "value": value} for name, value in command.env.items()]
    mounts, volumes = folder_mounts(plan), folder_volumes(plan)
    if command.files:
        container["workingDir"] = MOUNT
        mounts.append({"name": "files", "mountPath": MOUNT, "readOnly": True})
        volumes.append({"name": "files", "configMap": {"name": f"{plan.name}-files"}})
    pod: dict[str, Any] = {"mainContainer": container | ({"volumeMounts": mounts} if mounts else {})}
    return {**service, "extraPodSpec": pod | ({"volumes": volumes} if volumes else {})}
