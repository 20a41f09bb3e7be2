"""Dynamo: the engines' own workers under one frontend, after the argument parsers of ai-dynamo 1.3.1 to 1.6.1.

A Dynamo worker takes the engine's own options; it opens no port of its own, for the frontend reaches it over Dynamo's
request plane. `--disaggregation-mode` says its role, which SGLang's own option of that name says already.
"""

from dataclasses import dataclass
from functools import cache

from search_spaces.config import Engine, EngineName
from search_spaces.engines.worker import Placement, Rendered, Worker, as_yaml, counted_gpus, many, options
from search_spaces.tables import read_yaml

MODULES: dict[EngineName, str] = {"trtllm": "dynamo.trtllm", "vllm": "dynamo.vllm", "sglang": "dynamo.sglang"}
IMAGES: dict[EngineName, str] = {
    "trtllm": "nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime",
    "vllm": "nvcr.io/nvidia/ai-dynamo/vllm-runtime",
    "sglang": "nvcr.io/nvidia/ai-dynamo/sglang-runtime",
}
NOTE = (
    "Workers and frontend find each other through the discovery backend: etcd, unless DYN_DISCOVERY_BACKEND says "
    "kubernetes or file."
)
OWN_PORT = {"--host", "--port"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of Dynamo and the engines that its images bring."""

    version: str
    engines: dict[EngineName, str]

    def image(self, engine: EngineName) -> str:
        return f"{IMAGES[engine]}:{self.version}"

    def brings(self, engine: Engine) -> bool:
        return self.engines[engine.name] == engine.version


@cache
def releases() -> tuple[Release, ...]:
    """Oldest first."""
    rows = read_yaml("search_spaces.engines", "dynamo.yaml")["releases"]
    return tuple(Release(version=version, engines=engines) for version, engines in rows.items())


def release_for(engine: Engine) -> Release:
    """The release with exactly that engine, else the first with a newer one, else the last."""
    from packaging.version import Version

    wanted = Version(engine.version)
    newer = (release for release in releases() if Version(release.engines[engine.name]) >= wanted)
    return next(newer, releases()[-1])


def frontend(placement: Placement) -> Rendered:
    argv = options({"--http-host": placement.host, "--http-port": placement.ports["router"]})
    return Rendered(argv=("python", "-m", "dynamo.frontend", *argv))


def render(worker: Worker, rendered: Rendered) -> Rendered:
    """The same worker under Dynamo. `rendered` is what the engine alone would be started with."""
    module = ("python", "-m", MODULES[worker.engine])
    if worker.engine == "trtllm":
        return _tensorrt_llm(worker, rendered, module)
    mode = None if worker.role == "serve" or worker.engine == "sglang" else worker.role
    own = _without(rendered.argv[3:], OWN_PORT)
    model = ("--model", worker.checkpoint) if worker.engine == "vllm" else ()
    argv = (*module, *model, *own, *options({"--disaggregation-mode": mode}))
    return Rendered(argv=argv, files=rendered.files, env=rendered.env)


def _tensorrt_llm(worker: Worker, rendered: Rendered, module: tuple[str, ...]) -> Rendered:
    """`dynamo.trtllm` takes sizes as options of its own and the rest as `--extra-engine-args`."""
    ((name, settings),) = rendered.files.items()
    if worker.trusts_remote_code:
        settings += as_yaml({"trust_remote_code": True})
    argv = options(
        {
            "--model": worker.checkpoint,
            "--served-model-name": worker.checkpoint,
            "--tensor-parallel-size": worker.ranks,
            "--pipeline-parallel-size": many(worker.layout.pipeline),
            "--expert-parallel-size": worker.layout.expert if worker.model.is_moe else None,
            "--enable-attention-dp": worker.layout.attention_dp > 1,
            "--max-batch-size": worker.batching.max_sequences,
            "--max-num-tokens": worker.batching.max_batched_tokens,
            "--extra-engine-args": name,
            "--disaggregation-mode": None if worker.role == "serve" else worker.role,
        }
    )
    return Rendered(argv=(*module, *argv), files={name: settings}, env=rendered.env)


def _without(argv: tuple[str, ...], names: set[str]) -> tuple[str, ...]:
    """`argv` without options that take one value."""
    dropped = {index + offset for index, part in enumerate(argv) if part in names for offset in (0, 1)}
    return tuple(part for index, part in enumerate(argv) if index not in dropped)


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
    release, engine = release_for(worker.config.engine), worker.config.engine
    if release.brings(engine):
        return []
    return [f"Dynamo {release.version} brings {engine.name} {release.engines[engine.name]}, the nearest to {engine}."]
