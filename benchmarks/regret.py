"""The tuner measured as a tuner: how good its answer is after each measurement, against other ways of searching.

python benchmarks/regret.py [--recorded | --simulated] [--seeds 20] [--plot regret.html]

Recorded: every recorded Blackwell scenario and the grid of SLAs of `tuner.evidence.replay`. A measurement is one
published row (configuration and concurrency), newest of its kind. The answer is the row with the most tokens/s/GPU of
those measured so far that meet the SLA; its share is held against the best of all rows, and an answer that breaks the
SLA, or none, scores 0. Methods see a row's latencies when they measure it, never before. `--hopper` scores Hopper rows,
and shows the errors of predictions there: the bias is theirs. Scales and caution were chosen, for each Blackwell
model, on rows of other models, Hopper and Blackwell; the same won each time. Scores of variants on Blackwell had been
seen before, so this is no blind test: docs/search.md says what was held out.

Simulated: every legal aggregated deployment of gpt-oss-120b on 8 x B200 (10,744), priced exhaustively. With a prior,
the "real" system is a copy of the closed form whose TTFT and TPOT are off by random factors of precision, layout,
speculation and load, another for each seed. Without, it is the closed form itself.

Predictions of rows are kept in a cache directory under a name that says which code made them.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import optuna
from regret_recorded import MOST, errors, recorded
from regret_simulated import simulated
from rich.console import Console

from tuner.evidence.replay import BLACKWELL

optuna.logging.set_verbosity(optuna.logging.ERROR)
HOPPER = ("h100", "h200")


def plot(means: Mapping[str, Sequence[float]], path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, shares in means.items():
        figure.add_scatter(x=list(range(1, MOST + 1)), y=list(shares), name=name, mode="lines+markers")
    figure.update_layout(xaxis_title="measurements", yaxis_title="share of the best measured tokens/s/GPU")
    figure.write_html(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", action="store_true", help="only the recorded Blackwell scenarios")
    parser.add_argument("--hopper", action="store_true", help="only the recorded Hopper scenarios")
    parser.add_argument("--simulated", action="store_true", help="only the simulator's own space")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--most", type=int, default=60, help="trials on the simulator's own space")
    parser.add_argument("--plot", type=Path, help="an .html file for the curves of the recorded scenarios")
    chosen = parser.parse_args()
    console = Console(width=150, highlight=False)
    everything = not (chosen.recorded or chosen.hopper or chosen.simulated)
    if chosen.hopper:
        errors(HOPPER, console)
        recorded(HOPPER, chosen.seeds, console)
    if chosen.recorded or everything:
        means = recorded(BLACKWELL, chosen.seeds, console)
        if chosen.plot:
            plot(means, chosen.plot)
    if chosen.simulated or everything:
        simulated(chosen.seeds, chosen.most, console)


if __name__ == "__main__":
    main()
