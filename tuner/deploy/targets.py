"""Targets: where a plan can be deployed to, for which engines, and how it is started there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search_spaces.config import EngineName
from search_spaces.engines.commands import Orchestrator
from search_spaces.engines.engine import engines
from search_spaces.engines.facts import EngineFacts
from search_spaces.engines.folders import engine_names
from search_spaces.errors import InputError, UnknownNameError
from tuner.deploy.compose import COMPOSE_FILE, compose_files
from tuner.deploy.dynamo import GRAPH, dynamo_files
from tuner.deploy.kubernetes import MANIFESTS, kubernetes_files
from tuner.deploy.llm_d import CHART, VALUES, llmd_files
from tuner.deploy.plan import FRONT_PORT, Files, Plan
from tuner.deploy.scripts import shell_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Somewhere to deploy to: for which engines, which files, and how they are started."""

    name: str
    fits: Callable[[EngineFacts], bool]
    files: Callable[[Plan], Files]
    start: Callable[[Plan], str]
    orchestrator: Orchestrator | None = None

    @property
    def engines(self) -> tuple[EngineName, ...]:
        """Those that servetune comes with."""
        return tuple(name for name, facts in engines().items() if self.fits(facts))


def _start_scripts(plan: Plan) -> str:
    names = [name for name in shell_files(plan) if name.endswith(".sh")]
    if len(names) == 1:
        return f"bash {names[0]}"
    addresses = " ".join(f"NODE_{node}=ADDRESS" for node in range(len(names)))
    return "\n".join(
        [
            f"export {addresses}  # on every machine",
            *(f"bash {name}  # on machine {node}" for node, name in enumerate(names)),
        ]
    )


def _forward(service: str) -> str:
    return f"kubectl port-forward service/{service} {FRONT_PORT}:{FRONT_PORT}"


def behind_service(plan: Plan) -> int:
    """Workers among which a Kubernetes Service chooses; a port-forward would reach just one of them."""
    return 1 if plan.config.disaggregation is not None else plan.config.layout.replicas


def _start_kubernetes(plan: Plan) -> str:
    apply = f"kubectl apply -f {MANIFESTS}"
    return apply if behind_service(plan) > 1 else f"{apply}\n{_forward(plan.name)}"


def _shell(engine: EngineName) -> Target:
    """Scripts for machines of one's own, under the engine's name."""
    return Target(name=engine, fits=lambda facts: facts.name == engine, files=shell_files, start=_start_scripts)


GENERAL = (
    Target(
        name="docker-compose",
        fits=lambda facts: bool(facts.image),
        files=compose_files,
        start=lambda _: f"docker compose -f {COMPOSE_FILE} up --detach",
    ),
    Target(
        name="kubernetes",
        fits=lambda facts: bool(facts.image),
        files=kubernetes_files,
        start=_start_kubernetes,
    ),
    Target(
        name="dynamo",
        fits=lambda facts: bool(facts.dynamo.module),
        files=dynamo_files,
        start=lambda plan: f"kubectl apply -f {GRAPH}\n{_forward(f'{plan.name}-frontend')}",
        orchestrator="dynamo",
    ),
    Target(
        name="llm-d",
        fits=lambda facts: facts.deploying.llm_d,
        files=llmd_files,
        start=lambda plan: f"helm install {plan.name} llm-d-modelservice/llm-d-modelservice -f {VALUES}  # {CHART}",
    ),
)


def targets(*own: EngineName) -> Mapping[str, Target]:
    """Every target by name, with those of a user's own engines."""
    shells = map(_shell, (*engine_names(), *own))
    return {target.name: target for target in (*shells, *GENERAL)}


def find_target(name: str, *own: EngineName) -> Target:
    """Raises UnknownNameError."""
    known = targets(*own)
    if name not in known:
        raise UnknownNameError("target", name, known)
    return known[name]


def check_fit(target: Target, facts: EngineFacts) -> None:
    """Raises InputError, with the targets that start this engine, for one that does not."""
    if target.fits(facts):
        return
    fitting = [other.name for other in targets(facts.name).values() if other.fits(facts)]
    more = "" if facts.image else f" (docker-compose and kubernetes need an `image` in the facts of {facts.name})"
    raise InputError(
        f"target {target.name} starts {' and '.join(target.engines)}, but the winner runs on {facts.name}; "
        f"targets that fit: {', '.join(fitting)}{more}"
    )
