"""Plan: a configuration to be started somewhere, and which GPUs of which machine each of its workers gets."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from search_spaces.config import ServingConfig
from search_spaces.engines.commands import Command, Orchestrator, Placement, commands
from search_spaces.engines.engine import facts_of
from search_spaces.engines.facts import EngineFacts
from search_spaces.engines.worker import workers_of
from search_spaces.errors import InputError
from search_spaces.hardware.system import System
from search_spaces.models.model import Model

Files = dict[str, str]
"""What a deployment consists of: texts by file name."""

FRONT_PORT = 8000
TOKEN_SECRET = "hf-token"  # noqa: S105 the name of one
LONGEST_NAME = 40
"""Characters: what Kubernetes appends to a name has to fit into 63."""

BOOLISH = {"y", "n", "yes", "no", "on", "off", "true", "false"}
"""What a YAML 1.1 reader, such as Kubernetes', takes for a boolean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be deployed. `title` is free text; `checkpoint` and `draft` stand in for what is published: names, or
    absolute paths of folders on every machine. `args` and `env` are what every worker had beside the configuration when
    it was measured.

    `secret` names the Kubernetes Secret with the key HF_TOKEN; it is referred to and never read.
    """

    title: str
    model: Model
    config: ServingConfig
    system: System
    checkpoint: str | None = None
    draft: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secret: str = TOKEN_SECRET

    @property
    def name(self) -> str:
        """The title as a DNS label that begins with a letter."""
        label = re.sub(r"[^a-z0-9]+", "-", self.title.lower())[:LONGEST_NAME].strip("-")
        return label if label[:1].isalpha() else f"llm-{label}".strip("-")

    def __post_init__(self) -> None:
        for folder in (self.checkpoint, self.draft):
            if folder is not None and folder.startswith((".", "~")):
                raise InputError(f"a local checkpoint needs its absolute path, but got {folder}")

    @property
    def described(self) -> str:
        """Title and configuration on one line."""
        return " ".join(f"{self.title}: {self.config}".split())

    @property
    def folders(self) -> tuple[str, ...]:
        """Local checkpoints, which containers find under the same path as the machine that runs them."""
        return tuple(path for path in (self.checkpoint, self.draft) if path is not None and path.startswith("/"))

    @property
    def engine(self) -> str:
        return self.config.engine.name

    @property
    def facts(self) -> EngineFacts:
        return facts_of(self.config.engine)

    @property
    def served_name(self) -> str:
        """What a request has to name as its model: the checkpoint that is loaded, or what its engine makes of that."""
        checkpoint = workers_of(self.model, self.config, self.placement())[0].checkpoint
        return self.facts.server.model_name.replace("{checkpoint}", checkpoint) or checkpoint

    @property
    def gpus_per_node(self) -> int:
        return self.system.gpus_per_node

    def placement(self, **changes: Any) -> Placement:
        return Placement(checkpoint=self.checkpoint, draft=self.draft, **changes)

    def commands(self, orchestrator: Orchestrator | None = None, **changes: Any) -> tuple[Command, ...]:
        """Raises InfeasibleError; InputError where Dynamo would not take what the engine was given."""
        if orchestrator and self.args and not self.facts.dynamo.takes_arguments:
            program = " ".join(self.facts.packages.launcher)
            raise InputError(f"dynamo does not take arguments of {program}, but the winner had {' '.join(self.args)}")
        rendered = commands(self.model, self.config, placement=self.placement(**changes), orchestrator=orchestrator)
        return tuple(map(self._with_own, rendered))

    def _with_own(self, command: Command) -> Command:
        if command.role == "router":
            return command
        return replace(command, argv=(*command.argv, *self.args), env={**command.env, **self.env})

    def nodes_of(self, command: Command) -> int:
        """Machines that one copy of a worker needs: it is cut into equal parts.

        Raises InputError where no equal parts fit.
        """
        fewest = math.ceil(command.gpus / self.gpus_per_node)
        for nodes in range(fewest, command.gpus + 1):
            if command.gpus % nodes == 0:
                return nodes
        raise InputError(f"a worker of {command.gpus} GPUs cannot be cut into parts of {self.gpus_per_node}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where one copy of a worker runs: the same GPUs on each of its nodes."""

    command: Command
    copy: int
    nodes: tuple[int, ...]
    gpus: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.command.role}-{self.copy}"


def placed(plan: Plan, workers: Sequence[Command]) -> list[Slot]:
    """Workers on machines, first fit, larger ones first; no GPU is given twice."""
    free: list[set[int]] = []
    slots = []
    copies = [(command, copy) for command in workers for copy in range(command.copies)]
    for command, copy in sorted(copies, key=lambda worker: -worker[0].gpus):
        nodes = plan.nodes_of(command)
        share = command.gpus // nodes
        taken, gpus = _take(free, nodes, share, plan.gpus_per_node)
        slots.append(Slot(command=command, copy=copy, nodes=taken, gpus=gpus))
    order = [command.role for command in workers]
    return sorted(slots, key=lambda slot: (order.index(slot.command.role), slot.copy))


def _take(free: list[set[int]], nodes: int, share: int, gpus_per_node: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """One machine with `share` free GPUs, or as many fresh machines as are asked for."""
    if nodes == 1:
        for index, left in enumerate(free):
            if len(left) >= share:
                gpus = tuple(sorted(left)[:share])
                left -= set(gpus)
                return (index,), gpus
    first = len(free)
    gpus = tuple(range(share))
    free += [set(range(share, gpus_per_node)) for _ in range(nodes)]
    return tuple(range(first, first + nodes)), gpus


def yaml_text(*documents: Mapping[str, Any], comment: str = "") -> str:
    """Documents as YAML that every reader takes alike: what looks like a boolean of YAML 1.1 is quoted."""
    from ruamel.yaml import YAML

    writer = YAML()
    writer.width = 1 << 16
    writer.indent(mapping=2, sequence=4, offset=2)
    texts = []
    for document in documents:
        text = io.StringIO()
        writer.dump(_quoted(document), text)
        texts.append(text.getvalue())
    return (f"# {comment}\n" if comment else "") + "---\n".join(texts)


def _quoted(value: Any) -> Any:
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

    if isinstance(value, Mapping):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and value.lower() in BOOLISH:
        return DoubleQuotedScalarString(value)
    if isinstance(value, str) and "\n" in value:
        return LiteralScalarString(value)
    return value
