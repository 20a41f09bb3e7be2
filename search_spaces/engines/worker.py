"""Worker: one kind of process that serves a model, where it listens, and what every engine's renderer asks of it."""

import io
import json
import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from search_spaces.config import Batching, EngineName, Layout, ServingConfig, Weights
from search_spaces.engines.checkpoints import EAGLE3_DRAFTS, FORMATS, PUBLISHED, REMOTE_CODE, own_formats
from search_spaces.engines.engine import facts_of
from search_spaces.engines.facts import EngineFacts
from search_spaces.engines.law import drafts_while_prefilling
from search_spaces.knobs import KNOBS, PREFILL
from search_spaces.models.model import Model

Role = Literal["serve", "prefill", "decode", "router"]
ROLES: tuple[Role, ...] = get_args(Role)

LOOPBACK = "127.0.0.1"
PORTS: Mapping[Role, int] = {"serve": 8000, "prefill": 8100, "decode": 8200, "router": 8000}
SIDE_CHANNELS: Mapping[Role, int] = {"prefill": 5600, "decode": 5700}
BOOTSTRAP_PORT = 8998
OWN_PORT = frozenset({"--host", "--port"})
"""What a worker without an HTTP server of its own does not take."""

NGRAM_SIZE = 4
"""The longest n-gram that is looked up in the text so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where workers listen, and what they load in place of the model's own checkpoint.

    `host` is the address that they bind to. `ports` are those of the HTTP servers, by role; a further copy needs a
    placement of its own. `side_channels` are the ports where vLLM's NIXL agents shake hands (each attention-DP rank
    takes the next one), `bootstrap_port` the one where SGLang's decode workers find a prefill worker. `checkpoint` and
    `draft` are local copies, loaded in place of what is published under the names that would stand there.
    """

    host: str = LOOPBACK
    ports: Mapping[Role, int] = field(default_factory=lambda: PORTS)
    side_channels: Mapping[Role, int] = field(default_factory=lambda: SIDE_CHANNELS)
    bootstrap_port: int = BOOTSTRAP_PORT
    checkpoint: str | None = None
    draft: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a router finds one worker; `bootstrap_port` matters for SGLang's prefill workers."""

    host: str = LOOPBACK
    port: int
    bootstrap_port: int = BOOTSTRAP_PORT

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What starts one kind of worker: `copies` processes of `argv`, each on `gpus` GPUs of its own.

    `files` have to lie in the working directory, by name; `env` is added to the environment. `note` says in
    sentences what else it takes.
    """

    role: Role
    copies: int
    gpus: int
    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def shell(self) -> str:
        """The command as a line to read or to paste; what runs is `argv`."""
        return shlex.join(self.argv)


def counted_gpus(gpus: int) -> str:
    """`1 GPU`, `4 GPUs`."""
    return f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One kind of worker, with the experiments that every engine's renderer asks of it."""

    model: Model
    config: ServingConfig
    role: Role
    layout: Layout
    batching: Batching
    placement: Placement

    @property
    def port(self) -> int:
        return self.placement.ports[self.role]

    @property
    def engine(self) -> EngineName:
        return self.config.engine.name

    @property
    def facts(self) -> EngineFacts:
        return facts_of(self.config.engine)

    @property
    def weights(self) -> Weights:
        return self.config.precision.weights

    @property
    def ranks(self) -> int:
        """GPUs of one pipeline stage."""
        return self.layout.tensor * self.layout.attention_dp

    @property
    def draft_length(self) -> int:
        """Tokens that this worker drafts in a step; 0 where it carries no draft."""
        carries = self.role != "prefill" or drafts_while_prefilling(self.config)
        return self.config.speculation.draft_length if carries else 0

    def knob(self, name: str) -> Any:
        """The value of a knob, as this worker has it; None where the configuration has none."""
        if name == "speculation.draft_length":
            return self.draft_length
        twin = PREFILL + name.rpartition(".")[2]
        return KNOBS[twin if self.role == "prefill" and twin in KNOBS else name].read(self.config)

    @property
    def draft(self) -> str:
        """The EAGLE-3 head's checkpoint, or a placeholder that no registry resolves."""
        return self.placement.draft or EAGLE3_DRAFTS.get(
            self.model.checkpoint, f"<eagle3 draft of {self.model.checkpoint}>"
        )

    @property
    def loads_own(self) -> bool:
        """Whether the model's checkpoint is in the right format."""
        return self.weights in own_formats(self.model)

    @property
    def quantization(self) -> str | None:
        """What the engine makes of a BF16 checkpoint while it loads it, in its own word."""
        if self.loads_own or self.model.own_weights != "bf16":
            return None
        return self.facts.quantization.get(self.weights)

    @property
    def published(self) -> str | None:
        return PUBLISHED.get((self.model.checkpoint, self.weights))

    @property
    def checkpoint(self) -> str:
        """What is loaded, or a placeholder that no registry resolves."""
        return self.placement.checkpoint or self.published_checkpoint

    @property
    def published_checkpoint(self) -> str:
        if self.loads_own or self.quantization:
            return self.model.checkpoint
        return self.published or f"<{FORMATS[self.weights].split(' ', 1)[1]} checkpoint of {self.model.checkpoint}>"

    @property
    def trusts_remote_code(self) -> bool:
        return self.published_checkpoint in REMOTE_CODE

    @property
    def graph_tokens(self) -> int:
        """Tokens of the largest decode step of one scheduler."""
        return self.batching.max_sequences * (self.draft_length + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def workers_of(model: Model, config: ServingConfig, placement: Placement) -> list[Worker]:
    def worker(role: Role, layout: Layout, batching: Batching) -> Worker:
        return Worker(model=model, config=config, role=role, layout=layout, batching=batching, placement=placement)

    if config.disaggregation is None:
        return [worker("serve", config.layout, config.batching)]
    prefill = config.disaggregation
    return [
        worker("prefill", prefill.prefill_layout, prefill.prefill_batching),
        worker("decode", config.layout, config.batching),
    ]


def options(values: Mapping[str, object]) -> tuple[str, ...]:
    """Options as arguments: True is a bare flag; None and False leave the option out."""
    argv: list[str] = []
    for name, value in values.items():
        if value is True:
            argv.append(name)
        elif value is not None and value is not False:
            argv += [name, str(value)]
    return tuple(argv)


def without_options(argv: Sequence[str], names: Container[str]) -> tuple[str, ...]:
    """`argv` without options that take one value."""
    dropped = {index + offset for index, part in enumerate(argv) if part in names for offset in (0, 1)}
    return tuple(part for index, part in enumerate(argv) if index not in dropped)


def many(size: int) -> int | None:
    """A parallel size, left out where it is the default of 1."""
    return size if size > 1 else None


def as_json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def as_yaml(settings: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    writer = YAML()
    writer.width = 1 << 16  # one line for each value
    text = io.StringIO()
    writer.dump(dict(settings), text)
    return text.getvalue()
