"""Trial: how one configuration's turn ended: infeasible, failed or measured."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from runners.measurement import Measurement
from search_spaces.config import ServingConfig

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RECORD = "servetune"
"""User attribute of an Optuna trial that holds the whole Trial. An interrupted trial has none."""

Ending = Literal["infeasible", "failed", "measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A finished trial.

    `levels` are the loads tried, in order; `chosen` indexes the one that counts: the highest that meets the SLA or,
    if none does, the one nearest to it. Not `exact` where a higher load may meet it too: the levels ran out, or another
    trial was cheaper already than this one can be. `cause` and `detail` say why there was no measurement. `config` is
    absent where the draw itself was illegal. `gpu_seconds` are GPUs x seconds that the trial held, start-up included:
    0 where nothing real was served. An `environment` failure says nothing about the configuration. `prior`
    is what was known of it from another release, in words: no result, and no part of this measurement.
    """

    number: int
    ending: Ending
    config: ServingConfig | None = None
    cause: str = ""
    detail: str = ""
    levels: tuple[Measurement, ...] = ()
    chosen: int = 0
    exact: bool = True
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    environment: bool = False
    prior: str = ""

    @property
    def measurement(self) -> Measurement:
        """The measurement that counts; only a measured trial has one."""
        return self.levels[self.chosen]


@cache
def _adapter() -> "TypeAdapter[Trial]":
    from pydantic import TypeAdapter

    return TypeAdapter(Trial)


def trial_to_json(trial: Trial) -> str:
    return _adapter().dump_json(trial, exclude_defaults=True).decode()


def trial_from_json(text: str) -> Trial:
    """Raises ValueError for text that is no trial."""
    return _adapter().validate_json(text)
