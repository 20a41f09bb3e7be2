"""Dynamo: the engines' own workers under one frontend, after the argument parsers of ai-dynamo 1.3.1 to 1.6.1.

A Dynamo worker takes the engine's own options; it opens no port of its own, for the frontend reaches it over Dynamo's
request plane. How an engine's options become those of its worker stands in the engine's folder.
"""

from dataclasses import dataclass, replace

from search_spaces.config import Engine
from search_spaces.engines.engine import facts_of
from search_spaces.engines.parts import deploy_of
from search_spaces.engines.worker import Placement, Rendered, Worker, counted_gpus, options

NOTE = (
    "Workers and frontend find each other through the discovery backend: etcd, unless DYN_DISCOVERY_BACKEND says "
    "kubernetes or file."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of Dynamo, its image for an engine, and the engine's release in it."""

    version: str
    image: str
    engine: Engine


def releases(engine: Engine) -> tuple[Release, ...]:
    """Those that bring the engine, oldest first."""
    dynamo = facts_of(engine).dynamo
    return tuple(
        Release(version=version, image=f"{dynamo.image}:{version}", engine=replace(engine, version=brought))
        for version, brought in dynamo.releases.items()
    )


def release_for(engine: Engine) -> Release:
    """The release with exactly that engine, else the first with a newer one, else the last."""
    from packaging.version import Version

    known, wanted = releases(engine), Version(engine.version)
    return next((release for release in known if Version(release.engine.version) >= wanted), known[-1])


def frontend(placement: Placement) -> Rendered:
    argv = options({"--http-host": placement.host, "--http-port": placement.ports["router"]})
    return Rendered(argv=("python", "-m", "dynamo.frontend", *argv))


def render(worker: Worker, rendered: Rendered) -> Rendered:
    """The same worker under Dynamo. `rendered` is what the engine alone would be started with."""
    own = deploy_of(worker.config.engine).under_dynamo(worker, rendered)
    return replace(own, argv=("python", "-m", worker.facts.dynamo.module, *own.argv))


def notes(worker: Worker) -> list[str]:
    """What a command line cannot say."""
    sentences = notes_on_the_release(worker)
    if worker.layout.replicas > 1:
        sentences.append(
            f"Start {worker.layout.replicas} of these, each with "
            f"{counted_gpus(worker.layout.gpus_per_worker)} of its own."
        )
    return sentences


def notes_on_the_release(worker: Worker) -> list[str]:
    engine = worker.config.engine
    release = release_for(engine)
    if release.engine == engine:
        return []
    return [f"Dynamo {release.version} brings {release.engine}, the nearest to {engine}."]
