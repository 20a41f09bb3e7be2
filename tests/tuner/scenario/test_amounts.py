"""How amounts are put to people."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.scenario.amounts import dollars, milliseconds, rate


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0189, "$0.0189"), (0.5, "$0.500"), (0.00573, "$0.00573"), (1.5, "$1.50"), (12.345, "$12.35"), (1, "$1.00")],
)
def test_dollars(value, text):
    assert dollars(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0196, "19.6 ms"), (0.1, "100 ms"), (1, "1,000 ms"), (12.3456, "12,346 ms")]
)
def test_milliseconds(seconds, text):
    assert milliseconds(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(52.44, "52.4"), (100, "100"), (33362, "33,362")])
def test_rates(value, text):
    assert rate(value) == text


@settings(deadline=None)
@given(st.floats(1e-4, 1e6), st.floats(1.05, 10))
def test_five_percent_more_reads_no_smaller(value, times):
    for read in (dollars, milliseconds, rate):
        first, second = (float(read(one).strip("$ms ").replace(",", "")) for one in (value, value * times))
        assert first <= second
