"""A Docker Compose file that starts a plan on one machine; its front port is published on the loopback address only."""

from collections.abc import Sequence
from typing import Any

from search_spaces.engines.commands import Address, router
from search_spaces.errors import InputError
from tuner.deploy.plan import FRONT_PORT, Files, Plan, Slot, placed, yaml_text
from tuner.deploy.scripts import LOAD_BALANCER, load_balancer

COMPOSE_FILE = "docker-compose.yaml"
EVERYWHERE = "0.0.0.0"  # noqa: S104 inside a container, whose ports nobody outside reaches unless they are published
NGINX_IMAGE = "nginx:1.28.0-alpine"
PYTHON_IMAGE = "python:3.12.11-slim"
WORK = "/servetune"
CACHE = "/root/.cache/huggingface"


def compose_files(plan: Plan) -> Files:
    """Raises InputError for a plan that needs more than one machine."""
    slots = placed(plan, plan.commands(host=EVERYWHERE))
    machines = 1 + max(node for slot in slots for node in slot.nodes)
    if machines > 1:
        raise InputError(
            f"docker-compose starts one machine, but this plan takes {machines} with {plan.gpus_per_node} GPUs each; "
            f"targets for several: {plan.engine}, kubernetes, dynamo"
        )
    front, files = _front(plan, slots)
    services = {slot.name: _worker(plan, slot) for slot in slots} | front
    sole = next(iter(services.values()))
    (services.get("router") or sole)["ports"] = [f"127.0.0.1:{FRONT_PORT}:{FRONT_PORT}"]
    for slot in slots:
        files |= slot.command.files
    document = {"name": plan.name, "services": services, "volumes": {"huggingface": {}}}
    return {COMPOSE_FILE: yaml_text(document, comment=plan.described), **files}


def _worker(plan: Plan, slot: Slot) -> dict[str, Any]:
    command = slot.command
    environment = dict(command.env)
    host = plan.facts.deploying.side_channel_host
    if host and command.role != "serve":
        environment[host] = slot.name
    service: dict[str, Any] = {
        "image": image(plan),
        "entrypoint": _escaped(in_container(command.argv)),
        "working_dir": WORK,
        "environment": [*(f"{name}={value}" for name, value in environment.items()), "HF_TOKEN"],
        "volumes": [f"huggingface:{CACHE}", f".:{WORK}:ro", *(f"{path}:{path}:ro" for path in plan.folders)],
        "ipc": "host",
        "ulimits": {"memlock": -1, "stack": 67108864},
        "restart": "unless-stopped",
        "deploy": {"resources": {"reservations": {"devices": [_devices(slot.gpus)]}}},
    }
    return service


def _escaped(argv: Sequence[str]) -> list[str]:
    """Compose puts variables in place of what follows a single `$`."""
    return [part.replace("$", "$$") for part in argv]


def _devices(gpus: Sequence[int]) -> dict[str, Any]:
    return {"driver": "nvidia", "device_ids": [str(gpu) for gpu in gpus], "capabilities": ["gpu"]}


def _front(plan: Plan, slots: Sequence[Slot]) -> tuple[dict[str, Any], Files]:
    """The service in front of several workers, if there are several."""
    if plan.config.disaggregation is None:
        if len(slots) == 1:
            return {}, {}
        conf = load_balancer(str(FRONT_PORT), [f"{slot.name}:{FRONT_PORT}" for slot in slots])
        mount = f"./{LOAD_BALANCER}:/etc/nginx/nginx.conf:ro"
        service = {"image": NGINX_IMAGE, "volumes": [mount], "depends_on": [slot.name for slot in slots]}
        return {"router": {**service, "restart": "unless-stopped"}}, {LOAD_BALANCER: conf}
    placement = plan.placement(host=EVERYWHERE, ports={"router": FRONT_PORT})
    ports = plan.placement().ports
    at = [Address(host=slot.name, port=ports[slot.command.role]) for slot in slots]
    prefill = [address for address in at if address.host.startswith("prefill")]
    command = router(plan.config, prefill, at[len(prefill) :], placement=placement)
    router_image, argv = router_container(plan, command.argv)
    service = {
        "image": router_image,
        "entrypoint": _escaped(argv),
        "working_dir": WORK,
        "volumes": [f".:{WORK}:ro"],
        "depends_on": [slot.name for slot in slots],
        "restart": "unless-stopped",
    }
    return {"router": service}, dict(command.files)


def image(plan: Plan) -> str:
    """The engine's own image, pinned to the release that the plan was made for."""
    return plan.facts.image_of(plan.config.engine.version)


def in_container(argv: Sequence[str]) -> list[str]:
    """Images that have a `python3` need not have a `python`."""
    return ["python3" if part == "python" and index == 0 else part for index, part in enumerate(argv)]


def router_container(plan: Plan, argv: Sequence[str]) -> tuple[str, list[str]]:
    """The image that brings a router, and how it is started there: one that the engine's lacks comes from PyPI."""
    package = plan.facts.deploying.router_package
    if not package:
        return image(plan), in_container(argv)
    install = f'pip install --quiet --root-user-action=ignore {package} && exec "$0" "$@"'
    return PYTHON_IMAGE, ["sh", "-c", install, *argv]
