"""EngineFacts: what is known of one engine as data, and the laws that hold for it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from search_spaces.config import EngineName, KvCache, Method, Weights
from search_spaces.knobs import KNOBS, PREFILL

Argument = str | int | bool | None
"""What an option is given: True is a bare flag; None and False leave the option out."""

MOST = 1_000_000
"""Above any limit that an engine has by default."""

COLOUR = re.compile(r"#[0-9a-f]{6}")
NOT_SPELLED = ("mode", "engine", "engine.version", "layout.replicas", "variant")
"""Knobs that no option spells: replicas are copies of a worker, a variant is further arguments."""

WORKER_KNOBS = tuple(name for name in KNOBS if name not in NOT_SPELLED and not name.startswith(PREFILL))
"""What a worker takes; the twin of the prefill workers is spelled as that of the others."""


def _require(law: str, *, holds: bool, found: object) -> None:
    if not holds:
        raise ValueError(f"`{law}` must hold, but got {found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How one knob is spelled.

    `option` is followed by the value, or holds it where it ends with `=`; empty where the engine finds it out itself.
    `values` says what stands for a value; of a knob that is no number, only those are offered. A number is multiplied
    by the knobs in `times` first.
    """

    option: str = ""
    values: Mapping[str, Argument] = field(default_factory=dict)
    times: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """What of a Python environment is the engine: distributions, the first being the one on an index, and its module.

    `launcher` begins its command, and `as_module` is the same of an environment that lacks the program. `dashes` says
    that its parser takes `_` in an option's name for `-`.
    """

    distributions: tuple[str, ...] = ()
    module: str = ""
    launcher: tuple[str, ...] = ()
    as_module: tuple[str, ...] = ()
    dashes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What an engine's server does beyond OpenAI's completions API.

    `ignore_eos`, `min_tokens` and `usage_in_streams`: whether it honours these of a request. Without the first two,
    answers are as long as the model makes them. `model_name` is what requests call the model, with `{checkpoint}` for
    what is loaded; empty where /v1/models says it. `health` is the path that answers 200 once it is up; empty where
    there is none. `answers_alone`: a prefill or decode worker completes what it is asked without its router, and what
    the one returns as `kv_transfer_params` leads the other to the KV cache. `own_ports` are options that take a port of
    each worker's own, by the option beside which they are needed.
    """

    ignore_eos: bool = True
    min_tokens: bool = True
    usage_in_streams: bool = True
    model_name: str = ""
    health: str = "/health"
    answers_alone: bool = False
    own_ports: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps_lengths(self) -> bool:
        """Whether answers can be made as long as asked for."""
        return self.ignore_eos and self.min_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploying:
    """What it takes to start several workers as one deployment, and one worker on several machines.

    `router` and `across_nodes` describe it in words, `note` what else workers need that hand over to others.
    `router_package` is the router's on PyPI, where the engine's image lacks it. `side_channel_host` is the variable
    that tells a worker under which address others reach it. `by_mpi`: the first machine starts a worker on all.
    `llm_d`: whether llm-d's charts are for this engine.
    """

    router: str = ""
    across_nodes: str = ""
    note: str = ""
    router_package: str = ""
    side_channel_host: str = ""
    by_mpi: bool = False
    llm_d: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNames:
    """What an engine calls its metrics; empty where it has none of the kind."""

    kv_usage: str = ""
    waiting: str = ""
    preemptions: str = ""
    queue_seconds: str = ""
    prefix_hits: str = ""
    prefix_queries: str = ""
    drafts: str = ""
    accepted_by_position: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamo:
    """The engine under Dynamo: the worker's module, its image, and the engine's release in each of Dynamo's.

    `takes_arguments` says whether a worker takes what the engine itself takes on its command line.
    """

    module: str = ""
    image: str = ""
    releases: Mapping[str, str] = field(default_factory=dict)
    takes_arguments: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What published measurements do not say of the engine that they ran.

    `mxfp4`: how experts in MXFP4 took their activations on GPUs with FP4. `mtp`: number formats for which the same
    project also ran MTP. `mlperf`: whether MLPerf's submissions ran it. `held_out`: the model, and where it has only
    one the number format, whose rows nobody looked at while the simulator's physics was worked on.
    """

    mxfp4: Weights = "mxfp4"
    mtp: tuple[Weights, ...] = ()
    mlperf: bool = False
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWords:
    """How an engine's log tells its own process from the server before it, as regular expressions.

    A line of that process begins with `core`. `pointers` only point to the error before them, and `dead` are words with
    which it fails, though the server may live on.
    """

    core: str = ""
    pointers: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine is called, how it schedules, what it does when nobody tunes it, and which knobs it takes.

    `versions` are releases with kernel times, the first being the default; where `times_of` names another engine's
    release, its kernel times stand in for all of them. `admission`: `reserve` admits a request when its whole length
    fits the KV cache; `preempt` when its prompt does, and evicts the newest when the cache is full. `mixes_prefill`:
    prompts ride in the same iterations as decoding. `issues_prefill`: without CUDA graphs, the host issues a pass with
    prompts kernel by kernel. `overlaps`: the host plans a pass while the one before runs, so a request that arrives
    meanwhile misses the next one. `gemm_times_of`: number formats in which the matrix products in the engine's tables
    took the host's time; they take another engine's where that is shorter.

    `takes` names the knobs that the engine's own `command.py` spells; `knobs` are spelled as options, after `command`,
    a list of arguments in which placeholders stand for what differs. `metrics_on` are the arguments that make its
    server count. `failures` are words of its log by the cause that they name, as regular expressions.
    """

    name: EngineName
    title: str
    versions: tuple[str, ...]
    source: str = ""
    colour: str = "#666666"
    image: str = ""
    packages: Packages = Packages()
    default_max_sequences: int = 256
    default_max_batched_tokens: int = 8192
    memory_fraction: float = 0.9
    memory_fraction_of: Literal["free", "total"] = "total"
    admission: Literal["reserve", "preempt"] = "preempt"
    mixes_prefill: bool = True
    issues_prefill: bool = True
    overlaps: bool = True
    times_of: str = ""
    gemm_times_of: Mapping[Weights, EngineName] = field(default_factory=dict)
    disaggregates: bool = False
    methods: tuple[Method, ...] = ("none",)
    takes: tuple[str, ...] = ()
    kv_cache: Mapping[KvCache, str] = field(default_factory=dict)
    quantization: Mapping[Weights, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    knobs: Mapping[str, Spelling] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    server: Server = Server()
    deploying: Deploying = Deploying()
    dynamo: Dynamo = Dynamo()
    metrics: MetricNames = MetricNames()
    metrics_on: tuple[str, ...] = ()
    failures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    log: LogWords = LogWords()
    published: Published = Published()

    def __post_init__(self) -> None:
        _require("at least one release", holds=bool(self.versions), found="none")
        for name in ("default_max_sequences", "default_max_batched_tokens"):
            value = getattr(self, name)
            _require(f"1 <= {name} <= {MOST}", holds=1 <= value <= MOST, found=value)
        sequences, tokens = self.default_max_sequences, self.default_max_batched_tokens
        law = "default_max_sequences <= default_max_batched_tokens"
        _require(law, holds=sequences <= tokens, found=f"{sequences} > {tokens}")
        fraction = self.memory_fraction
        _require(
            "0 < memory_fraction < 1", holds=math.isfinite(fraction) and 0 < fraction < 1, found=self.memory_fraction
        )
        _require("colour like #1f5fbf", holds=bool(COLOUR.fullmatch(self.colour)), found=repr(self.colour))

    def image_of(self, version: str) -> str:
        """The container image that the engine's makers publish for a release; empty where they publish none."""
        return self.image.replace("{version}", version)

    def takes_knob(self, name: str) -> bool:
        """Whether the engine takes this knob; copies of a worker and further arguments are for every engine."""
        if name == "mode":
            return self.disaggregates
        if twin := KNOBS[name].twin_of:
            return self.disaggregates and self.takes_knob(twin)
        return name not in WORKER_KNOBS or name in self.takes or name in self.knobs

    def offered(self, name: str) -> tuple[str, ...] | None:
        """The values that a knob which is no number can have; None where it takes all."""
        if name == "speculation.method":
            return self.methods
        spelling = self.knobs.get(name)
        return tuple(spelling.values) if spelling and spelling.values and name.startswith("precision.") else None

    @property
    def is_data(self) -> bool:
        """Whether its command is a list of arguments with placeholders, and no Python of its own."""
        return bool(self.command)
