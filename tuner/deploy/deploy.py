"""Deploy: the winner of a finished study as files that engines and clusters take, with exactly the plan's GPUs."""

import shlex
from dataclasses import replace

from runners.served.deployment import Installation
from runners.simulated.known_errors import caveat
from runners.workload.workload import Workload
from search_spaces.config import ServingConfig
from search_spaces.engines.commands import Command, caveats
from search_spaces.engines.engine import facts_of
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.wording import in_words, plural
from tuner.deploy.gpus_asked import gpus_asked
from tuner.deploy.plan import FRONT_PORT, TOKEN_SECRET, Files, Plan
from tuner.deploy.targets import Target, behind_service, check_fit
from tuner.scenario.amounts import milliseconds, rate
from tuner.scenario.scenario import Scenario
from tuner.study.finished_study import FinishedStudy

URL = f"http://127.0.0.1:{FRONT_PORT}"
POD_DOWNLOADS = (
    "No volume is mounted: each pod downloads the checkpoint into its own ephemeral storage, again whenever it is "
    "replaced. Mount a volume at /root/.cache/huggingface, or name a folder of the machines with --checkpoint."
)
NEED_SECRET = ("dynamo", "llm-d")
"""Targets whose pods do not start without the Secret."""

ROUNDS = 5
REPORTED_PERCENTILES = "50,75,90,95,99"


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

    Raises InfeasibleError for a variant that is not there, InputError for a local checkpoint without its absolute path.
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
    check_fit(target, plan.facts)
    try:
        workers = plan.commands(target.orchestrator)
    except InfeasibleError as error:
        raise InputError(f"the winner cannot be started: {error.detail}") from None
    _check_names(workers)
    _check_machines(plan, workers)
    files = target.files(plan)
    asked = gpus_asked(files)
    if asked != plan.config.gpus:
        raise AssertionError(f"the files for {target.name} ask for {asked} GPUs, but the plan has {plan.config.gpus}")
    return files


def _check_machines(plan: Plan, workers: tuple[Command, ...]) -> None:
    spans = [command.gpus for command in workers if command.gpus and plan.nodes_of(command) > 1]
    if spans and not plan.facts.deploying.across_nodes:
        raise InputError(
            f"{plan.engine} has no way known to span machines, but the winner's workers take {max(spans)} GPUs, where "
            f"one has {plan.gpus_per_node}"
        )


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
    if workload.trace is None and finished.text and not finished.experiment.own_facts:  # these lie beside it
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
    if note := caveat(best.source, plan.config.engine) or best.lacks:
        figures += f"\n\n{note}"
    url, where = URL, ""
    if target.name == "kubernetes" and behind_service(plan) > 1:
        url = f"http://{plan.name}:{FRONT_PORT}"
        where = (
            "\n\nBoth from a pod in the cluster: the Service spreads connections over "
            f"{plural(behind_service(plan), 'worker')}, of which `kubectl port-forward` would reach one."
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

Measure it with `bash bench.sh {url}`, and verify that it meets the SLA with

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
