"""What servetune knows, as tables for `servetune list`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from runners.recorded.mlperf import submissions, unsearchable
from search_spaces.engines.engine import engines
from search_spaces.engines.facts import WORKER_KNOBS, EngineFacts
from search_spaces.hardware.system import list_price, systems
from search_spaces.models.model import models
from search_spaces.wording import METHODS
from tuner.scenario.amounts import rate
from tuner.scenario.experiment.files import list_experiments
from tuner.scenario.experiment.reading import read_experiment
from tuner.scenario.recorded import FOLDER, recorded_cases
from tuner.show.knobs import HEADS, knob_facts, knob_rows

Fact = dict[str, Any]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def model_table() -> Table:
    table = _table("Models", "name", "checkpoint", "parameters", "weights", "speculation (draft lengths)")
    for model in models().values():
        total = model.dense_parameters + model.expert_parameters + model.embedding_parameters
        drafts = [f"{METHODS[name]} (1 to {len(draft.tokens_per_step)})" for name, draft in model.drafts.items()]
        table.add_row(
            model.name,
            model.checkpoint,
            f"{total / 1e9:,.1f} B",
            ", ".join(model.weights),
            ", ".join(drafts) or "none measured",
        )
    return table


def system_table() -> Table:
    table = _table("Systems", "name", "system", "GPUs", "NVLink domain", "memory", "hyperscaler price", "all-in power")
    for system in systems().values():
        price = list_price(system, "hyperscaler")
        table.add_row(
            system.name,
            system.title,
            str(system.max_gpus),
            str(system.nvlink_gpus),
            f"{system.gpu.memory_bytes / 2**30:.0f} GiB",
            f"${price.usd_per_gpu_hour:.2f}/GPU-hour",
            f"{price.all_in_watts_per_gpu:,.0f} W/GPU",
        )
    return table


def engine_table(own: Sequence[EngineFacts] = ()) -> Table:
    """Those that servetune comes with, and a user's own."""
    table = _table("Engines", "name", "engine", "releases (first: default)", "speculation", "kernel times")
    for facts in (*engines().values(), *own):
        methods = [METHODS[name] for name in facts.methods if name != "none"]
        table.add_row(facts.name, facts.title, ", ".join(facts.versions), ", ".join(methods), _times(facts))
    return table


def _times(facts: EngineFacts) -> str:
    if facts.times_of:
        return f"those of {facts.times_of} stand in"
    return "none" if facts.is_data else "its own"


def knob_table() -> Table:
    table = _table("Knobs: what `space:` and --set take", *(head.replace("`", "") for head in HEADS))
    for row in knob_rows():
        table.add_row(*row)
    return table


def experiment_table() -> Table:
    table = _table("Experiments", "name", "model", "system", "GPUs", "engines", "SLA", "file")
    for name, path in list_experiments().items():
        experiment = read_experiment(path)
        sla = ", ".join(f"{key}: {limit:g}" for key, limit in experiment.sla.items())
        table.add_row(
            name,
            experiment.model,
            experiment.system,
            str(experiment.gpus),
            ", ".join(experiment.engines),
            sla,
            str(path),
        )
    return table


def recording_table() -> Group:
    return Group(_searchable_table(), _mlperf_table())


def _searchable_table() -> Table:
    columns = (
        "replay with servetune tune ...",
        "input / output tokens",
        "runs",
        "configurations",
        "engines",
        "measured",
    )
    table = _table("Recordings that can be searched: eight or more measured configurations", *columns)
    for name, case in recorded_cases().items():
        dates = sorted(row.date for row in case.rows if row.date)
        table.add_row(
            f"{FOLDER}/{name}",
            f"{case.input_tokens} / {case.output_tokens}",
            str(len(case.rows)),
            str(len(case.configs)),
            ", ".join(sorted({row.config.engine.name for row in case.rows})),
            f"{dates[0]} to {dates[-1]}" if dates else "unknown",
        )
    return table


def _mlperf_table() -> Table:
    """MLPerf's results, by what was asked."""
    title = "MLPerf Inference v5.1 and v6.0: results to compare with (`servetune validate`), too few to search"
    columns = ("model", "system", "scenario", "results", "best tokens/s/GPU", "why it cannot be searched")
    table = _table(title, *columns)
    for (model, system, mode), rows in submissions().experiments().items():
        best = max(row.output_rate / row.gpus for row in rows)
        table.add_row(model, system, mode, str(len(rows)), rate(best), unsearchable(rows))
    return table


# The same as plain data


def _models() -> Iterator[Fact]:
    for model in models().values():
        yield {
            "name": model.name,
            "checkpoint": model.checkpoint,
            "parameters": model.dense_parameters + model.expert_parameters + model.embedding_parameters,
            "weights": list(model.weights),
            "draft_lengths": {name: len(draft.tokens_per_step) for name, draft in model.drafts.items()},
        }


def _systems() -> Iterator[Fact]:
    for system in systems().values():
        price = list_price(system, "hyperscaler")
        yield {
            "name": system.name,
            "title": system.title,
            "gpus": system.max_gpus,
            "nvlink_gpus": system.nvlink_gpus,
            "memory_bytes": system.gpu.memory_bytes,
            "usd_per_gpu_hour": price.usd_per_gpu_hour,
            "price_source": price.source,
            "all_in_watts_per_gpu": price.all_in_watts_per_gpu,
        }


def engine_facts(own: Sequence[EngineFacts] = ()) -> Iterator[Fact]:
    """As `engine_table`."""
    for facts in (*engines().values(), *own):
        yield {
            "name": facts.name,
            "title": facts.title,
            "releases": list(facts.versions),
            "speculation": [name for name in facts.methods if name != "none"],
            "knobs": [knob for knob in WORKER_KNOBS if facts.takes_knob(knob)],
            "disaggregates": facts.disaggregates,
            "kernel_times": _times(facts),
            "image": facts.image or None,
        }


def _experiments() -> Iterator[Fact]:
    for name, path in list_experiments().items():
        experiment = read_experiment(path)
        asked = {
            "model": experiment.model,
            "system": experiment.system,
            "gpus": experiment.gpus,
            "runner": experiment.runner,
        }
        yield {
            "name": name,
            **asked,
            "engines": list(experiment.engines),
            "sla": dict(experiment.sla),
            "file": str(path),
        }


def _recordings() -> Iterator[Fact]:
    for name, case in recorded_cases().items():
        dates = sorted(row.date for row in case.rows if row.date)
        yield {
            "name": f"{FOLDER}/{name}",
            "input_tokens": case.input_tokens,
            "output_tokens": case.output_tokens,
            "runs": len(case.rows),
            "configurations": len(case.configs),
            "engines": sorted({row.config.engine.name for row in case.rows}),
            "measured": [dates[0].isoformat(), dates[-1].isoformat()] if dates else None,
        }


FACTS: Mapping[str, Callable[[], Iterator[Fact]]] = {
    "models": _models,
    "systems": _systems,
    "engines": engine_facts,
    "knobs": knob_facts,
    "experiments": _experiments,
    "recordings": _recordings,
}

CATALOGUES: Mapping[str, Callable[[], RenderableType]] = {
    "models": model_table,
    "systems": system_table,
    "engines": engine_table,
    "knobs": knob_table,
    "experiments": experiment_table,
    "recordings": recording_table,
}
