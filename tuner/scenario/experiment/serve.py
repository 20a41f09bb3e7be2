"""How real engines are started: the `serve` of an experiment file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from runners.served.deployment import Installation
from runners.served.time_limits import TimeLimits
from search_spaces.engines.engine import find_engine
from search_spaces.engines.folders import is_folder
from search_spaces.errors import InputError
from search_spaces.strict_yaml import SHOWN, shown
from tuner.scenario.experiment.part import Part, broken


def _interpreters(value: object) -> object:
    """An interpreter, or one for each engine or release. The engines' names are known, the releases any."""
    if value is None or (isinstance(value, str) and value):
        return value
    if not isinstance(value, dict) or not value:
        raise broken(
            f"must be an interpreter, or a mapping such as vllm@0.32.0: /opt/vllm/bin/python, but got {shown(value)}"
        )
    for engine, python in value.items():
        if not isinstance(engine, str):
            raise broken(f"must name engines, such as vllm@0.32.0, but got {shown(engine)}")
        try:
            if not is_folder(engine):  # one of the user's own is looked for among those of the experiment
                find_engine(engine[:SHOWN], any_release=True)
        except InputError as error:
            raise broken(str(error)) from None
        if not isinstance(python, str) or not python:
            raise broken(f"{engine[:SHOWN]} must name an interpreter, but got {shown(python)}")
    return value


Pythons = Annotated[str | dict[str, str] | None, BeforeValidator(_interpreters)]


class Serve(Part):
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
        named = self.python if isinstance(self.python, Mapping) else {}
        return {engine.rpartition("/")[2]: python for engine, python in named.items()}

    @property
    def limits(self) -> TimeLimits:
        return TimeLimits(
            start_s=self.start_min * 60, load_s=self.load_min * 60, stall_s=self.stall_s, stop_s=self.stop_s
        )


def _absolute(directory: Path, name: str | None) -> str | None:
    """Workers run elsewhere. Links are kept: a virtual environment's interpreter is one."""
    path = None if name is None else directory / name
    return os.path.abspath(path) if path and os.path.exists(path) else name  # noqa: PTH100, PTH110 see above
