"""The commands that start a ServingConfig on TensorRT-LLM, vLLM and SGLang, alone or under Dynamo, and their routers.

Rendered for the releases in engines.yaml. Hosts, ports and file names are those of a Place, by default placeholders.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from search_spaces.config import EngineName, ServingConfig
from search_spaces.engines import dynamo
from search_spaces.engines.checkpoints import EAGLE3_DRAFTS, FORMATS
from search_spaces.engines.engine import engines
from search_spaces.engines.laws import unsupported
from search_spaces.engines.sglang import command as sglang
from search_spaces.engines.trtllm import command as tensorrt_llm
from search_spaces.engines.vllm import command as vllm
from search_spaces.engines.worker import (
    PORTS,
    SIDE_CHANNELS,
    Address,
    Command,
    Place,
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
    "Place",
    "Role",
    "caveats",
    "commands",
    "router",
]

Orchestrator = Literal["dynamo"]
SMALLEST_NODE = 4  # GPUs of a GB200 or GB300 node
ANYWHERE = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Renderer:
    """How one engine starts a worker and a router, and how it is told in words."""

    render: Callable[[Worker], Rendered]
    router: Callable[[Sequence[Address], Sequence[Address], Place], Rendered]
    described_router: str
    across_nodes: str


ENGINES: Mapping[EngineName, _Renderer] = {
    "trtllm": _Renderer(
        render=tensorrt_llm.render,
        router=tensorrt_llm.router,
        described_router=tensorrt_llm.ROUTER,
        across_nodes=tensorrt_llm.ACROSS_NODES,
    ),
    "vllm": _Renderer(
        render=vllm.render,
        router=vllm.router,
        described_router=vllm.ROUTER,
        across_nodes=vllm.ACROSS_NODES,
    ),
    "sglang": _Renderer(
        render=sglang.render,
        router=sglang.router,
        described_router=sglang.ROUTER,
        across_nodes=sglang.ACROSS_NODES,
    ),
}


def commands(
    model: Model, config: ServingConfig, *, place: Place = ANYWHERE, orchestrator: Orchestrator | None = None
) -> tuple[Command, ...]:
    """One command for each kind of worker; where disaggregated, that of the prefill workers comes first.

    Under `dynamo` the workers are Dynamo's, and its frontend comes before them with the role `router`: it needs no
    GPU. Raises InfeasibleError for what the engine cannot express.
    """
    reason = unsupported(config)
    if reason:
        raise InfeasibleError("engine", reason)
    workers = workers_of(model, config, place)
    if orchestrator is None:
        return tuple(_command(worker, ENGINES[worker.engine].render(worker), _notes(worker)) for worker in workers)
    under = [_command(worker, _under_dynamo(worker), _notes_under_dynamo(worker)) for worker in workers]
    return (_router(dynamo.frontend(place), dynamo.NOTE), *under)


def caveats(
    model: Model, config: ServingConfig, *, place: Place = ANYWHERE, orchestrator: Orchestrator | None = None
) -> list[str]:
    """What no command or manifest can say, in sentences: about checkpoints, releases and what is untested."""
    found: list[str] = []
    for worker in workers_of(model, config, place):
        own = tensorrt_llm.notes(worker) if worker.engine == "trtllm" else []
        release = dynamo.notes_on_the_release(worker) if orchestrator == "dynamo" else _notes_on_the_release(worker)
        found += [*_notes_on_checkpoints(worker), *release, *own]
    return list(dict.fromkeys(found))


def router(
    config: ServingConfig, prefill: Sequence[Address], decode: Sequence[Address], *, place: Place = ANYWHERE
) -> Command:
    """What stands in front of disaggregated workers, listening on `place`'s router port; it needs no GPU."""
    return _router(ENGINES[config.engine.name].router(prefill, decode, place), "")


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
    return dynamo.render(worker, ENGINES[worker.engine].render(worker))


def _notes(worker: Worker) -> list[str]:
    """What else it takes to start this worker, in sentences."""
    return [
        *_notes_on_checkpoints(worker),
        *_notes_on_the_release(worker),
        *(tensorrt_llm.notes(worker) if worker.engine == "trtllm" else []),
        *_notes_on_placement(worker),
    ]


def _notes_under_dynamo(worker: Worker) -> list[str]:
    """Dynamo places and finds its workers itself."""
    own = tensorrt_llm.notes(worker) if worker.engine == "trtllm" else []
    return [*_notes_on_checkpoints(worker), *own, *dynamo.notes(worker)]


def _notes_on_checkpoints(worker: Worker) -> list[str]:
    notes = _notes_on_the_weights(worker) if worker.place.checkpoint is None else []
    if worker.draft_length and worker.config.speculation.method == "eagle3" and worker.place.draft is None:
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
    facts, version = engines()[worker.engine], worker.config.engine.version
    notes = []
    if version not in facts.versions:
        notes.append(f"Rendered for {facts.title} {' and '.join(facts.versions)}, not for {version or 'any'}.")
    return notes


def _notes_on_placement(worker: Worker) -> list[str]:
    copies, gpus, port = worker.layout.replicas, worker.layout.gpus_per_worker, worker.port
    notes = []
    if copies > 1:
        notes.append(
            f"Start {copies} of these, each with {counted_gpus(gpus)} of its own (CUDA_VISIBLE_DEVICES) and "
            f"with ports of its own (HTTP {port}, {port + 1}, ...)."
        )
    if copies > 1 and worker.engine == "vllm" and worker.role != "serve":
        notes.append(f"Each takes {worker.layout.attention_dp} side-channel ports, from the one in `env` on.")
    if gpus > SMALLEST_NODE:
        notes.append(f"Where a node has fewer than {gpus} GPUs, {ENGINES[worker.engine].across_nodes}.")
    if worker.role == "serve" and copies > 1:
        notes.append("A load balancer has to stand in front.")
    if worker.role != "serve":
        router = ENGINES[worker.engine].described_router.format(bootstrap_port=worker.place.bootstrap_port)
        notes.append(f"A router has to stand in front: {router}.")
    if worker.role != "serve" and worker.engine == "trtllm":
        notes.append("Set cache_transceiver_config.max_tokens_in_buffer to the longest prompt or more.")
    return notes
