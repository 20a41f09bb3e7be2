"""How configurations and figures are put to people: the same word for the same thing, everywhere."""

import shlex

from runners.served.deployment import Installation
from search_spaces.config import Layout, Method, ServingConfig, Weights
from search_spaces.engines.commands import Place, commands
from search_spaces.engines.engine import engines
from search_spaces.models.model import Model
from tuner.scenario.cost import Objective

WEIGHTS: dict[Weights, str] = {
    "bf16": "BF16 weights",
    "fp8": "FP8 weights",
    "fp8_block": "block-scaled FP8 weights",
    "nvfp4": "NVFP4 weights",
    "mxfp4": "MXFP4 experts with 16-bit activations",
    "mxfp4_mxfp8": "MXFP4 experts with MXFP8 activations",
    "fp8_mxfp4": "FP8 dense layers and MXFP4 experts",
}
METHODS: dict[Method, str] = {"none": "", "mtp": "MTP", "eagle3": "Eagle3", "ngram": "n-gram"}
OBJECTIVES: dict[Objective, str] = {
    "usd_per_million_output_tokens": "$/M output tokens",
    "usd_per_million_total_tokens": "$/M total tokens",
}


def in_words(config: ServingConfig) -> str:
    """A configuration as a sentence without a verb."""
    facts = engines()[config.engine.name]
    speculation = config.speculation
    if config.disaggregation is None:
        where = f"{_workers(config.layout)} ({config.layout})"
    else:
        prefill = config.disaggregation.prefill_layout
        where = f"{_workers(prefill)} for prefill and {_workers(config.layout)} for decode ({config})"
    drafting = (
        f"{METHODS[speculation.method]} speculation with draft length {speculation.draft_length}"
        if speculation.method != "none"
        else "no speculation"
    )
    kv_cache = {"bf16": "16-bit", "fp8": "FP8"}[config.precision.kv_cache]
    return (
        f"{facts.title} {config.engine.version}, {where}, {WEIGHTS[config.precision.weights]}, {kv_cache} KV cache, "
        f"{drafting}, at most {config.batching.max_sequences} sequences and "
        f"{config.batching.max_batched_tokens} tokens in a pass"
    ) + (f", variant {config.variant!r}" if config.variant else "")


def how_to_start(model: Model, config: ServingConfig, installation: Installation | None = None) -> str:
    """The commands and config files that start a configuration, with what else it takes as comments.

    With what an installation loads and adds, where it was measured there.
    """
    here = installation or Installation()
    added = here.args_for(config) if installation else ()
    lines: list[str] = []
    for command in commands(model, config, place=Place(checkpoint=here.checkpoint, draft=here.draft)):
        lines.append(f"# {command.role}: {command.copies} x {plural(command.gpus, 'GPU')}")
        env = {**command.env, **here.env}
        words = [f"{name}={shlex.quote(value)}" for name, value in env.items()]
        lines.append(" ".join([*words, shlex.join((*command.argv, *added))]))
        for name, text in command.files.items():
            lines += [f"# {name}", text.rstrip()]
        if command.note:
            lines.append(f"# {command.note}")
    return "\n".join(lines)


def _workers(layout: Layout) -> str:
    gpus = layout.gpus_per_worker
    return f"{plural(layout.replicas, 'worker')} of {plural(gpus, 'GPU')}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def dollars(value: float) -> str:
    """Cents from a dollar up, three significant digits below."""
    return f"${value:.2f}" if value >= 1 else f"${value:#.3g}"


def milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"  # noqa: PLR2004


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004
