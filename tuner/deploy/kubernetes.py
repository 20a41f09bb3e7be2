"""Kubernetes manifests that start a plan: one workload for each kind of worker, and a Service in front.

A worker that fits a machine is a Deployment, or a StatefulSet where a router has to know each by name; one that spans
machines is a LeaderWorkerSet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.engines.commands import Address, Command, router
from search_spaces.engines.parts import deploy_of
from search_spaces.errors import InputError
from tuner.deploy.compose import EVERYWHERE, image, in_container, router_container
from tuner.deploy.plan import FRONT_PORT, Files, Plan, yaml_text

MANIFESTS = "kubernetes.yaml"
MOUNT = "/etc/servetune"
START_MINUTES = 60
"""How long a worker may load its weights before Kubernetes gives up."""

PROBE_SECONDS = 10
LEADER = "$(LWS_LEADER_ADDRESS)"
WORKER_INDEX = "$(LWS_WORKER_INDEX)"


def kubernetes_files(plan: Plan) -> Files:
    """Raises InputError for a worker that spans machines by MPI, which Dynamo's operator brings."""
    workers = plan.commands(host=EVERYWHERE)
    documents = [*_config_map(plan, workers)]
    for command in workers:
        documents += _workload(plan, command)
    documents += _front(plan, workers)
    return {MANIFESTS: yaml_text(*documents, comment=plan.described)}


def _name(plan: Plan, role: str) -> str:
    return plan.name if role == "serve" else f"{plan.name}-{role}"


def _labels(plan: Plan, role: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": plan.name, "app.kubernetes.io/component": role}


def _metadata(plan: Plan, role: str) -> dict[str, Any]:
    managed = {"app.kubernetes.io/managed-by": "servetune"}
    return {"name": _name(plan, role), "labels": {**_labels(plan, role), **managed}}


def _config_map(plan: Plan, workers: Sequence[Command]) -> list[dict[str, Any]]:
    files = {name: text for command in workers for name, text in command.files.items()}
    front = _router(plan, workers)
    files |= dict(front.files) if front else {}
    if not files:
        return []
    metadata = {"name": f"{plan.name}-files", "labels": {"app.kubernetes.io/name": plan.name}}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files}]


def _workload(plan: Plan, command: Command) -> list[dict[str, Any]]:
    nodes = plan.nodes_of(command)
    if nodes > 1:
        return [_leader_worker_set(plan, command, nodes)]
    selector = {"matchLabels": _labels(plan, command.role)}
    template = {
        "metadata": {"labels": _labels(plan, command.role)},
        "spec": _pod(plan, command, command.argv, command.gpus, serves=True),
    }
    spec: dict[str, Any] = {"replicas": command.copies, "selector": selector, "template": template}
    if command.role == "serve":
        deployment = {"strategy": {"type": "Recreate"}, **spec}  # there are no spare GPUs to roll over to
        return [_object("apps/v1", "Deployment", plan, command.role, deployment)]
    named = {"serviceName": _name(plan, command.role), "podManagementPolicy": "Parallel", **spec}
    return [_headless(plan, command), _object("apps/v1", "StatefulSet", plan, command.role, named)]


def _leader_worker_set(plan: Plan, command: Command, nodes: int) -> dict[str, Any]:
    """Pods 0 to nodes - 1 of a group share one worker; pod 0 answers requests."""
    if plan.facts.deploying.by_mpi:
        raise InputError(
            f"kubernetes cannot start a {plan.facts.title} worker of {command.gpus} GPUs over {nodes} machines, which "
            f"takes MPI; targets that can: dynamo, {plan.engine}"
        )
    across = deploy_of(plan.config.engine).across_nodes
    share = command.gpus // nodes

    def pod(rank: str) -> dict[str, Any]:
        argv = across(command.argv, nodes=nodes, rank=rank, leader=LEADER)
        labels = _labels(plan, command.role) | {"servetune/answers": "true" if rank == "0" else "false"}
        return {
            "metadata": {"labels": labels},
            "spec": _pod(plan, command, argv, share, serves=rank == "0"),
        }

    group = {
        "size": nodes,
        "restartPolicy": "RecreateGroupOnPodRestart",
        "leaderTemplate": pod("0"),
        "workerTemplate": pod(WORKER_INDEX),
    }
    spec = {"replicas": command.copies, "leaderWorkerTemplate": group}
    return _object("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", plan, command.role, spec)


def _object(version: str, kind: str, plan: Plan, role: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": _metadata(plan, role), "spec": dict(spec)}


def _pod(plan: Plan, command: Command, argv: Sequence[str], gpus: int, *, serves: bool) -> dict[str, Any]:
    port = plan.placement().ports[command.role]
    container: dict[str, Any] = {
        "name": "engine",
        "image": image(plan),
        "command": in_container(argv),
        "workingDir": MOUNT if command.files else "/",
        "env": _environment(plan, command),
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"nvidia.com/gpu": str(gpus)}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}, *_mounts(command), *folder_mounts(plan)],  # noqa: S108 shared memory
    }
    if serves:
        container |= {"ports": [{"name": "http", "containerPort": port}], **_probes(plan, port)}
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    volumes += [*_volumes(plan, command), *folder_volumes(plan)]
    return {"containers": [container], "volumes": volumes}


def _probes(plan: Plan, port: int) -> dict[str, Any]:
    """Of an engine without a page for its health, whether it listens."""
    path = plan.facts.server.health
    asked = {"httpGet": {"path": path, "port": port}} if path else {"tcpSocket": {"port": port}}
    probe = {**asked, "periodSeconds": PROBE_SECONDS}
    return {
        "startupProbe": probe | {"failureThreshold": START_MINUTES * 60 // PROBE_SECONDS},
        "readinessProbe": probe,
    }


def _mounts(command: Command) -> list[dict[str, Any]]:
    return [{"name": "files", "mountPath": MOUNT, "readOnly": True}] if command.files else []


def _volumes(plan: Plan, command: Command) -> list[dict[str, Any]]:
    return [{"name": "files", "configMap": {"name": f"{plan.name}-files"}}] if command.files else []


def folder_mounts(plan: Plan) -> list[dict[str, Any]]:
    folders = enumerate(plan.folders)
    return [{"name": f"folder-{number}", "mountPath": path, "readOnly": True} for number, path in folders]


def folder_volumes(plan: Plan) -> list[dict[str, Any]]:
    """Local checkpoints lie on the machines themselves."""
    folders = enumerate(plan.folders)
    return [{"name": f"folder-{number}", "hostPath": {"path": path, "type": "Directory"}} for number, path in folders]


def _environment(plan: Plan, command: Command) -> list[dict[str, Any]]:
    """The token is read from the Secret, which may be absent for public checkpoints."""
    settings: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in command.env.items()]
    host = plan.facts.deploying.side_channel_host
    if host and command.role != "serve":
        settings.append({"name": host, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    token = {"secretKeyRef": {"name": plan.secret, "key": "HF_TOKEN", "optional": True}}
    return [*settings, {"name": "HF_TOKEN", "valueFrom": token}]


def _headless(plan: Plan, command: Command) -> dict[str, Any]:
    """Gives each worker a name of its own."""
    port = plan.placement().ports[command.role]
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": _labels(plan, command.role),
        "ports": [{"name": "http", "port": port}],
    }
    return _object("v1", "Service", plan, command.role, spec)


def _router(plan: Plan, workers: Sequence[Command]) -> Command | None:
    if plan.config.disaggregation is None:
        return None
    prefill, decode = (_addresses(plan, command) for command in workers)
    return router(plan.config, prefill, decode, placement=plan.placement(host=EVERYWHERE, ports={"router": FRONT_PORT}))


def _addresses(plan: Plan, command: Command) -> list[Address]:
    """Pods of a StatefulSet, and leaders of a LeaderWorkerSet, are named alike: NAME-INDEX.NAME."""
    name, port = _name(plan, command.role), plan.placement().ports[command.role]
    return [Address(host=f"{name}-{copy}.{name}", port=port) for copy in range(command.copies)]


def _front(plan: Plan, workers: Sequence[Command]) -> list[dict[str, Any]]:
    command = _router(plan, workers)
    port = {"name": "http", "port": FRONT_PORT, "targetPort": FRONT_PORT}
    if command is None:
        labels = _labels(plan, "serve")
        if plan.nodes_of(workers[0]) > 1:
            labels |= {"servetune/answers": "true"}
        return [_object("v1", "Service", plan, "serve", {"selector": labels, "ports": [port]})]
    router_image, argv = router_container(plan, command.argv)
    container = {
        "name": "router",
        "image": router_image,
        "command": argv,
        "workingDir": MOUNT if command.files else "/",
        "ports": [{"name": "http", "containerPort": FRONT_PORT}],
        "volumeMounts": _mounts(command),
    }
    labels = _labels(plan, "router")
    pod = {"containers": [container], "volumes": _volumes(plan, command)}
    deployment = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    service = _object("v1", "Service", plan, "router", {"selector": labels, "ports": [port]})
    service["metadata"]["name"] = plan.name
    return [_object("apps/v1", "Deployment", plan, "router", deployment), service]
