"""How far off predictions were on measured runs: the one place that states the figures of docs/fidelity.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runners.measurement import Source
from search_spaces.config import Engine
from search_spaces.engines.engine import facts_of, timed_as

Quantity = Literal["ttft", "tpot", "throughput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownErrors:
    """Median absolute relative errors against clean measured Blackwell rows, and predicted over measured TTFT."""

    rows: int
    ttft: float
    tpot: float
    throughput: float
    ttft_bias: float


# Of `servetune validate`, table "Errors by mode"; a test holds them against docs/fidelity.md.
SIMULATED = {
    "aggregated": KnownErrors(rows=1007, ttft=0.28, tpot=0.16, throughput=0.18, ttft_bias=0.75),
    "disaggregated": KnownErrors(rows=224, ttft=0.48, tpot=0.14, throughput=0.14, ttft_bias=0.54),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of log(measured / predicted): its median, and a standard deviation (1.4826 x the median absolute deviation)."""

    median: float
    sd: float


# Of `servetune validate`, table "How measurements spread about predictions"; a test holds them against the page.
SPREADS: Mapping[Source, Mapping[Quantity, Spread]] = {
    "simulated": {
        "ttft": Spread(median=0.31, sd=0.36),
        "tpot": Spread(median=0.03, sd=0.22),
        "throughput": Spread(median=-0.05, sd=0.22),
    },
    "estimated": {
        "ttft": Spread(median=0.19, sd=0.72),
        "tpot": Spread(median=-0.09, sd=0.30),
        "throughput": Spread(median=0.08, sd=0.29),
    },
}


def _errors(mode: str) -> str:
    known = SIMULATED[mode]
    return (
        f"{known.ttft:.0%} on TTFT, {known.tpot:.0%} on TPOT and {known.throughput:.0%} on throughput "
        f"({known.rows:,} measured {mode} Blackwell runs)"
    )


PREDICTION: Mapping[Source, str] = {
    "simulated": (
        f"Prediction, not a measurement. Median errors: {_errors('aggregated')}; {_errors('disaggregated')}. TTFT is "
        "predicted too low. `servetune validate` shows more."
    ),
    "estimated": "Prediction: AIConfigurator 0.12.0's steady-state estimate; every percentile shown is the mean.",
}
"""What is said beside a prediction, by its source."""


def caveat(source: Source, engine: Engine) -> str:
    """What is said beside a figure of an engine; empty where it was measured."""
    if source not in PREDICTION:
        return ""
    stand_in = timed_as(engine) if facts_of(engine).times_of else None
    if stand_in is None:
        return PREDICTION[source]
    title = facts_of(stand_in).title
    return (
        f"{PREDICTION[source]} {facts_of(engine).title} has no kernel times of its own: those of {title} "
        f"{stand_in.version} stand in, and these errors are of other engines."
    )
