"""Figures: what was found of a configuration as plain data, under the same keys wherever JSON is written."""

from dataclasses import asdict
from typing import Any

from runners.measurement import METRICS, PERCENTILES, Measurement
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import facts_of, timed_as
from search_spaces.knobs import flatten
from tuner.evidence.confidence import INTERVAL, Judged
from tuner.scenario.scenario import Scenario
from tuner.study.answer import Answer


def config_figures(config: ServingConfig) -> dict[str, Any]:
    """Every setting by its name, and all of them in short."""
    facts = facts_of(config.engine)
    stand_in = {"kernel_times_of": str(timed_as(config.engine))} if facts.times_of else {}
    return {"in_short": str(config), **flatten(config), **stand_in}


def level_figures(scenario: Scenario, level: Measurement) -> dict[str, Any]:
    """One load: what it was, whether the SLA is met, its cost, and its latencies in milliseconds."""
    latencies = {
        f"{metric}_ms": {
            "mean": level.latency(metric).mean * 1000,
            **{f"p{p:g}": level.latency(metric).at(p) * 1000 for p in PERCENTILES},
        }
        for metric in METRICS
    }
    return {
        "load": level.load,
        "load_unit": scenario.workload.load_unit,
        "gpus": level.gpus,
        "gpus_left_over": scenario.left_over(level.gpus),
        "requests": level.requests,
        "failed_requests": level.failed_requests,
        "duration_s": level.duration_s,
        "sla_met": scenario.sla.met_by(level),
        "slos": [
            {
                "slo": slo.key,
                "limit_ms": slo.limit_s * 1000,
                "observed_ms": slo.observed(level) * 1000,
                "met": slo.excess(level) <= 0,
            }
            for slo in scenario.sla.slos
        ],
        "source": level.source,
        "not_had": level.not_had,
        **asdict(scenario.cost(level)),
        **latencies,
    }


def certainty_figures(judged: Judged) -> dict[str, Any]:
    """How sure a configuration is: P(SLA met), and the interval of its cost; of a prediction, by its known errors."""
    return {
        "repeats": judged.repeats,
        "probability_sla_met": judged.probability_met,
        "usd_per_million": judged.cost,
        "usd_per_million_interval": {"probability": INTERVAL, "low": judged.low, "high": judged.high},
    }


def candidate_figures(answer: Answer) -> list[dict[str, Any]]:
    """Every measured configuration, best first."""
    tied = {judged.trial.number for judged in answer.ties}
    return [
        {
            "trial": judged.trial.number,
            "config": str(judged.trial.config),
            "load": judged.trial.measurement.load,
            "sla_met": judged.meets_sla,
            **certainty_figures(judged),
            "ties_with_winner": judged.trial.number in tied,
        }
        for judged in answer.judged
    ]
