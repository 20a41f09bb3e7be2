"""SearchSpace: the knobs that a search may turn, their values, and the configurations they make."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from typing import TYPE_CHECKING, Any, Protocol, get_args

from search_spaces.config import METHODS, MODES, Engine, ServingConfig, Value
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.grids import draft_lengths
from search_spaces.hardware.system import System
from search_spaces.knob import Given, Knob, Predictor
from search_spaces.knobs import KNOBS, PREFILL, find_knob, flatten, unflatten
from search_spaces.models.model import Model
from search_spaces.offered import Offered, is_fixed, offered

if TYPE_CHECKING:
    from random import Random

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
    `draft_lengths`, which has those that each method's acceptance was measured at; and what an engine does not take,
    not with that engine: `offers` has, by engine, the values of knobs that cannot have all of them. The number of
    replicas (or decode workers) is whatever fills `gpus`: it changes no cost per token, so it is no dimension.
    `unsearched` says of other knobs that are none why they are none.
    """

    engines: tuple[Engine, ...]
    gpus: int
    dimensions: Mapping[str, tuple[Value, ...]]
    draft_lengths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    offers: Mapping[str, Offered] = field(default_factory=dict)
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
        return {name: distribution(KNOBS[name], values) for name, values in self.dimensions.items()}

    def choices(self, name: str, params: Mapping[str, Value]) -> tuple[Value, ...]:
        """The values that a dimension may have beside those drawn before it; none where it is not drawn."""
        values = self.dimensions.get(name, ())
        if not values or self._is_idle(name, params):
            return ()
        if name == "engine" and "mode" in params:
            return tuple(engine for engine in values if params["mode"] in (self._offered(engine, "mode") or MODES))
        offers = self.offers.get(str(params.get("engine")), {})
        if is_fixed(offers, name):
            return ()
        if name in offers:
            values = tuple(value for value in values if value in offers[name])
        if name == DRAFT_LENGTH and METHOD in params:
            values = tuple(value for value in values if value in self.draft_lengths.get(str(params[METHOD]), ()))
        return values

    def possible(self, name: str, params: Mapping[str, Value]) -> tuple[Value, ...]:
        """The values that a configuration may have beside these: those to choose from, or the only one."""
        return self.choices(name, params) or self._offered(params.get("engine"), name) or ()

    def _offered(self, engine: object, name: str) -> tuple[Value, ...] | None:
        return self.offers.get(str(engine), {}).get(name)

    def _is_idle(self, name: str, params: Mapping[str, Value]) -> bool:
        """Whether a knob does nothing beside these settings, such as a draft length where nothing drafts."""
        if (unless := KNOBS[name].unless) is None:
            return False
        only = self._offered(params.get("engine"), unless[0]) or ()
        return params.get(unless[0], only[0] if len(only) == 1 else None) == unless[1]

    def drawn(self, params: Mapping[str, Value]) -> Params:
        """Those of the parameters that are drawn beside the others."""
        return {name: params[name] for name in self.dimensions if name in params and self.choices(name, params)}

    def at_random(self, rng: "Random", kept: Mapping[str, Value]) -> Params:
        """A choice in each dimension that is drawn: what is kept where it may be, else any.

        A method is as likely as it has draft lengths: were all alike, a third of the choices would draft nothing.
        """
        found: Params = {}
        for name in self.dimensions:
            if choices := self.choices(name, found):
                weights = [self._branches(name, choice, found) for choice in choices]
                found[name] = kept[name] if kept.get(name) in choices else rng.choices(choices, weights)[0]
        return found

    def _branches(self, name: str, choice: Value, params: Mapping[str, Value]) -> int:
        return max(len(self.choices(DRAFT_LENGTH, {**params, name: choice})), 1) if name == METHOD else 1

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
        engine = next(engine for engine in self.engines if engine.name == params["engine"])
        values = self._untaken(engine.name, params)
        values |= {name: params[name] for name in self.dimensions if self.choices(name, params)}
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

    def _untaken(self, engine: str, params: Mapping[str, Value]) -> Params:
        """What a configuration has of knobs that its engine does not take."""
        only = {name: values[0] for name, values in self.offers.get(engine, {}).items() if len(values) == 1}
        return {name: value for name, value in only.items() if not self._is_idle(name, params)}

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
            dimensions["engine"] = self._able(dimensions["engine"], name, dimensions[name])
        dimensions = {name: dimensions[name] for name in KNOBS if name in dimensions}
        _check_passes(dimensions)
        if DRAFT_LENGTH in dimensions:
            dimensions[METHOD] = self._drafting(dimensions[METHOD], dimensions[DRAFT_LENGTH])
        return replace(self, dimensions=dimensions)

    def _able(self, engines: tuple[Value, ...], name: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Engines that can have one of these values. Raises InputError where none can."""
        if KNOBS[name].unless:
            return engines
        offers = {engine: self._offered(engine, name) for engine in engines}
        able = tuple(engine for engine, only in offers.items() if not only or {*only} & {*values})
        if not able:
            known = "; ".join(f"{engine} has {', '.join(map(str, only or ()))}" for engine, only in offers.items())
            raise InputError(f"no engine here can have {', '.join(map(str, values))}: {known}")
        return able

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
    offers = {engine.name: offered(model, engine) for engine in engines_used}
    given = Given(
        model=model,
        system=system,
        engines=engines_used,
        modes=tuple(mode for mode in MODES if any(mode in found.get("mode", MODES) for found in offers.values())),
        methods=tuple(method for method in METHODS if any(method in found[METHOD] for found in offers.values())),
        gpus=gpus,
        variants=variants,
    )
    unsearched = {name: reason for name, knob in KNOBS.items() if (reason := _unsearched(knob, given, offers, runner))}
    grids = {name: _grid(knob, given, offers) for name, knob in KNOBS.items() if name not in unsearched}
    return SearchSpace(
        engines=engines_used,
        gpus=gpus,
        dimensions={name: grid for name, grid in grids.items() if grid},
        draft_lengths=draft_lengths(given),
        offers=offers,
        unsearched=unsearched,
    )


def _unsearched(knob: Knob, given: Given, offers: Mapping[str, Offered], runner: str) -> str:
    """Why a knob is no dimension; empty where it is one, or may be listed."""
    if knob.follows:
        return knob.follows
    if knob.unless and set(KNOBS[knob.unless[0]].values(given)) == {knob.unless[1]}:
        return f"{knob.unless[0]} is {knob.unless[1]} only"
    if runner in get_args(Predictor) and runner not in knob.priced_by:
        others = [*knob.priced_by, "served"]
        return f"runner: {runner} cannot price it; it is searched with runner: {', '.join(others)}"
    if offers and all(is_fixed(found, knob.name) for found in offers.values()):
        return f"{' and '.join(offers)} do{'es' * (len(offers) == 1)} not take it"
    if not knob.values(given) and not knob.any_integer:
        return f"there is nothing to choose from ({knob.doc})"
    return ""


def _grid(knob: Knob, given: Given, offers: Mapping[str, Offered]) -> tuple[Value, ...]:
    """The values of a knob's grid that one of the engines can have."""
    values = knob.values(given)
    if not offers or any(knob.name not in found for found in offers.values()):
        return values
    return tuple(value for value in values if any(value in found[knob.name] for found in offers.values()))


def _set_prefill_sequences(values: Params) -> None:
    """As many as decode, as far as a pass has headroom for them and their drafts; unless they are chosen apart."""
    queries = int(values.get(DRAFT_LENGTH, 0)) + 1
    fitting = int(values["prefill.max_batched_tokens"]) // queries
    values.setdefault("prefill.max_sequences", max(min(int(values["batching.max_sequences"]), fitting), 1))


def _check_passes(dimensions: Mapping[str, tuple[Value, ...]]) -> None:
    """Raises InputError where no pass holds as few sequences as may be run."""
    for pool in ("batching.", PREFILL):
        fewest = min(map(int, dimensions.get(f"{pool}max_sequences", ())), default=0)
        most = max(map(int, dimensions.get(f"{pool}max_batched_tokens", ())), default=fewest)
        if fewest > most:
            law = f"{pool}max_sequences <= {pool}max_batched_tokens"
            raise InputError(f"`{law}` must hold for some, but got {fewest} at least and {most} at most")


# Values of one dimension


def _suggested(trial: Draws, knob: Knob, values: tuple[Value, ...]) -> Value:
    """What a trial says, from the distribution that `distribution` gives."""
    if knob.is_number:
        return trial.suggest_int(knob.name, *_bounds(values), log=knob.scale == "log2")
    found: Value = trial.suggest_categorical(knob.name, values)
    return found


def distribution(knob: Knob, values: tuple[Value, ...]) -> "BaseDistribution":
    """What Optuna draws a knob's values from."""
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
