"""Step times, against numpy.interp and against work by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.simulated.step_time import Curve, StepTimes, Surface

POINTS = st.lists(st.integers(0, 1000), min_size=2, max_size=8, unique=True).map(sorted)


def step_times(
    *, prefill_attention: Surface | None = None, decode_attention: Surface | None = None, intensity: float = 0.0
) -> StepTimes:
    flat = Surface((1, 2), (Curve((0, 1), (0, 0)), Curve((0, 1), (0, 0))))
    return StepTimes(
        prefill_shared=Curve((0, 1000), (0.010, 0.030)),
        decode_shared=Curve((0, 1000), (0.002, 0.012)),
        prefill_attention=prefill_attention or flat,
        decode_attention=decode_attention or flat,
        draft=Curve((0, 1000), (0.0001, 0.0011)),
        verify_intensity=intensity,
    )


def squares(prompts: int) -> Curve:
    """Attention of whole prompts: 1 microsecond for each million of squared tokens."""
    lengths = tuple(range(0, 4097, 64))
    return Curve(lengths, tuple(prompts * length**2 * 1e-12 for length in lengths))


@given(xs=POINTS, data=st.data())
def test_a_curve_interpolates_as_numpy_does(xs, data):
    ys = data.draw(st.lists(st.floats(-1e3, 1e3), min_size=len(xs), max_size=len(xs)))
    x = data.draw(st.floats(xs[0], xs[-1]))
    assert Curve(tuple(xs), tuple(ys))(x) == pytest.approx(np.interp(x, xs, ys), abs=1e-9)


def test_a_curve_goes_on_with_its_outer_slopes():
    curve = Curve((0, 10, 20), (5, 15, 45))
    assert curve(-1) == 4
    assert curve(20) == 45
    assert curve(30) == 75


def test_a_line_is_the_value_and_the_slope_to_the_right():
    curve = Curve((0, 10, 20), (5, 15, 45))
    assert curve.line(5) == (10, 1)
    assert curve.line(10) == (15, 3)
    assert curve.line(25) == (60, 3)


@pytest.mark.parametrize(("xs", "ys"), [((1,), (1,)), ((1, 2), (1,)), ((1, 1), (1, 2)), ((2, 1), (1, 2))])
def test_points_that_make_no_curve_are_refused(xs, ys):
    with pytest.raises(ValueError, match="a curve"):
        Curve(xs, ys)


def test_a_surface_is_bilinear_between_its_rows():
    surface = Surface((1, 3), (Curve((0, 10), (0, 10)), Curve((0, 10), (4, 34))))
    assert surface(2, 5) == pytest.approx((5 + 19) / 2)
    assert surface(1, 5) == 5
    assert surface(3, 5) == 19


def test_a_surface_goes_on_beyond_its_last_row_and_stays_below_its_first():
    surface = Surface((1, 3), (Curve((0, 10), (0, 10)), Curve((0, 10), (4, 34))))
    assert surface(5, 5) == pytest.approx(19 + 14)
    assert surface(0.5, 5) == 5


@given(count=st.integers(1, 9), context=st.floats(0, 4096), row=st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_a_surface_agrees_with_numpy_in_two_steps(count, context, row):
    xs, ys = (1, 4, 16), (0, 16, 512, 4096)
    rows = [row[0:4], row[4:8], row[8:12]]
    surface = Surface(xs, tuple(Curve(ys, tuple(values)) for values in rows))
    across = [np.interp(context, ys, values) for values in rows]
    assert surface(count, context) == pytest.approx(np.interp(count, xs, across), abs=1e-12)


@given(prompt=st.integers(1, 4096), cuts=st.lists(st.integers(1, 4095), max_size=6))
def test_the_chunks_of_a_prompt_cost_the_attention_of_the_whole_prompt(prompt, cuts):
    times = step_times(prefill_attention=Surface((1, 2), (squares(1), squares(2))))
    edges = sorted({0, prompt, *(cut for cut in cuts if cut < prompt)})
    chunks = [(start, end - start, prompt) for start, end in pairwise(edges)]
    attention = sum(times.prefill([chunk]) - times.prefill_shared(chunk[1]) for chunk in chunks)
    assert attention == pytest.approx(times.prefill_attention(1, prompt), rel=1e-9)


def test_a_later_chunk_attends_to_more():
    times = step_times(prefill_attention=Surface((1, 2), (squares(1), squares(2))))
    first, second = (times.prefill([(done, 1024, 2048)]) - times.prefill_shared(1024) for done in (0, 1024))
    assert second == pytest.approx(3 * first)


def test_prompts_of_different_lengths_in_one_pass_each_cost_their_own_attention():
    times = step_times(prefill_attention=Surface((1, 2), (squares(1), squares(2))))
    attention = times.prefill([(0, 64, 64), (0, 4096, 4096)]) - times.prefill_shared(4160)
    assert attention == pytest.approx((64**2 + 4096**2) * 1e-12)


def test_prompts_in_one_pass_share_the_efficiency_of_their_batch():
    dear, cheap = squares(1), Curve(squares(2).xs, tuple(y / 2 for y in squares(2).ys))
    times = step_times(prefill_attention=Surface((1, 2), (dear, cheap)))
    both = times.prefill([(0, 1024, 1024)] * 2) - times.prefill_shared(2048)
    alone = times.prefill([(0, 1024, 1024)]) - times.prefill_shared(1024)
    assert both == pytest.approx(alone)


def test_decoding_tokens_ride_along_as_shared_work_only():
    times = step_times()
    assert times.prefill([(0, 100, 100)], decoding_tokens=50) == pytest.approx(0.010 + 150 * 0.020 / 1000)


def test_a_decode_step_without_drafts_is_shared_work_and_attention_at_the_mean_context():
    attention = Surface((1, 101), (Curve((0, 1000), (0, 0.001)), Curve((0, 1000), (0.1, 0.301))))
    seconds, slope = step_times(decode_attention=attention).decode(51).line(500)
    assert seconds == pytest.approx(0.002 + 51e-5 + (0.0005 + 0.2005) / 2)
    assert slope == pytest.approx((1e-6 + 0.201e-3) / 2)


def by_hand_with_drafts(intensity: float) -> float:
    """Ten sequences, three drafts, at context 500; attention takes 1 us a query and 10 ns a KV token."""
    shared = 0.002 + 40 * 1e-5
    drafting = 2 * (0.0001 + 10 * 1e-6)
    queries = 40 * 1e-6
    cache = 10 * 500 * 1e-8 * max(1, 4 * intensity) / max(1, intensity)
    return shared + drafting + queries + cache


@pytest.mark.parametrize("intensity", [0.0, 0.2, 0.5, 2.0])
def test_verification_reads_the_cache_once_until_it_is_compute_bound(intensity):
    rows = [Curve((0, 1000), (count * 1e-6, count * (1e-6 + 1e-5))) for count in (1, 1001)]
    times = step_times(decode_attention=Surface((1, 1001), tuple(rows)), intensity=intensity)
    seconds, _ = times.decode(10, 3, drafted=2).line(500)
    assert seconds == pytest.approx(by_hand_with_drafts(intensity))


def test_a_slope_that_noise_makes_negative_counts_as_flat():
    falling = Curve((0, 1000), (0.002, 0.001))
    seconds, slope = step_times(decode_attention=Surface((1, 2), (falling, falling))).decode(1).line(500)
    assert slope == 0
    assert seconds == pytest.approx(0.002 + 1e-5 + 0.0015)


def test_the_times_of_a_batch_are_worked_out_once():
    times = step_times()
    assert times.decode(7, 2) is times.decode(7, 2)
    assert times.decode(7, 2) is not times.decode(7, 2, drafted=2)
