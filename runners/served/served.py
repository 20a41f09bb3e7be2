"""Served: the real runner: a configuration's processes are started, loaded, watched and ended, and nothing is left."""

import http.client
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version

from runners.load.load import HANG, Rules, load_report
from runners.load.stopping import Limit
from runners.measurement import NO_METRICS, Measurement
from runners.runner import Measure, RunFailedError
from runners.served.deployment import Deployment, Installation, Member, environment, plan
from runners.served.engine import Reply, Watch, ask, complete, model_served, release, watched
from runners.served.failures import failure, known_failure, read_log, says_it_is_dead
from runners.served.installed import OwnParser
from runners.served.nvml import Driver, driver
from runners.served.process import ServerProcess, is_free, running, unwritable, wait_until_free
from runners.served.time_limits import TimeLimits
from runners.workload.workload import LoadedWorkload
from search_spaces.config import ServingConfig
from search_spaces.engines.engine import facts_of
from search_spaces.engines.facts import EngineFacts, MetricNames
from search_spaces.models.model import Model

READY: Final = 200
NOT_FOUND: Final = 404
FEWEST_BYTES: Final = 64 << 20
"""Free space without which no server is started: its log would be cut."""

PROMPT_TOKENS: Final = 64
"""Length of the prompt that shows that a server is ready, where the workload's is not known."""

CAUSES: Final = {
    "HTTP 404": "wrong model name",
    "stream broke": "broken stream",
    "error in the stream": "broken stream",
    "unreachable": "crash under load",
}
"""What the load's causes are called here; every other status of HTTP is `server errors`."""


class Served:
    """Serves configurations with the engine that is installed here.

    Each run has a folder of its own under `logs`, with the whole log of each process. A server is ready when it has
    completed a prompt of `prompt_tokens`, those of the workload. A load ends early once all `slos` are decided.
    `gpu_seconds` grows by the GPUs of a configuration for as long as its processes are there,
    start and end included. Of the `own_parsers`, by interpreter, the one of the engine that is served is
    asked about each command before anything starts.
    """

    def __init__(
        self,
        model: Model,
        installation: Installation,
        *,
        logs: Path,
        limits: TimeLimits = TimeLimits(),  # noqa: B008 frozen
        slos: Sequence[Limit] = (),
        prompt_tokens: int = PROMPT_TOKENS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        own_parsers: Mapping[str, OwnParser] | None = None,
    ) -> None:
        self._own_parsers = own_parsers or {}
        self._model = model
        self._installation = installation
        self._logs = logs
        self._limits = limits
        self._slos = slos
        self._prompt_tokens = prompt_tokens
        self._clock = clock
        self._sleep = sleep
        self._held = 0.0

    @property
    def gpu_seconds(self) -> float:
        return self._held

    @contextmanager
    def serve(self, config: ServingConfig) -> Iterator[Measure]:
        """Raises InfeasibleError for what the engine cannot express, RunFailedError with the cause otherwise."""
        installation = self._installation.of(config.engine)
        deployment = plan(self._model, config, installation)
        if installation.python and installation.python in self._own_parsers:
            parser = self._own_parsers[installation.python]
            for member in deployment.workers:
                parser.check(config.engine, member.argv, member.files)
        began = self._clock()
        try:
            with self._up(deployment, config, installation) as up:
                yield up.measure
        finally:
            self._held += (self._clock() - began) * config.gpus

    @contextmanager
    def _up(self, deployment: Deployment, config: ServingConfig, installation: Installation) -> "Iterator[_Up]":
        folder = _own_folder(self._logs)
        gpus = driver() if deployment.devices else None
        memory = gpus.used_bytes(deployment.devices) if gpus else {}
        with ExitStack() as stack:
            if gpus:
                stack.callback(gpus.wait_until_released, memory)
            up = _Up(
                deployment=deployment,
                config=config,
                limits=self._limits,
                slos=self._slos,
                prompt_tokens=self._prompt_tokens,
                clock=self._clock,
                sleep=self._sleep,
                gpus=gpus,
                asked_name=installation.model_name or _own_name(config, self._model, installation),
            )
            for member in deployment.workers:
                up.start(member, stack, folder, installation)
            stack.callback(up.ask_to_stop)
            for member in deployment.workers:
                up.wait_for(member)
            if deployment.router:
                up.start(deployment.router, stack, folder, installation)
                up.wait_for(deployment.router)
            up.check_release()
            up.starting = False
            yield up


@dataclass(slots=True, kw_only=True)
class _Up:
    """A deployment whose processes have been started."""

    deployment: Deployment
    config: ServingConfig
    limits: TimeLimits
    slos: Sequence[Limit]
    prompt_tokens: int
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    gpus: Driver | None
    asked_name: str
    starting: bool = True
    versions: tuple[tuple[str, str], ...] = ()
    processes: dict[str, ServerProcess] = field(default_factory=dict)
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    # Start

    def start(self, member: Member, stack: ExitStack, folder: Path, installation: Installation) -> None:
        """Raises RunFailedError where a port is held, or the program or space for its files is missing."""
        if not is_free(member.port):
            raise RunFailedError("port in use", f"{member.name}: port {member.port} is held", environment=True)
        home = folder / member.name
        try:
            home.mkdir()
            for name, text in member.files.items():
                (home / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable(home, error) from None
        stack.callback(wait_until_free, member.ports)
        self.processes[member.name] = stack.enter_context(
            running(
                member.argv,
                log=folder / f"{member.name}.log",
                cwd=home,
                env=environment(member, installation),
                patience_s=self.limits.stop_s,
            )
        )

    def wait_for(self, member: Member) -> None:
        """Until it has completed a token. Raises RunFailedError for what comes instead."""
        waiting = _Waiting(self, member)
        while not waiting.is_over():
            self.sleep(self.limits.poll_s)

    @property
    def seconds(self) -> float:
        return self.clock() - self._began

    def check(self) -> None:
        """Raises RunFailedError where a process has ended."""
        state = "while starting" if self.starting else "under load"
        otherwise = "crash at start" if self.starting else "crash under load"
        for name, process in self.processes.items():
            if process.exit_code is not None:
                where = f"{state}, after {self.seconds:.0f} s ({name})"
                raise failure(
                    where,
                    engine=self.config.engine,
                    log=process.log,
                    exit_code=process.exit_code,
                    core_signal=process.descendants.killed_by,
                    otherwise=otherwise,
                    under_load=not self.starting,
                )

    def check_release(self) -> None:
        """Raises RunFailedError where another release answers than was asked for."""
        worker = self.deployment.workers[0]
        engine, found = self.config.engine, release(worker.url)
        if found and engine.version and not _same_release(engine.version, found):
            what = f"{engine} was asked for, but the server is {engine.name} {found}"
            raise known_failure("other release", what, log=self.processes[worker.name].log)
        gpus = self.gpus.versions(self.deployment.devices) if self.gpus else ()
        self.versions = ((("engine", f"{engine.name} {found}"),) if found else ()) + gpus

    # Load

    def measure(self, loaded: LoadedWorkload) -> Measurement:
        """Raises RunFailedError."""
        for process in self.processes.values():
            process.descendants.release()  # whoever ended before is no reason for what follows
            process.descendants.look()
        self.check()
        names = self.facts.metrics
        workers = [worker.url for worker in self.deployment.workers] if names != MetricNames() else []
        joules, began = self._joules(), self.clock()
        try:
            with watched(workers, names) as watch:
                measurement = self._loaded(loaded)
        except RunFailedError as error:
            raise self._explained(error) from None
        used, seconds = self._joules(), self.clock() - began
        watts = (used - joules) / seconds if used is not None and joules is not None else None
        return _with_metrics(measurement, watch, watts, self.versions)

    def _loaded(self, loaded: LoadedWorkload) -> Measurement:
        return load_report(
            self.deployment.urls,
            self.model_name(self.deployment.members[-1]),
            loaded,
            gpus=self.config.gpus,
            server=self.facts.server,
            rules=Rules(
                time_limit_s=self.limits.load_s,
                stall_limit_s=self.limits.stall_s,
                alive=self.check,
                limits=self.slos,
            ),
        ).measurement

    def _joules(self) -> float | None:
        return self.gpus.joules(self.deployment.devices) if self.gpus else None

    def _explained(self, error: RunFailedError) -> RunFailedError:
        """What the load saw, or why: a process that has just died, or is dying, says more than a cut connection."""
        if "\nlog: " in error.detail:
            return error
        end = self.clock() + 2.0
        dead = self._dead_engine()
        while error.cause != HANG and dead is None and self.clock() < end:
            self.check()
            self.sleep(self.limits.poll_s)
            dead = self._dead_engine()
        while dead is not None and self.processes[dead].exit_code is None and self.clock() < end:
            self.sleep(self.limits.poll_s)  # it has said that it is dead, and ends in a moment
        self.check()
        if dead is not None:
            where = f"under load, after {self.seconds:.0f} s ({dead})"
            process = self.processes[dead]
            return failure(
                where,
                engine=self.config.engine,
                log=process.log,
                exit_code=None,
                core_signal=process.descendants.killed_by,
                otherwise="crash under load",
                under_load=True,
            )
        cause = CAUSES.get(error.cause, "server errors" if error.cause.startswith("HTTP ") else error.cause)
        first = next(iter(self.processes.values()))
        what = f"still running under load, after {self.seconds:.0f} s: {error.detail}"
        return known_failure(cause, what, log=first.log)

    def _dead_engine(self) -> str | None:
        for name, process in self.processes.items():
            if process.descendants.killed_by is not None or says_it_is_dead(read_log(process.log), self.config.engine):
                return name
        return None

    # Both

    def model_name(self, member: Member) -> str:
        """As the experiment says, or else the server."""
        return self.asked_name or model_served(member.url) or self._model_argument(member)

    @property
    def facts(self) -> EngineFacts:
        return facts_of(self.config.engine)

    def _model_argument(self, member: Member) -> str:
        return next((value for flag, value in itertools.pairwise(member.argv) if flag.startswith("--model")), "model")

    def ask_to_stop(self) -> None:
        """All at once: they end while the first one is waited for."""
        for process in self.processes.values():
            process.ask_to_stop()


class _Waiting:
    """The wait for one member's first token."""

    def __init__(self, up: _Up, member: Member) -> None:
        self._up = up
        self._member = member
        self._process = up.processes[member.name]
        self._log = self._process.log
        self._errors_since: float | None = None
        self._dead_since: float | None = None

    def is_over(self) -> bool:
        """Raises RunFailedError for a death, an error that stays, or the end of the time limit."""
        self._process.descendants.look()
        self._up.check()
        self._check_log()
        left = self._up.limits.start_s - self._up.seconds
        if left <= 0:
            what = f"still running after {self._up.seconds:.0f} s, without having answered ({self._member.name})"
            raise known_failure("hang at start", what, log=self._log)
        reply = self._probe(min(left, self._up.limits.probe_s))
        if reply is None:
            return False
        if reply.status == READY:
            return True
        self._take_error(reply)
        return False

    def _probe(self, timeout_s: float) -> Reply | None:
        """None where nobody answers yet. A worker that answers only behind its router is asked for its health."""
        member, server = self._member, self._up.facts.server
        try:
            if member.role in ("prefill", "decode") and not server.answers_alone:
                return ask(member.url, server.health, timeout_s=timeout_s)
            if is_free(member.port):
                return None
            name, tokens = self._up.model_name(member), self._up.prompt_tokens
            return complete(member.url, name, prompt_tokens=tokens, timeout_s=timeout_s)
        except (OSError, http.client.HTTPException):
            return None

    def _take_error(self, reply: Reply) -> None:
        """A wrong name stays wrong; of other errors a server that starts may give some."""
        now = self._up.clock()
        said = " ".join(reply.text[:300].split())
        if reply.status == NOT_FOUND and self._up.asked_name:
            raise known_failure("wrong model name", f"{self._up.asked_name!r} was asked for: {said}", log=self._log)
        self._errors_since = now if self._errors_since is None else self._errors_since
        if now - self._errors_since >= self._up.limits.errors_s:
            raise known_failure("server errors", f"still running, answers HTTP {reply.status}: {said}", log=self._log)

    def _check_log(self) -> None:
        """A server whose engine has died may stay, and even answer that it is healthy."""
        now = self._up.clock()
        if self._dead_since is None and says_it_is_dead(read_log(self._log), self._up.config.engine):
            self._dead_since = now
        if self._dead_since is not None and now - self._dead_since >= self._up.limits.dying_s:
            where = f"while starting, after {self._up.seconds:.0f} s ({self._member.name})"
            core = self._process.descendants.killed_by
            engine = self._up.config.engine
            raise failure(
                where, engine=engine, log=self._log, exit_code=None, core_signal=core, otherwise="crash at start"
            )


def _own_folder(logs: Path) -> Path:
    """The next free number under `logs`. Raises RunFailedError where there is no space."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(logs).free < FEWEST_BYTES:
            raise RunFailedError("disk full", f"{logs}: less than {FEWEST_BYTES >> 20} MiB free", environment=True)
        for number in itertools.count(sum(1 for _ in logs.iterdir())):
            with suppress(FileExistsError):  # another search may keep its logs here
                folder = logs / f"{number:04d}"
                folder.mkdir()
                return folder.resolve()
    except OSError as error:
        raise unwritable(logs, error) from None
    raise AssertionError


def _own_name(config: ServingConfig, model: Model, installation: Installation) -> str:
    """What an engine calls the model that it loads; empty where its server says so itself."""
    loaded = installation.checkpoint or model.checkpoint
    return facts_of(config.engine).server.model_name.replace("{checkpoint}", loaded)


def _same_release(asked: str, found: str) -> bool:
    """Whether both are one release; what a build adds after `+` does not count."""
    try:
        return Version(asked).public == Version(found).public
    except InvalidVersion:
        return asked == found


def _with_metrics(
    measurement: Measurement, watch: Watch, watts: float | None, versions: tuple[tuple[str, str], ...]
) -> Measurement:
    return replace(
        measurement,
        preemptions=watch.preemptions,
        kv_cache_peak=watch.kv_peak,
        observed=watch.observed(watts=watts, versions=versions),
        not_had=measurement.not_had + (() if watch.saw_any else (NO_METRICS,)),
    )
