"""Calibrated: what calibration is worth on recorded runs of layouts that it has not seen, and where it must abstain."""

import multiprocessing
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from runners.recorded.recording import Recording
from runners.simulated.calibration import (
    Abstained,
    Calibration,
    Correction,
    Domain,
    Forward,
    Latencies,
    Observation,
    Outcome,
    Spread,
    calibrate,
    simulated,
    slopes_of,
)
from runners.simulated.silicon import Silicon
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model
from tuner.evidence.replay import Prediction
from tuner.evidence.validate import Compared

HANDFUL = 6
"""Measurements that each calibration is given unless another number is asked for."""
SHARE = 0.8
"""Of the measured latencies that a predicted interval should hold."""
MOST_FOREIGN = 6
"""Rows of each foreign domain on which a calibration is tried that abstains there."""
EVERY = 3
"""Intervals are made for every third row: they take the simulator four runs more."""
PROCESSES = 2
BEFORE, AFTER = "uncalibrated", "calibrated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A recorded row, predicted before and after calibration on rows of other layouts; or why not after."""

    compared: Compared
    spreads: tuple[Spread, Spread] | None = None

    @property
    def row(self) -> Recording:
        return self.compared.row

    @property
    def abstained(self) -> str:
        return self.compared.uncovered.get(AFTER, "")

    @property
    def held(self) -> tuple[bool, bool]:
        """Whether the intervals of TTFT and TPOT hold what was measured."""
        assert self.spreads is not None
        pairs = zip(self.spreads, (self.row.ttft, self.row.tpot), strict=True)
        low_high = [(spread.interval(SHARE), measured) for spread, measured in pairs]
        first, second = (low <= measured <= high for (low, high), measured in low_high)
        return first, second


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A row outside a calibration's domain, predicted with it although it abstains there."""

    compared: Compared
    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All rows once, or those until Ctrl-C, and the foreign ones."""

    judged: tuple[Judged, ...]
    foreign: tuple[Foreign, ...]
    interrupted: bool = False


def domain_of(row: Recording) -> Domain:
    """By the release that really ran; of rows that do not say it, those of one day count as one release."""
    model, system = find_model(row.model), find_system(row.system)
    release = row.release if row.release != "unknown" else f"unknown of {row.date}"
    return Domain.of(model, system, row.config, release=release)


def observed(row: Recording) -> Observation:
    return Observation(
        domain=domain_of(row),
        config=row.config,
        loaded=row.workload.at(row.concurrency),
        latencies=Latencies(ttft=row.ttft, tpot=row.tpot),
    )


def judge(rows: Sequence[Recording], *, measurements: int = HANDFUL, processes: int = PROCESSES) -> Evidence:
    """Every row once, by a calibration on at most so many rows of the other layouts of its domain.

    Rows that the simulator cannot serve are left out; raises InputError where that leaves none.
    """
    groups: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    for row in rows:
        groups[row.system, row.model].append(row)
    jobs = sorted(groups.values(), key=_requests, reverse=True)
    parts: list[Evidence] = []
    interrupted = False
    try:
        parts.extend(_all_judged(jobs, measurements, min(processes, len(jobs), os.cpu_count() or 1)))
    except KeyboardInterrupt:
        if not any(part.judged for part in parts):
            raise
        interrupted = True
    if not any(part.judged for part in parts):
        raise InputError(f"none of the {len(rows)} rows can be predicted: there are no kernel data for them")
    return Evidence(
        judged=tuple(one for part in parts for one in part.judged),
        foreign=tuple(one for part in parts for one in part.foreign),
        interrupted=interrupted,
    )


def _all_judged(jobs: Sequence[Sequence[Recording]], measurements: int, processes: int) -> Iterator[Evidence]:
    """In the jobs' order. Processes end with Ctrl-C, which only this one hears."""
    if processes <= 1:
        yield from (_judged(job, measurements) for job in jobs)
        return
    deaf = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(max_workers=processes, initializer=signal.signal, initargs=deaf) as pool:
        try:
            yield from pool.map(_judged, jobs, [measurements] * len(jobs))
        except (KeyboardInterrupt, GeneratorExit):
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _requests(rows: Iterable[Recording]) -> int:
    """What simulating them costs."""
    return sum(row.workload.requests for row in rows)


def _judged(rows: Sequence[Recording], measurements: int) -> Evidence:
    """Rows of one model and system."""
    longest = max(row.workload.max_request_tokens for row in rows)
    silicon = Silicon(find_model(rows[0].model), find_system(rows[0].system), longest_context=longest)
    forward = simulated(silicon)
    covered = [row for row in rows if _covered(forward, row)]
    domains: dict[Domain, list[Recording]] = defaultdict(list)
    for row in covered:
        domains[domain_of(row)].append(row)
    judged = [one for group in domains.values() for one in _folds(group, forward, measurements)]
    return Evidence(judged=tuple(judged), foreign=tuple(_transfers(domains, forward, measurements)))


def _covered(forward: Forward, row: Recording) -> bool:
    try:
        _run(forward, Correction(), row)
    except InfeasibleError:
        return False
    return True


def _run(forward: Forward, correction: Correction, row: Recording) -> Latencies:
    return forward(correction, row.config, row.workload.at(row.concurrency))


def _folds(rows: Sequence[Recording], forward: Forward, measurements: int) -> Iterator[Judged]:
    """Each layout in turn is judged by the others."""
    layouts: dict[object, list[Recording]] = defaultdict(list)
    for row in rows:
        layouts[observed(row).layouts].append(row)
    for layout, held_out in layouts.items():
        others = [row for other, group in layouts.items() if other != layout for row in group]
        outcome = calibrate(map(observed, handful(others, measurements)), forward)
        for place, row in enumerate(held_out):
            yield _one(row, outcome, forward, interval=place % EVERY == 0)


def handful(rows: Sequence[Recording], count: int) -> list[Recording]:
    """Taken evenly from their order by layout, lengths and load: what is measured plays no part in the choice."""
    ordered = sorted(rows, key=_order)
    if len(ordered) <= count:
        return ordered
    return [ordered[round(index * (len(ordered) - 1) / (count - 1))] for index in range(count)]


def _order(row: Recording) -> tuple[str, tuple[str, str, int, int], int, str]:
    return str(observed(row).layouts), row.scenario, row.concurrency, row.provenance


def _one(row: Recording, outcome: Outcome, forward: Forward, *, interval: bool) -> Judged:
    before = _prediction(_run(forward, Correction(), row))
    if isinstance(outcome, Abstained):
        return Judged(compared=Compared(row=row, predictions={BEFORE: before}, uncovered={AFTER: outcome.reason}))
    after = _run(forward, outcome.correction, row)
    compared = Compared(row=row, predictions={BEFORE: before, AFTER: _prediction(after)}, uncovered={})
    if not interval:
        return Judged(compared=compared)
    slopes = slopes_of(forward, row.config, row.workload.at(row.concurrency))
    return Judged(compared=compared, spreads=outcome.spread(after, slopes))


def _prediction(latencies: Latencies) -> Prediction:
    return Prediction(ttft=latencies.ttft, tpot=latencies.tpot)


def _transfers(domains: Mapping[Domain, Sequence[Recording]], forward: Forward, measurements: int) -> Iterator[Foreign]:
    """Each calibration on the other releases of its engine, later ones and earlier ones."""
    for home, rows in domains.items():
        outcome = calibrate(map(observed, handful(rows, measurements)), forward)
        if isinstance(outcome, Abstained):
            continue
        for away, others in domains.items():
            if _differs_in_release(home, away):
                kind = "a later release" if _date(others) > _date(rows) else "an earlier release"
                yield from _tried(outcome, handful(others, MOST_FOREIGN), kind, forward)


def _differs_in_release(home: Domain, away: Domain) -> bool:
    same = (home.engine, home.weights) == (away.engine, away.weights)
    return same and home.release != away.release


def _date(rows: Sequence[Recording]) -> str:
    return max(str(row.date) for row in rows)


def _tried(outcome: Calibration, rows: Iterable[Recording], kind: str, forward: Forward) -> Iterator[Foreign]:
    for row in rows:
        abstained = outcome.abstains(domain_of(row))
        assert abstained is not None
        predictions = {
            BEFORE: _prediction(_run(forward, Correction(), row)),
            AFTER: _prediction(_run(forward, outcome.correction, row)),
        }
        yield Foreign(
            compared=Compared(row=row, predictions=predictions, uncovered={}), kind=kind, reason=abstained.reason
        )
