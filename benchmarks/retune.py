"""Retunes of every shipped experiment on simulated releases, against searches from scratch; and of shifted releases
against exhaustive searches.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import optuna
from shifted import Shift, ShiftedSession, Shifts

from runners.runner import RunFailedError
from search_spaces.config import Engine
from search_spaces.engines.engine import engines
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.knobs import PREFILL
from tuner.retune.champion import Champion, candidate
from tuner.retune.retune import Retuned, retune
from tuner.retune.sides import sides
from tuner.scenario.experiment.experiment import Experiment
from tuner.scenario.experiment.files import list_experiments
from tuner.scenario.experiment.reading import read_experiment
from tuner.search.search import Budget, Search, best_trial, measure_capacity, objective
from tuner.search.session import Session
from tuner.search.surrogate.sampler import SurrogateSampler
from tuner.search.tracker import Untracked
from tuner.search.trial import Trial

SMALL = """\
model: gpt-oss-120b
system: b200
gpus: 8
engines: [trtllm]
workload: {arrivals: closed_loop, input_tokens: 1024, output_tokens: 256, requests: 100}
sla: {ttft_ms_p99: 1000, tpot_ms_p99: 20}
price: {usd_per_gpu_hour: 3.6}
objective: usd_per_million_output_tokens
space:
  mode: [aggregated]
  layout.pipeline: [1]
  precision.weights: [mxfp4_mxfp8]
  precision.kv_cache: [fp8]
  speculation.method: [none, eagle3]
  speculation.draft_length: [1]
  batching.max_sequences: [64, 256, 1024]
  batching.max_batched_tokens: [8192]
budget: {trials: 48}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", help="names; by default all that ship with servetune")
    parser.add_argument("--only", choices=("shipped", "shifted"))
    parser.add_argument("--quick", action="store_true", help="leave out the searches from scratch")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if asked.only != "shifted":
        shipped(asked.experiments, quick=asked.quick)
    if asked.only != "shipped":
        shifted_releases()


# Shipped experiments


def shipped(names: list[str], *, quick: bool) -> None:
    print(f"{'experiment':42} {'release':22} {'s':>5}  CPU-s  {'verdict':14}  {'champion':8}  {'scratch':>8}")
    for name, path in list_experiments().items():
        if names and name not in names:
            continue
        experiment = read_experiment(path)
        champion = tuned(Session(experiment=experiment))
        for engine in (text.partition("@")[0] for text in experiment.engines):
            old, new = engines()[engine].versions
            to = Engine(name=engines()[engine].name, version=new)
            try:
                one_release(experiment, champion, to, older=old, quick=quick)
            except InputError as error:
                print(f"{experiment.name:42} {engine} {old} -> {new}: {error}", flush=True)


def tuned(session: Session) -> Champion:
    trials = search(session, session.experiment.budget.trials)
    best = best_trial(session.scenario, trials)
    assert best is not None
    return candidate(session, best, study="tuned-00000000", text="", others=trials)


def search(session: Session, trials: int) -> list[Trial]:
    """From scratch."""
    sampler = SurrogateSampler(session.prior, session.prior.rank(), seed=session.experiment.seed)
    found = Search(
        prior=session.prior,
        runner=session.runner,
        study=optuna.create_study(sampler=sampler),
        sampler=sampler,
        tracker=Untracked(),
        budget=Budget(trials=trials),
        progress=lambda _done, _best: None,
    )
    found.run()
    return found.trials()


def one_release(experiment: Experiment, champion: Champion, to: Engine, *, older: str, quick: bool) -> None:
    began, worked = time.perf_counter(), time.process_time()
    found = retune(champion, sides(experiment, champion, to), (), study=optuna.create_study(study_name="retuned"))
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    cost = served_cost(found)
    shown, mark = ("", "") if quick else from_scratch(found, on(experiment, to), cost)
    release = f"{to.name} {older} -> {to.version}"
    print(
        f"{experiment.name:42} {release:22} {seconds:5.1f}  {cpu:5.1f}  {found.verdict.outcome:14}  ${cost:.5f}  "
        f"{shown:>8}{mark}",
        flush=True,
    )


def from_scratch(found: Retuned, experiment: Experiment, cost: float) -> tuple[str, str]:
    """What a search with three times the trials would serve, and a mark where that is cheaper."""
    scratch = best_trial(found.scenario, search(Session(experiment=experiment), 3 * found.plan.trials))
    assert scratch is not None
    if not found.scenario.sla.met_by(scratch.measurement):
        return "none", ""
    other = objective(found.scenario, scratch)
    return f"${other:.5f}", "" if cost <= other * 1.0000001 else "  DEARER"


def on(experiment: Experiment, to: Engine) -> Experiment:
    """The whole experiment, with one engine on its new release."""
    names = [f"{to.name}@{to.version}" if text.partition("@")[0] == to.name else text for text in experiment.engines]
    return experiment.model_copy(update={"engines": names})


def served_cost(found: Retuned) -> float:
    """Of what is served after the verdict, wherever."""
    return objective(found.scenario, found.winner)


# Shifted releases


def factors(key_factor: dict[int, Shift]) -> Shifts:
    return lambda key: key_factor.get(key.layout.gpus_per_worker, Shift())


CASES: dict[str, Shifts] = {
    "nothing": factors({}),
    "decode 10 % quicker everywhere": lambda _key: Shift(decode=0.9),
    "decode 10 % slower everywhere": lambda _key: Shift(decode=1.1),
    "prefill twice as quick everywhere": lambda _key: Shift(prefill=0.5),
    "prefill three times as slow everywhere": lambda _key: Shift(prefill=3.0),
    "decode 25 % quicker on 4 GPUs a worker": factors({4: Shift(decode=0.75)}),
    "decode 40 % quicker on 8 GPUs a worker": factors({8: Shift(decode=0.6)}),
    "three times as quick on 4 GPUs a worker": factors({4: Shift(prefill=0.33, decode=0.33)}),
    "decode 30 % slower on 2 GPUs a worker": factors({2: Shift(decode=1.3)}),
    "decode 30 % slower on 1 GPU a worker": factors({1: Shift(decode=1.3)}),
    "communication 30 % quicker": lambda _key: Shift(communication=0.7),
    "communication twice as slow": lambda _key: Shift(communication=2.0),
    "1 % slower": lambda _key: Shift(decode=1.01, prefill=1.01),
}


def shifted_releases() -> None:
    print("\nshift                                    verdict           exhaustive        champion    exhaustive")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small.yaml")
        path.write_text(SMALL, encoding="utf-8")
        experiment = read_experiment(path)
        for name, shifts in CASES.items():
            found, outcome, best = shifted_case(experiment, shifts)
            cost = served_cost(found)
            mark = "" if found.verdict.outcome == outcome and cost <= best * 1.0000001 else "  DIFFERS"
            print(f"{name:40} {found.verdict.outcome:16}  {outcome:16}  ${cost:.5f}  ${best:.5f}{mark}", flush=True)


def shifted_case(experiment: Experiment, shifts: Shifts) -> tuple[Retuned, str, float]:
    """The retune, and what an exhaustive search says: its verdict, and the cost of what it would serve."""
    old, new = engines()["trtllm"].versions

    def make(asked: Experiment) -> Session:
        return ShiftedSession(experiment=asked, shifts=shifts, base=old)

    champion = tuned(make(experiment))
    both = sides(experiment, champion, Engine(name="trtllm", version=new), make)
    found = retune(champion, both, (), study=optuna.create_study(study_name="retuned"))
    everything = exhaustive(both.new)
    own = [trial for trial in everything if as_old(trial, champion)]
    best = best_trial(both.new.scenario, everything)
    assert best is not None
    return found, *decided(both.new, champion.trial, own, best, found.plan.minimum_effect)


def as_old(trial: Trial, champion: Champion) -> bool:
    config, mine = trial.config, champion.config
    assert config is not None
    return (config.layout, config.batching, config.precision, config.speculation) == (
        mine.layout,
        mine.batching,
        mine.precision,
        mine.speculation,
    )


def decided(session: Session, before: Trial, own: list[Trial], best: Trial, minimum: float) -> tuple[str, float]:
    """By the definition of the outcomes, from exact costs and latencies."""
    scenario = session.scenario
    today, cheapest = objective(scenario, before), objective(scenario, best)
    kept = own and scenario.sla.met_by(own[0].measurement)
    mine = objective(scenario, own[0]) if kept else float("inf")
    upgraded = mine < today * (1 - minimum)
    if cheapest < (mine if upgraded else today) * (1 - minimum):
        return "switch", cheapest
    if upgraded:
        return "upgrade", mine
    if mine <= today * (1 + minimum):
        return ("keep_regressed" if is_slower(session, before, own[0]) else "keep"), today
    return ("keep_regressed" if cheapest <= today * (1 + minimum) else "do_not_upgrade"), today


def is_slower(session: Session, before: Trial, after: Trial) -> bool:
    """Whether a latency of the SLA grew by more than a tenth, each at its capacity."""
    slos = session.scenario.sla.slos
    return any(one.observed(after.measurement) > 1.1 * one.observed(before.measurement) for one in slos)


def exhaustive(session: Session) -> list[Trial]:
    """Every configuration of the space at its capacity."""
    space = session.scenario.space
    names = [name for name in space.dimensions if not name.startswith(PREFILL)]
    trials = []
    for params in space.combinations(names):
        with suppress(InfeasibleError, RunFailedError):
            config = space.config(params)
            trials.append(measure_capacity(config, session.prior, session.runner, number=len(trials)))
    return trials


if __name__ == "__main__":
    main()
