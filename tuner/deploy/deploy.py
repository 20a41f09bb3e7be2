"""Deploy: the winner of a finished study as files that engines and clusters take, with exactly the plan's GPUs."""

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runners.served.deployment import Installation
from runners.simulated.known_errors import PREDICTION
from runners.workload.workload import Workload
from search_spaces.config import EngineName, ServingConfig
from search_spaces.engines.commands import Command, Orchestrator, caveats
from search_spaces.engines.engine import facts_of
from search_spaces.engines.folders import engine_names
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.wording import in_words, plural
from tuner.deploy.compose import COMPOSE_FILE, compose_files
from tuner.deploy.dynamo import GRAPH, dynamo_files
from tuner.deploy.gpus_asked import gpus_asked
from tuner.deploy.kubernetes import MANIFESTS, kubernetes_files
from tuner.deploy.llm_d import CHART, VALUES, llmd_files
from tuner.deploy.plan import FRONT_PORT, TOKEN_SECRET, Files, Plan
from tuner.deploy.scripts import shell_files
from tuner.scenario.amounts import milliseconds, rate
from tuner.scenario.scenario import Scenario
from tuner.study.finished_study import FinishedStudy

MARKER = ".servetune-deployment.json"
"""Says that a folder is ours, and which files in it are."""

URL = f"http://127.0.0.1:{FRONT_PORT}"
POD_DOWNLOADS = (
    "No volume is mounted: each pod downloads the checkpoint into its own ephemeral storage, again whenever it is "
    "replaced. Mount a volume at /root/.cache/huggingface, or name a folder of the machines with --checkpoint."
)
NEED_SECRET = ("dynamo", "llm-d")
"""Targets whose pods do not start without the Secret."""

ROUNDS = 5
REPORTED_PERCENTILES = "50,75,90,95,99"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Somewhere to deploy to: for which engines, which files, and how they are started."""

    name: str
    engines: tuple[EngineName, ...]
    files: Callable[[Plan], Files]
    start: Callable[[Plan], str]
    orchestrator: Orchestrator | None = None


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


def _behind_service(plan: Plan) -> int:
    """Workers among which a Kubernetes Service chooses; a port-forward would reach just one of them."""
    return 1 if plan.config.disaggregation is not None else plan.config.layout.replicas


def _start_kubernetes(plan: Plan) -> str:
    apply = f"kubectl apply -f {MANIFESTS}"
    return apply if _behind_service(plan) > 1 else f"{apply}\n{_forward(plan.name)}"


def _shell(engine: EngineName) -> Target:
    return Target(name=engine, engines=(engine,), files=shell_files, start=_start_scripts)


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        _shell("vllm"),
        _shell("trtllm"),
        _shell("sglang"),
        Target(
            name="docker-compose",
            engines=engine_names(),
            files=compose_files,
            start=lambda _: f"docker compose -f {COMPOSE_FILE} up --detach",
        ),
        Target(
            name="kubernetes",
            engines=engine_names(),
            files=kubernetes_files,
            start=_start_kubernetes,
        ),
        Target(
            name="dynamo",
            engines=engine_names(),
            files=dynamo_files,
            start=lambda plan: f"kubectl apply -f {GRAPH}\n{_forward(f'{plan.name}-frontend')}",
            orchestrator="dynamo",
        ),
        Target(
            name="llm-d",
            engines=("vllm",),
            files=llmd_files,
            start=lambda plan: f"helm install {plan.name} llm-d-modelservice/llm-d-modelservice -f {VALUES}  # {CHART}",
        ),
    )
}


def find_target(name: str) -> Target:
    """Raises UnknownNameError."""
    if name not in TARGETS:
        raise UnknownNameError("target", name, TARGETS)
    return TARGETS[name]


def _check_engine(target: Target, engine: EngineName) -> None:
    if engine not in target.engines:
        fitting = [other.name for other in TARGETS.values() if engine in other.engines]
        raise InputError(
            f"target {target.name} starts {' and '.join(target.engines)}, but the winner runs on {engine}; "
            f"targets that fit: {', '.join(fitting)}"
        )


def plan_of(
    finished: FinishedStudy, *, checkpoint: str | None = None, draft: str | None = None, secret: str = TOKEN_SECRET
) -> Plan:
    """The winner, to be started. Raises InputError where no trial was measured, or none meets the SLA."""
    config = finished.winning_config
    if not finished.meets_sla:
        raise InputError(f"{finished.path}: none of its configurations meets the SLA, so there is none to deploy")
    try:
        plan = plan_as_measured(finished.scenario, config, title=finished.name)
    except InfeasibleError as error:
        raise InputError(f"{finished.path}: {error.detail}") from None
    return replace(plan, checkpoint=checkpoint or plan.checkpoint, draft=draft or plan.draft, secret=secret)


def plan_as_measured(scenario: Scenario, config: ServingConfig, *, title: str) -> Plan:
    """A configuration with what its workers had beside it when it was measured.

    Raises InfeasibleError for a variant that is not there, InputError for a checkpoint that has no place.
    """
    had = scenario.installation or Installation()
    return Plan(
        title=title,
        model=scenario.model,
        config=config,
        system=scenario.system,
        checkpoint=had.checkpoint,
        draft=had.draft,
        args=had.args_for(config),
        env=had.env,
    )


def rendered(plan: Plan, target: Target) -> Files:
    """The target's own files, which ask for exactly the plan's GPUs.

    Raises InputError for a target that cannot start the winner, and where a checkpoint has no name yet.
    """
    _check_engine(target, plan.config.engine.name)
    try:
        workers = plan.commands(target.orchestrator)
    except InfeasibleError as error:
        raise InputError(f"the winner cannot be started: {error.detail}") from None
    _check_names(workers)
    files = target.files(plan)
    asked = gpus_asked(files)
    if asked != plan.config.gpus:
        raise AssertionError(f"the files for {target.name} ask for {asked} GPUs, but the plan has {plan.config.gpus}")
    return files


def _check_names(workers: tuple[Command, ...]) -> None:
    for command in workers:
        for text in (*command.argv, *command.files.values()):
            if "<eagle3 draft of" in text:
                raise InputError("no EAGLE-3 draft is published for this model; name yours with --draft")
            if "checkpoint of " in text and "<" in text:
                raise InputError(f"no checkpoint is published in that format ({text}); name yours with --checkpoint")


def deployment(finished: FinishedStudy, plan: Plan, target: Target) -> Files:
    """Everything that the folder holds: the target's files, how to start, measure and verify them."""
    files = rendered(plan, target)
    workload = finished.scenario.workload
    files["bench.sh"] = bench_script(plan, workload, load=finished.winner.measurement.load)
    experiment = finished.experiment.name
    if workload.trace is None and finished.text:
        experiment = "experiment.yaml"
        files[experiment] = finished.text
    files["README.md"] = _readme(finished, plan, target, experiment)
    return files


def bench_script(plan: Plan, workload: Workload, *, load: float) -> str:
    """The same load with `vllm bench serve`, whose figures others publish.

    Of a trace it sends the mean lengths at the recorded mean rate: Poisson arrivals, no bursts.
    """
    prompt, answer = workload.mean_input_tokens, workload.mean_output_tokens
    spread = 0.0
    if workload.trace is None:
        spread = (workload.input_tokens.high - prompt) / prompt
    options = {
        "--base-url": '"$URL"',
        "--model": shlex.quote(plan.served_name),
        "--dataset-name": "random",
        "--random-input-len": str(round(prompt - workload.shared_prefix_tokens)),
        "--random-output-len": str(round(answer)),
        "--random-range-ratio": f"{spread:.3g}",
        "--random-prefix-len": str(workload.shared_prefix_tokens),
        "--num-warmups": "16",
        **_arrivals(workload, load),
        "--percentile-metrics": "ttft,tpot,itl,e2el",
        "--metric-percentiles": REPORTED_PERCENTILES,
    }
    lines = [f"  {name} {value} \\" for name, value in options.items()]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# Sends the load at which the winner was chosen: {rate(load)} {workload.load_unit}. Needs vLLM's client:",
            "# pip install 'vllm[bench]'. The server may be any that speaks OpenAI's API.",
            "set -euo pipefail",
            f"URL=${{1:-{URL}}}",
            "vllm bench serve \\",
            *lines,
            "  --ignore-eos",
            "",
        ]
    )


def _arrivals(workload: Workload, load: float) -> dict[str, str]:
    """A closed loop is filled several times over: its first and last requests meet a server that is not full."""
    if workload.shape == "closed_loop":
        concurrency = max(round(load), 1)
        prompts = max(workload.requests, ROUNDS * concurrency)
        return {"--num-prompts": str(prompts), "--max-concurrency": str(concurrency), "--request-rate": "inf"}
    requests_per_s = load * workload.trace.rate if workload.trace is not None else load
    return {"--num-prompts": str(workload.requests), "--request-rate": f"{requests_per_s:.4g}"}


def _readme(finished: FinishedStudy, plan: Plan, target: Target, experiment: str) -> str:
    best = finished.winner.measurement
    notes = caveats(plan.model, plan.config, placement=plan.placement(), orchestrator=target.orchestrator)
    kind = "Predicted" if finished.predicted else "Measured"
    figures = (
        f"{kind} at {rate(best.load)} {finished.scenario.workload.load_unit}: "
        f"median TTFT {milliseconds(best.ttft.at(50))}, median TPOT {milliseconds(best.tpot.at(50))}, "
        f"{rate(best.output_rate)} output tokens/s."
    )
    rest = finished.scenario.left_over_in_words(plan.config.gpus)
    figures += f" {rest}" if rest else ""
    if best.source in PREDICTION:
        figures += f"\n\n{PREDICTION[best.source]}"
    url, where = URL, ""
    if target.name == "kubernetes" and _behind_service(plan) > 1:
        url = f"http://{plan.name}:{FRONT_PORT}"
        where = (
            "\n\nBoth from a pod in the cluster: the Service spreads connections over "
            f"{plural(_behind_service(plan), 'worker')}, of which `kubectl port-forward` would reach one."
        )
    if target.name == "kubernetes" and not plan.checkpoint:
        notes = [*notes, POD_DOWNLOADS]
    return f"""\
# {plan.title} on {target.name}

{in_words(plan.config)}: {plural(plan.config.gpus, "GPU")} of {plan.system.title}.

{figures}

Start:

```sh
{target.start(plan)}
```

Measure it with `bash bench.sh {url}`, and verify that it meets the SLO with

```sh
servetune measure {shlex.quote(experiment)} --url {url} --gpus {finished.scenario.charged_gpus(plan.config.gpus)}
```{where}

{_token(target, plan)}

What the files cannot say:

{"".join(f"- {note}{chr(10)}" for note in notes)}- {_release(plan, target)}
"""


def _release(plan: Plan, target: Target) -> str:
    release = f"{facts_of(plan.config.engine).title} {plan.config.engine.version}"
    if plan.engine == target.name:
        return f"The search was for {release}; `servetune doctor` says what is installed."
    return f"The search was for {release}, which the image{' of Dynamo' if target.orchestrator else ''} is chosen for."


def _token(target: Target, plan: Plan) -> str:
    create = f"`kubectl create secret generic {plan.secret} --from-literal=HF_TOKEN=...`; no file holds the token."
    if target.name in NEED_SECRET:
        return f"The Secret with the Hugging Face token has to exist: {create}"
    if target.name == "kubernetes":
        return f"Gated checkpoints need a Hugging Face token: {create}"
    return "Gated checkpoints need a Hugging Face token: HF_TOKEN in the environment; no file holds it."


# The folder


def write_folder(folder: Path, files: Files, *, about: Mapping[str, str], force: bool = False) -> None:
    """All files or none: they are written beside `folder` and moved in.

    Files of an earlier deployment there are replaced, and those that it no longer has removed. Raises InputError for
    a folder with other things in it, unless `force`d: files of the same names are then overwritten, others kept.
    """
    old = _ours(folder, force=force)
    marker = json.dumps({**about, "files": sorted(files)}, indent=2) + "\n"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written there: {error.strerror}") from None
    try:
        for name, text in {**files, MARKER: marker}.items():
            path = made / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
        made.chmod(0o755)
        _move(made, folder, gone=old - set(files))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written there: {error.strerror}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _ours(folder: Path, *, force: bool) -> set[str]:
    """The names of an earlier deployment's files in `folder`."""
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder with -o")
    try:
        return set(json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        if force or not any(folder.iterdir()):
            return set()
    raise InputError(
        f"{folder}: holds files that servetune did not write; name another folder, or add --force"
    ) from None


def _move(made: Path, folder: Path, *, gone: set[str]) -> None:
    if not folder.exists():
        made.rename(folder)
        return
    for path in made.iterdir():
        path.replace(folder / path.name)
    for name in gone:
        (folder / Path(name).name).unlink(missing_ok=True)
