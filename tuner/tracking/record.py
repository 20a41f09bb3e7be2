"""Record: what is worth comparing of a trial, as a row of a table and the steps of a chart."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath

from runners.measurement import Measurement
from search_spaces.knobs import flatten
from tuner.scenario.scenario import Scenario
from tuner.search.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A trial as a row of a table and the steps of a chart.

    Every number is finite; the objective comes first, since charts begin with the first metric. `curve` has
    one step for each load tried, lowest first. Latencies are in milliseconds, under the keys of the SLA.
    """

    number: int
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...]
    tags: Mapping[str, str]


def record(trial: Trial, scenario: Scenario) -> Record:
    """What is worth comparing about a trial."""
    measured = trial.ending == "measured"
    levels = sorted(trial.levels, key=lambda level: level.load)
    return Record(
        number=trial.number,
        name=str(trial.config) if trial.config else f"{trial.ending}: {trial.cause}",
        params=_texts(flatten(trial.config)) if trial.config else {},
        metrics=(_metrics(trial.measurement, scenario) if measured else {}) | _spent(trial, scenario),
        curve=tuple(_step(level, scenario) for level in levels),
        tags=_tags(trial, scenario),
    )


def scenario_params(scenario: Scenario) -> dict[str, str]:
    """The experiment, as a table row."""
    workload = scenario.workload
    lengths = {
        "workload.input_tokens": workload.input_tokens,
        "workload.output_tokens": workload.output_tokens,
    }
    slos = {slo.key: f"{slo.limit_s * 1000:g}" for slo in scenario.sla.slos}
    price = {f"price.{name}": value for name, value in asdict(scenario.price).items() if value != ""}
    return _texts(
        {
            "model": scenario.model.name,
            "system": scenario.system.name,
            "gpus": scenario.gpus,
            "engines": ", ".join(str(engine) for engine in scenario.space.engines),
            "objective": scenario.objective,
            **{f"sla.{key}": limit for key, limit in slos.items()},
            "workload.shape": workload.shape,
            **(lengths if workload.trace is None else {"workload.trace": workload.trace.path}),
            "workload.requests": workload.requests,
            "workload.shared_prefix_tokens": workload.shared_prefix_tokens,
            "workload.seed": workload.seed,
            **price,
        }
    )


def datasets(scenario: Scenario) -> list[dict[str, str]]:
    """What recorded data a scenario replays, in the fields of MLflow's Dataset; its digest is of what is replayed."""
    trace = scenario.workload.trace
    if trace is None:
        return []
    rows = zip(trace.arrival.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
    profile = {
        "num_rows": len(trace.arrival),
        "requests_per_s": trace.rate,
        "mean_input_tokens": float(trace.input_tokens.mean()),
        "mean_output_tokens": float(trace.output_tokens.mean()),
    }
    return [
        {
            "name": PurePath(trace.path).name,
            "digest": hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()[:8],
            "source_type": "local",
            "source": json.dumps({"uri": trace.path}),
            "profile": json.dumps(profile),
        }
    ]


def _metrics(measurement: Measurement, scenario: Scenario) -> dict[str, float]:
    figures: dict[str, float] = asdict(scenario.cost(measurement))
    return _finite(
        {scenario.objective: figures[scenario.objective]}
        | figures
        | {"gpus": measurement.gpus, "gpus_left_over": scenario.left_over(measurement.gpus), "load": measurement.load}
        | _slo_ms(measurement, scenario)
        | {f"excess.{key}": value for key, value in scenario.sla.excess(measurement).items()}
        | {"preemptions": measurement.preemptions, "kv_cache_peak": measurement.kv_cache_peak}
        | _observed(measurement)
    )


def _observed(measurement: Measurement) -> dict[str, float]:
    """What the engine and its GPUs said of themselves."""
    seen = measurement.observed
    if seen is None:
        return {}
    figures = {
        "engine.queue_ms_mean": None if seen.queue_time_s is None else seen.queue_time_s * 1000,
        "engine.waiting_peak": seen.waiting_peak,
        "engine.prefix_cache_hits": seen.prefix_cache_hits,
        "engine.tokens_per_step": seen.tokens_per_step,
        "watts": seen.watts,
        "output_tokens_per_joule": measurement.output_rate / seen.watts if seen.watts else None,
    }
    by_position = {f"engine.acceptance_{at}": share for at, share in enumerate(seen.acceptance, start=1)}
    return {name: value for name, value in figures.items() if value is not None} | by_position


def _spent(trial: Trial, scenario: Scenario) -> dict[str, float]:
    """What the trial itself cost, where GPUs were held."""
    if not trial.gpu_seconds:
        return {}
    dollars = trial.gpu_seconds * scenario.price.usd_per_gpu_second
    return {"trial.gpu_hours": trial.gpu_seconds / 3600, "trial.usd": dollars}


def _step(measurement: Measurement, scenario: Scenario) -> dict[str, float]:
    dollars = scenario.usd_per_million(measurement)
    return _finite({"load": measurement.load, scenario.objective: dollars} | _slo_ms(measurement, scenario))


def _slo_ms(measurement: Measurement, scenario: Scenario) -> dict[str, float]:
    return {slo.key: slo.observed(measurement) * 1000 for slo in scenario.sla.slos}


def _tags(trial: Trial, scenario: Scenario) -> dict[str, str]:
    tags = {"ending": trial.ending, "reason": trial.cause, "detail": trial.detail, "prior": trial.prior}
    if trial.config is not None:
        tags |= {
            "engine": trial.config.engine.name,
            "engine_version": trial.config.engine.version,
            "precision": trial.config.precision.weights,
            "mode": trial.config.mode,
        }
    if trial.ending == "measured":
        kept = scenario.sla.met_by(trial.measurement)
        tags |= {"sla_met": str(kept).lower(), "source": trial.measurement.source}
        tags["not_had"] = "; ".join(trial.measurement.not_had)
        seen = trial.measurement.observed
        tags |= {f"version.{name}": value for name, value in seen.versions} if seen else {}
    return {name: value for name, value in tags.items() if value}


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
