"""Releases whose step times are another's, scaled by a known factor for each layout: what is to be found is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from runners.simulated.silicon import Silicon, StepKey
from runners.simulated.step_time import Curve, StepTimes, Surface
from tuner.search.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Factors on the times of one layout: prompts, decode steps, and the work shared by all tokens of a pass where it
    is split over GPUs, which is where communication is.
    """

    prefill: float = 1.0
    decode: float = 1.0
    communication: float = 1.0


Shifts = Callable[[StepKey], Shift]


class ShiftedSilicon(Silicon):
    """Kernel times of the oldest release, shifted on every other one."""

    def __init__(self, silicon: Silicon, shifts: Shifts, *, base: str) -> None:
        super().__init__(silicon.model, silicon.system, longest_context=silicon.longest_context)
        self._silicon = silicon
        self._shifts = shifts
        self._base = base
        self._shifted: dict[StepKey, StepTimes] = {}

    def step_times(self, key: StepKey) -> StepTimes:
        known = replace(key, engine=replace(key.engine, version=self._base))
        times = self._silicon.step_times(known)
        if key.engine.version == self._base:
            return times
        if key not in self._shifted:
            split = key.layout.gpus_per_worker > 1
            self._shifted[key] = shifted(times, self._shifts(key), split=split)
        return self._shifted[key]


def shifted(times: StepTimes, shift: Shift, *, split: bool) -> StepTimes:
    shared = shift.communication if split else 1.0
    return replace(
        times,
        prefill_shared=_scaled(times.prefill_shared, shift.prefill * shared),
        prefill_attention=_surface(times.prefill_attention, shift.prefill),
        prefill_host=times.prefill_host * shift.prefill,
        decode_shared=_scaled(times.decode_shared, shift.decode * shared),
        decode_attention=_surface(times.decode_attention, shift.decode),
        draft=_scaled(times.draft, shift.decode * shared),
        _decode={},
    )


def _scaled(curve: Curve, factor: float) -> Curve:
    return Curve(curve.xs, tuple(y * factor for y in curve.ys))


def _surface(surface: Surface, factor: float) -> Surface:
    return Surface(surface.xs, tuple(_scaled(row, factor) for row in surface.rows))


@dataclass(frozen=True, kw_only=True)
class ShiftedSession(Session):
    """A session whose newer releases are shifted."""

    shifts: Shifts
    base: str

    @cached_property
    def silicon(self) -> Silicon:
        scenario = self.scenario
        plain = Silicon(scenario.model, scenario.system, longest_context=scenario.workload.max_request_tokens)
        return ShiftedSilicon(plain, self.shifts, base=self.base)
