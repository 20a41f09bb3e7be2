"""Trials of known figures: eight GPUs at `load` x 100 output tokens/s."""

from dataclasses import replace

from runners.measurement import Measurement
from search_spaces.config import Layout, Precision, ServingConfig
from tests import scenarios
from tests.scenarios import TRTLLM, level
from tuner.scenario.sla import Sla, Slo
from tuner.search.trial import Trial

SCENARIO = replace(scenarios.SCENARIO, sla=Sla(slos=(Slo(metric="ttft", statistic="p99", limit_s=1.0),)))
CONFIG = ServingConfig(
    engine=TRTLLM,
    layout=Layout(tensor=2, expert=2, replicas=4),
    precision=Precision(weights="mxfp4", kv_cache="fp8"),
)


def served(load: float) -> Measurement:
    """A TTFT of `load` x 10 ms."""
    return level(load * 100, ttft_ms=load * 10)


def measured(number: int) -> Trial:
    """The higher its number, the cheaper; 0 to 4 meet the SLA."""
    loads = (10.0, 20.0 * (number + 1))
    return Trial(
        number=number,
        ending="measured",
        config=CONFIG,
        levels=tuple(served(load) for load in loads),
        chosen=1,
        seconds=1.5,
    )


FAILED = Trial(number=8, ending="failed", config=CONFIG, cause="died", detail="exit 1\nout of memory")
INFEASIBLE = Trial(number=9, ending="infeasible", cause="memory", detail="needs 300 GB")
