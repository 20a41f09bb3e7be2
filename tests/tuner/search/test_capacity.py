"""The search for the highest load that meets the SLA, on servers whose capacity is known."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from runners.measurement import Measurement, Percentiles
from runners.workload.workload import Lengths, LoadedWorkload, Workload
from tuner.scenario.sla import Sla, Slo
from tuner.search.capacity import MOST_LEVELS, PRECISION, Capacity, LoadRange, find_capacity

LIMIT = 0.5
SLA = Sla(slos=(Slo(metric="ttft", statistic="p99", limit_s=LIMIT),))
CLOSED = Workload(input_tokens=Lengths(low=1, high=1), output_tokens=Lengths(low=1, high=1))
OPEN = Workload(shape="poisson", input_tokens=Lengths(low=1, high=1), output_tokens=Lengths(low=1, high=1))


class FakeServer:
    """Meets the SLA up to its capacity; throughput grows with load, more slowly than load does."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.loads: list[float] = []

    def __call__(self, loaded: LoadedWorkload) -> Measurement:
        self.loads.append(loaded.load)
        latency = Percentiles.of([LIMIT * loaded.load / self.capacity])
        return Measurement(
            load=loaded.load,
            gpus=1,
            duration_s=1,
            requests=1,
            input_tokens=1000,
            output_tokens=round(1e6 * loaded.load**0.7) + 1,
            ttft=latency,
            tpot=latency,
            itl=latency,
            e2e=latency,
            source="simulated",
        )


def search(server: FakeServer, loads: LoadRange, sla: Sla = SLA, workload: Workload = OPEN, **more) -> Capacity:
    return find_capacity(server, workload, sla, loads, **more)


def chosen_load(capacity: Capacity) -> float:
    return capacity.levels[capacity.chosen].load


def between(capacity: float, guess: float) -> LoadRange:
    return LoadRange(lowest=capacity / 1000, highest=capacity * 1000, guess=guess)


REAL = {
    "capacity": st.floats(0.1, 1e4),
    "off": st.floats(-3, 3).map(lambda power: 2.0**power),
}


@given(**REAL)
def test_the_capacity_is_found_within_the_precision_or_the_levels_are_used_up(capacity, off):
    server = FakeServer(capacity)
    found = search(server, between(capacity, capacity * off))
    assert len(found.levels) == len(server.loads) <= MOST_LEVELS
    if found.exact:
        assert capacity / PRECISION * (1 - 1e-9) <= chosen_load(found) <= capacity
    else:
        assert len(found.levels) == MOST_LEVELS


@given(capacity=st.floats(0.1, 1e4), off=st.floats(0.7, 1.5))
def test_a_fair_guess_makes_it_exact(capacity, off):
    assert search(FakeServer(capacity), between(capacity, capacity * off)).exact


@given(**REAL)
def test_a_bad_guess_still_brackets_the_capacity(capacity, off):
    found = search(FakeServer(capacity), between(capacity, capacity * off))
    loads = [level.load for level in found.levels]
    assert min(loads) <= capacity <= max(loads)
    assert 0.6 * capacity < chosen_load(found) <= capacity


@given(**REAL, lowest=st.floats(0.01, 10), width=st.floats(1, 1000))
def test_no_load_is_measured_twice_or_outside_the_range(capacity, off, lowest, width):
    server = FakeServer(capacity)
    search(server, LoadRange(lowest=lowest, highest=lowest * width, guess=capacity * off))
    assert len(set(server.loads)) == len(server.loads)
    assert all(lowest <= load <= lowest * width for load in server.loads)


@given(capacity=st.integers(1, 4000), unit=st.integers(1, 32), guess=st.floats(1, 4000), highest=st.integers(1, 64))
def test_loads_come_in_whole_units(capacity, unit, guess, highest):
    server = FakeServer(capacity)
    search(server, LoadRange(lowest=unit, highest=unit * highest, guess=guess, unit=unit), workload=CLOSED)
    assert all(load % unit == 0 and unit <= load <= unit * highest for load in server.loads)


@given(capacity=st.integers(1, 60), guess=st.integers(1, 60), unit=st.sampled_from([1, 8]))
def test_a_small_capacity_in_whole_units_is_found_exactly(capacity, guess, unit):
    found = search(
        FakeServer(capacity * unit),
        LoadRange(lowest=unit, highest=64 * unit, guess=guess * unit, unit=unit),
        workload=CLOSED,
    )
    if found.exact:
        assert chosen_load(found) == capacity * unit


def test_a_range_whose_end_is_no_whole_unit_is_not_exceeded():
    assert LoadRange(lowest=8, highest=12, guess=12, unit=8).snap(12) == 8
    assert LoadRange(lowest=1, highest=3, guess=3, unit=8).snap(3) == 8


def test_a_server_that_takes_every_load_gets_the_highest():
    found = search(FakeServer(1e9), LoadRange(lowest=1, highest=50, guess=40))
    assert chosen_load(found) == 50
    assert found.exact


def test_where_no_load_meets_the_sla_the_nearest_is_chosen():
    found = search(FakeServer(0.001), LoadRange(lowest=1, highest=50, guess=10))
    assert chosen_load(found) == 1
    assert not any(SLA.met_by(level) for level in found.levels)
    assert found.exact


def test_a_single_possible_load_is_measured_once():
    found = search(FakeServer(1.5), LoadRange(lowest=1, highest=1, guess=1, unit=1), workload=CLOSED)
    assert [level.load for level in found.levels] == [1]
    assert found.exact


@given(**REAL)
def test_the_level_that_counts_is_the_best_that_meets_the_sla(capacity, off):
    found = search(FakeServer(capacity), between(capacity, capacity * off))
    keeping = [level.output_rate for level in found.levels if SLA.met_by(level)]
    if keeping:
        assert found.levels[found.chosen].output_rate == max(keeping)


@given(capacity=st.floats(1, 1e3), tight=st.floats(0.1, 10), looser=st.floats(1, 5))
def test_a_looser_sla_never_has_less_capacity(capacity, tight, looser):
    """Feasibility is monotone in the SLA; the search adds no more than its own precision."""

    def capacity_at(limit: float) -> Capacity:
        sla = Sla(slos=(Slo(metric="ttft", statistic="mean", limit_s=limit),))
        true = capacity * limit / LIMIT
        return search(FakeServer(capacity), LoadRange(lowest=1e-6, highest=1e9, guess=true * 1.1), sla)

    strict, loose = capacity_at(tight), capacity_at(tight * looser)
    assert strict.exact
    assert loose.exact
    assert chosen_load(loose) >= chosen_load(strict) / PRECISION * (1 - 1e-9)


def test_a_server_that_does_not_keep_up_does_not_meet_the_sla():
    class Overloaded(FakeServer):
        def __call__(self, loaded: LoadedWorkload) -> Measurement:
            return replace(super().__call__(loaded), backlog_growth=100 if loaded.load > 20 else 0)

    found = search(Overloaded(1e9), LoadRange(lowest=1, highest=1000, guess=15))
    assert 20 / PRECISION <= chosen_load(found) <= 20


# Giving up early


def test_a_hopeless_server_is_not_measured_exactly():
    server = FakeServer(100)
    found = search(server, between(100, 130), hopeless=lambda _: True)
    assert not found.exact
    assert len(found.levels) < len(search(FakeServer(100), between(100, 130)).levels)
    assert SLA.met_by(found.levels[found.chosen])


def test_a_server_with_hope_is_measured_exactly():
    assert search(FakeServer(100), between(100, 130), hopeless=lambda _: False).exact


@given(**REAL)
def test_whoever_gives_up_still_has_a_level_that_meets_the_sla(capacity, off):
    found = search(FakeServer(capacity), between(capacity, capacity * off), hopeless=lambda _: True)
    assert SLA.met_by(found.levels[found.chosen])


def test_strides_reach_a_capacity_thirty_times_the_guess():
    found = search(FakeServer(30), LoadRange(lowest=0.01, highest=1e5, guess=1))
    assert chosen_load(found) > 6
    assert math.isfinite(chosen_load(found))


@given(
    listed=st.lists(st.integers(1, 4096), min_size=1, max_size=7, unique=True),
    capacity=st.floats(0.5, 5000),
    guess=st.floats(1, 5000),
)
def test_of_listed_loads_the_highest_that_meets_the_sla_is_found_and_no_other_is_measured(listed, capacity, guess):
    loads = tuple(float(load) for load in sorted(listed))
    server = FakeServer(capacity)
    found = search(server, LoadRange(lowest=loads[0], highest=loads[-1], guess=guess, only=loads), workload=CLOSED)
    assert {level.load for level in found.levels} <= set(loads)
    kept = [load for load in loads if SLA.met_by(FakeServer(capacity)(CLOSED.at(load)))]
    assert found.levels[found.chosen].load == (kept[-1] if kept else loads[0])
