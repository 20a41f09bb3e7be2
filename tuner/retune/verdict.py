"""The verdict after a release: what paired, interleaved repeats say, without any input or output.

A repeat is one life of a server: a warm-up window, which never counts, and the windows after it. Repeats of two arms
are taken in the order A B B A, so that a machine that drifts evenly burdens both alike, and compared in pairs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Literal

import numpy as np

Arm = Literal["old", "new", "sentinel", "challenger"]
Outcome = Literal["keep", "keep_regressed", "switch", "upgrade", "do_not_upgrade"]
Reading = Literal["cheaper", "dearer", "same", "unclear"]

EXIT_KEEP, EXIT_SWITCH, EXIT_REGRESSION = 0, 10, 20
EXIT_CODES: Mapping[Outcome, int] = {
    "keep": EXIT_KEEP,
    "upgrade": EXIT_SWITCH,
    "switch": EXIT_SWITCH,
    "keep_regressed": EXIT_REGRESSION,
    "do_not_upgrade": EXIT_REGRESSION,
}

CONFIDENCE = 0.95
ALARM_CONFIDENCE = 0.99
"""For SLOs, of which there are several: together they may alarm falsely no more often than the cost alone."""

RESAMPLES = 4000
FEWEST_PAIRS = 2
SPREADS = 4.0
"""A head is cold when it is slower than what follows by so many standard deviations (and by the minimum effect)."""

LATENCY_EFFECT = 0.10
"""A latency that has an SLO is reported worse when it surely grew by more than this."""

NOISELESS = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One load that was sent: dollars per million tokens, and for each SLO observed / limit - 1."""

    cost: float
    excess: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One life of a server of an arm: the warm-up first, then the windows that may count. At least one of these."""

    arm: Arm
    windows: tuple[Window, ...]

    @property
    def counted(self) -> tuple[Window, ...]:
        return self.windows[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A relative change (0.03 is 3 % dearer), with its interval and the pairs behind it."""

    estimate: float
    low: float
    high: float
    pairs: int

    def reading(self, minimum: float) -> Reading:
        """What it means where changes of less than `minimum` do not matter.

        `same` where the whole interval is smaller than that, `unclear` where the interval holds both no change and
        one that matters.
        """
        if -minimum <= self.low and self.high <= minimum:
            return "same"
        if self.low <= 0 <= self.high:
            return "unclear"
        return "dearer" if self.estimate > 0 else "cheaper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm held against another: the change in cost, and in each latency that has an SLO.

    `missed` are the SLOs that the second arm surely breaks and the first does not; `slower` those latencies that
    surely grew by more than LATENCY_EFFECT. `cold` says what was left out as cold start, `drift` how far the sentinel
    moved where it moved. `before` and `after` are the mean costs.
    """

    cost: Effect
    before: float
    after: float
    missed: Mapping[str, Effect]
    slower: Mapping[str, Effect]
    cold: tuple[str, ...] = ()
    drift: Effect | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do, and why.

    `effect` is what that saves or costs against today, relative; `decided` is False where the repeats were too few
    or too noisy to tell. `evidence` has one sentence for each finding.
    """

    outcome: Outcome
    effect: Effect
    decided: bool
    evidence: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


class TooFewError(Exception):
    """Too few pairs of steady repeats are left to compare."""


def interval(values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of the mean of a few values, by bootstrap.

    The percentile interval, expanded for small samples: its quantiles are taken at Phi(-sqrt(n / (n - 1)) t), with t
    that of Student's distribution with n - 1 degrees of freedom (T. Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2014, section 3.4). A bare percentile interval of six values would hold the truth in 89 of 100 cases.
    """
    from scipy.special import stdtrit

    sample = np.asarray(values, dtype=np.float64)
    mean, count = float(sample.mean()), len(sample)
    spread = float(sample.std(ddof=1)) if count > 1 else 0.0
    if spread <= NOISELESS:
        return mean, mean, mean
    rng = np.random.default_rng(seed)
    means = sample[rng.integers(0, count, size=(RESAMPLES, count))].mean(axis=1)
    student = float(stdtrit(count - 1, (1 + confidence) / 2))
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * student)
    low, high = np.quantile(means, [tail, 1 - tail])
    # So few values have no resample that far out: what is missing is taken from Student's own interval.
    half = student * spread / math.sqrt(count)
    return mean, min(float(low), mean - half), max(float(high), mean + half)


def compare(repeats: Sequence[Repeat], before: Arm, after: Arm, *, minimum_effect: float, seed: int = 0) -> Comparison:
    """Holds `after` against `before`, pair by pair in the order of time; cold starts and drift are set aside first.

    Raises TooFewError where fewer than FEWEST_PAIRS steady pairs are left.
    """
    first, second = ([repeat for repeat in repeats if repeat.arm == arm] for arm in (before, after))
    cold, steady = [], []
    for name, arm in ((before, first), (after, second)):
        skipped, slow = cold_head(arm, minimum_effect)
        steady.append(skipped)
        if slow:
            cold.append(f"{name}: {slow}")
    pairs = list(zip(first, second, strict=False))[max(steady) :]
    if len(pairs) < FEWEST_PAIRS:
        raise TooFewError(f"{len(pairs)} steady pairs of repeats, but at least {FEWEST_PAIRS} are needed")
    drift = _drift([repeat for repeat in repeats if repeat.arm == "sentinel"], minimum_effect, seed)
    costs = [math.log(_cost(b, minimum_effect) / _cost(a, minimum_effect)) for a, b in pairs]
    return Comparison(
        cost=_effect(costs, CONFIDENCE, seed),
        before=float(np.mean([_cost(a, minimum_effect) for a, _ in pairs])),
        after=float(np.mean([_cost(b, minimum_effect) for _, b in pairs])),
        missed=_missed(pairs, seed),
        slower=_slower(pairs, seed),
        cold=tuple(cold),
        drift=drift,
    )


def cold_head(arm: Sequence[Repeat], minimum_effect: float) -> tuple[int, str]:
    """How many repeats at the beginning were still warming up, and that in words (empty when none was).

    A kernel that is compiled when it is first met, or a cache that is filled, makes the first lives of a server slow
    and never the later ones: such a head is far above the later half, and nothing after it is.
    """
    costs = [_cost(repeat, minimum_effect) for repeat in arm]
    later = costs[len(costs) // 2 :]
    if len(later) < FEWEST_PAIRS:
        return 0, ""
    usual = median(later)
    spread = float(np.std(np.log(later), ddof=1))
    limit = usual * math.exp(max(SPREADS * spread, math.log1p(minimum_effect)))
    head = next((index for index, cost in enumerate(costs) if cost <= limit), 0)
    if head:
        return (
            head,
            f"the first {head} of {len(costs)} repeats cost up to {max(costs[:head]) / usual:.2f} times as much",
        )
    slow = [_warm_up(repeat, minimum_effect) for repeat in arm]
    if max(slow) > 1 + max(10 * minimum_effect, SPREADS * spread):
        return 0, f"warm-up took up to {max(slow):.2f} times as long and was not counted"
    return 0, ""


def settled(windows: Sequence[Window], minimum_effect: float) -> bool:
    """Whether a server has warmed up: the last two windows differ by less than the minimum effect."""
    if len(windows) < 2:  # noqa: PLR2004 a pair
        return False
    return abs(math.log(windows[-1].cost / windows[-2].cost)) < minimum_effect


def _steady(repeat: Repeat, minimum_effect: float) -> tuple[Window, ...]:
    """The counted windows from the first that is not slower than the last by the minimum effect."""
    counted = repeat.counted
    limit = counted[-1].cost * (1 + minimum_effect)
    first = next(index for index, window in enumerate(counted) if window.cost <= limit)
    return counted[first:]


def _cost(repeat: Repeat, minimum_effect: float) -> float:
    return float(np.mean([window.cost for window in _steady(repeat, minimum_effect)]))


def _warm_up(repeat: Repeat, minimum_effect: float) -> float:
    return repeat.windows[0].cost / _cost(repeat, minimum_effect)


def _effect(logs: Sequence[float], confidence: float, seed: int) -> Effect:
    estimate, low, high = (math.expm1(value) for value in interval(logs, confidence=confidence, seed=seed))
    return Effect(estimate=estimate, low=low, high=high, pairs=len(logs))


def _observed(repeat: Repeat, slo: str) -> float:
    """Observed / limit."""
    return float(np.mean([1 + window.excess[slo] for window in repeat.counted]))


def _slos(pairs: Sequence[tuple[Repeat, Repeat]]) -> list[str]:
    return list(pairs[0][0].counted[0].excess)


def _missed(pairs: Sequence[tuple[Repeat, Repeat]], seed: int) -> dict[str, Effect]:
    """SLOs that are surely missed after, and were not before."""
    missed = {}
    for slo in _slos(pairs):
        before = interval([_observed(a, slo) - 1 for a, _ in pairs], confidence=ALARM_CONFIDENCE, seed=seed)
        after = interval([_observed(b, slo) - 1 for _, b in pairs], confidence=ALARM_CONFIDENCE, seed=seed)
        if after[1] > 0 >= before[1]:
            missed[slo] = Effect(estimate=after[0], low=after[1], high=after[2], pairs=len(pairs))
    return missed


def _slower(pairs: Sequence[tuple[Repeat, Repeat]], seed: int) -> dict[str, Effect]:
    slower = {}
    for slo in _slos(pairs):
        observed = [(_observed(a, slo), _observed(b, slo)) for a, b in pairs]
        if all(min(pair) > 0 for pair in observed):
            effect = _effect([math.log(b / a) for a, b in observed], ALARM_CONFIDENCE, seed)
            if effect.low > LATENCY_EFFECT:
                slower[slo] = effect
    return slower


def _drift(sentinel: Sequence[Repeat], minimum_effect: float, seed: int) -> Effect | None:
    """The change of the sentinel from the first half of the session to the second, where it surely matters."""
    half = len(sentinel) // 2
    if half < 1:
        return None
    costs = np.log([_cost(repeat, minimum_effect) for repeat in sentinel])
    logs = [float(late - early) for early, late in zip(costs[:half], costs[-half:], strict=True)]
    drift = _effect(logs, CONFIDENCE, seed)
    return drift if drift.reading(minimum_effect) in ("cheaper", "dearer") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was learned of a release.

    `release` holds the champion on the new release against the champion on the old, None where the release was not
    changed. `lost` says why the champion has no run there that counts, `broken` which SLO it breaks where it serves
    today. `challenger` holds the best other
    configuration of the new release against the champion where that is cheaper (`reference`); None where the search
    found none that could matter, and `challenger_lost` says why one has no run.
    """

    release: Comparison | None
    lost: str = ""
    broken: str = ""
    challenger: Comparison | None = None
    challenger_lost: str = ""
    reference: Arm = "old"
    unsteady: str = ""


UNCHANGED = Effect(estimate=0.0, low=0.0, high=0.0, pairs=0)


def judge(findings: Findings, minimum_effect: float) -> Verdict:
    """The outcome, by the first rule that holds.

    switch: another configuration of the new release is cheaper than the champion at its best. upgrade: the champion
    is cheaper on the new release. keep: nothing that matters changed. Otherwise the champion got worse there:
    keep_regressed where another configuration makes up for it or only a latency within its SLO grew,
    do_not_upgrade where none does.
    """
    evidence = _evidence(findings, minimum_effect)
    release = _release_reading(findings, minimum_effect)
    challenger = _challenger_reading(findings, minimum_effect)
    cost = findings.release.cost if findings.release else UNCHANGED

    def verdict(outcome: Outcome, effect: Effect, *, decided: bool = True) -> Verdict:
        return Verdict(outcome=outcome, effect=effect, decided=decided, evidence=evidence)

    if findings.challenger and (challenger == "cheaper" or (findings.broken and challenger)):
        return verdict("switch", _against_today(findings))
    if findings.broken:
        serves = findings.release is not None and not findings.lost
        return verdict("upgrade" if serves else "keep", cost, decided=serves)
    if findings.unsteady or release == "unclear":
        return verdict("keep", cost, decided=False)
    if release == "cheaper":
        return verdict("upgrade", cost)
    if release == "same":
        slower = bool(findings.release and findings.release.slower)
        return verdict("keep_regressed" if slower else "keep", cost, decided=challenger != "unclear")
    made_up = challenger == "same"
    return verdict("keep_regressed" if made_up else "do_not_upgrade", cost)


def _against_today(findings: Findings) -> Effect:
    """The challenger against the champion on the old release, by way of the new one where it was held against that."""
    assert findings.challenger is not None
    step = findings.challenger.cost
    if findings.reference == "old" or findings.release is None:
        return step
    first = findings.release.cost
    return Effect(
        estimate=(1 + first.estimate) * (1 + step.estimate) - 1,
        low=(1 + first.low) * (1 + step.low) - 1,
        high=(1 + first.high) * (1 + step.high) - 1,
        pairs=min(first.pairs, step.pairs),
    )


def best_side(findings: Findings, minimum_effect: float) -> Arm:
    """On which release the champion is cheaper: the old one unless the new one surely is."""
    return "new" if _release_reading(findings, minimum_effect) == "cheaper" else "old"


def _release_reading(findings: Findings, minimum_effect: float) -> Reading:
    release = findings.release
    if findings.lost or (release and release.missed):
        return "dearer"
    if release is None:
        return "same"
    return _reading(release, minimum_effect)


def _challenger_reading(findings: Findings, minimum_effect: float) -> Reading | None:
    challenger = findings.challenger
    if challenger is None or challenger.missed:
        return None
    return _reading(challenger, minimum_effect)


def _reading(comparison: Comparison, minimum_effect: float) -> Reading:
    """As the interval says, but unclear where the machine itself moved by as much."""
    reading = comparison.cost.reading(minimum_effect)
    drift = comparison.drift
    if drift and reading in ("cheaper", "dearer") and abs(drift.estimate) >= abs(comparison.cost.estimate):
        return "unclear"
    return reading


def _evidence(findings: Findings, minimum_effect: float) -> tuple[str, ...]:
    lines: list[str] = []
    if findings.unsteady:
        lines.append(f"Not decided: {findings.unsteady}.")
    if findings.broken:
        lines.append(f"The champion misses its SLA where it serves today: {findings.broken}.")
    if findings.lost:
        lines.append(f"The champion does not serve on the new release: {findings.lost}.")
    if findings.release:
        lines += _compared("The champion on the new release", "on the old", findings.release, minimum_effect)
    if findings.challenger:
        where = f"the champion on the {findings.reference} release"
        lines += _compared("The challenger on the new release", where, findings.challenger, minimum_effect)
    if findings.challenger_lost:
        lines.append(f"The challenger was not held against the champion: {findings.challenger_lost}.")
    return tuple(lines)


def _compared(who: str, against: str, comparison: Comparison, minimum_effect: float) -> list[str]:
    cost = comparison.cost
    reading = {
        "same": f"less than {minimum_effect:.1%} either way, which does not matter",
        "unclear": "too wide to tell",
        "dearer": "dearer",
        "cheaper": "cheaper",
    }[_reading(comparison, minimum_effect)]
    lines = [f"{who}, against {against}: cost {percent(cost)} over {cost.pairs} pairs: {reading}."]
    lines += [f"{who} breaks {name}: {_over(effect)} over the limit." for name, effect in comparison.missed.items()]
    lines += [f"{who} is slower in {name}: {percent(effect)}." for name, effect in comparison.slower.items()]
    lines += [f"Cold start set aside, {words}." for words in comparison.cold]
    if comparison.drift:
        lines.append(f"The machine drifted: the sentinel's cost moved by {percent(comparison.drift)} meanwhile.")
    return lines


def _over(effect: Effect) -> str:
    return f"{effect.estimate:.1%}"


def percent(effect: Effect) -> str:
    """`+1.2 % (0.8 to 1.6 %)`; without an interval where the repeats were equal to the last digit."""
    estimate = f"{effect.estimate * 100:+.1f} %"
    if effect.high - effect.low <= NOISELESS:
        return f"{effect.estimate * 100 or 0:+.1f} %".replace("+0.0", "0.0").replace("-0.0", "0.0")
    return f"{estimate} ({effect.low * 100:+.1f} to {effect.high * 100:+.1f} %)"


def unpaired(before: float, after: float, noise: Sequence[float]) -> Effect:
    """The change between two single runs that were not taken side by side.

    `noise` are changes (log ratios) seen between repeats of other configurations on one release, on other days and
    machines: the interval reaches as far as 95 of 100 of them (a split-conformal interval). That is far wider than the
    spread of repeats within a session, which is why `compare` wants those.
    """
    sizes = sorted(abs(value) for value in noise)
    rank = math.ceil((len(sizes) + 1) * CONFIDENCE)
    width = sizes[rank - 1] if rank <= len(sizes) else math.inf
    change = math.log(after / before)
    return Effect(
        estimate=math.expm1(change),
        low=math.expm1(change - width),
        high=math.expm1(min(change + width, 700.0)),
        pairs=1,
    )
