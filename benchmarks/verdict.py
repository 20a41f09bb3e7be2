"""How often a verdict is right: synthetic noise of the published size, and recorded runs on several releases."""

import csv
import math
import os
import sys
from collections import defaultdict
from importlib.resources import files
from itertools import combinations

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from runners.recorded.recording import Recording, served
from runners.recorded.sample import SAMPLE, recordings
from tuner.retune.verdict import Findings, Repeat, Window, compare, judge, unpaired

DRAWS = 1000
THROUGHPUT_CV, TTFT_CV = 0.005, 0.08
AT_LIMIT, WITH_ROOM = 0.0, -0.2


def main() -> None:
    synthetic()
    recorded()


# Synthetic


def synthetic() -> None:
    print(f"Synthetic, {DRAWS} draws, throughput CV {THROUGHPUT_CV:.1%}, p99 TTFT CV {TTFT_CV:.0%}\n")
    print("minimum effect  repeats  TTFT p99    true change  keep  regressed  not to upgrade  upgrade  undecided")
    for minimum in (0.02, 0.03):
        for repeats in (6, 4):
            for room in (AT_LIMIT, WITH_ROOM):
                for change in (0.0, 0.03, -0.03):
                    row(minimum, repeats, room, change)
    drifting()


def row(minimum: float, repeats: int, room: float, change: float) -> None:
    rng = np.random.default_rng([repeats, round(1000 * minimum), round(100 * room) + 100, round(100 * change) + 100])
    counted: dict[str, int] = defaultdict(int)
    for seed in range(DRAWS):
        taken = session(rng, repeats, room, change)
        found = judge(Findings(release=compare(taken, "old", "new", minimum_effect=minimum, seed=seed)), minimum)
        counted[found.outcome if found.decided else "undecided"] += 1
    shares = [counted[name] / DRAWS for name in ("keep", "keep_regressed", "do_not_upgrade", "upgrade", "undecided")]
    where = "at limit" if room == AT_LIMIT else "20 % room"
    print(
        f"{minimum:14.0%}  {repeats:7}  {where:10}  {change:11.0%}  {shares[0]:4.1%}  {shares[1]:9.1%}  "
        f"{shares[2]:14.1%}  {shares[3]:7.1%}  {shares[4]:9.1%}"
    )


def session(rng: np.random.Generator, repeats: int, room: float, change: float, drift: float = 0.0) -> list[Repeat]:
    """Repeats of the champion, A B B A with a sentinel around; `drift` is the machine's, for each repeat taken."""
    taken: list[Repeat] = []
    for _ in range(repeats // 2):
        for arm in ("sentinel", "old", "new", "new", "old"):
            level = (1 + change if arm == "new" else 1.0) * (1 + drift) ** len(taken)
            taken.append(Repeat(arm=arm, windows=(window(rng, level, room), window(rng, level, room))))
    taken.append(Repeat(arm="sentinel", windows=(window(rng, (1 + drift) ** len(taken), room),) * 2))
    return taken


def window(rng: np.random.Generator, level: float, room: float) -> Window:
    ttft = (1 + room) * (1 + TTFT_CV * rng.standard_normal())
    return Window(cost=level * (1 + THROUGHPUT_CV * rng.standard_normal()), excess={"ttft_ms_p99": ttft - 1})


def drifting() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for seed in range(DRAWS):
        taken = session(rng, 6, WITH_ROOM, 0.0, drift=0.01)
        found = judge(Findings(release=compare(taken, "old", "new", minimum_effect=0.02, seed=seed)), 0.02)
        alarms += found.outcome != "keep"
    print(f"\nA machine that gets 1 % slower with every repeat, no change: false alarms {alarms / DRAWS:.1%}\n")


# Recorded


def recorded() -> None:
    known = recordings()
    experts = experts_parallelism()
    for name, rows in (("clean rows", known.clean), ("all rows, suspect ones too", known.rows)):
        groups = by_run(rows, experts)
        repeats = [pair for group in groups.values() for pair in same_release(group)]
        noise = [(family(pair[0]), change(*pair)) for pair in repeats]
        print(f"Recorded, {name}: {len(repeats)} pairs of repeats (same configuration, load and release)")
        report_repeats(noise)
        report_releases(groups, noise)
        print()


def by_run(
    rows: tuple[Recording, ...], experts: dict[str, tuple[str, str]]
) -> dict[tuple[object, ...], list[Recording]]:
    """Runs of one configuration at one load.

    Rows of a model with experts that were published without attention DP and with experts over more GPUs than the
    attention has (tp1, experts over 4) are told apart by these, too: the layout that was read says nothing of them.
    """
    groups: dict[tuple[object, ...], list[Recording]] = defaultdict(list)
    for one in rows:
        workload, beyond = one.workload, experts.get(one.provenance.split(" (")[0])
        lengths = workload.input_tokens, workload.output_tokens
        groups[family(one), served(one.config), beyond, lengths, one.concurrency].append(one)
    return groups


def experts_parallelism() -> dict[str, tuple[str, str]]:
    """Published (moe_tp_size, moe_ep_size), by the row's id, where together they exceed the attention's GPUs."""
    with files("aiconfigurator_core").joinpath(*SAMPLE).open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["mode"] == "agg" and not row["attention_dp_size"]]
    return {
        row["id"]: (row["moe_tp_size"], row["moe_ep_size"])
        for row in rows
        if size(row["moe_tp_size"]) * size(row["moe_ep_size"]) > size(row["tp_size"])
    }


def size(text: str) -> float:
    return float(text or 1)


def family(one: Recording) -> tuple[str, str, str]:
    return one.model, one.system, one.config.engine.name


def change(first: Recording, second: Recording) -> float:
    """In cost, as a log ratio: the GPUs are the same."""
    return math.log(first.output_rate / second.output_rate)


def same_release(group: list[Recording]) -> list[tuple[Recording, Recording]]:
    return [(a, b) for a, b in combinations(group, 2) if a.release == b.release]


def report_repeats(noise: list[tuple[tuple[str, str, str], float]]) -> None:
    alarms = 0
    for kind, value in noise:
        others = [size for other, size in noise if other != kind]
        effect = unpaired(1.0, math.exp(value), others)
        alarms += effect.reading(0.02) in ("cheaper", "dearer")
    sizes = sorted(abs(value) for _, value in noise)
    quantiles = ", ".join(f"{math.expm1(sizes[int(q * (len(sizes) - 1))]):.1%}" for q in (0.5, 0.75, 0.9, 0.95, 1))
    print(f"  change between repeats, percentiles 50, 75, 90, 95, 100: {quantiles}")
    print(
        "  false alarms, noise taken from other models, systems and engines: "
        f"{alarms} of {len(noise)} ({alarms / len(noise):.1%})"
    )
    tight = sum(abs(value) > 1.96 * math.sqrt(2) * THROUGHPUT_CV for _, value in noise)
    print(f"  with the spread within one session (CV {THROUGHPUT_CV:.1%}) instead: {tight} ({tight / len(noise):.1%})")


def report_releases(groups: dict[tuple[object, ...], list[Recording]], noise: list[tuple[object, float]]) -> None:
    pairs = [pair for group in groups.values() for pair in releases(group)]
    right = wrong = silent = 0
    for first, second in pairs:
        others = [size for kind, size in noise if kind != family(first)]
        effect = unpaired(1 / first.output_rate, 1 / second.output_rate, others)
        reading = effect.reading(0.02)
        if reading in ("same", "unclear"):
            silent += 1
        elif (reading == "cheaper") == (second.output_rate > first.output_rate):
            right += 1
        else:
            wrong += 1
    print(
        f"  {len(pairs)} configurations measured on two or more releases: direction right {right}, wrong {wrong}, "
        f"within the noise {silent}"
    )
    print(f"  same direction at the other loads of the same configuration: {consistency(pairs)}")


def releases(group: list[Recording]) -> list[tuple[Recording, Recording]]:
    """The oldest and the newest release of a run, where it has two."""
    found = sorted({one.release: one for one in group}.values(), key=lambda one: one.release)
    return [(found[0], found[-1])] if len(found) > 1 else []


def consistency(pairs: list[tuple[Recording, Recording]]) -> str:
    """An independent check of large changes: does the rest of the configuration's curve move the same way?"""
    curves: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for first, second in pairs:
        curves[family(first), served(first.config), first.workload.input_tokens].append(change(first, second))
    agree = total = 0
    for curve in curves.values():
        for index, value in enumerate(curve):
            rest = curve[:index] + curve[index + 1 :]
            if abs(value) > 0.1 and rest:
                total += 1
                agree += (sum(rest) > 0) == (value > 0)
    return f"{agree} of {total} that changed by more than 10 %"


if __name__ == "__main__":
    sys.exit(main())
