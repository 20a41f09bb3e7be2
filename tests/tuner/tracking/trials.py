"""Trials of known figures: eight GPUs at `load` x 100 output tokens/s."""

from runners.measurement import Measurement, Percentiles
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Engine, Layout, Precision, ServingConfig
from search_spaces.hardware.system import Price, find_system
from search_spaces.models.model import find_model
from search_spaces.space import full_space
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, Slo
from tuner.search.trial import Trial

TRTLLM = Engine(name="trtllm", version="1.3.0rc20")
MODEL, SYSTEM = find_model("gpt-oss-120b"), find_system("b200")

SCENARIO = Scenario(
    name="chat",
    model=MODEL,
    system=SYSTEM,
    gpus=8,
    workload=Workload(input_tokens=Lengths(low=1024, high=1024), output_tokens=Lengths(low=1024, high=1024)),
    sla=Sla(slos=(Slo(metric="ttft", statistic="p99", limit_s=1.0),)),
    price=Price(usd_per_gpu_hour=3.6, all_in_watts_per_gpu=2000, source="by hand"),
    objective="usd_per_million_output_tokens",
    space=full_space(MODEL, SYSTEM, (TRTLLM,), 8),
)

CONFIG = ServingConfig(
    engine=TRTLLM,
    layout=Layout(tensor=2, expert=2, replicas=4),
    precision=Precision(weights="mxfp4", kv_cache="fp8"),
)


def always(seconds: float) -> Percentiles:
    return Percentiles(mean=seconds, values=(seconds,) * 6)


def served(load: float) -> Measurement:
    """8 GPUs at `load` x 100 output tokens/s and a TTFT of `load` x 10 ms."""
    return Measurement(
        load=load,
        gpus=8,
        duration_s=10,
        requests=100,
        input_tokens=round(load * 1000),
        output_tokens=round(load * 1000),
        ttft=always(load / 100),
        tpot=always(0.01),
        itl=always(0.01),
        e2e=always(1),
        source="simulated",
    )


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
