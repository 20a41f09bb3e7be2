"""The processes of a deployment: replicas or prefill and decode workers, each with ports and GPUs, and their router."""

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, get_args

from runners.runner import RunFailedError
from runners.served.process import free_ports, is_free
from search_spaces.config import Engine, ServingConfig
from search_spaces.engines.commands import Address, Command, Placement, Role, commands, router
from search_spaces.engines.engine import facts_of
from search_spaces.engines.facts import Packages
from search_spaces.errors import InfeasibleError
from search_spaces.models.model import Model

HOST: Final = "127.0.0.1"
TRIES: Final = 100

FAULTS_LOGGED: Final = "PYTHONFAULTHANDLER"
"""Makes every Python process of a server write down where it was when a signal ended it."""

HIDDEN: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables of this process that would lead another interpreter to the wrong packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The engine as it is installed on this machine, and what it is given beside a configuration.

    `python` is the interpreter of the engine's environment; without it the command is looked up in PATH. `pythons`
    names one for each engine instead, by `engine@release`, or by the engine alone for all its releases. `checkpoint`
    and `draft` are loaded in place of the published ones. `args` go to every worker, after those that a configuration
    sets, so that they win; a configuration's `variant` names further ones. `devices` are the GPUs to hand out; None
    where the engine runs without.
    """

    python: str | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    draft: str | None = None
    model_name: str | None = None
    args: tuple[str, ...] = ()
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] | None = None

    @property
    def interpreters(self) -> tuple[str, ...]:
        """Every interpreter that is named, once."""
        return tuple(dict.fromkeys([*self.pythons.values(), *([self.python] if self.python else [])]))

    def python_of(self, engine: Engine) -> str | None:
        """The interpreter of an engine's environment; None where none is named."""
        return self.pythons.get(f"{engine.name}@{engine.version}") or self.pythons.get(engine.name) or self.python

    def of(self, engine: Engine) -> "Installation":
        """That of one engine. Raises RunFailedError where interpreters are named, but none for it."""
        python = self.python_of(engine)
        if python is None and self.pythons:
            named = ", ".join(self.pythons)
            what = f"no interpreter is named for {engine} (there are those of {named})"
            raise RunFailedError("engine not installed", what, environment=True)
        return replace(self, python=python, pythons={})

    def args_for(self, config: ServingConfig) -> tuple[str, ...]:
        """Raises InfeasibleError for a variant that is not there."""
        if config.variant is None:
            return self.args
        if config.variant not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise InfeasibleError("variant", f"no variant {config.variant!r} is defined (known: {known})")
        return self.args + self.variants[config.variant]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process to start: `files` lie in its working directory by name, `env` is added to the environment."""

    name: str
    role: Role
    port: int
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def address(self) -> Address:
        """As a router of the engine's own knows a worker: its second port is the bootstrap port."""
        return Address(host=HOST, port=self.port, bootstrap_port=self.ports[1])

    @property
    def is_ours(self) -> bool:
        """Whether it runs in this interpreter and not in the engine's."""
        return self.argv[0] == sys.executable and self.role == "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Workers, and the router before them where they are disaggregated."""

    workers: tuple[Member, ...]
    router: Member | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """In the order in which they start."""
        return self.workers + ((self.router,) if self.router else ())

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the load goes: to the router, or to the replicas in turn."""
        return (self.router.url,) if self.router else tuple(worker.url for worker in self.workers)

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(itertools.chain.from_iterable(member.ports for member in self.members))

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(itertools.chain.from_iterable(worker.devices for worker in self.workers))


def plan(model: Model, config: ServingConfig, installation: Installation) -> Deployment:
    """The processes that serve a configuration, on ports that are free now.

    Raises InfeasibleError for what the engine cannot express, RunFailedError where there are too few GPUs.
    """
    devices = _handed_out(config, installation)
    args = facts_of(config.engine).metrics_on + installation.args_for(config)
    workers = []
    for command in commands(model, config):
        for copy in range(command.copies):
            placement, ports = _placement(command, config, installation)
            own = next(one for one in commands(model, config, placement=placement) if one.role == command.role)
            member = _worker(own, copy, ports, config, replace(installation, args=args))
            workers.append(replace(member, devices=tuple(itertools.islice(devices, command.gpus))))
    before = _router(config, workers, installation) if config.disaggregation else None
    return Deployment(workers=tuple(workers), router=before)


def environment(member: Member, installation: Installation) -> dict[str, str]:
    """The environment of this process with what the installation, the worker and its GPUs add."""
    env = {FAULTS_LOGGED: "1", **os.environ}
    if installation.python and not member.is_ours:
        env = {name: value for name, value in env.items() if name not in HIDDEN}
        env["PATH"] = f"{Path(installation.python).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    if member.devices:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(member.devices)
    return {**env, **member.env, **({} if member.is_ours else installation.env)}


def _handed_out(config: ServingConfig, installation: Installation) -> Iterator[str]:
    if installation.devices is None:
        return iter(())
    found = len(installation.devices)
    if found < config.gpus:
        raise RunFailedError("no GPU", f"{config} needs {config.gpus} GPUs, {found} are here", environment=True)
    return iter(installation.devices)


def _placement(
    command: Command, config: ServingConfig, installation: Installation
) -> tuple[Placement, tuple[int, ...]]:
    """Ports of one worker's own: HTTP, and a side channel for each attention-DP rank, side by side."""
    ranks = config.layout.attention_dp
    if command.role == "prefill" and config.disaggregation:
        ranks = config.disaggregation.prefill_layout.attention_dp
    http, bootstrap = free_ports(2)
    channels = _side_by_side(ranks)
    placement = Placement(
        host=HOST,
        ports=dict.fromkeys(get_args(Role), http),
        side_channels={"prefill": channels[0], "decode": channels[0]},
        bootstrap_port=bootstrap,
        checkpoint=installation.checkpoint,
        draft=installation.draft,
    )
    return placement, (http, bootstrap, *channels)


def _side_by_side(count: int) -> tuple[int, ...]:
    for _ in range(TRIES):
        (first,) = free_ports(1)
        ports = tuple(range(first, first + count))
        if all(map(is_free, ports)):
            return ports
    raise RunFailedError("port in use", f"no {count} free ports side by side", environment=True)


def _worker(
    command: Command, copy: int, ports: tuple[int, ...], config: ServingConfig, installation: Installation
) -> Member:
    facts = facts_of(config.engine)
    argv = _installed(command.argv, facts.packages, installation.python)
    for option, beside in facts.server.own_ports.items():
        if beside in argv:
            (port,) = free_ports(1)
            argv, ports = (*argv, option, str(port)), (*ports, port)
    return Member(
        name=f"{command.role}-{copy}",
        role=command.role,
        port=ports[0],
        argv=(*argv, *installation.args),
        env=command.env,
        files=command.files,
        ports=ports,
    )


def _installed(argv: Sequence[str], packages: Packages, python: str | None) -> tuple[str, ...]:
    """The command as the environment of `python` has it."""
    if python is None:
        return tuple(argv)
    launcher = packages.launcher
    if packages.as_module and tuple(argv[: len(launcher)]) == launcher:
        argv = (*packages.as_module, *argv[len(launcher) :])
    if argv[0] == "python":
        return (python, *argv[1:])
    return (str(Path(python).parent / argv[0]), *argv[1:])


def _router(config: ServingConfig, workers: Sequence[Member], installation: Installation) -> Member:
    """What stands before prefill and decode workers: this project's proxy, or the engine's own router."""
    facts = facts_of(config.engine)
    (port,) = free_ports(1)
    prefill = [worker for worker in workers if worker.role == "prefill"]
    decode = [worker for worker in workers if worker.role == "decode"]
    if facts.server.answers_alone:
        urls = ("--prefill", *(one.url for one in prefill), "--decode", *(one.url for one in decode))
        argv = (sys.executable, "-P", "-m", "runners.served.proxy", "--port", str(port), *urls)
        return Member(name="router", role="router", port=port, argv=argv, ports=(port,))
    placement = Placement(host=HOST, ports=dict.fromkeys(get_args(Role), port))
    command = router(config, [one.address for one in prefill], [one.address for one in decode], placement=placement)
    argv = _installed(command.argv, facts.packages, installation.python)
    return Member(name="router", role="router", port=port, argv=argv, files=command.files, ports=(port,))
