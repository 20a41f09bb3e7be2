"""Knobs: every setting of a deployment, declared once; what lists, draws, reads or writes settings derives from it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from search_spaces import grids
from search_spaces.config import (
    MAX_DRAFT_LENGTH,
    METHODS,
    MODES,
    Batching,
    Disaggregation,
    Engine,
    KvCache,
    Layout,
    Precision,
    ServingConfig,
    Speculation,
    Value,
    Weights,
)
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.knob import Knob
from search_spaces.models.model import KV_BYTES

PREFILL = "prefill."

# Declarations

_DECLARED = (
    Knob(
        name="mode",
        doc="One pool of workers does everything (aggregated), or prompts have workers of their own (disaggregated).",
        scale="name",
        grid=grids.modes,
        names=MODES,
        path="mode",
    ),
    Knob(
        name="engine",
        doc="The inference engine.",
        scale="name",
        grid=grids.engines,
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
        grid=grids.tensor,
        owner="workers",
        path="layout.tensor",
    ),
    Knob(
        name="layout.pipeline",
        doc="Stages into which a worker's layers are cut, each on GPUs of its own.",
        scale="log2",
        grid=grids.pipeline,
        prefill_grid=(1,),
        owner="workers",
        path="layout.pipeline",
    ),
    Knob(
        name="layout.attention_dp",
        doc="Ranks of a worker that each attend to requests of their own.",
        scale="log2",
        grid=grids.regrouped,
        owner="workers",
        path="layout.attention_dp",
    ),
    Knob(
        name="layout.expert",
        doc="GPUs of a worker that hold different experts.",
        scale="log2",
        grid=grids.regrouped,
        owner="workers",
        path="layout.expert",
    ),
    Knob(
        name="layout.replicas",
        doc="Identical workers.",
        scale="log2",
        follows="there are as many workers as fill the GPUs",
        prefill_grid=grids.prefill_replicas,
        owner="workers",
        path="layout.replicas",
    ),
    Knob(
        name="precision.weights",
        doc="Number formats of the weights: a recipe for dense layers and experts.",
        scale="name",
        grid=grids.weights,
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
        grid=grids.methods,
        names=METHODS,
        path="speculation.method",
    ),
    Knob(
        name="speculation.draft_length",
        doc="Tokens drafted before each verification: as many as the method's acceptance was measured at.",
        scale="linear",
        grid=grids.lengths,
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
        grid=grids.variants,
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
