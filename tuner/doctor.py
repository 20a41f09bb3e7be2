"""Doctor: what this machine has, what is missing, and what each experiment could be answered with here."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from runners.served.installed import installed_engines
from search_spaces.config import Engine
from search_spaces.engines.commands import PORTS, SIDE_CHANNELS, Placement
from search_spaces.engines.engine import engines, timed_as
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.hardware.system import systems
from search_spaces.wording import plural
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.serve import Serve
from tuner.tracking.store import check_tracking_uri, default_tracking_uri, shown

State = Literal["ok", "absent", "broken"]
Answer = Literal["served", "recorded", "simulated", "nothing"]

SMI_TIME_S = 15.0
STORE_TIME_S = 3.0
GIB = 2**30
LITTLE_DISK = 20 * GIB
"""Bytes: less does not hold the checkpoint of a model worth tuning."""

DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as its driver shows it."""

    name: str
    memory: str
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, and whether servetune works without it."""

    name: str
    state: State
    found: str
    needed: bool = False

    @property
    def fails(self) -> bool:
        return self.needed and self.state != "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Possible:
    """What one experiment can be answered with here, best first, and why not with more."""

    experiment: str
    answers: tuple[Answer, ...]
    reason: str


def nvidia_smi() -> list[Gpu]:
    """GPUs by the driver's own tool; empty where there is none. Raises InputError where it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 an argument list, without a shell
            [program, *query], capture_output=True, text=True, timeout=SMI_TIME_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"nvidia-smi does not answer: {type(error).__name__}") from None
    if done.returncode != 0:
        reason = (done.stdout.strip() or done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise InputError(f"nvidia-smi fails: {reason}")
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 2]  # noqa: PLR2004
    return [Gpu(name=name, memory=memory, driver=driver) for name, memory, driver in rows]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Looks once; `pythons` are the environments that may hold engines, `studies` the folder of study files."""

    pythons: Sequence[Path] = (Path(sys.executable),)
    studies: Path = Path("studies")
    tracking_uri: str | None = None
    find_gpus: Callable[[], list[Gpu]] = nvidia_smi

    def checks(self) -> list[Check]:
        return [
            self._gpu_check,
            *(self._engines_of(python) for python in self.pythons),
            self._kernel_data,
            *self._ports(),
            self._studies_folder(),
            *self._disks(),
            self._tracking_store(),
        ]

    @cached_property
    def gpus(self) -> list[Gpu]:
        try:
            return self.find_gpus()
        except InputError:
            return []

    @cached_property
    def _gpu_check(self) -> Check:
        try:
            gpus = self.find_gpus()
        except InputError as error:
            return Check(name="GPUs", state="broken", found=str(error))
        if not gpus:
            return Check(name="GPUs", state="absent", found="none: nothing is served on GPUs here")
        kinds = {(gpu.name, gpu.memory, gpu.driver): gpus.count(gpu) for gpu in gpus}
        found = [f"{count} x {name} ({memory}, driver {driver})" for (name, memory, driver), count in kinds.items()]
        return Check(name="GPUs", state="ok", found=", ".join(found))

    @cached_property
    def engines(self) -> Mapping[Path, Mapping[str, str] | InputError]:
        """Versions of the engines in each environment."""
        found: dict[Path, Mapping[str, str] | InputError] = {}
        for python in self.pythons:
            try:
                found[python] = installed_engines(python)
            except InputError as error:
                found[python] = error
        return found

    def _engines_of(self, python: Path) -> Check:
        name, found = f"engines in {python}", self.engines[python]
        if isinstance(found, InputError):
            return Check(name=name, state="broken", found=str(found))
        if not found:
            return Check(name=name, state="absent", found=f"none of {', '.join((*engines(), 'dynamo'))}")
        return Check(name=name, state="ok", found=", ".join(f"{engine} {version}" for engine, version in found.items()))

    @cached_property
    def _kernel_data(self) -> Check:
        from runners.simulated.silicon import kernel_releases

        known = {name: kernel_releases(system) for name, system in systems().items()}
        releases = dict.fromkeys(str(release) for of_system in known.values() for release in of_system)
        if not releases:
            found = "none: AIConfigurator's tables are not installed"
            return Check(name="kernel data", state="absent", found=found, needed=True)
        without = [name for name, of_system in known.items() if not of_system]
        gaps = f"; none for {', '.join(without)}" if without else ""
        return Check(name="kernel data", state="ok", found=", ".join(releases) + gaps, needed=True)

    def _ports(self) -> list[Check]:
        """Ports that a deployment here takes by default."""
        ports = sorted({*PORTS.values(), *SIDE_CHANNELS.values(), Placement().bootstrap_port})
        taken = [str(port) for port in ports if not _is_free(port)]
        if taken:
            return [Check(name="ports", state="broken", found=f"taken: {', '.join(taken)}")]
        return [Check(name="ports", state="ok", found=f"free: {', '.join(map(str, ports))}")]

    def _studies_folder(self) -> Check:
        nearest = next(
            folder for folder in (self.studies.absolute(), *self.studies.absolute().parents) if folder.exists()
        )
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            found = f"{self.studies} cannot be written: {nearest} is no folder that may be"
            return Check(name="studies", state="broken", found=found, needed=True)
        return Check(name="studies", state="ok", found=f"{self.studies} can be written", needed=True)

    def _disks(self) -> list[Check]:
        cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        return [_disk("disk for studies", self.studies), _disk("disk for checkpoints", cache)]

    def _tracking_store(self) -> Check:
        uri = self.tracking_uri or default_tracking_uri()
        try:
            check_tracking_uri(uri)
            _reach(uri)
        except InputError as error:
            return Check(name="MLflow store", state="broken", found=str(error), needed=True)
        return Check(name="MLflow store", state="ok", found=shown(uri), needed=True)

    def possible(self, experiment: Experiment) -> Possible:
        """What answers an experiment here. Raises InputError for one that cannot be read."""
        unserved = self._why_not_served(experiment)
        unrecorded = _why_not_recorded(experiment)
        unsimulated = _why_not_simulated(experiment)
        reasons: dict[Answer, str] = {"served": unserved, "recorded": unrecorded, "simulated": unsimulated}
        answers = tuple(answer for answer, reason in reasons.items() if not reason)
        missing = "; ".join(f"not {answer}: {reason}" for answer, reason in reasons.items() if reason)
        return Possible(experiment=experiment.name, answers=answers or ("nothing",), reason=missing)

    def _why_not_served(self, experiment: Experiment) -> str:
        scenario = experiment.scenario()
        serve = experiment.serve
        if serve is None or serve.device == "gpu":
            kind = scenario.system.gpu.name
            here = [gpu for gpu in self.gpus if kind in gpu.name.lower().replace("-", " ").split()]
            if len(here) < scenario.gpus:
                other = f", but {len(self.gpus)} of another kind" if self.gpus and not here else ""
                return f"it takes {plural(scenario.gpus, f'{kind} GPU')}, and {len(here)} are here{other}"
        wanted = {engine.name for engine in scenario.space.engines}
        found = self._installed_for(experiment, [engine for engine in scenario.space.engines if engine.folder])
        return "" if wanted & found else f"{' or '.join(sorted(wanted))} is not installed"

    def _installed_for(self, experiment: Experiment, own: Sequence[Engine]) -> set[str]:
        """Engines, those of the user's own included, in the environments that the experiment names, or in any here."""
        named = (experiment.serve or Serve()).installation(experiment.path.parent, devices=()).interpreters
        if not named and not own:
            return {name for found in self.engines.values() if not isinstance(found, InputError) for name in found}
        found: set[str] = set()
        for python in map(Path, named) if named else self.pythons:
            with suppress(InputError):
                found |= set(installed_engines(python, own))
        return found


def _why_not_recorded(experiment: Experiment) -> str:
    from runners.recorded.sample import recordings

    scenario, workload = experiment.scenario(), experiment.scenario().workload
    if workload.trace is not None:
        return "no trace was recorded"
    asked = (scenario.model.name, scenario.system.name)
    measured = {key[2:] for key in recordings().scenarios() if key[:2] == asked}
    if not measured:
        return f"no measurements of {asked[0]} on {asked[1]} were published"
    if (workload.input_tokens.high, workload.output_tokens.high) not in measured:
        lengths = ", ".join(f"{prompt} / {answer}" for prompt, answer in sorted(measured))
        return f"other lengths were published: {lengths}"
    return ""


def _why_not_simulated(experiment: Experiment) -> str:
    from runners.simulated.silicon import kernel_releases

    try:
        scenario = experiment.scenario()
        timed = {timed_as(engine) for engine in scenario.space.engines}
    except InfeasibleError as error:
        return error.detail
    if timed & set(kernel_releases(scenario.system)):
        return ""
    return f"no kernel data for {', '.join(map(str, scenario.space.engines))} on {scenario.system.name}"


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _disk(name: str, folder: Path) -> Check:
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    found = f"{free / GIB:,.0f} GiB free at {nearest}"
    little = name.endswith("checkpoints") and free < LITTLE_DISK
    return Check(name=name, state="broken" if little else "ok", found=found + (": little" if little else ""))


def _reach(uri: str) -> None:
    """Whether something answers where the store is said to be. Raises InputError; no credentials are sent or shown."""
    address = urlsplit(uri)
    scheme = address.scheme.partition("+")[0]
    if scheme in ("http", "https"):
        _reach_server(f"{scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}/health", uri)
    elif scheme in DATABASE_PORTS and address.hostname:
        try:
            socket.create_connection((address.hostname, address.port or DATABASE_PORTS[scheme]), STORE_TIME_S).close()
        except OSError as error:
            raise InputError(f"{shown(uri)} does not answer: {error.strerror or type(error).__name__}") from None


def _reach_server(health: str, uri: str) -> None:
    try:
        with urllib.request.urlopen(health, timeout=STORE_TIME_S):  # noqa: S310 http or https by the caller's condition
            return
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise InputError(f"{shown(uri)} answers with HTTP {error.code}, as no MLflow server does") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"{shown(uri)} does not answer: {getattr(reason, 'strerror', None) or reason}") from None
