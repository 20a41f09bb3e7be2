"""A scenario of known figures, and what a search of it may have found: eight GPUs at $0.001/s each."""

from dataclasses import replace

from runners.measurement import Measurement, Percentiles
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Layout, Precision, ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.hardware.system import Price, find_system
from search_spaces.models.model import find_model
from search_spaces.space import full_space
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, Slo
from tuner.search.ranking import Ranking
from tuner.search.trial import Trial
from tuner.study.answer import Answer

MODEL, SYSTEM, TRTLLM = find_model("gpt-oss-120b"), find_system("b200"), find_engine("trtllm")

SCENARIO = Scenario(
    name="chat",
    model=MODEL,
    system=SYSTEM,
    gpus=8,
    workload=Workload(input_tokens=Lengths(low=1024, high=1024), output_tokens=Lengths(low=1024, high=1024)),
    sla=Sla(
        slos=(
            Slo(metric="ttft", statistic="p99", limit_s=1.0),
            Slo(metric="tpot", statistic="p99", limit_s=0.02),
        )
    ),
    price=Price(usd_per_gpu_hour=3.6, all_in_watts_per_gpu=2000, source="by hand"),
    objective="usd_per_million_output_tokens",
    space=full_space(MODEL, SYSTEM, (TRTLLM,), 8),
)

CONFIG = ServingConfig(
    engine=TRTLLM, layout=Layout(tensor=2, replicas=4), precision=Precision(weights="mxfp4_mxfp8", kv_cache="fp8")
)


def always(seconds: float) -> Percentiles:
    return Percentiles(mean=seconds, values=(seconds,) * 6)


def level(tokens_per_s: float, *, tpot_ms: float = 10, ttft_ms: float = 100, **changes) -> Measurement:
    """Eight GPUs at $0.001/s each: $8,000 / (tokens/s) for a million output tokens."""
    tokens = round(tokens_per_s * 10)
    measurement = Measurement(
        load=tokens_per_s / 100,
        gpus=8,
        duration_s=10,
        requests=100,
        input_tokens=tokens,
        output_tokens=tokens,
        ttft=always(ttft_ms / 1000),
        tpot=always(tpot_ms / 1000),
        itl=always(tpot_ms / 1000),
        e2e=always(1.0),
        source="simulated",
    )
    return replace(measurement, **changes)


def measured(number: int, *levels: Measurement, chosen: int = 0, config: ServingConfig = CONFIG) -> Trial:
    return Trial(number=number, ending="measured", config=config, levels=levels, chosen=chosen)


def answer_of(*trials: Trial, baseline: Trial | None = None, ranking: Ranking | None = None, **changes) -> Answer:
    return Answer(
        scenario=replace(SCENARIO, **changes),
        trials=trials,
        ranking=ranking or Ranking(candidates=(), excluded={}),
        baseline=baseline,
    )
