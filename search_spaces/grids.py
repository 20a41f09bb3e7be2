"""Grids: which values of a knob are searched where an experiment lists none, as far as that depends on what is given.

The first line of a docstring is what people read of a grid.
"""

from search_spaces.config import MAX_DRAFT_LENGTH, Mode, Weights
from search_spaces.knob import Given


def sizes(given: Given) -> tuple[int, ...]:
    """Powers of two within one NVLink domain."""
    return tuple(size for size in (1, 2, 4, 8, 16, 32, 64) if size <= min(given.gpus, given.system.nvlink_gpus))


def tensor(given: Given) -> tuple[int, ...]:
    """Powers of two to 8, within one NVLink domain."""
    return tuple(size for size in sizes(given) if size <= 8)  # noqa: PLR2004 no more query heads per rank


def regrouped(given: Given) -> tuple[int, ...]:
    """Of a mixture of experts, powers of two within one NVLink domain; else 1."""
    return sizes(given) if given.model.is_moe else (1,)


def pipeline(given: Given) -> tuple[int, ...]:
    """1, 2."""
    return tuple(size for size in (1, 2) if size <= given.gpus)


def modes(given: Given) -> tuple[Mode, ...]:
    """Aggregated and, with several GPUs and an engine that does it, disaggregated."""
    return tuple(mode for mode in given.modes if mode == "aggregated" or given.gpus > 1)


def draft_lengths(given: Given) -> dict[str, tuple[int, ...]]:
    """By method: the draft lengths at which the model's acceptance was measured, for what an engine here can do."""
    return {
        method: tuple(range(1, min(len(draft.tokens_per_step), MAX_DRAFT_LENGTH) + 1))
        for method, draft in given.model.drafts.items()
        if method in given.methods
    }


def methods(given: Given) -> tuple[str, ...]:
    """None, and those that the model has a draft for and an engine can do."""
    return ("none", *draft_lengths(given))


def lengths(given: Given) -> tuple[int, ...]:
    """With each method, those that its acceptance was measured at."""
    return tuple(sorted({length for lengths in draft_lengths(given).values() for length in lengths}))


def prefill_replicas(given: Given) -> tuple[int, ...]:
    """Fewer than the GPUs: 1 to 6, 8, 10, 12, 16, 20, 24, 32, 40, 48."""
    return tuple(n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48) if n < given.gpus)


def engines(given: Given) -> tuple[str, ...]:
    """Those of the experiment."""
    return tuple(engine.name for engine in given.engines)


def weights(given: Given) -> tuple[Weights, ...]:
    """Those of the model."""
    return given.model.weights


def variants(given: Given) -> tuple[str, ...]:
    """Those of `serve.variants`."""
    return given.variants
