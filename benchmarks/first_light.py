"""The first experiment, side by side with AIConfigurator's own search: time to an answer, and whose answer is cheaper.

python benchmarks/first_light.py [--quick]

Time: `servetune tune gpt-oss-120b-b200-chat` in an empty folder, MLflow store included, against
`aiconfigurator cli default` on the same experiment, both as whole processes from a cold start.

Quality: AIConfigurator's own steady-state estimate judges both answers. servetune searches on that estimate (the
`estimated` runner) with the same price; the peer's pick is what its own report states. --quick leaves out DeepSeek-R1
on 72 GPUs, for which the peer alone takes one to two minutes.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

os.environ["OMP_NUM_THREADS"] = "1"

from runners.simulated.estimated import Estimated
from runners.simulated.silicon import Silicon
from runners.workload.workload import Lengths, Workload
from search_spaces.engines.engine import find_engine
from search_spaces.hardware.system import find_system, list_price
from search_spaces.models.model import find_model
from search_spaces.space import full_space
from tuner.scenario.cost import dollars_per_million
from tuner.scenario.scenario import Scenario
from tuner.scenario.sla import Sla, read_slo
from tuner.search.ranking import Prior
from tuner.search.search import Budget, Search
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.tracker import Untracked
from tuner.study.answer import Answer
from tuner.study.journal import open_study

BIN = Path(sys.executable).parent
# Finer than the usual dimension, because the peer's context tokens are.
BATCHED_TOKENS = (1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    title: str
    model: str
    system: str
    peer_system: str
    gpus: int
    input_tokens: int
    output_tokens: int
    ttft_ms: float
    tpot_ms: float


GPT_OSS = Experiment(
    title="gpt-oss-120b, 8 x B200, 1024/1024, TTFT 1 s, TPOT 20 ms",
    model="gpt-oss-120b",
    system="b200",
    peer_system="b200_sxm",
    gpus=8,
    input_tokens=1024,
    output_tokens=1024,
    ttft_ms=1000,
    tpot_ms=20,
)
DEEPSEEK = Experiment(
    title="DeepSeek-R1, 72 x GB200, 8192/1024, TTFT 5 s, TPOT 25 ms",
    model="deepseek-r1",
    system="gb200-nvl72",
    peer_system="gb200",
    gpus=72,
    input_tokens=8192,
    output_tokens=1024,
    ttft_ms=5000,
    tpot_ms=25,
)


def timed(argv: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peer(experiment: Experiment, folder: Path) -> tuple[float, float, float]:
    """AIConfigurator's best output tokens/s/GPU, and its wall and CPU seconds."""
    argv = [
        str(BIN / "aiconfigurator"),
        *("cli", "default", "--model-path", find_model(experiment.model).silicon_name),
        *("--system", experiment.peer_system, "--total-gpus", str(experiment.gpus), "--backend", "trtllm"),
        *("--isl", str(experiment.input_tokens), "--osl", str(experiment.output_tokens)),
        *("--ttft", str(experiment.ttft_ms), "--tpot", str(experiment.tpot_ms), "--save-dir", str(folder)),
    ]
    wall, cpu = timed(argv, folder)
    rates = [
        float(row["tokens/s/gpu"])
        for table in folder.rglob("best_config_topn.csv")
        for row in csv.DictReader(table.open())
        if float(row["ttft"]) <= experiment.ttft_ms and float(row["tpot"]) <= experiment.tpot_ms
    ]
    return max(rates), wall, cpu


def ours(experiment: Experiment, *, free: bool, trials: int) -> tuple[Answer, float]:
    """The answer on the peer's estimate. Not `free`: the peer's own precision choice, no speculation."""
    model, system = find_model(experiment.model), find_system(experiment.system)
    space = full_space(model, system, (find_engine("trtllm"),), experiment.gpus)
    space = replace(space, dimensions={**space.dimensions, "batching.max_batched_tokens": BATCHED_TOKENS}).restricted(
        {"mode": ("aggregated",), **({} if free else {"speculation.method": ("none",)})}
    )
    scenario = Scenario(
        name=experiment.model,
        model=model,
        system=system,
        gpus=experiment.gpus,
        workload=Workload(
            input_tokens=Lengths(low=experiment.input_tokens, high=experiment.input_tokens),
            output_tokens=Lengths(low=experiment.output_tokens, high=experiment.output_tokens),
        ),
        sla=Sla(
            slos=(
                read_slo("ttft_ms_mean", experiment.ttft_ms),
                read_slo("tpot_ms_mean", experiment.tpot_ms),
            )
        ),
        price=list_price(system, "hyperscaler"),
        objective="usd_per_million_output_tokens",
        space=space,
    )
    silicon = Silicon(model, system, longest_context=experiment.input_tokens + experiment.output_tokens)
    prior = Prior(scenario, silicon)
    began = time.perf_counter()
    ranking = prior.rank()
    sampler = SurrogateSampler(prior, ranking, seed=0)
    with tempfile.TemporaryDirectory() as folder, open_study(Path(folder), "benchmark", sampler) as study:
        search = Search(
            prior=prior,
            runner=Estimated(silicon),
            study=study,
            sampler=sampler,
            tracker=Untracked(),
            budget=Budget(trials=trials),
            progress=lambda _done, _best: None,
        )
        search.run()
        answer = Answer(scenario=scenario, trials=search.trials(), ranking=ranking, baseline=None)
    return answer, time.perf_counter() - began


def compare_time(console: Console) -> None:
    table = Table("", "wall s", "CPU s", title="Cold start to answer: " + GPT_OSS.title, box=SIMPLE_HEAD)
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = timed([str(BIN / "servetune"), "tune", "gpt-oss-120b-b200-chat"], Path(folder))
    table.add_row("servetune tune, MLflow included", f"{wall:.1f}", f"{cpu:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        _, peer_wall, peer_cpu = peer(GPT_OSS, Path(folder))
    table.add_row("aiconfigurator cli default", f"{peer_wall:.1f}", f"{peer_cpu:.1f}")
    table.add_row("ratio", f"{peer_wall / wall:.1f}", f"{peer_cpu / cpu:.1f}")
    console.print(table)


def compare_answers(console: Console, experiment: Experiment, trials: int) -> None:
    table = Table(
        *("", "output tokens/s/GPU", "$/M output", "against peer", "configuration"),
        title="Judged by AIConfigurator's estimate: " + experiment.title,
        box=SIMPLE_HEAD,
    )
    price = list_price(find_system(experiment.system), "hyperscaler")
    with tempfile.TemporaryDirectory() as folder:
        rate, _, _ = peer(experiment, Path(folder))
    peer_cost = dollars_per_million(rate, 1, price)
    table.add_row("aiconfigurator cli default", f"{rate:,.0f}", f"${peer_cost:.4f}", "", "")
    for name, free in (("servetune, no speculation", False), ("servetune, speculation free", True)):
        answer, _ = ours(experiment, free=free, trials=trials)
        best = answer.best
        assert best is not None
        assert answer.meets_sla
        cost = answer.cost(best)
        table.add_row(
            name,
            f"{cost.output_tokens_per_s_per_gpu:,.0f}",
            f"${cost.usd_per_million_output_tokens:.4f}",
            f"{peer_cost / cost.usd_per_million_output_tokens:.2f} times cheaper",
            str(best.config),
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out DeepSeek-R1 on 72 GPUs")
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    console = Console(width=140, highlight=False)
    compare_time(console)
    for experiment in (GPT_OSS,) if options.quick else (GPT_OSS, DEEPSEEK):
        compare_answers(console, experiment, options.trials)


if __name__ == "__main__":
    main()
