"""How long a search may still take."""

import pytest

from tuner.search.search import Budget
from tuner.show.progress import duration, seconds_left


def test_nothing_is_known_before_the_first_new_trial():
    assert seconds_left(Budget(trials=10), had=3, done=3, elapsed=5) is None


def test_the_rest_takes_as_long_for_each_trial_as_the_new_ones_did():
    assert seconds_left(Budget(trials=10), had=3, done=5, elapsed=20) == pytest.approx(50)


def test_the_clock_may_end_it_sooner_and_is_known_from_the_start():
    budget = Budget(trials=10, wall_clock_s=60)
    assert seconds_left(budget, had=0, done=0, elapsed=10) == 50
    assert seconds_left(budget, had=0, done=1, elapsed=50) == 10
    assert seconds_left(budget, had=0, done=9, elapsed=70) == 0


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (80, "80 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations_are_short(seconds, words):
    assert duration(seconds) == words
