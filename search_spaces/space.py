"""SearchSpace: the knobs that a search may turn, their values, and the configurations they make."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from typing import TYPE_CHECKING, Any, Protocol, get_args

from search_spaces.config import Engine, ServingConfig, Value
from search_spaces.engines.engine import facts_of
from search_spaces.engines.taken import taken
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.hardware.system import System
from search_spaces.knobs import KNOBS, Given, Knob, Predictor, draft_lengths, find_knob, flatten, unflatten
from search_spaces.models.model import Model

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Params = dict[str, Value]

METHOD = "speculation.method"
DRAFT_LENGTH = "speculation.draft_length"


class Draws(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """Dimensions and their values, in the order in which they are drawn.

    Aggregated and disaggregated deployments share their dimensions; those that begin with `prefill.` describe the
    prefill workers and are drawn only when disaggregated. A draft length is drawn only where something drafts, of
    `draft_lengths`, which has those that each method's acceptance was measured at. The number of replicas (or decode
    workers) is whatever fills `gpus`: it changes no cost per token, so it is no dimension. `unsearched` says of other
    knobs that are none why they are none.
    """

    engines: tuple[Engine, ...]
    gpus: int
    dimensions: Mapping[str, tuple[Value, ...]]
    draft_lengths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unsearched: Mapping[str, str] = field(default_factory=dict)

    # Drawing

    def draw(self, trial: Draws) -> ServingConfig:
        """A configuration from an Optuna trial.

        Raises InfeasibleError for a number that is no value of its dimension, and when the parts make no deployment.
        """
        params: Params = {}
        for name, values in self.dimensions.items():
            if choices := self.choices(name, params):
                params[name] = _suggested(trial, KNOBS[name], values)
                if params[name] not in choices:
                    raise InfeasibleError("grid", f"{name} {params[name]} is none of {', '.join(map(str, choices))}")
        return self.config(params)

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """What Optuna draws each dimension from: numbers in order, on a logarithmic scale where the knob's is one.

        An integer between the values of a dimension is no value of it: see `nearest`.
        """
        return {name: _distribution(KNOBS[name], values) for name, values in self.dimensions.items()}

    def choices(self, name: str, params: Mapping[str, Value]) -> tuple[Value, ...]:
        """The values that a dimension may have beside those drawn before it; none where it is not drawn."""
        if is_idle(KNOBS[name], params):
            return ()
        values = self.dimensions[name]
        if name == DRAFT_LENGTH and METHOD in params:
            measured = self.draft_lengths.get(str(params[METHOD]), ())
            return tuple(value for value in values if value in measured)
        return values

    def drawn(self, params: Mapping[str, Value]) -> Params:
        """Those of the parameters that are drawn beside the others."""
        return {name: params[name] for name in self.dimensions if name in params and self.choices(name, params)}

    def nearest(self, params: Mapping[str, Value]) -> Params:
        """Those of the parameters that are drawn, each number on the nearest value that it may have."""
        found: Params = {}
        for name in self.dimensions:
            choices = self.choices(name, found)
            if choices and name in params:
                found[name] = _nearest(KNOBS[name], params[name], choices)
        return found

    def combinations(self, names: Iterable[str], params: Mapping[str, Value] | None = None) -> Iterator[Params]:
        """Every choice of values for these dimensions, in order, beside `params`."""
        found = dict(params or {})
        name, *others = [*names, ""]
        if not name:
            yield found
            return
        choices = self.choices(name, found)
        if not choices:
            yield from self.combinations(others[:-1], found)
        for value in choices:
            yield from self.combinations(others[:-1], found | {name: value})

    def neighbours(self, params: Mapping[str, Value]) -> Iterator[Params]:
        """One step away in one dimension: the next number, or any other name.

        A draft length that another method brings is open: all of them are neighbours. What a prefill pool would be
        stays out where a step brings one.
        """
        for name in self.dimensions:
            if name in params:
                for value in _beside(KNOBS[name], self.choices(name, params), params[name]):
                    changed = {**params, name: value}
                    if name == METHOD:
                        changed.pop(DRAFT_LENGTH, None)
                        yield from self.combinations([DRAFT_LENGTH] * (DRAFT_LENGTH in self.dimensions), changed)
                    else:
                        yield self.drawn(changed)

    # Configurations

    def config(self, params: Mapping[str, Value]) -> ServingConfig:
        """The configuration that parameters stand for.

        Raises InfeasibleError when they make none, KeyError where a dimension that is drawn is missing.
        """
        try:
            return self._config(params)
        except ValueError as error:
            raise InfeasibleError("batching", str(error)) from None

    def _config(self, params: Mapping[str, Value]) -> ServingConfig:
        values = {name: params[name] for name in self.dimensions if self.choices(name, params)}
        engine = next(engine for engine in self.engines if engine.name == params["engine"])
        values["engine.version"] = engine.version
        if params["mode"] == "disaggregated":
            _set_prefill_sequences(values)
        config = replace(unflatten(values), engine=engine)
        prefill = config.disaggregation.prefill_layout.gpus if config.disaggregation else 0
        replicas = (self.gpus - prefill) // config.layout.gpus_per_worker
        if replicas < 1:
            needed = prefill + config.layout.gpus_per_worker
            raise InfeasibleError("GPUs", f"the workers need {needed} GPUs, {self.gpus} are there")
        return replace(config, layout=replace(config.layout, replicas=replicas))

    def params(self, config: ServingConfig) -> Params:
        """The parameters that stand for a configuration: the inverse of `config`."""
        return self.drawn(flatten(config))

    # Restrictions

    def restricted(self, restrictions: Mapping[str, tuple[Value, ...]]) -> "SearchSpace":
        """The space with the values that are listed; any integer may be where the knob says so.

        Raises InputError for a knob that is unknown or no dimension, or a value that it cannot have here.
        """
        dimensions = dict(self.dimensions)
        for name, values in restrictions.items():
            dimensions[name] = listed(self._searchable(name), values, dimensions.get(name, ()))
        dimensions = {name: dimensions[name] for name in KNOBS if name in dimensions}
        if DRAFT_LENGTH in dimensions:
            dimensions[METHOD] = self._drafting(dimensions[METHOD], dimensions[DRAFT_LENGTH])
        return replace(self, dimensions=dimensions)

    def _searchable(self, name: str) -> Knob:
        knob = find_knob(name)
        if name in self.unsearched:
            raise InputError(f"{name} is not searched here: {self.unsearched[name]}")
        return knob

    def _drafting(self, methods: tuple[Value, ...], lengths: tuple[Value, ...]) -> tuple[Value, ...]:
        """`none`, and the methods that one of these lengths was measured for. Raises InputError where there is none."""
        measured = {str(method): self.draft_lengths.get(str(method), ()) for method in methods if method != "none"}
        lawful = tuple(method for method, known in measured.items() if {*known} & {*lengths})
        if measured and not lawful:
            known = "; ".join(f"{method} at {', '.join(map(str, known))}" for method, known in measured.items())
            raise InputError(f"no draft length {', '.join(map(str, lengths))} was measured, but {known}")
        return tuple(method for method in methods if method == "none" or method in lawful)


def full_space(
    model: Model,
    system: System,
    engines_used: tuple[Engine, ...],
    gpus: int,
    *,
    runner: str = "",
    variants: tuple[str, ...] = (),
) -> SearchSpace:
    """Everything that can be chosen for a model on `gpus` GPUs of a system, and that the runner can tell apart.

    Runners that predict (`simulated`, `estimated`) price some knobs only; any other serves them all.
    """
    methods = tuple({method: None for engine in engines_used for method in facts_of(engine).methods})
    given = Given(model=model, system=system, engines=engines_used, methods=methods, gpus=gpus, variants=variants)
    unsearched = {name: reason for name, knob in KNOBS.items() if (reason := _unsearched(knob, given, runner))}
    fixed = {name for name in unsearched if _taken_by_none(KNOBS[name], given) == unsearched[name]}
    grids = {name: _grid(knob, given) for name, knob in KNOBS.items() if name not in unsearched or name in fixed}
    return SearchSpace(
        engines=engines_used,
        gpus=gpus,
        dimensions={name: grid for name, grid in grids.items() if grid},
        draft_lengths=draft_lengths(given),
        unsearched=unsearched,
    )


def _unsearched(knob: Knob, given: Given, runner: str) -> str:
    """Why a knob is no dimension; empty where it is one, or may be listed."""
    if knob.follows:
        return knob.follows
    if knob.unless and set(_grid(KNOBS[knob.unless[0]], given)) == {knob.unless[1]}:
        return f"{knob.unless[0]} is {knob.unless[1]} only"
    if runner in get_args(Predictor) and runner not in knob.priced_by:
        others = [*knob.priced_by, "served"]
        return f"runner: {runner} cannot price it; it is searched with runner: {', '.join(others)}"
    if untaken := _taken_by_none(knob, given):
        return untaken
    if not knob.values(given) and not knob.any_integer:
        return f"there is nothing to choose from ({knob.doc})"
    return ""


def _taken_by_none(knob: Knob, given: Given) -> str:
    """Why a knob is none of these engines'; empty where one takes it. Its value is what they have by themselves."""
    if not given.engines or any(facts_of(engine).takes_knob(knob.name) for engine in given.engines):
        return ""
    return f"{' and '.join(engine.name for engine in given.engines)} do{'es' * (len(given.engines) == 1)} not take it"


def _grid(knob: Knob, given: Given) -> tuple[Value, ...]:
    """The values that one of the engines, at least, takes; in the knob's order."""
    values = knob.values(given)
    if not values or not given.engines:
        return values
    can = {value for engine in given.engines for value in taken(facts_of(engine), knob.name, values, given.model)}
    if knob.is_number:
        return tuple(sorted(can))
    return tuple(value for value in dict.fromkeys((*values, *sorted(map(str, can)))) if value in can)


def _set_prefill_sequences(values: Params) -> None:
    """As many as decode, as far as a pass has headroom for them and their drafts; unless they are chosen apart."""
    queries = int(values.get(DRAFT_LENGTH, 0)) + 1
    fitting = int(values["prefill.max_batched_tokens"]) // queries
    values.setdefault("prefill.max_sequences", max(min(int(values["batching.max_sequences"]), fitting), 1))


# Values of one dimension


def is_idle(knob: Knob, params: Mapping[str, Value]) -> bool:
    """Whether a knob does nothing beside these settings, such as a draft length where nothing drafts."""
    return knob.unless is not None and params.get(knob.unless[0]) == knob.unless[1]


def _suggested(trial: Draws, knob: Knob, values: tuple[Value, ...]) -> Value:
    """What a trial says, from the distribution that `_distribution` gives."""
    if knob.is_number:
        return trial.suggest_int(knob.name, *_bounds(values), log=knob.scale == "log2")
    found: Value = trial.suggest_categorical(knob.name, values)
    return found


def _distribution(knob: Knob, values: tuple[Value, ...]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if knob.is_number:
        return IntDistribution(*_bounds(values), log=knob.scale == "log2")
    return CategoricalDistribution(values)


def _bounds(values: Iterable[Value]) -> tuple[int, int]:
    numbers = [int(value) for value in values]
    return min(numbers), max(numbers)


def _nearest(knob: Knob, value: Value, choices: tuple[Value, ...]) -> Value:
    """A name that is no choice stays as it is: none is nearer than another."""
    if not knob.is_number or value in choices:
        return value
    scale = log2 if knob.scale == "log2" else float
    return min(choices, key=lambda choice: abs(scale(int(choice)) - scale(int(value))))


def _beside(knob: Knob, choices: tuple[Value, ...], value: Value) -> tuple[Value, ...]:
    if not knob.is_number:
        return tuple(choice for choice in choices if choice != value)
    below = [choice for choice in choices if int(choice) < int(value)]
    above = [choice for choice in choices if int(choice) > int(value)]
    return (*below[-1:], *above[:1])


def listed(knob: Knob, values: tuple[Value, ...], grid: tuple[Value, ...]) -> tuple[Value, ...]:
    """What an experiment lists for a knob, in order. Raises InputError."""
    if not values:
        raise InputError("must list at least one value")
    checked = [knob.checked(value) for value in values]
    for value in checked:
        if checked.count(value) > 1:
            raise InputError(f"must list each value once, but got {value} {checked.count(value)} times")
        if value not in grid and not knob.any_integer:
            raise UnknownNameError(f"value of {knob.name}", value, grid)
    return tuple(sorted(checked)) if knob.any_integer else tuple(value for value in grid if value in checked)
