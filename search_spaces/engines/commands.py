"""The commands that start a ServingConfig on its engine, alone or under Dynamo, and their routers.

Rendered for the releases in each engine's facts. Hosts, ports and file names are those of a Placement, by default
placeholders.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from search_spaces.config import ServingConfig
from search_spaces.engines import dynamo, spelled
from search_spaces.engines.checkpoints import EAGLE3_DRAFTS, FORMATS
from search_spaces.engines.laws import unsupported
from search_spaces.engines.parts import command_of, deploy_of
from search_spaces.engines.worker import (
    PORTS,
    SIDE_CHANNELS,
    Address,
    Command,
    Placement,
    Rendered,
    Role,
    Worker,
    counted_gpus,
    workers_of,
)
from search_spaces.errors import InfeasibleError
from search_spaces.models.model import Model

__all__ = [
    "PORTS",
    "SIDE_CHANNELS",
    "Address",
    "Command",
    "Orchestrator",
    "Placement",
    "Role",
    "caveats",
    "commands",
    "router",
]

Orchestrator = Literal["dynamo"]
SMALLEST_NODE = 4  # GPUs of a GB200 or GB300 node
ANYWHERE = Placement()


def commands(
    model: Model, config: ServingConfig, *, placement: Placement = ANYWHERE, orchestrator: Orchestrator | None = None
) -> tuple[Command, ...]:
    """One command for each kind of worker; where disaggregated, that of the prefill workers comes first.

    Under `dynamo` the workers are Dynamo's, and its frontend comes before them with the role `router`: it needs no
    GPU. Raises InfeasibleError for what the engine cannot express.
    """
    reason = unsupported(config)
    if reason:
        raise InfeasibleError("engine", reason)
    workers = workers_of(model, config, placement)
    if orchestrator is None:
        return tuple(_command(worker, _rendered(worker), _notes(worker)) for worker in workers)
    under = [_command(worker, _under_dynamo(worker), _notes_under_dynamo(worker)) for worker in workers]
    return (_router(dynamo.frontend(placement), dynamo.NOTE), *under)


def caveats(
    model: Model, config: ServingConfig, *, placement: Placement = ANYWHERE, orchestrator: Orchestrator | None = None
) -> list[str]:
    """What no command or manifest can say, in sentences: about checkpoints, releases and what is untested."""
    found: list[str] = []
    for worker in workers_of(model, config, placement):
        release = dynamo.notes_on_the_release(worker) if orchestrator == "dynamo" else _notes_on_the_release(worker)
        found += [*_notes_on_checkpoints(worker), *release, *_own_notes(worker)]
    return list(dict.fromkeys(found))


def router(
    config: ServingConfig, prefill: Sequence[Address], decode: Sequence[Address], *, placement: Placement = ANYWHERE
) -> Command:
    """What stands in front of disaggregated workers, listening on `placement`'s router port; it needs no GPU."""
    return _router(deploy_of(config.engine).router(prefill, decode, placement), "")


def _router(rendered: Rendered, note: str) -> Command:
    return Command(role="router", copies=1, gpus=0, argv=rendered.argv, files=rendered.files, note=note)


def _command(worker: Worker, rendered: Rendered, notes: Sequence[str]) -> Command:
    return Command(
        role=worker.role,
        copies=worker.layout.replicas,
        gpus=worker.layout.gpus_per_worker,
        argv=rendered.argv,
        files=rendered.files,
        env=rendered.env,
        note=" ".join(notes),
    )


def _under_dynamo(worker: Worker) -> Rendered:
    return dynamo.render(worker, _rendered(worker))


def _notes(worker: Worker) -> list[str]:
    """What else it takes to start this worker, in sentences."""
    return [
        *_notes_on_checkpoints(worker),
        *_notes_on_the_release(worker),
        *_own_notes(worker),
        *_notes_on_placement(worker),
    ]


def _notes_under_dynamo(worker: Worker) -> list[str]:
    """Dynamo places and finds its workers itself."""
    return [*_notes_on_checkpoints(worker), *_own_notes(worker), *dynamo.notes(worker)]


def _rendered(worker: Worker) -> Rendered:
    """As the engine's Python or its data spell it."""
    facts = worker.facts
    if facts.is_data:
        return spelled.render(worker, facts)
    rendered = command_of(worker.config.engine).render(worker)
    return replace(rendered, argv=rendered.argv + spelled.knob_options(worker, facts))


def _own_notes(worker: Worker) -> list[str]:
    return [] if worker.facts.is_data else command_of(worker.config.engine).notes(worker)


def _notes_on_checkpoints(worker: Worker) -> list[str]:
    notes = _notes_on_the_weights(worker) if worker.placement.checkpoint is None else []
    if worker.draft_length and worker.config.speculation.method == "eagle3" and worker.placement.draft is None:
        placeholder = worker.model.checkpoint not in EAGLE3_DRAFTS
        notes.append(
            f"It needs an EAGLE-3 draft for {worker.model.checkpoint} in place of the placeholder."
            if placeholder
            else f"{worker.draft} is one published EAGLE-3 draft for {worker.model.checkpoint}."
        )
    if worker.trusts_remote_code:
        notes.append("The checkpoint brings Python code of its own, which is trusted.")
    return notes


def _notes_on_the_weights(worker: Worker) -> list[str]:
    notes = []
    if worker.quantization and worker.published:
        notes.append(
            f"{worker.model.checkpoint} is quantized while it is loaded; {worker.published} is published in "
            "that format and takes less memory to load."
        )
    elif worker.quantization:
        notes.append(f"{worker.model.checkpoint} is quantized while it is loaded.")
    elif not worker.loads_own and worker.published:
        notes.append(f"{worker.published} is {FORMATS[worker.weights]} checkpoint of {worker.model.checkpoint}.")
    elif not worker.loads_own:
        notes.append(
            f"It needs {FORMATS[worker.weights]} checkpoint of {worker.model.checkpoint} in place of the placeholder."
        )
    return notes


def _notes_on_the_release(worker: Worker) -> list[str]:
    facts, version = worker.facts, worker.config.engine.version
    notes = []
    if version not in facts.versions:
        notes.append(f"Rendered for {facts.title} {' and '.join(facts.versions)}, not for {version or 'any'}.")
    return notes


def _notes_on_placement(worker: Worker) -> list[str]:
    copies, gpus, port = worker.layout.replicas, worker.layout.gpus_per_worker, worker.port
    deploying = worker.facts.deploying
    notes = []
    if copies > 1:
        notes.append(
            f"Start {copies} of these, each with {counted_gpus(gpus)} of its own (CUDA_VISIBLE_DEVICES) and "
            f"with ports of its own (HTTP {port}, {port + 1}, ...)."
        )
    if copies > 1 and deploying.side_channel_host and worker.role != "serve":
        notes.append(f"Each takes {worker.layout.attention_dp} side-channel ports, from the one in `env` on.")
    if gpus > SMALLEST_NODE and deploying.across_nodes:
        notes.append(f"Where a node has fewer than {gpus} GPUs, {deploying.across_nodes}.")
    if worker.role == "serve" and copies > 1:
        notes.append("A load balancer has to stand in front.")
    if worker.role != "serve":
        router = deploying.router.replace("{bootstrap_port}", str(worker.placement.bootstrap_port))
        notes.append(f"A router has to stand in front: {router}.")
        if deploying.note:
            notes.append(deploying.note)
    return notes
