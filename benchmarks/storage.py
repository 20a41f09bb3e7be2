"""Which local file should hold a study, by trials/s and by what is left after kill -9.

python benchmarks/storage.py [--trials 100]

Optuna's journal with its own lock, SQLite, and the journal as servetune opens it: one writer, whose lock the operating
system drops with the process. Each trial does what a search does: ask with eleven parameters, set the trial's record,
three constraints, tell.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tuner.search.trial import Trial, trial_to_json
from tuner.study.journal import open_study

RECORD = Trial(number=0, ending="failed", cause="benchmark", detail="x" * 4000)


def storage(kind: str, path: Path) -> optuna.storages.BaseStorage:
    if kind != "sqlite":
        return JournalStorage(JournalFileBackend(str(path)))
    return RDBStorage(f"sqlite:///{path}")


def fill(kind: str, path: Path, trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    if kind == "servetune":
        with open_study(path.parent, "s", sampler) as study:
            tell(study, trials)
        return
    tell(
        optuna.create_study(study_name="s", storage=storage(kind, path), sampler=sampler, load_if_exists=True),
        trials,
    )


def tell(study: optuna.Study, trials: int) -> None:
    for _ in range(trials):
        trial = study.ask()
        for index in range(11):
            trial.suggest_categorical(f"p{index}", (1, 2, 4, 8))
        trial.set_user_attr("servetune", trial_to_json(replace(RECORD, number=trial.number)))
        for index in range(3):
            trial.set_constraint(f"c{index}", 0.0)
        study.tell(trial, 1.0)


def trials_per_s(kind: str, trials: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.journal")
        fill(kind, path, 1)
        began = time.perf_counter()
        fill(kind, path, trials)
        return trials / (time.perf_counter() - began)


def after_kill(kind: str) -> tuple[int, float]:
    """Finished trials that survive kill -9 in mid-write, and seconds until the next trial can be told."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.journal")
        child = subprocess.Popen([sys.executable, __file__, "--child", kind, str(path)])
        while not path.exists() or path.stat().st_size < 200_000:
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        began = time.perf_counter()
        fill(kind, path, 1)
        waited = time.perf_counter() - began
        study = optuna.load_study(study_name="s", storage=storage(kind, path))
        finished = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        return len(finished) - 1, waited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        fill(options.child[0], Path(options.child[1]), 1_000_000)
    table = Table("storage", "trials/s", "left after kill -9", "s to the next trial", box=SIMPLE_HEAD)
    for kind in ("journal", "sqlite", "servetune"):
        rate = trials_per_s(kind, options.trials)
        survivors, waited = after_kill(kind)
        table.add_row(kind, f"{rate:.1f}", str(survivors), f"{waited:.1f}")
    Console(width=90, highlight=False).print(table)


if __name__ == "__main__":
    main()
