"""The verdict: what the statistics say of known data, and that they are not fooled by warm-up, drift or noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuner.retune.verdict import (
    Effect,
    Findings,
    Repeat,
    TooFewError,
    Window,
    best_side,
    compare,
    interval,
    judge,
    percent,
    settled,
    unpaired,
)

ORDER = ("sentinel", "old", "new", "new", "old")


def repeat(arm, *costs, excess=-0.2):
    return Repeat(arm=arm, windows=tuple(Window(cost=cost, excess={"ttft_ms_p99": excess}) for cost in costs))


def session(old=1.0, new=1.0, *, blocks=3, noise=0.0, drift=0.0, excess=None, seed=0):
    rng = np.random.default_rng(seed)
    taken = []
    for _ in range(blocks):
        for arm in ORDER:
            level = {"old": old, "new": new}.get(arm, 1.0) * (1 + drift) ** len(taken)
            costs = [level * (1 + noise * rng.standard_normal()) for _ in range(2)]
            taken.append(repeat(arm, *costs, excess=(excess or {}).get(arm, -0.2)))
    return [*taken, repeat("sentinel", *[(1 + drift) ** len(taken)] * 2)]


def verdict_of(taken, minimum=0.02, **findings):
    return judge(Findings(release=compare(taken, "old", "new", minimum_effect=minimum), **findings), minimum)


def test_equal_repeats_have_an_interval_without_width():
    assert interval([0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25)


def test_the_interval_of_few_values_is_no_narrower_than_students():
    values = [0.1, 0.3, 0.2, 0.6, 0.4, 0.25]
    mean, low, high = interval(values)
    oracle = stats.t.interval(0.95, 5, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx(np.mean(values))
    assert low <= oracle[0] + 1e-12
    assert high >= oracle[1] - 1e-12


def test_the_interval_of_many_values_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(1).normal(5, 1, 200)
    _, low, high = interval(values)
    oracle = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(2)).confidence_interval
    assert low == pytest.approx(oracle.low, abs=0.02)
    assert high == pytest.approx(oracle.high, abs=0.02)


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(3)
    held = sum(low <= 0 <= high for _, low, high in (interval(rng.normal(0, 1, 6), seed=i) for i in range(400)))
    assert 0.93 <= held / 400 <= 0.99


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_an_interval_holds_its_mean(values):
    mean, low, high = interval(values)
    assert low <= mean <= high


@pytest.mark.parametrize(
    ("low", "estimate", "high", "reading"),
    [
        (-0.01, 0.0, 0.01, "same"),
        (0.005, 0.01, 0.015, "same"),
        (0.01, 0.03, 0.05, "dearer"),
        (-0.05, -0.03, -0.01, "cheaper"),
        (-0.01, 0.02, 0.05, "unclear"),
    ],
)
def test_an_effect_is_read_against_what_matters(low, estimate, high, reading):
    assert Effect(estimate=estimate, low=low, high=high, pairs=6).reading(0.02) == reading


def test_nothing_changed_is_a_keep():
    verdict = verdict_of(session())
    assert (verdict.outcome, verdict.exit_code, verdict.decided) == ("keep", 0, True)


def test_a_cheaper_release_is_an_upgrade_with_the_same_configuration():
    verdict = verdict_of(session(new=0.9, noise=0.005))
    assert (verdict.outcome, verdict.exit_code) == ("upgrade", 10)
    assert verdict.effect.low < -0.1 + 0.005 < verdict.effect.high + 0.01


def test_a_dearer_release_is_not_upgraded_to():
    verdict = verdict_of(session(new=1.05, noise=0.005))
    assert (verdict.outcome, verdict.exit_code) == ("do_not_upgrade", 20)


def test_a_cheaper_challenger_is_a_switch_even_where_the_champion_got_worse():
    challenger = compare(
        [repeat(arm, cost, cost) for arm, cost in (("old", 1.0), ("challenger", 0.8)) * 2],
        "old",
        "challenger",
        minimum_effect=0.02,
    )
    verdict = verdict_of(session(new=1.2), challenger=challenger)
    assert (verdict.outcome, verdict.exit_code) == ("switch", 10)
    assert verdict.effect.estimate == pytest.approx(-0.2)


def test_a_challenger_held_against_the_new_release_is_judged_against_today():
    challenger = compare(
        [repeat(arm, cost, cost) for arm, cost in (("new", 0.9), ("challenger", 0.81)) * 2],
        "new",
        "challenger",
        minimum_effect=0.02,
    )
    verdict = verdict_of(session(new=0.9), challenger=challenger, reference="new")
    assert verdict.effect.estimate == pytest.approx(0.81 - 1)


def test_a_regression_that_another_configuration_makes_up_for_is_noted_and_kept():
    challenger = compare(
        [repeat(arm, 1.0, 1.0) for arm in ("old", "challenger") * 2], "old", "challenger", minimum_effect=0.02
    )
    verdict = verdict_of(session(new=1.2), challenger=challenger)
    assert (verdict.outcome, verdict.exit_code) == ("keep_regressed", 20)


def test_a_latency_that_grew_within_its_slo_is_a_regression_to_note():
    verdict = verdict_of(session(excess={"old": -0.5, "new": -0.3}))
    assert verdict.outcome == "keep_regressed"
    assert any("slower in ttft_ms_p99: +40.0 %" in line for line in verdict.evidence)


def test_a_release_that_breaks_the_slo_is_not_upgraded_to_however_cheap():
    verdict = verdict_of(session(new=0.5, excess={"old": -0.1, "new": 0.1}))
    assert verdict.outcome == "do_not_upgrade"
    assert any("breaks ttft_ms_p99: 10.0%" in line for line in verdict.evidence)


def test_a_champion_that_does_not_start_on_the_new_release_keeps_the_old_one():
    verdict = judge(Findings(release=None, lost="failed: exit code 1"), 0.02)
    assert verdict.outcome == "do_not_upgrade"
    assert "exit code 1" in verdict.evidence[0]


def test_a_champion_that_breaks_its_slo_gives_way_to_any_challenger_that_keeps_it():
    dearer = compare(
        [repeat(arm, cost, cost) for arm, cost in (("old", 1.0), ("challenger", 1.3)) * 2],
        "old",
        "challenger",
        minimum_effect=0.02,
    )
    verdict = judge(Findings(release=None, broken="ttft_ms_p99 by 5 %", challenger=dearer), 0.02)
    assert verdict.outcome == "switch"


def test_the_jit_trap_a_cold_old_run_is_no_release_effect():
    """SGLang 0.5.6 "to" its successor: 1.79 times, nearly all of it kernels that were compiled during the old run."""
    taken = session()
    cold = repeat("old", 3.0, 1.79)  # the first life compiles; later ones find its cache on the disk
    naive = [cold, *taken[2:]]
    assert (naive[0].counted[0].cost, naive[1].arm) == (1.79, "new")
    verdict = verdict_of([taken[0], *naive])
    assert verdict.outcome == "keep"
    assert abs(verdict.effect.estimate) < 1e-9
    assert any("old: the first 1 of 6 repeats cost up to 1.79 times as much" in line for line in verdict.evidence)


def test_the_jit_trap_within_one_life_only_its_warm_windows_count():
    taken = [repeat(one.arm, 3.0, 1.79, 1.2, 1.0, 1.0) if one.arm == "old" else one for one in session()]
    verdict = verdict_of(taken)
    assert verdict.outcome == "keep"
    assert abs(verdict.effect.estimate) < 1e-9
    assert any("warm-up took up to 3.00 times as long" in line for line in verdict.evidence)


def test_a_real_gain_survives_a_cold_start():
    taken = session(new=0.9)
    verdict = verdict_of([taken[0], repeat("old", 3.0, 1.79), *taken[2:]])
    assert verdict.outcome == "upgrade"
    assert verdict.effect.estimate == pytest.approx(-0.1)


def test_a_server_has_settled_once_two_windows_agree():
    windows = repeat("old", 3.0, 1.79, 1.01, 1.0).windows
    assert not settled(windows[:1], 0.02)
    assert not settled(windows[:3], 0.02)
    assert settled(windows, 0.02)


def test_an_even_drift_of_the_machine_is_no_release_effect():
    verdict = verdict_of(session(drift=0.02))
    assert verdict.outcome == "keep"


def test_the_sentinel_tells_drift():
    verdict = verdict_of(session(drift=0.02))
    assert any("The machine drifted" in line for line in verdict.evidence)


def test_a_change_smaller_than_the_sentinels_is_not_decided():
    taken = session(new=1.03, drift=0.02)
    verdict = verdict_of(taken)
    assert (verdict.outcome, verdict.decided) == ("keep", False)


def test_a_stable_sentinel_is_not_mentioned():
    assert compare(session(noise=0.005), "old", "new", minimum_effect=0.02).drift is None


def test_too_much_noise_is_not_decided():
    verdict = verdict_of(session(new=1.02, noise=0.1, blocks=2, seed=4))
    assert (verdict.outcome, verdict.decided, verdict.exit_code) == ("keep", False, 0)


def test_a_comparison_needs_two_pairs():
    with pytest.raises(TooFewError, match="1 steady pairs"):
        compare([repeat("old", 1, 1), repeat("new", 1, 1)], "old", "new", minimum_effect=0.02)


def test_the_better_side_is_the_old_one_unless_the_new_is_surely_cheaper():
    assert best_side(Findings(release=compare(session(new=0.9), "old", "new", minimum_effect=0.02)), 0.02) == "new"
    assert best_side(Findings(release=compare(session(new=0.99), "old", "new", minimum_effect=0.02)), 0.02) == "old"


def test_single_runs_are_read_against_the_spread_of_others_repeats():
    noise = [0.01 * (i + 1) / 40 * (-1) ** i for i in range(40)]
    effect = unpaired(1.0, 1.05, noise)
    width = sorted(abs(value) for value in noise)[math.ceil(41 * 0.95) - 1]
    assert effect.low == pytest.approx(1.05 * math.exp(-width) - 1)
    assert effect.reading(0.02) == "dearer"


def test_with_too_few_repeats_a_single_run_says_nothing():
    assert unpaired(1.0, 3.0, [0.01, 0.02]).reading(0.02) == "unclear"


def test_an_effect_reads_as_a_percentage_with_its_interval():
    assert percent(Effect(estimate=0.012, low=0.008, high=0.016, pairs=6)) == "+1.2 % (+0.8 to +1.6 %)"
    assert percent(Effect(estimate=0.0, low=0.0, high=0.0, pairs=2)) == "0.0 %"
