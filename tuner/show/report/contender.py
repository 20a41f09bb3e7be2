"""Contender: a configuration at the load that counts for it, to be compared with others."""

from dataclasses import dataclass
from typing import Literal

from runners.measurement import Measurement
from search_spaces.config import ServingConfig

Role = Literal["winner", "default", "champion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """The winner of a search, the engine's default, or the champion that serves today."""

    role: Role
    label: str
    config: ServingConfig
    measurement: Measurement
