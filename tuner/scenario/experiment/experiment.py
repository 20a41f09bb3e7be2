"""Experiment: what a file in experiments/ asks, and the Scenario that it asks about."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo

from runners.served.deployment import Installation
from runners.workload.workload import Workload
from search_spaces.config import Engine, Method
from search_spaces.engines.engine import engines, facts_of, find_engine
from search_spaces.engines.folders import folder_of, is_folder, name_of
from search_spaces.engines.reading import written
from search_spaces.errors import InputError
from search_spaces.hardware.system import System, find_system, systems
from search_spaces.knobs import KNOBS
from search_spaces.models.model import Draft, Model, find_model, models
from search_spaces.space import SearchSpace, full_space
from search_spaces.strict_yaml import SHOWN, Problems, shown
from tuner.scenario.cost import OBJECTIVES, Objective
from tuner.scenario.experiment.budget import Budget, Retune
from tuner.scenario.experiment.files import read_mapping, read_text
from tuner.scenario.experiment.part import (
    MOST_REQUESTS,
    Part,
    broken,
    key_path,
    keys,
    known,
    names_or,
    properties,
)
from tuner.scenario.experiment.price import ListPrice, OwnPrice, price_tag
from tuner.scenario.experiment.sampler import Sampler
from tuner.scenario.experiment.serve import Serve
from tuner.scenario.experiment.space import Space
from tuner.scenario.experiment.workload import RecordedWorkload, SyntheticWorkload, workload_tag
from tuner.scenario.own_facts import Entry, entry_of, is_file_name
from tuner.scenario.recorded import recorded_rows, recorded_space
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import SLOS, Sla, check_observable, read_slo

RunnerName = Literal["simulated", "estimated", "recorded", "served"]
RUNNERS: tuple[RunnerName, ...] = get_args(RunnerName)
CONFIDENCE = "confidence"
SLA_KEYS = (*SLOS, CONFIDENCE)
LARGEST_SEED = 2**32 - 1  # numpy's and Optuna's


def _engine_names() -> list[str]:
    return [
        name
        for engine, facts in engines().items()
        for name in (engine, *(f"{engine}@{version}" for version in facts.versions))
    ]


def _engine(value: object, info: ValidationInfo) -> object:
    """A folder is read where the scenario is made, as models and systems of one's own are."""
    if not isinstance(value, str):
        raise broken(f"must be one of {', '.join(_engine_names())}, but got {shown(value)}")
    if is_folder(value):
        return value
    try:
        find_engine(value[:SHOWN], any_release=bool(info.context and info.context.get("any_release")))
    except InputError as error:
        raise broken(str(error)) from None
    return value


def _each_engine_once(names: list[str]) -> list[str]:
    found = [name_of(name) for name in names]
    for name in found:
        if found.count(name) > 1:
            raise broken(f"each engine must be listed once, but got {name} {found.count(name)} times")
    return names


def _lawful(sla: dict[str, float]) -> dict[str, float]:
    confidence = sla.get(CONFIDENCE, 0.5)
    if not 0.5 <= confidence < 1:  # noqa: PLR2004 below, one would ask for an SLA that is likely missed
        raise broken(f"`0.5 <= {CONFIDENCE} < 1` must hold, but got {confidence:g}")
    if set(sla) == {CONFIDENCE}:
        raise broken(f"{CONFIDENCE} needs an SLO beside it, such as ttft_ms_p99: 1000")
    return sla


class Experiment(Part):
    """An experiment in a file: which way of serving this model, with these SLOs, is cheapest."""

    model: Annotated[str, known("model", models, or_file=True)] = Field(
        json_schema_extra=names_or(models, r"\.ya?ml$"),
        description="`servetune list models` shows them; or a file of your own",
    )
    system: Annotated[str, known("system", systems, or_file=True)] = Field(
        json_schema_extra=names_or(systems, r"\.ya?ml$"),
        description="`servetune list systems` shows them; or a file of your own",
    )
    gpus: int = Field(ge=1, le=MOST_REQUESTS, description="the GPUs at hand, all charged, held or left over")
    engines: Annotated[
        list[Annotated[str, BeforeValidator(_engine), Field(json_schema_extra=names_or(_engine_names, "/"))]],
        AfterValidator(_each_engine_once),
    ] = Field(
        min_length=1,
        description="engines to choose from, each by name or name@release; or ./folder of your own, ./folder@release",
    )
    workload: Annotated[
        Annotated[SyntheticWorkload, Tag("<synthetic>")] | Annotated[RecordedWorkload, Tag("<recorded>")],
        Discriminator(workload_tag),
    ] = Field(description="what is asked of the server, a mapping")
    sla: Annotated[
        dict[Annotated[str, known("SLO", lambda: SLA_KEYS)], Annotated[float, Field(ge=0.001)]],
        AfterValidator(_lawful),
    ] = Field(
        min_length=1,
        json_schema_extra=properties(lambda: SLA_KEYS),
        description="SLOs in milliseconds, such as ttft_ms_p99: 1000; `confidence: 0.9` asks for all of "
        "them to be met together with that probability",
    )
    price: Annotated[
        Annotated[ListPrice, Tag("<list>")] | Annotated[OwnPrice, Tag("<own>")], Discriminator(price_tag)
    ] = Field(description="what a GPU-hour costs, a mapping")
    objective: Annotated[Objective, known("objective", lambda: OBJECTIVES)] = Field(description="the cost to minimise")
    space: Space = Field(default_factory=dict)
    runner: Annotated[RunnerName, known("runner", lambda: RUNNERS)] = Field(
        default="simulated",
        description=(
            "simulated (request by request), estimated (steady state), recorded (published runs), served (real engines)"
        ),
    )
    serve: Serve | None = Field(default=None, description="how `runner: served` starts engines, a mapping")
    sampler: Sampler = Sampler()
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
        return read_text(self._path)

    def scenario(self) -> Scenario:
        """The experiment asked. Raises InputError with every law that the file breaks, one in each line."""
        published, system = self._published(), self._system()
        problems = Problems(self.path)
        self._check_drafts(published, problems)
        model = self._accepting(published)
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
            for slo in self._sla.slos:
                with of_workload.at(f"sla.{slo.key}"):
                    check_observable(slo, workload)
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
            sla=self._sla,
            price=price,
            objective=self.objective,
            space=space,
            installation=self._installation() if self.is_served else None,
        )

    @property
    def _sla(self) -> Sla:
        limits = {key: limit for key, limit in self.sla.items() if key != CONFIDENCE}
        return Sla(
            slos=tuple(read_slo(key, limit) for key, limit in limits.items()), confidence=self.sla.get(CONFIDENCE)
        )

    def _check_interpreters(self, problems: Problems) -> None:
        """Where interpreters are named by engine, each engine that is asked for has one."""
        if not self.is_served or self.serve is None or not self.serve.pythons:
            return
        here = self._installation()
        for engine in self.used_engines:
            problems.require(
                "serve.python",
                holds=here.python_of(engine) is not None,
                law=f"names no interpreter for {engine.name}@{engine.version}; it has {', '.join(here.pythons)}",
            )

    def _installation(self) -> Installation:
        return (self.serve or Serve()).installation(self.path.parent, devices=())

    def _check_drafts(self, model: Model, problems: Problems) -> None:
        """A draft model that is not known would draft for nothing in a prediction; n-grams need none."""
        for name in self.workload.acceptance:
            problems.require(
                f"workload.acceptance.{name}",
                holds=self.is_served or name == "ngram" or name in model.drafts,
                law=f"{model.name} has no {name} draft to predict the time of; valid: "
                + ", ".join(dict.fromkeys((*model.drafts, "ngram"))),
            )

    def _published(self) -> Model:
        return self._own(Model, self.model) or find_model(self.model)

    def _accepting(self, model: Model) -> Model:
        """The model, its drafts accepted as this workload's data say."""
        accepted = self.workload.acceptance.items()
        return replace(model, drafts=model.drafts | {name: _draft(model, name, steps) for name, steps in accepted})

    def _system(self) -> System:
        return self._own(System, self.system) or find_system(self.system)

    def _own(self, kind: type[Entry], name: str) -> Entry | None:
        """What a file relative to this one describes; None for a name. Raises InputError."""
        path = self.path.parent / name
        return entry_of(kind, path, read_mapping(path, keys(Experiment))) if is_file_name(name) else None

    @property
    def used_engines(self) -> tuple[Engine, ...]:
        """Raises InputError for a folder that describes no engine, or none that the runner can predict."""
        directory = self.path.parent
        found = tuple(find_engine(name, directory=directory, any_release=self.is_served) for name in self.engines)
        for engine in found:
            if engine.folder and not self.is_served and not facts_of(engine).times_of:
                raise InputError(
                    f"{self.path}: engines: {engine.name} has no kernel times; name the engine whose times stand in, "
                    f"such as `times_of: vllm@0.27.0`, in {engine.folder}/engine.yaml, or take `runner: served`"
                )
        return found

    @property
    def own_facts(self) -> dict[str, Any]:
        """What the files hold that `model`, `system` and `engines` name."""
        files = {
            key: self.path.parent / name
            for key, name in (("model", self.model), ("system", self.system))
            if is_file_name(name)
        }
        own = {name: written(self.path.parent / folder_of(name)) for name in self.engines if is_folder(name)}
        return {**{key: read_mapping(path, keys(Experiment)) for key, path in files.items()}, **own}

    @property
    def is_served(self) -> bool:
        return self.runner == "served"

    def _space(self, model: Model, system: System, workload: Workload | None, problems: Problems) -> SearchSpace | None:
        """None where the recorded runner has nothing, or the workload is missing: problems noted elsewhere."""
        space: SearchSpace | None
        if self.runner == "recorded":
            space = self._recorded_space(workload, problems)
        else:
            variants = tuple(self.serve.variants) if self.serve else ()
            space = full_space(model, system, self.used_engines, self.gpus, runner=self.runner, variants=variants)
        if space is None:
            return None
        for name in sorted(self.space, key=[*KNOBS].index):
            with problems.at(f"space.{key_path([name])}"):
                space = space.restricted({name[:SHOWN]: tuple(self.space[name])})
        return space

    def _recorded_space(self, workload: Workload | None, problems: Problems) -> SearchSpace | None:
        if workload is not None:
            with problems.at("runner: recorded"):
                rows = recorded_rows(self.model, self.system, workload)
                return recorded_space(rows, self.engines, self.gpus)
        return None

    def _check_lengths(self, workload: Workload, model: Model, problems: Problems) -> None:
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
