"""The group that stands for a deployment: its share of the load, for every pair of worker counts."""

from fractions import Fraction

import numpy as np
import pytest

from runners.simulated.group import Group
from runners.simulated.requests import Acceptance, Requests
from runners.workload.workload import ClosedLoop, Lengths, LoadedWorkload, Poisson, Trace, Workload
from search_spaces.config import Disaggregation, Engine, Layout, ServingConfig

PAIRS = [(prefills, decodes) for prefills in range(1, 72) for decodes in range(1, 73 - prefills)]
"""Every xPyD of workers of one GPU on up to 72."""

TRACE = Trace(
    path="made-up.csv",
    arrival=np.arange(20_000) / 400,
    input_tokens=np.arange(1, 20_001),
    output_tokens=np.full(20_000, 7),
)
LENGTHS = {"input_tokens": Lengths(low=100, high=100), "output_tokens": Lengths(low=10, high=10)}


def deployment(prefills: int, decodes: int) -> ServingConfig:
    return ServingConfig(
        engine=Engine(name="trtllm", version="1.3.0rc20"),
        layout=Layout(replicas=decodes),
        disaggregation=Disaggregation(prefill_layout=Layout(replicas=prefills)),
    )


def requests(loaded: LoadedWorkload, group: Group) -> Requests:
    return Requests.drawn(loaded, group, 8, Acceptance.of(()), np.random.default_rng(0))


def offered(sent: Requests, decodes: int, group: Group) -> float:
    """Requests/s of the whole deployment, of which the group is so many decode workers."""
    return (len(sent) - 1) / (sent.times[-1] - sent.times[0]) * decodes / group.decode


@pytest.mark.parametrize("pace", [0.5, 1.0])
def test_a_trace_offers_its_own_load_to_every_pair_of_workers(pace):
    loaded = Workload(shape="trace", trace=TRACE, **LENGTHS).at(pace)
    for prefills, decodes in PAIRS:
        group = Group.of(deployment(prefills, decodes), loaded.arrivals)
        assert offered(requests(loaded, group), decodes, group) == pytest.approx(400 * pace, rel=0.01)


def test_poisson_arrivals_offer_their_rate_to_every_pair_of_workers():
    loaded = Workload(shape="poisson", requests=20_000, **LENGTHS).at(400)
    assert isinstance(loaded.arrivals, Poisson)
    for prefills, decodes in PAIRS[::9]:
        group = Group.of(deployment(prefills, decodes), loaded.arrivals)
        assert offered(requests(loaded, group), decodes, group) == pytest.approx(400, rel=0.03)


def test_a_closed_loop_has_all_its_requests_in_flight_in_every_pair_of_workers():
    for prefills, decodes in PAIRS:
        for each in (1, 3, 64):
            group = Group.of(deployment(prefills, decodes), ClosedLoop(concurrency=each * decodes))
            assert group.concurrency == each * group.decode
            assert group.copies == Fraction(decodes, group.decode)


@pytest.mark.parametrize("concurrency", [1, 7, 31, 1000])
def test_requests_in_flight_that_do_not_go_round_are_all_in_flight_still(concurrency):
    for prefills, decodes in PAIRS:
        group = Group.of(deployment(prefills, decodes), ClosedLoop(concurrency=concurrency))
        assert group.concurrency * group.copies == concurrency
        assert group.copies <= Fraction(decodes, group.decode)


def test_the_ratio_of_prefill_to_decode_is_the_deployments_own_to_within_4_per_cent():
    for prefills, decodes in PAIRS:
        group = Group.of(deployment(prefills, decodes), Poisson(rate=1))
        assert group.prefill / group.decode == pytest.approx(prefills / decodes, rel=0.0401)


def test_few_schedulers_are_simulated_unless_many_share_one_for_prefill():
    groups = {(p, d): Group.of(deployment(p, d), Poisson(rate=1)) for p, d in PAIRS}
    assert all(group.decode <= max(23, round(d / p)) for (p, d), group in groups.items())


def test_every_request_of_a_trace_goes_to_one_of_the_groups():
    """Two copies get every other request; 10/7 copies get 7 of 10 in turn, and never one twice."""
    loaded = Workload(shape="trace", trace=TRACE, **LENGTHS).at(1)
    two = Group(prefill=0, decode=1, copies=Fraction(2), concurrency=0)
    assert list(requests(loaded, two).prompts[:5]) == [1, 3, 5, 7, 9]
    fraction = Group(prefill=9, decode=14, copies=Fraction(10, 7), concurrency=0)
    assert list(requests(loaded, fraction).prompts[:8]) == [1, 2, 3, 5, 6, 8, 9, 11]


@pytest.mark.parametrize("copies", [Fraction(1), Fraction(8), Fraction(10, 7)])
def test_a_short_trace_that_starts_over_keeps_its_pace(copies):
    """Ten requests in ten seconds are 1 request/s, however many copies share them."""
    short = Trace(
        path="short.csv", arrival=np.arange(10.0), input_tokens=np.arange(1, 11), output_tokens=np.arange(1, 11)
    )
    loaded = Workload(shape="trace", trace=short, **LENGTHS).at(1)
    sent = requests(loaded, Group(prefill=0, decode=1, copies=copies, concurrency=0))
    assert np.all(np.diff(sent.times) > 0)
    assert (len(sent) - 1) / sent.times[-1] * float(copies) == pytest.approx(1, rel=0.02)
