"""How far off the simulator was on measured runs: the one place that states the figures of docs/fidelity.md."""

from dataclasses import dataclass


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
