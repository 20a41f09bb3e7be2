"""The load client against a server whose token times are known."""

import pytest

from runners.load import load_report, run_load
from runners.runner import RunFailedError
from runners.workload import Lengths, Workload
from tests.runners.golden_server import GoldenServer, Plan

QUICK = Plan(ttft_s=0.01, tpot_s=0.002)


def chat(**changes):
    lengths = {"input_tokens": Lengths(low=50, high=60), "output_tokens": Lengths(low=4, high=12)}
    return Workload(**lengths | {"requests": 60} | changes)


@pytest.fixture(scope="module")
def server():
    with GoldenServer(QUICK) as server:
        yield server


def test_a_closed_loop_keeps_so_many_requests_in_flight_and_counts_those_asked_for(server):
    measured = run_load([server.url], "golden", chat().at(4), gpus=2)
    assert (measured.requests, measured.failed_requests, measured.gpus, measured.load) == (60, 0, 2, 4)
    assert measured.source == "measured"
    assert 50 * 60 <= measured.input_tokens <= 60 * 60
    assert measured.ttft.at(50) >= 0.01
    assert measured.tpot.at(50) >= 0.002


def test_requests_go_to_the_replicas_in_turn(server):
    with GoldenServer(QUICK) as other:
        before = len(server.log())
        report = load_report([server.url, other.url], "golden", chat().at(4), gpus=1)
        here, there = len(server.log()) - before, len(other.log())
    assert abs(here - there) <= 1
    assert here + there >= len(report.answers) + report.warm_up


def test_a_server_that_answers_only_errors_fails_the_run_with_what_it_said():
    with GoldenServer(Plan(fail="error", fail_from=1)) as server:
        with pytest.raises(RunFailedError, match=r"HTTP 500.*20 requests in a row.*the engine is broken"):
            run_load([server.url], "golden", chat().at(4), gpus=1)
