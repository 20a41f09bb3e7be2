"""Values for llm-d's llm-d-modelservice chart (v0.4.12) that start a vLLM plan, and how to install them."""

from typing import Any

from search_spaces.engines.commands import Command
from search_spaces.errors import InputError
from tuner.deploy.compose import EVERYWHERE, image
from tuner.deploy.plan import FRONT_PORT, Files, Plan, yaml_text

VALUES = "llm-d-values.yaml"
DECODE_PORT = 8200
"""`routing.proxy.targetPort`: where vLLM listens behind the sidecar that hands prompts to prefill workers."""

ROUTING_SIDECAR = "ghcr.io/llm-d/llm-d-routing-sidecar:v0.4.0"
CHART = "llm-d-modelservice v0.4.12"


def llmd_files(plan: Plan) -> Files:
    """Raises InputError for a worker larger than a machine: the chart cuts workers along data parallelism only."""
    if plan.folders:
        raise InputError(f"llm-d loads checkpoints by their name on the Hub, but got {plan.folders[0]}")
    disaggregated = plan.config.disaggregation is not None
    decode_port = DECODE_PORT if disaggregated else FRONT_PORT
    ports = {"serve": decode_port, "prefill": FRONT_PORT, "decode": decode_port}
    *prefill, decode = plan.commands(host=EVERYWHERE, ports=ports)
    for command in (*prefill, decode):
        if plan.nodes_of(command) > 1:
            raise InputError(
                f"llm-d is given workers of at most one machine ({plan.gpus_per_node} GPUs), but this plan's have "
                f"{command.gpus}; targets for several: kubernetes, dynamo, {plan.engine}"
            )
    values = {
        "multinode": False,
        "modelArtifacts": {
            "name": plan.served_name,
            "uri": f"hf://{plan.served_name}",
            "size": "1Ti",
            "authSecretName": plan.secret,
            "mountPath": "/model-cache",
            "labels": {"llm-d.ai/inference-serving": "true", "llm-d.ai/model": plan.name},
        },
        "routing": {
            "servicePort": FRONT_PORT,
            "proxy": {
                "enabled": disaggregated,
                "image": ROUTING_SIDECAR,
                "targetPort": DECODE_PORT,
                "connector": "nixlv2",
                "secure": False,
            },
        },
        "decode": {"create": True, **_pods(plan, decode, decode_port)},
        "prefill": {"create": True, **_pods(plan, prefill[0], FRONT_PORT)} if prefill else {"create": False},
    }
    return {VALUES: yaml_text(values, comment=f"{plan.described}, for the chart {CHART}")}


def _pods(plan: Plan, command: Command, port: int) -> dict[str, Any]:
    """`modelCommand: custom` starts exactly our command; the chart would add sizes of its own to others.

    `parallelism` is what the chart counts GPUs by where no limit is given; it is given.
    """
    gpus = str(command.gpus)
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in command.env.items()]
    if command.role != "serve":
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        env.append({"name": plan.facts.deploying.side_channel_host, "valueFrom": address})
    container = {
        "name": plan.engine,
        "image": image(plan),
        "modelCommand": "custom",
        "command": list(command.argv[:2]),
        "args": list(command.argv[2:]),
        "env": env,
        "ports": [{"containerPort": port, "name": "http", "protocol": "TCP"}],
        "resources": {"limits": {"nvidia.com/gpu": gpus}, "requests": {"nvidia.com/gpu": gpus}},
        "mountModelVolume": True,
    }
    parallelism = {"tensor": command.gpus, "data": 1, "dataLocal": 1, "workers": 1}
    return {"replicas": command.copies, "parallelism": parallelism, "containers": [container]}
