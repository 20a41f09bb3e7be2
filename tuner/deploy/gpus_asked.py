"""How many GPUs a deployment's files ask for, added up from the files alone."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from search_spaces.errors import InputError

VISIBLE = re.compile(r"^env CUDA_VISIBLE_DEVICES=([\d,]+) ")
MPI_RANKS = re.compile(r"(?:^env .*|^)mpirun -n (\d+) ")


def gpus_asked(files: Mapping[str, str]) -> int:
    """GPUs of all scripts, compose files, manifests and values together.

    Raises InputError where one GPU of a machine is given to two workers.
    """
    scripts = (text for name, text in files.items() if re.fullmatch(r"serve.*\.sh", name))
    documents = [document for name, text in files.items() if name.endswith(".yaml") for document in _documents(text)]
    return sum(map(_in_script, scripts)) + sum(map(_in_document, documents))


def _documents(text: str) -> Iterable[Mapping[str, Any]]:
    from ruamel.yaml import YAML

    loaded = YAML(typ="safe", pure=True).load_all(text)
    return [document for document in loaded if isinstance(document, Mapping)]


def _in_script(text: str) -> int:
    given: list[str] = []
    ranks = 0
    for line in text.splitlines():
        if found := MPI_RANKS.search(line):
            ranks += int(found[1])
        elif found := VISIBLE.match(line):
            given += found[1].split(",")
    _given_once(given)
    return len(given) + ranks


def _given_once(gpus: list[str]) -> None:
    twice = sorted({gpu for gpu in gpus if gpus.count(gpu) > 1}, key=int)
    if twice:
        raise InputError(f"GPUs {', '.join(twice)} of one machine are given to two workers")


def _in_document(document: Mapping[str, Any]) -> int:
    kind = document.get("kind", "")
    if kind in COUNTS:
        return COUNTS[kind](document["spec"])
    if "services" in document:
        return _in_compose(document["services"])
    if "modelArtifacts" in document:
        return sum(_in_values(document.get(role, {})) for role in ("prefill", "decode"))
    return 0


def _in_compose(services: Mapping[str, Any]) -> int:
    given: list[str] = []
    for service in services.values():
        reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {})
        for device in reserved.get("devices", ()):
            given += device["device_ids"]
    _given_once(given)
    return len(given)


def _in_pod(pod: Mapping[str, Any]) -> int:
    limits = (container.get("resources", {}).get("limits", {}) for container in pod["containers"])
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)


def _in_replicas(spec: Mapping[str, Any]) -> int:
    return int(spec["replicas"]) * _in_pod(spec["template"]["spec"])


def _in_groups(spec: Mapping[str, Any]) -> int:
    group = spec["leaderWorkerTemplate"]
    leader, worker = _in_pod(group["leaderTemplate"]["spec"]), _in_pod(group["workerTemplate"]["spec"])
    return int(spec["replicas"]) * (leader + (int(group["size"]) - 1) * worker)


def _in_graph(spec: Mapping[str, Any]) -> int:
    """Dynamo's operator: "Total number of GPUs is NumberOfNodes * GPU limit" (MultinodeSpec), for each replica."""

    def gpus(service: Mapping[str, Any]) -> int:
        nodes = service.get("multinode", {}).get("nodeCount", 1)
        limit = service.get("resources", {}).get("limits", {}).get("gpu", 0)
        return int(service.get("replicas", 1)) * int(nodes) * int(limit)

    return sum(map(gpus, spec["services"].values()))


def _in_values(pods: Mapping[str, Any]) -> int:
    return int(pods["replicas"]) * _in_pod(pods) if pods.get("create") else 0


COUNTS: Mapping[str, Callable[[Mapping[str, Any]], int]] = {
    "Deployment": _in_replicas,
    "StatefulSet": _in_replicas,
    "LeaderWorkerSet": _in_groups,
    "DynamoGraphDeployment": _in_graph,
}
