"""Experiment: reads experiments/*.yaml strictly and turns each into the Scenario that it asks about."""

import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from runners.served.deployment import Installation
from runners.served.time_limits import TimeLimits
from runners.workload.workload import Lengths, Shape, Trace, Workload
from search_spaces.config import MAX_DRAFT_LENGTH, Method
from search_spaces.engines.engine import engines, find_engine
from search_spaces.errors import InputError, UnknownNameError, nearest_first
from search_spaces.hardware.system import PRICE_LISTS, Price, PriceList, System, find_system, list_price, systems
from search_spaces.models.model import Draft, Model, find_model, models
from search_spaces.space import SearchSpace, Value, full_space
from search_spaces.strict_yaml import SHOWN, Problems, parse_yaml, shown
from tuner.scenario.cost import OBJECTIVES, Objective
from tuner.scenario.own_facts import Entry, entry_of, is_file_name
from tuner.scenario.recorded import FOLDER, experiment_text, recorded_cases, recorded_rows, recorded_space
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import SLOS, Sla, read_slo

RunnerName = Literal["simulated", "estimated", "recorded", "served"]
RUNNERS: tuple[RunnerName, ...] = get_args(RunnerName)
SHAPES: tuple[Shape, ...] = get_args(Shape)
SUFFIX = ".yaml"
CONFIDENCE = "confidence"
SLA_KEYS = (*SLOS, CONFIDENCE)

MOST_TOKENS = 10_000_000
MOST_REQUESTS = 1_000_000
LARGEST_SEED = 2**32 - 1  # numpy's and Optuna's
# The file, as pydantic sees it


def _known(what: str, names: Callable[[], Iterable[str]], *, or_file: bool = False) -> BeforeValidator:
    """Accepts one of the names, or that of a file; the others learn what is valid, the nearest first."""

    def check(value: object) -> object:
        if or_file and isinstance(value, str) and is_file_name(value):
            return value
        if not isinstance(value, str):
            raise _broken(f"must be one of {', '.join(names())}, but got {shown(value)}")
        if value not in (valid := list(names())):
            raise _broken(str(UnknownNameError(what, value[:SHOWN], valid)))
        return value

    return BeforeValidator(check)


def _broken(text: str) -> PydanticCustomError:
    return PydanticCustomError("broken_law", "{text}", {"text": text})


def _enum(names: Callable[[], Iterable[str]]) -> Callable[[dict[str, Any]], None]:
    """Completion for editors; read when the schema is made, not at import."""

    def extend(schema: dict[str, Any]) -> None:
        schema["enum"] = list(names())

    return extend


def _names_or_file(names: Callable[[], Iterable[str]]) -> Callable[[dict[str, Any]], None]:
    def extend(schema: dict[str, Any]) -> None:
        schema["anyOf"] = [{"enum": list(names())}, {"pattern": r"\.ya?ml$"}]

    return extend


def _properties(names: Callable[[], Iterable[str]]) -> Callable[[dict[str, Any]], None]:
    """Completion of a mapping's keys."""

    def extend(schema: dict[str, Any]) -> None:
        values = schema.pop("additionalProperties")
        schema.pop("propertyNames", None)
        schema |= {"properties": dict.fromkeys(names(), values), "additionalProperties": False}

    return extend


def _engine_names() -> list[str]:
    return [
        name
        for engine, facts in engines().items()
        for name in (engine, *(f"{engine}@{version}" for version in facts.versions))
    ]


def _dimension_names() -> Iterable[str]:
    return full_space(next(iter(models().values())), next(iter(systems().values())), (), gpus=2).dimensions


def _engine(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        raise _broken(f"must be one of {', '.join(_engine_names())}, but got {shown(value)}")
    try:
        find_engine(value[:SHOWN], any_release=bool(info.context and info.context.get("any_release")))
    except InputError as error:
        raise _broken(str(error)) from None
    return value


def _each_engine_once(names: list[str]) -> list[str]:
    found = [name.partition("@")[0] for name in names]
    for name in found:
        if found.count(name) > 1:
            raise _broken(f"each engine must be listed once, but got {name} {found.count(name)} times")
    return names


def _space_value(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _broken(f"must be a whole number or a name, but got {shown(value)}")
    return value if isinstance(value, int) else value[:SHOWN]


def _promised(sla: dict[str, float]) -> dict[str, float]:
    confidence = sla.get(CONFIDENCE, 0.5)
    if not 0.5 <= confidence < 1:  # noqa: PLR2004 below, one would ask for an SLO that is likely broken
        raise _broken(f"`0.5 <= {CONFIDENCE} < 1` must hold, but got {confidence:g}")
    if set(sla) == {CONFIDENCE}:
        raise _broken(f"{CONFIDENCE} needs an SLO beside it, such as ttft_ms_p99: 1000")
    return sla


def _tokens_per_step(values: list[float]) -> list[float]:
    for length, value in enumerate(values, start=1):
        if not 1 <= value <= length + 1:
            raise _broken(
                f"`1 <= tokens per step <= {length + 1}` must hold at draft length {length}, but got {shown(value)}"
            )
    return values


class _Part(BaseModel):
    # A misspelt key that silently meant its default would make the answer to another experiment.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[str] = ""
    """What tells this part from the others that may stand in its place."""


class LengthRange(_Part):
    """Token counts, uniform from low to high, both included."""

    low: int = Field(ge=1, le=MOST_TOKENS, description="the shortest, in tokens")
    high: int = Field(ge=1, le=MOST_TOKENS, description="the longest, in tokens")

    @model_validator(mode="after")
    def _ordered(self) -> "LengthRange":
        if self.low > self.high:
            raise _broken(f"`low <= high` must hold, but got {self.low} and {self.high}")
        return self

    @property
    def lengths(self) -> Lengths:
        return Lengths(low=self.low, high=self.high)


def _length_range(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_TOKENS:
            raise _broken(f"`1 <= tokens <= {MOST_TOKENS}` must hold, but got {shown(value)}")
        return {"low": value, "high": value}
    if isinstance(value, dict):
        return value
    raise _broken(f"must be a whole number, or a mapping with `low` and `high`, but got {shown(value)}")


TokenCounts = Annotated[
    LengthRange,
    BeforeValidator(_length_range, json_schema_input_type=Annotated[int, Field(ge=1, le=MOST_TOKENS)] | LengthRange),
]
Drafter = Literal["mtp", "eagle3", "ngram"]
DRAFTERS: tuple[Drafter, ...] = get_args(Drafter)
TokensPerStep = Annotated[
    list[float], Field(min_length=1, max_length=MAX_DRAFT_LENGTH), AfterValidator(_tokens_per_step)
]
Acceptance = Annotated[
    dict[Annotated[Drafter, _known("speculation method", lambda: DRAFTERS)], TokensPerStep],
    Field(
        json_schema_extra=_properties(lambda: DRAFTERS),
        description="mean tokens for each step at draft lengths 1, 2, ..., measured on this workload's data",
    ),
]
RequestCount = Annotated[
    int, Field(ge=50, le=MOST_REQUESTS, description="requests measured at each load, after the warm-up")
]
SharedPrefix = Annotated[
    int, Field(ge=0, le=MOST_TOKENS, description="tokens that open every prompt, found in the prefix cache")
]


class SyntheticWorkload(_Part):
    """Lengths drawn at random, arriving in a closed loop or as a Poisson process."""

    kind: ClassVar[str] = "arrivals: closed_loop or poisson"

    arrivals: Annotated[Literal["closed_loop", "poisson"], _known("arrivals", lambda: SHAPES)] = Field(
        description="closed_loop, poisson or trace"
    )
    input_tokens: TokenCounts = Field(description="prompt length: a number, or low and high")
    output_tokens: TokenCounts = Field(description="answer length: a number, or low and high")
    requests: RequestCount = 400
    shared_prefix_tokens: SharedPrefix = 0
    acceptance: Acceptance = Field(default_factory=dict)

    def workload(self, directory: Path, seed: int) -> Workload:  # noqa: ARG002 a trace needs its directory
        return Workload(
            shape=self.arrivals,
            input_tokens=self.input_tokens.lengths,
            output_tokens=self.output_tokens.lengths,
            requests=self.requests,
            shared_prefix_tokens=self.shared_prefix_tokens,
            seed=seed,
        )


class RecordedWorkload(_Part):
    """Arrivals and lengths of a recorded trace."""

    kind: ClassVar[str] = "arrivals: trace"

    arrivals: Literal["trace"]
    trace: str = Field(
        min_length=1, description="CSV of TIMESTAMP, ContextTokens, GeneratedTokens, relative to this file"
    )
    requests: RequestCount = 400
    shared_prefix_tokens: SharedPrefix = 0
    acceptance: Acceptance = Field(default_factory=dict)

    def workload(self, directory: Path, seed: int) -> Workload:
        """Raises InputError for a trace that is missing or has a broken line."""
        path = directory / self.trace
        if not os.path.isfile(path):  # noqa: PTH113 Path.is_file raises for names that no file can have
            raise InputError(f"no such file: {shown(str(path)[-SHOWN:])}")
        trace = Trace.read(path)
        return Workload(
            shape="trace",
            input_tokens=Lengths(low=int(trace.input_tokens.min()), high=int(trace.input_tokens.max())),
            output_tokens=Lengths(low=int(trace.output_tokens.min()), high=int(trace.output_tokens.max())),
            trace=trace,
            requests=self.requests,
            shared_prefix_tokens=self.shared_prefix_tokens,
            seed=seed,
        )


def _quoted_date(value: object) -> object:
    """A date that YAML was told to read as text is still one."""
    if isinstance(value, str):
        with suppress(ValueError):
            return dt.date.fromisoformat(value)
    return value


class ListPrice(_Part):
    """A published price by list and date."""

    kind: ClassVar[str] = "list"

    price_list: Annotated[PriceList, _known("price list", lambda: PRICE_LISTS)] = Field(
        alias="list", description=f"{', '.join(PRICE_LISTS)}; or give `usd_per_gpu_hour` instead"
    )
    date: Annotated[dt.date | None, BeforeValidator(_quoted_date)] = Field(
        default=None, description="prices in force on this day; else the latest"
    )
    usd_per_kwh: float = Field(default=0, ge=0, description="energy where it is charged apart")

    def price(self, system: System) -> Price:
        """Raises InputError where the table has no such price."""
        return replace(list_price(system, self.price_list, self.date), usd_per_kwh=self.usd_per_kwh)


class OwnPrice(_Part):
    """A price of one's own."""

    kind: ClassVar[str] = "usd_per_gpu_hour"

    usd_per_gpu_hour: float = Field(gt=0)
    all_in_watts_per_gpu: float | None = Field(
        default=None, gt=0, description="power with cooling and losses; else the price table's latest"
    )
    usd_per_kwh: float = Field(default=0, ge=0, description="energy where it is charged apart")

    def price(self, system: System) -> Price:
        """Raises InputError where the power is left to a table that has none."""
        watts = self.all_in_watts_per_gpu or list_price(system, "hyperscaler").all_in_watts_per_gpu
        return Price(
            usd_per_gpu_hour=self.usd_per_gpu_hour,
            all_in_watts_per_gpu=watts,
            usd_per_kwh=self.usd_per_kwh,
            source="given in the experiment",
        )


class Budget(_Part):
    """When the search stops: whichever comes first."""

    trials: int = Field(default=48, ge=1, le=MOST_REQUESTS, description="configurations tried")
    wall_clock_min: float | None = Field(default=None, gt=0, description="minutes of this run")
    gpu_hours: float | None = Field(default=None, gt=0, description="GPU-hours that trials may hold, start-up included")
    usd: float | None = Field(default=None, gt=0, description="dollars that those GPU-hours may cost")
    monthly_tokens: float | None = Field(
        default=None,
        gt=0,
        description="tokens served a month; a trial then has to be expected to save what trials cost, within a month",
    )


class Retune(_Part):
    """How a champion is held against a new release."""

    minimum_effect: float = Field(
        default=0.02, gt=0, le=0.5, description="relative change in cost from which one matters, such as 0.03"
    )
    repeats: int = Field(
        default=6, ge=2, le=100, multiple_of=2, description="lives of a server on each release, taken in turn"
    )
    trials: int = Field(default=16, ge=1, le=MOST_REQUESTS, description="configurations tried on the new release")
    monthly_tokens: float | None = Field(
        default=None, gt=0, description="tokens served a month, as the objective counts them; else a full champion's"
    )


def _interpreters(value: object) -> object:
    """An interpreter, or one for each engine or release. The engines' names are known, the releases any."""
    if value is None or (isinstance(value, str) and value):
        return value
    if not isinstance(value, dict) or not value:
        raise _broken(
            f"must be an interpreter, or a mapping such as vllm@0.32.0: /opt/vllm/bin/python, but got {shown(value)}"
        )
    for engine, python in value.items():
        if not isinstance(engine, str):
            raise _broken(f"must name engines, such as vllm@0.32.0, but got {shown(engine)}")
        try:
            find_engine(engine[:SHOWN], any_release=True)
        except InputError as error:
            raise _broken(str(error)) from None
        if not isinstance(python, str) or not python:
            raise _broken(f"{engine[:SHOWN]} must name an interpreter, but got {shown(python)}")
    return value


Pythons = Annotated[str | dict[str, str] | None, BeforeValidator(_interpreters)]


class Serve(_Part):
    """How `runner: served` starts the engine that is installed here. Values are logged: secrets belong elsewhere."""

    python: Pythons = Field(
        default=None,
        description="interpreter of the engine's environment, or a mapping from engine@release to one; else the "
        "command in PATH",
    )
    checkpoint: str | None = Field(
        default=None, min_length=1, description="folder or name to load in place of the model's own checkpoint"
    )
    draft: str | None = Field(default=None, min_length=1, description="the same for the model that drafts")
    model_name: str | None = Field(default=None, min_length=1, description="name to ask for; else what is served")
    device: Literal["gpu", "cpu"] = Field(default="gpu", description="cpu: hand out no GPUs, and count none")
    args: list[str] = Field(default_factory=list, description="further arguments of every worker, which win")
    variants: dict[str, list[str]] = Field(
        default_factory=dict,
        description="sets of further arguments by name; the search chooses one: the dimension `variant`",
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment variables of every worker")
    start_min: float = Field(default=30, gt=0, description="minutes that a start may take")
    load_min: float = Field(default=20, gt=0, description="minutes that one load may take")
    stall_s: float = Field(default=60, gt=0, description="seconds without any token that are a hang")
    stop_s: float = Field(default=10, gt=0, description="seconds to end in, before it is killed")
    logs: str = Field(default="logs", min_length=1, description="folder of the engines' logs")

    def installation(self, directory: Path, *, devices: tuple[str, ...]) -> Installation:
        """Files are relative to the experiment's `directory`; what is no file there is a name."""
        return Installation(
            python=_absolute(directory, self.python) if isinstance(self.python, str) else None,
            pythons={engine: _absolute(directory, python) or python for engine, python in self.pythons.items()},
            checkpoint=_absolute(directory, self.checkpoint),
            draft=_absolute(directory, self.draft),
            model_name=self.model_name,
            args=tuple(self.args),
            variants={name: tuple(args) for name, args in self.variants.items()},
            env=self.env,
            devices=devices if self.device == "gpu" else None,
        )

    @property
    def pythons(self) -> Mapping[str, str]:
        """Interpreters by engine; empty where one serves all, or none is named."""
        return self.python if isinstance(self.python, Mapping) else {}

    @property
    def limits(self) -> TimeLimits:
        return TimeLimits(
            start_s=self.start_min * 60, load_s=self.load_min * 60, stall_s=self.stall_s, stop_s=self.stop_s
        )


def _absolute(directory: Path, name: str | None) -> str | None:
    """Workers run elsewhere. Links are kept: a virtual environment's interpreter is one."""
    path = None if name is None else directory / name
    return os.path.abspath(path) if path and os.path.exists(path) else name  # noqa: PTH100, PTH110 see above


def _workload_tag(value: object) -> str:
    if isinstance(value, dict):
        return "<recorded>" if value.get("arrivals") == "trace" else "<synthetic>"
    return "<recorded>" if isinstance(value, RecordedWorkload) else "<synthetic>"


def _price_tag(value: object) -> str:
    if isinstance(value, dict):
        return "<own>" if "usd_per_gpu_hour" in value and "list" not in value else "<list>"
    return "<own>" if isinstance(value, OwnPrice) else "<list>"


class Experiment(_Part):
    """An experiment in a file: which way of serving this model, with these SLOs, is cheapest."""

    model: Annotated[str, _known("model", models, or_file=True)] = Field(
        json_schema_extra=_names_or_file(models),
        description="`servetune list models` shows them; or a file of your own",
    )
    system: Annotated[str, _known("system", systems, or_file=True)] = Field(
        json_schema_extra=_names_or_file(systems),
        description="`servetune list systems` shows them; or a file of your own",
    )
    gpus: int = Field(ge=1, le=MOST_REQUESTS, description="the GPUs at hand, all charged when held")
    engines: Annotated[
        list[Annotated[str, BeforeValidator(_engine), Field(json_schema_extra=_enum(_engine_names))]],
        AfterValidator(_each_engine_once),
    ] = Field(min_length=1, description="engines to choose from, each by name or name@release")
    workload: Annotated[
        Annotated[SyntheticWorkload, Tag("<synthetic>")] | Annotated[RecordedWorkload, Tag("<recorded>")],
        Discriminator(_workload_tag),
    ] = Field(description="what is asked of the server, a mapping")
    sla: Annotated[
        dict[Annotated[str, _known("SLO", lambda: SLA_KEYS)], Annotated[float, Field(ge=0.001)]],
        AfterValidator(_promised),
    ] = Field(
        min_length=1,
        json_schema_extra=_properties(lambda: SLA_KEYS),
        description="promised latencies in milliseconds, such as ttft_ms_p99: 1000; `confidence: 0.9` asks for each to "
        "be kept with that probability",
    )
    price: Annotated[
        Annotated[ListPrice, Tag("<list>")] | Annotated[OwnPrice, Tag("<own>")], Discriminator(_price_tag)
    ] = Field(description="what a GPU-hour costs, a mapping")
    objective: Annotated[Objective, _known("objective", lambda: OBJECTIVES)] = Field(description="the cost to minimise")
    space: dict[str, list[Annotated[Value, PlainValidator(_space_value, json_schema_input_type=int | str)]]] = Field(
        default_factory=dict,
        json_schema_extra=_properties(_dimension_names),
        description="dimensions of the search, each with the values left to choose from; else all",
    )
    runner: Annotated[RunnerName, _known("runner", lambda: RUNNERS)] = Field(
        default="simulated",
        description=(
            "simulated (request by request), estimated (steady state), recorded (published runs), served (real engines)"
        ),
    )
    serve: Serve | None = Field(default=None, description="how `runner: served` starts engines, a mapping")
    budget: Budget = Budget()
    retune: Retune = Retune()
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)

    _path: Path = Path()

    def model_post_init(self, context: Any) -> None:
        self._path = Path(context["path"]) if context else Path()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def name(self) -> str:
        return self._path.stem

    @property
    def text(self) -> str:
        """The file, or the experiment that comes with a recorded scenario. Raises InputError."""
        return _read_text(self._path)

    def scenario(self) -> Scenario:
        """The experiment asked. Raises InputError with every law that the file breaks, one in each line."""
        model, system = self._model(), self._system()
        problems = Problems(self.path)
        problems.require(
            "gpus",
            holds=self.gpus <= system.max_gpus or self.runner == "recorded",  # published runs span several nodes
            law=f"`gpus <= {system.max_gpus}` must hold on {system.name}, but got {self.gpus}",
        )
        workload = price = None
        of_workload = Problems(self.path)
        with of_workload.at("workload.trace"):
            workload = self.workload.workload(self.path.parent, self.seed)
            self._check_lengths(workload, model, of_workload)
        space = self._space(model, system, workload, problems)
        self._check_interpreters(problems)
        with problems.at("price"):
            price = self.price.price(system)
        problems.lines += of_workload.lines
        if problems.lines or workload is None or price is None or space is None:
            raise problems.error()
        return Scenario(
            name=self.name,
            model=model,
            system=system,
            gpus=self.gpus,
            workload=workload,
            sla=Sla(
                slos=tuple(read_slo(key, limit) for key, limit in self.sla.items() if key != CONFIDENCE),
                confidence=self.sla.get(CONFIDENCE),
            ),
            price=price,
            objective=self.objective,
            space=space,
            installation=self._installation() if self.is_served else None,
        )

    def _check_interpreters(self, problems: "Problems") -> None:
        """Where interpreters are named by engine, each engine that is asked for has one."""
        if not self.is_served or self.serve is None or not self.serve.pythons:
            return
        here = self._installation()
        for name in self.engines:
            engine = find_engine(name, any_release=True)
            problems.require(
                "serve.python",
                holds=here.python_of(engine) is not None,
                law=f"names no interpreter for {engine.name}@{engine.version}; it has {', '.join(here.pythons)}",
            )

    def _installation(self) -> Installation:
        return (self.serve or Serve()).installation(self.path.parent, devices=())

    def _model(self) -> Model:
        """The model, its drafts accepted as this workload's data say."""
        model = self._own(Model, self.model) or find_model(self.model)
        accepted = self.workload.acceptance.items()
        return replace(model, drafts=model.drafts | {name: _draft(model, name, steps) for name, steps in accepted})

    def _system(self) -> System:
        return self._own(System, self.system) or find_system(self.system)

    def _own(self, kind: type[Entry], name: str) -> Entry | None:
        """What a file relative to this one describes; None for a name. Raises InputError."""
        path = self.path.parent / name
        return entry_of(kind, path, _read_mapping(path)) if is_file_name(name) else None

    @property
    def own_facts(self) -> dict[str, Any]:
        """What the files hold that `model` and `system` name."""
        files = {
            key: self.path.parent / name
            for key, name in (("model", self.model), ("system", self.system))
            if is_file_name(name)
        }
        return {key: _read_mapping(path) for key, path in files.items()}

    @property
    def is_served(self) -> bool:
        return self.runner == "served"

    def _space(
        self, model: Model, system: System, workload: Workload | None, problems: "Problems"
    ) -> SearchSpace | None:
        """None where the recorded runner has nothing, or the workload is missing: problems noted elsewhere."""
        space: SearchSpace | None
        if self.runner == "recorded":
            space = self._recorded_space(workload, problems)
        else:
            used = tuple(find_engine(name, any_release=self.is_served) for name in self.engines)
            space = full_space(model, system, used, self.gpus)
        if space is None:
            return None
        if self.is_served and self.serve and self.serve.variants:
            space = space.with_variants(tuple(self.serve.variants))
        for name, values in self.space.items():
            with problems.at(f"space.{_key_path([name])}"):
                space = space.restricted({name[:SHOWN]: tuple(values)})
        return space

    def _recorded_space(self, workload: Workload | None, problems: "Problems") -> SearchSpace | None:
        if workload is not None:
            with problems.at("runner: recorded"):
                rows = recorded_rows(self.model, self.system, workload)
                return recorded_space(rows, self.engines, self.gpus)
        return None

    def _check_lengths(self, workload: Workload, model: Model, problems: "Problems") -> None:
        longest, prefix = workload.max_request_tokens, workload.shared_prefix_tokens
        problems.require(
            "workload.trace" if workload.trace else "workload.output_tokens",
            holds=longest <= model.max_context,
            law=f"`input_tokens + output_tokens <= {model.max_context}` (the context of {model.name}) must "
            f"hold, but got {longest}",
        )
        problems.require(
            "workload.shared_prefix_tokens",
            holds=prefix < workload.input_tokens.low,
            law=f"`shared_prefix_tokens < {workload.input_tokens.low}` (the shortest input) must hold, "
            f"but got {prefix}",
        )


def _draft(model: Model, name: Method, tokens_per_step: list[float]) -> Draft:
    known = model.drafts.get(name)
    return Draft(
        parameters=known.parameters if known else 0,
        tokens_per_step=tuple(tokens_per_step),
        source="given in the experiment",
    )


# Reading it


def read_experiment(path: Path, *, runner: str | None = None) -> Experiment:
    """The experiment in a file, put to another runner where one is named.

    Raises InputError with everything in the file that is not as it must be, one problem in each line.
    """
    data = _read_mapping(path)
    if runner is not None:
        if runner not in RUNNERS:
            raise UnknownNameError("runner", runner, RUNNERS)
        data["runner"] = runner
    try:
        return Experiment.model_validate(data, context=_context(data, path))
    except ValidationError as error:
        problems = Problems(path)
        for details in error.errors(include_url=False):
            problems.lines.append(_problem(details))
        raise problems.error() from None


def _context(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What validators need to know: only a real engine may be of a release without kernel times."""
    return {"path": path, "any_release": data.get("runner") == "served"}


def as_written(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, by the keys of an experiment file."""
    data = {key: value for key, value in asked.items() if key in Experiment.model_fields}
    price = data.get("price")
    if isinstance(price, Mapping):
        data["price"] = {("list" if key == "price_list" else key): value for key, value in price.items()}
    return data


def rebuilt_experiment(journal: Path, asked: Mapping[str, Any], path: Path) -> Experiment:
    """The experiment that a study kept as JSON, as if read from `path`.

    Raises InputError with everything that is not as it must be, one problem in each line.
    """
    try:
        return Experiment.model_validate_json(json.dumps(as_written(asked)), context=_context(asked, path))
    except ValidationError as error:
        problems = Problems(journal)
        for details in error.errors(include_url=False):
            problems.lines.append(_problem(details))
        raise problems.error() from None


def _read_text(path: Path) -> str:
    """A file's text, or the experiment that comes with a recorded scenario."""
    if path.parent == Path(FOLDER) and not path.exists() and path.stem in recorded_cases():
        return experiment_text(recorded_cases()[path.stem])
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text, but byte {error.start} is not") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None


def _read_mapping(path: Path) -> dict[Any, Any]:
    data = parse_yaml(path, _read_text(path))
    if not isinstance(data, dict):
        keys = ", ".join(_keys(Experiment))
        raise InputError(f"{path}: must be a mapping with the keys {keys}, but got {shown(data)}")
    return data


# What pydantic found, in our words

_PARTS: dict[tuple[str | int, ...], type[_Part]] = {
    (): Experiment,
    ("workload", "<synthetic>"): SyntheticWorkload,
    ("workload", "<recorded>"): RecordedWorkload,
    ("workload", "<synthetic>", "input_tokens"): LengthRange,
    ("workload", "<synthetic>", "output_tokens"): LengthRange,
    ("price", "<list>"): ListPrice,
    ("price", "<own>"): OwnPrice,
    ("budget",): Budget,
    ("retune",): Retune,
    ("serve",): Serve,
}
_LAWS = {
    "greater_than": "`{key} > {gt:g}` must hold",
    "greater_than_equal": "`{key} >= {ge:g}` must hold",
    "less_than_equal": "`{key} <= {le}` must hold",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "string_unicode": "must be Unicode text",
    "string_too_short": "must not be empty",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "date_type": "must be a date such as 2026-07-31",
    "invalid_key": "keys must be text",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
}
"""The law behind each kind of pydantic error; `but got ...` follows."""


def _problem(details: ErrorDetails) -> str:
    loc, kind, found = details["loc"], details["type"], details["input"]
    in_words = {"missing": _missing, "extra_forbidden": _unknown_key}
    if kind in in_words:
        text = in_words[kind](loc)
    elif kind == "broken_law":
        text = details["msg"]
    else:
        law = _LAWS.get(kind, details["msg"]).format(key=_key_path(loc[-1:]), **details.get("ctx", {}))
        text = f"{law}, but got {shown(found)}"
    return f"{_key_path(_without_tags(loc))}: {text}"


def _missing(loc: tuple[str | int, ...]) -> str:
    for name, field in _PARTS[loc[:-1]].model_fields.items():
        if loc[-1] in (name, field.alias):
            return f"missing ({field.description})"
    raise AssertionError(loc)


def _unknown_key(loc: tuple[str | int, ...]) -> str:
    part, key = _PARTS[loc[:-1]], str(loc[-1])[:SHOWN]
    for place, other in _PARTS.items():
        if place[:-1] == loc[:-2] and other.kind != part.kind and key in _keys(other):
            valid = ", ".join(nearest_first(key, _keys(part)))
            return f"does not go with `{part.kind}`; valid: {valid}"
    return str(UnknownNameError("key", key, _keys(part)))


def _keys(part: type[_Part]) -> list[str]:
    return [field.alias or name for name, field in part.model_fields.items()]


def _without_tags(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A location in the file: without the marks of pydantic's unions and mapping keys."""
    if loc[:1] in (("workload",), ("price",)):
        loc = loc[:1] + loc[2:]
    return loc[:-1] if loc[-1:] == ("[key]",) else loc


def _key_path(loc: Iterable[str | int]) -> str:
    """`workload.input_tokens.low`, `engines[0]`."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += "." if path else ""
            path += part[:SHOWN] if part.isprintable() else repr(part[:SHOWN])
    return path


# Finding it


def list_experiments() -> dict[str, Path]:
    """Experiments by name: those that ship with servetune, and those in `experiments/` of this directory."""
    here = Path("experiments")
    found = sorted(_shipped().glob(f"*{SUFFIX}")) + sorted(here.glob(f"*{SUFFIX}"))
    return dict(sorted({path.stem: path for path in found}.items()))


def find_experiment(name_or_path: str) -> Path:
    """A file by its path, an experiment by its name, or a recorded scenario's experiment by `recorded/NAME`.

    Raises InputError for what is none of them.
    """
    if os.path.isfile(name_or_path):  # noqa: PTH113 Path.is_file raises for names that no file can have
        return Path(name_or_path)
    known = list_experiments()
    name = name_or_path.rpartition("/")[2].removesuffix(SUFFIX)[:SHOWN]
    if name_or_path in (name, name + SUFFIX) and name in known:
        return known[name]
    recorded = recorded_cases()
    if name in recorded and name_or_path.removeprefix(f"{FOLDER}/").removesuffix(SUFFIX) == name:
        return Path(FOLDER) / f"{name}{SUFFIX}"
    if name_or_path.startswith(f"{FOLDER}/"):
        raise UnknownNameError("recorded scenario", name, recorded)
    if os.path.isdir(name_or_path):  # noqa: PTH112 as above
        raise InputError(f"{name_or_path}: is a folder; name an experiment file in it")
    choices = ", ".join(nearest_first(name, list(known)))
    raise InputError(
        f"no file and no experiment {name_or_path[:SHOWN]!r}; valid experiments: {choices}; "
        f"`servetune list recordings` shows those named {FOLDER}/..."
    )


def _shipped() -> Path:
    """`tuner/experiments` of a wheel; in a checkout, `experiments` beside `tuner`."""
    package = Path(__file__).parents[1]
    packaged = package / "experiments"
    return packaged if packaged.is_dir() else package.parent / "experiments"


# The schema


def schema() -> str:
    """JSON schema of an experiment file, for editors' completion."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Experiment.model_json_schema(mode="validation"),
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
