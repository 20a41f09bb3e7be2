"""Knob: what one setting of a deployment is called, which values it has, and where a configuration keeps it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from search_spaces.config import Engine, Method, Mode, ServingConfig, Value
from search_spaces.errors import InputError, UnknownNameError
from search_spaces.hardware.system import System
from search_spaces.models.model import Model

Scale = Literal["log2", "linear", "name"]
Owner = Literal["deployment", "workers", "prefill workers"]
Predictor = Literal["simulated", "estimated"]

MOST = 1 << 24
"""The largest number that a setting may have: beyond it, counts of tokens lose whole numbers in 32-bit floats."""

LENGTHS: Mapping[Scale, float] = {"log2": 1.4, "linear": 1.4, "name": 0.5}
"""`Knob.length` where a knob has none of its own; the surrogate learns from there, so about is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What decides which values a knob has: the model, the system, the engines to choose from, and the GPUs.

    `modes` and `methods` (of speculating) are those that one of the engines has. `variants` names the sets of further
    engine arguments that an experiment defines.
    """

    model: Model
    system: System
    engines: tuple[Engine, ...]
    modes: tuple[Mode, ...]
    methods: tuple[Method, ...]
    gpus: int
    variants: tuple[str, ...] = ()


Grid = tuple[Value, ...] | Callable[[Given], tuple[Value, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One setting: what it is called, which values it has, and where a configuration keeps it.

    `doc` is one sentence. `grid` has the values that are searched where an experiment lists none, in order, or is a
    function whose docstring says which; with an empty one, a knob is searched only where values are listed.
    `any_integer`: whatever lies between `least` and `most` may be listed, not just what the grid has. `names` are all
    that a name may be; any text where there are none. `owner`: `workers` have it each (aggregated or decoding), and
    their knob has a twin for the prefill workers, which is derived (`twin_of`), with `prefill_grid` for its grid where
    that differs. `unless` is the setting with which this one is not drawn, `follows` why no search chooses it at all.
    `priced_by` are the predicting runners that know what it does: on the others of them it is not searched.

    `length` is the surrogate's: for a number, after how many units of the scale the errors of two predictions are
    about unrelated; for a name, which share of the correlation another name leaves. `path` is the attribute of a
    ServingConfig that holds it; without one, it stands in the configuration's `settings`, so that a new knob needs no
    more than its declaration.
    """

    name: str
    doc: str
    scale: Scale
    grid: Grid = ()
    any_integer: bool = False
    names: tuple[str, ...] = ()
    least: int = 1
    most: int = MOST
    owner: Owner = "deployment"
    prefill_grid: Grid | None = None
    twin_of: str = ""
    unless: tuple[str, Value] | None = None
    follows: str = ""
    priced_by: tuple[Predictor, ...] = get_args(Predictor)
    own_length: float | None = None
    path: str = ""

    @property
    def is_number(self) -> bool:
        return self.scale != "name"

    @property
    def is_listable(self) -> bool:
        """Whether an experiment may list values of it: every search or, of recorded runs, some are told apart by it."""
        return self.is_number or self.grid != ()

    @property
    def length(self) -> float:
        return LENGTHS[self.scale] if self.own_length is None else self.own_length

    def values(self, given: Given) -> tuple[Value, ...]:
        """The grid: what is searched where an experiment lists nothing."""
        return self.grid(given) if callable(self.grid) else self.grid

    @property
    def searched(self) -> str:
        """The grid in words."""
        if callable(self.grid):
            return (self.grid.__doc__ or "those that the experiment allows").partition("\n")[0].rstrip(".")
        return ", ".join(map(str, self.grid)) or ("nothing" if self.follows else "only what is listed")

    def read(self, config: ServingConfig) -> Value | None:
        """What a configuration has; None where it has no such setting, as an aggregated one has no prefill workers."""
        if not self.path:
            return config.setting(self.name)
        part: Any = config
        for attribute in self.path.split("."):
            part = getattr(part, attribute)
            if part is None:
                return None
        return cast("Value", part)

    def feature(self, config: ServingConfig) -> float | str:
        """As the surrogate sees it: a number on its scale, or a name; 0 or empty where a configuration has none."""
        value = self.read(config)
        if not self.is_number:
            return "" if value is None else str(value)
        if value is None:
            return 0.0
        return math.log2(int(value)) if self.scale == "log2" else float(value)

    def checked(self, value: object) -> Value:
        """A value that this knob can have, whatever the model. Raises InputError with the law and what was found."""
        if self.is_number:
            return self._number(value)
        if not isinstance(value, str):
            raise InputError(f"must be a name, but got {value!r}")
        if self.names and value not in self.names:
            raise UnknownNameError(self.name, value, self.names)
        return value

    def _number(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"must be a whole number, but got {value!r}")
        if value < self.least:
            raise InputError(f"`{self.name} >= {self.least}` must hold, but got {value}")
        if value > self.most:
            raise InputError(f"`{self.name} <= {self.most}` must hold, but got {value}")
        return value

    def parsed(self, text: str) -> Value:
        """A value as it is written on the command line. Raises InputError as `checked` does."""
        if not self.is_number:
            return self.checked(text)
        try:
            return self.checked(int(text))
        except ValueError:
            raise InputError(f"must be a whole number, but got {text!r}") from None
