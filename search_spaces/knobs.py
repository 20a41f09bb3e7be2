"""Knobs: every setting of a deployment, declared once; what lists, draws, reads or writes settings derives from it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from search_spaces.config import (
    MAX_DRAFT_LENGTH,
    METHODS,
    MODES,
    Batching,
    Disaggregation,
    Engine,
    KvCache,
    Layout,
    Method,
    Mode,
    Precision,
    ServingConfig,
    Speculation,
    Value,
    Weights,
)
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.hardware.system import System
from search_spaces.models.model import KV_BYTES, Model

Scale = Literal["log2", "linear", "name"]
Owner = Literal["deployment", "workers", "prefill workers"]
Predictor = Literal["simulated", "estimated"]

PREFILL = "prefill."
MOST = 1 << 24
"""The largest number that a setting may have: beyond it, counts of tokens lose whole numbers in 32-bit floats."""

LENGTHS: Mapping[Scale, float] = {"log2": 1.4, "linear": 1.4, "name": 0.5}
"""`Knob.length` where a knob has none of its own; the surrogate learns from there, so about is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What decides which values a knob has: the model, the system, the engines to choose from, and the GPUs.

    `modes` and `methods` (of speculating) are those that one of the engines has. `variants` names the sets of further
    engine arguments that an experiment defines.
    """

    model: Model
    system: System
    engines: tuple[Engine, ...]
    modes: tuple[Mode, ...]
    methods: tuple[Method, ...]
    gpus: int
    variants: tuple[str, ...] = ()


Grid = tuple[Value, ...] | Callable[[Given], tuple[Value, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One setting: what it is called, which values it has, and where a configuration keeps it.

    `doc` is one sentence. `grid` has the values that are searched where an experiment lists none, in order, or is a
    function whose docstring says which; with an empty one, a knob is searched only where values are listed.
    `any_integer`: whatever lies between `least` and `most` may be listed, not just what the grid has. `names` are all
    that a name may be; any text where there are none. `owner`: `workers` have it each (aggregated or decoding), and
    their knob has a twin for the prefill workers, which is derived (`twin_of`), with `prefill_grid` for its grid where
    that differs. `unless` is the setting with which this one is not drawn, `follows` why no search chooses it at all.
    `priced_by` are the predicting runners that know what it does: on the others of them it is not searched.

    `length` is the surrogate's: for a number, after how many units of the scale the errors of two predictions are
    about unrelated; for a name, which share of the correlation another name leaves. `path` is the attribute of a
    ServingConfig that holds it; without one, it stands in the configuration's `settings`, so that a new knob needs no
    more than its declaration.
    """

    name: str
    doc: str
    scale: Scale
    grid: Grid = ()
    any_integer: bool = False
    names: tuple[str, ...] = ()
    least: int = 1
    most: int = MOST
    owner: Owner = "deployment"
    prefill_grid: Grid | None = None
    twin_of: str = ""
    unless: tuple[str, Value] | None = None
    follows: str = ""
    priced_by: tuple[Predictor, ...] = get_args(Predictor)
    own_length: float | None = None
    path: str = ""

    @property
    def is_number(self) -> bool:
        return self.scale != "name"

    @property
    def is_listable(self) -> bool:
        """Whether an experiment may list values of it: every search or, of recorded runs, some are told apart by it."""
        return self.is_number or self.grid != ()

    @property
    def length(self) -> float:
        return LENGTHS[self.scale] if self.own_length is None else self.own_length

    def values(self, given: Given) -> tuple[Value, ...]:
        """The grid: what is searched where an experiment lists nothing."""
        return self.grid(given) if callable(self.grid) else self.grid

    @property
    def searched(self) -> str:
        """The grid in words."""
        if callable(self.grid):
            return (self.grid.__doc__ or "those that the experiment allows").partition("\n")[0].rstrip(".")
        return ", ".join(map(str, self.grid)) or ("nothing" if self.follows else "only what is listed")

    def read(self, config: ServingConfig) -> Value | None:
        """What a configuration has; None where it has no such setting, as an aggregated one has no prefill workers."""
        if not self.path:
            return config.setting(self.name)
        part: Any = config
        for attribute in self.path.split("."):
            part = getattr(part, attribute)
            if part is None:
                return None
        return cast("Value", part)

    def feature(self, config: ServingConfig) -> float | str:
        """As the surrogate sees it: a number on its scale, or a name; 0 or empty where a configuration has none."""
        value = self.read(config)
        if not self.is_number:
            return "" if value is None else str(value)
        if value is None:
            return 0.0
        return math.log2(int(value)) if self.scale == "log2" else float(value)

    def checked(self, value: object) -> Value:
        """A value that this knob can have, whatever the model. Raises InputError with the law and what was found."""
        if self.is_number:
            return self._number(value)
        if not isinstance(value, str):
            raise InputError(f"must be a name, but got {value!r}")
        if self.names and value not in self.names:
            raise UnknownNameError(self.name, value, self.names)
        return value

    def _number(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"must be a whole number, but got {value!r}")
        if value < self.least:
            raise InputError(f"`{self.name} >= {self.least}` must hold, but got {value}")
        if value > self.most:
            raise InputError(f"`{self.name} <= {self.most}` must hold, but got {value}")
        return value

    def parsed(self, text: str) -> Value:
        """A value as it is written on the command line. Raises InputError as `checked` does."""
        if not self.is_number:
            return self.checked(text)
        try:
            return self.checked(int(text))
        except ValueError:
            raise InputError(f"must be a whole number, but got {text!r}") from None


# Grids


def _sizes(given: Given) -> tuple[int, ...]:
    """Powers of two within one NVLink domain."""
    return tuple(size for size in (1, 2, 4, 8, 16, 32, 64) if size <= min(given.gpus, given.system.nvlink_gpus))


def _tensor(given: Given) -> tuple[int, ...]:
    """Powers of two to 8, within one NVLink domain."""
    return tuple(size for size in _sizes(given) if size <= 8)  # noqa: PLR2004 no more query heads per rank


def _regrouped(given: Given) -> tuple[int, ...]:
    """Of a mixture of experts, powers of two within one NVLink domain; else 1."""
    return _sizes(given) if given.model.is_moe else (1,)


def _pipeline(given: Given) -> tuple[int, ...]:
    """1, 2."""
    return tuple(size for size in (1, 2) if size <= given.gpus)


def _modes(given: Given) -> tuple[Mode, ...]:
    """Aggregated and, with several GPUs and an engine that does it, disaggregated."""
    return tuple(mode for mode in given.modes if mode == "aggregated" or given.gpus > 1)


def draft_lengths(given: Given) -> dict[str, tuple[int, ...]]:
    """By method: the draft lengths at which the model's acceptance was measured, for what an engine here can do."""
    return {
        method: tuple(range(1, min(len(draft.tokens_per_step), MAX_DRAFT_LENGTH) + 1))
        for method, draft in given.model.drafts.items()
        if method in given.methods
    }


def _methods(given: Given) -> tuple[str, ...]:
    """None, and those that the model has a draft for and an engine can do."""
    return ("none", *draft_lengths(given))


def _draft_lengths(given: Given) -> tuple[int, ...]:
    """With each method, those that its acceptance was measured at."""
    return tuple(sorted({length for lengths in draft_lengths(given).values() for length in lengths}))


def _prefill_replicas(given: Given) -> tuple[int, ...]:
    """Fewer than the GPUs: 1 to 6, 8, 10, 12, 16, 20, 24, 32, 40, 48."""
    return tuple(n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48) if n < given.gpus)


def _engines(given: Given) -> tuple[str, ...]:
    """Those of the experiment."""
    return tuple(engine.name for engine in given.engines)


def _weights(given: Given) -> tuple[Weights, ...]:
    """Those of the model."""
    return given.model.weights


def _variants(given: Given) -> tuple[str, ...]:
    """Those of `serve.variants`."""
    return given.variants


# Declarations

_DECLARED = (
    Knob(
        name="mode",
        doc="One pool of workers does everything (aggregated), or prompts have workers of their own (disaggregated).",
        scale="name",
        grid=_modes,
        names=MODES,
        path="mode",
    ),
    Knob(
        name="engine",
        doc="The inference engine.",
        scale="name",
        grid=_engines,
        path="engine.name",
    ),
    Knob(
        name="engine.version",
        doc="The engine's release.",
        scale="name",
        follows="the release stands with the engine, such as engines: [NAME@RELEASE]",
        path="engine.version",
    ),
    Knob(
        name="layout.tensor",
        doc="GPUs over which each layer of a worker is split.",
        scale="log2",
        grid=_tensor,
        owner="workers",
        path="layout.tensor",
    ),
    Knob(
        name="layout.pipeline",
        doc="Stages into which a worker's layers are cut, each on GPUs of its own.",
        scale="log2",
        grid=_pipeline,
        prefill_grid=(1,),
        owner="workers",
        path="layout.pipeline",
    ),
    Knob(
        name="layout.attention_dp",
        doc="Ranks of a worker that each attend to requests of their own.",
        scale="log2",
        grid=_regrouped,
        owner="workers",
        path="layout.attention_dp",
    ),
    Knob(
        name="layout.expert",
        doc="GPUs of a worker that hold different experts.",
        scale="log2",
        grid=_regrouped,
        owner="workers",
        path="layout.expert",
    ),
    Knob(
        name="layout.replicas",
        doc="Identical workers.",
        scale="log2",
        follows="there are as many workers as fill the GPUs",
        prefill_grid=_prefill_replicas,
        owner="workers",
        path="layout.replicas",
    ),
    Knob(
        name="precision.weights",
        doc="Number formats of the weights: a recipe for dense layers and experts.",
        scale="name",
        grid=_weights,
        names=get_args(Weights),
        path="precision.weights",
    ),
    Knob(
        name="precision.kv_cache",
        doc="Number format of the KV cache.",
        scale="name",
        grid=tuple(KV_BYTES),
        names=get_args(KvCache),
        path="precision.kv_cache",
    ),
    Knob(
        name="speculation.method",
        doc="Who drafts tokens that the model then verifies.",
        scale="name",
        grid=_methods,
        names=METHODS,
        path="speculation.method",
    ),
    Knob(
        name="speculation.draft_length",
        doc="Tokens drafted before each verification: as many as the method's acceptance was measured at.",
        scale="linear",
        grid=_draft_lengths,
        least=0,
        most=MAX_DRAFT_LENGTH,
        unless=("speculation.method", "none"),
        path="speculation.draft_length",
    ),
    Knob(
        name="batching.max_sequences",
        doc="Sequences that one scheduler runs at once.",
        scale="log2",
        grid=(8, 16, 32, 64, 128, 256, 512, 1024, 2048),
        prefill_grid=(),
        any_integer=True,
        owner="workers",
        own_length=2.8,
        path="batching.max_sequences",
    ),
    Knob(
        name="batching.max_batched_tokens",
        doc="Tokens in one forward pass.",
        scale="log2",
        grid=(2048, 4096, 8192, 16384),
        any_integer=True,
        owner="workers",
        own_length=2.8,
        path="batching.max_batched_tokens",
    ),
    Knob(
        name="batching.receive_interval",
        doc="Decode steps for which requests that have arrived are left waiting.",
        scale="log2",
        any_integer=True,
        owner="workers",
        priced_by=("simulated",),
        path="batching.receive_interval",
    ),
    Knob(
        name="variant",
        doc="The set of further engine arguments, of those in `serve.variants`.",
        scale="name",
        grid=_variants,
        priced_by=(),
        path="variant",
    ),
)


def _twin(knob: Knob) -> Knob:
    """The same setting of the prefill workers."""
    name = PREFILL + knob.name.rpartition(".")[2]
    return replace(
        knob,
        name=name,
        doc=f"Of prefill workers: {knob.doc}",
        grid=knob.grid if knob.prefill_grid is None else knob.prefill_grid,
        prefill_grid=None,
        follows="",
        owner="prefill workers",
        twin_of=knob.name,
        unless=("mode", "aggregated"),
        priced_by=tuple(runner for runner in knob.priced_by if runner != "estimated"),
        path=f"disaggregation.prefill_{knob.path}" if knob.path else "",
    )


def _all(declared: Iterable[Knob]) -> dict[str, Knob]:
    """By name: what is declared, then the twins of the prefill workers."""
    twins = [_twin(knob) for knob in declared if knob.owner == "workers"]
    return {knob.name: knob for knob in (*declared, *twins)}


KNOBS: Mapping[str, Knob] = _all(_DECLARED)
"""Every setting of a ServingConfig by its dotted name, in the order in which a search draws them."""

EARLIER: Mapping[str, str] = {
    **{knob.path: knob.name for knob in KNOBS.values() if knob.path and knob.path != knob.name},
    "disaggregation": "mode",
    "speculation": "speculation.method",
    "prefill.workers": "prefill.replicas",
}
"""Names that settings had before all vocabularies became one, and what they are called now."""


def find_knob(name: str) -> Knob:
    """Raises InputError that lists the nearest names, or says what an earlier name has become."""
    if name in EARLIER:
        raise InputError(f"{name} is called {EARLIER[name]} now{_more(name)}")
    if name not in KNOBS:
        raise UnknownNameError("setting", name, KNOBS)
    return KNOBS[name]


def _more(earlier: str) -> str:
    more = {
        "disaggregation": ": mode=aggregated, mode=disaggregated",
        "speculation": ", with the length apart: what was eagle3:2 is speculation.method eagle3 and "
        "speculation.draft_length 2",
    }
    return more.get(earlier, "")


# Writing a configuration down, and reading it


def flatten(config: ServingConfig) -> dict[str, Value]:
    """`{"layout.tensor": 4, ...}` in the order of KNOBS, without what the configuration has not."""
    values = ((knob.name, knob.read(config)) for knob in KNOBS.values())
    return {name: value for name, value in values if value is not None}


def unflatten(values: Mapping[str, Any]) -> ServingConfig:
    """The inverse of `flatten`; what is absent has its default, and settings of prefill workers mean disaggregated.

    Raises InputError for a name that is no knob's or a value that it cannot have, ValueError for values that break a
    law together.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        knob = find_knob(name)
        part, _, attribute = knob.path.rpartition(".") if knob.path else ("settings", "", name)
        parts.setdefault(part, {})[attribute] = knob.checked(value)
    prefills = [name for name in values if name.startswith(PREFILL)]
    mode = values.get("mode", "disaggregated" if prefills else "aggregated")
    if prefills and mode == "aggregated":
        raise ValueError(f"`{prefills[0]}` goes with mode disaggregated, but got mode aggregated")
    prefill = Disaggregation(
        prefill_layout=Layout(**parts.get("disaggregation.prefill_layout", {})),
        prefill_batching=Batching(**parts.get("disaggregation.prefill_batching", {})),
    )
    return ServingConfig(
        engine=Engine(**parts.get("engine", {})),
        layout=Layout(**parts.get("layout", {})),
        batching=Batching(**parts.get("batching", {})),
        precision=Precision(**parts.get("precision", {})),
        speculation=Speculation(**parts.get("speculation", {})),
        disaggregation=prefill if mode == "disaggregated" else None,
        variant=values.get("variant"),
        settings=tuple(sorted(parts.get("settings", {}).items())),
    )
