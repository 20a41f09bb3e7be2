"""Lengths, traces and loads."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.workload.workload import ClosedLoop, Lengths, Poisson, Replay, Trace, Workload
from search_spaces.errors import InputError

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:18:03.9799600,110,27
"""


def read(folder: Path, text: str) -> Trace:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return Trace.read(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as raised:
        read(folder, text)
    message = str(raised.value)
    assert message.startswith(str(folder / "trace.csv"))
    return message


# Lengths


@given(low=st.integers(1, 500), more=st.integers(0, 500), seed=st.integers(0, 99))
def test_lengths_are_drawn_from_low_to_high(low, more, seed):
    lengths = Lengths(low=low, high=low + more)
    drawn = lengths.draw(np.random.default_rng(seed), 200)
    assert len(drawn) == 200
    assert drawn.min() >= low
    assert drawn.max() <= low + more


def test_both_ends_are_drawn_and_the_mean_is_between_them():
    lengths = Lengths(low=3, high=5)
    drawn = lengths.draw(np.random.default_rng(0), 30_000)
    assert set(drawn) == {3, 4, 5}
    assert drawn.mean() == pytest.approx(lengths.mean, rel=0.01)


@pytest.mark.parametrize(("low", "high"), [(0, 5), (-1, 5), (6, 5)])
def test_lengths_that_are_none_are_refused_with_the_law(low, high):
    with pytest.raises(ValueError, match=f"`1 <= low <= high` must hold for lengths, but got {low}..{high}"):
        Lengths(low=low, high=high)


def test_lengths_read_as_people_write_them():
    assert str(Lengths(low=7, high=7)) == "7"
    assert str(Lengths(low=7, high=9)) == "7 to 9"


# Traces


def test_a_trace_has_seconds_since_its_first_request(tmp_path):
    trace = read(tmp_path, AZURE)
    assert list(trace.arrival) == pytest.approx([0, 0.052, 60.0], abs=1e-6)
    assert list(trace.input_tokens) == [4808, 3180, 110]
    assert list(trace.output_tokens) == [10, 8, 27]
    assert trace.rate == pytest.approx(3 / 60)


def test_times_may_be_seconds_and_columns_in_any_order(tmp_path):
    trace = read(tmp_path, "GeneratedTokens,TIMESTAMP,user,ContextTokens\n1,100.5,x,2\n3,101,y,4\n")
    assert list(trace.arrival) == [0, 0.5]
    assert list(trace.input_tokens) == [2, 4]


def test_requests_may_come_at_the_same_time(tmp_path):
    assert list(read(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n5,1,1\n5,1,1\n6,1,1\n").arrival) == [0, 0, 1]


def test_a_trace_that_takes_no_time_has_no_pace(tmp_path):
    with pytest.raises(InputError, match="the last request must come after the first, but all 2 come at once"):
        read(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n5,1,1\n5,1,1\n")


BROKEN = {
    "a token count that is no number": "2023-11-16 18:17:05,many,8",
    "a token count that is no whole number": "2023-11-16 18:17:05,1.5,8",
    "an empty token count": "2023-11-16 18:17:05,,8",
    "no input tokens": "2023-11-16 18:17:05,0,8",
    "no output tokens": "2023-11-16 18:17:05,12,0",
    "negative tokens": "2023-11-16 18:17:05,12,-3",
    "more tokens than there can be": "2023-11-16 18:17:05,99999999999999999999,8",
    "too few columns": "2023-11-16 18:17:05,12",
    "a time that is none": "yesterday,12,8",
    "an empty time": ",12,8",
    "a time that is not a number": "nan,12,8",
    "an infinite time": "inf,12,8",
    "no time at all": "NaT,12,8",
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_broken_line_is_named_by_its_number(tmp_path, line, at):
    lines = AZURE.splitlines()
    lines.insert(at - 1, line)
    assert f": line {at}: " in refusal(tmp_path, "\n".join(lines))


def test_blank_lines_count_as_lines(tmp_path):
    lines = AZURE.splitlines()
    text = "\n".join([*lines[:2], "", "", "2023-11-16 18:17:05,12,0", *lines[2:]])
    assert ": line 5: " in refusal(tmp_path, text)


def test_the_message_shows_what_was_found(tmp_path):
    message = refusal(tmp_path, AZURE + "2023-11-16 18:19:00,many,8\n")
    assert "'ContextTokens': 'many'" in message


def test_time_must_not_go_back(tmp_path):
    message = refusal(tmp_path, AZURE + "\n2023-11-16 18:17:00,12,8\n")
    assert ": line 6: " in message
    assert "back in time" in message


def test_a_missing_column_is_named(tmp_path):
    message = refusal(tmp_path, "TIMESTAMP,ContextTokens\n1,2\n2,2\n")
    assert ": line 1: " in message
    assert "missing: GeneratedTokens" in message


@pytest.mark.parametrize("text", ["", "TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n"])
def test_a_trace_needs_a_header_and_two_requests(tmp_path, text):
    refusal(tmp_path, text)


def test_a_field_without_end_is_refused(tmp_path):
    refusal(tmp_path, AZURE + '"' + "9" * 200_000 + '",1,1\n')


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot be read as a trace"):
        Trace.read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a trace"):
        Trace.read(tmp_path / "nothing.csv")


# Loads


def workload(**parts) -> Workload:
    return Workload(input_tokens=Lengths(low=100, high=200), output_tokens=Lengths(low=10, high=30), **parts)


@given(load=st.floats(1, 1e6))
def test_a_closed_loop_has_that_many_requests_in_flight(load):
    loaded = workload().at(load)
    assert loaded.arrivals == ClosedLoop(concurrency=round(load))
    assert loaded.load == load


@given(load=st.floats(1e-6, 1))
def test_a_closed_loop_is_never_empty(load):
    assert workload().at(load).arrivals == ClosedLoop(concurrency=1)


@given(load=st.floats(1e-6, 1e6))
def test_poisson_arrivals_come_at_that_rate(load):
    assert workload(shape="poisson").at(load).arrivals == Poisson(rate=load)


def test_a_trace_runs_at_that_pace(tmp_path):
    trace = read(tmp_path, AZURE)
    loaded = workload(shape="trace", trace=trace).at(2.5)
    assert isinstance(loaded.arrivals, Replay)
    assert loaded.arrivals.trace is trace
    assert loaded.arrivals.speed == 2.5


@pytest.mark.parametrize("shape", ["closed_loop", "poisson"])
@pytest.mark.parametrize("load", [0, -1])
def test_no_load_is_refused(shape, load):
    with pytest.raises(ValueError, match=f"`load > 0` must hold, but got {load}"):
        workload(shape=shape).at(load)


def test_the_loaded_workload_is_the_same_workload():
    asked = workload(requests=7, seed=3)
    assert asked.at(5).workload is asked


def test_means_and_the_longest_request_follow_the_lengths():
    asked = workload()
    assert asked.mean_input_tokens == 150
    assert asked.mean_output_tokens == 20
    assert asked.mean_request_tokens == 170
    assert asked.max_request_tokens == 230


def test_means_and_the_longest_request_follow_the_trace(tmp_path):
    asked = workload(shape="trace", trace=read(tmp_path, AZURE))
    assert asked.mean_input_tokens == pytest.approx((4808 + 3180 + 110) / 3)
    assert asked.mean_output_tokens == 15
    assert asked.max_request_tokens == 4818


@pytest.mark.parametrize(
    ("shape", "unit"),
    [("closed_loop", "requests in flight"), ("poisson", "requests/s"), ("trace", "x the trace's pace")],
)
def test_a_load_has_a_unit(shape, unit):
    assert workload(shape=shape).load_unit == unit


def test_a_workload_can_be_asked_for_more_requests():
    assert workload(seed=4).with_requests(9) == workload(seed=4, requests=9)
