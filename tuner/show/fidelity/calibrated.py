"""What calibration is worth on recorded runs, as a page."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from runners.recorded.recording import Recording
from search_spaces.errors import InputError
from tuner.evidence.calibrated import AFTER, BEFORE, SHARE, Evidence, Judged, domain_of
from tuner.evidence.validate import FIGURES, Compared, Figure, Score, score, scores_of
from tuner.show.fidelity.tables import Table, markdown_rows

if TYPE_CHECKING:
    from runners.simulated.calibration import Domain

FIGURES_SHOWN: tuple[Figure, ...] = ("tpot", "throughput", "ttft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The evidence as tables. `command` made it, with so many measurements for each calibration."""

    evidence: Evidence
    measurements: int
    command: str

    @property
    def tables(self) -> Iterator[Table]:
        return (table for table in self._tables() if table.rows)

    @property
    def scores(self) -> dict[str, dict[str, Score]]:
        """On the rows whose calibration does not abstain."""
        return scores_of([one.compared for one in self.evidence.judged if not one.abstained], (BEFORE, AFTER))

    def _tables(self) -> Iterator[Table]:
        yield self._coverage()
        covered = [one for one in self.evidence.judged if not one.abstained]
        title = "Errors on layouts that were not measured"
        yield self._errors(title, {"all": covered, **_by(covered, lambda row: row.config.mode)})
        yield self._errors(f"{title}, by engine", _by(covered, lambda row: row.config.engine.name))
        yield self._errors(f"{title}, by model", _by(covered, lambda row: row.model))
        yield self._intervals([one for one in covered if one.spreads is not None])
        yield self._hurt(covered)
        yield self._foreign()

    def _coverage(self) -> Table:
        judged = self.evidence.judged
        reasons = Counter(_class(one.abstained) for one in judged if one.abstained)
        covered = len(judged) - reasons.total()
        rows = [["calibrated", f"{covered:,}", f"{covered / len(judged):.0%}"]]
        rows += [
            [f"abstained: {reason}", f"{count:,}", f"{count / len(judged):.0%}"] for reason, count in reasons.items()
        ]
        return Table(title="Rows that the simulator predicts", heads=["", "rows", "share"], rows=rows)

    def _errors(self, title: str, groups: Mapping[str, Sequence[Judged]]) -> Table:
        rows = [
            [label, name, f"{len(group):,}", *_scores([one.compared for one in group], name)]
            for label, group in groups.items()
            for name in (BEFORE, AFTER)
            if group
        ]
        heads = ["", "", "rows", *(FIGURES[figure] for figure in FIGURES_SHOWN)]
        return Table(title=f"{title} (median error / mean error / bias)", heads=heads, rows=rows)

    def _intervals(self, covered: Sequence[Judged]) -> Table:
        groups = {"all": covered, **_by(covered, lambda row: row.config.engine.name)} if covered else {}
        rows = []
        for label, group in groups.items():
            held = [one.held for one in group]
            widths = [[math.expm1(1.2816 * spread.log_sd) for spread in one.spreads or ()] for one in group]
            cells = [f"{sum(item[which] for item in held) / len(held):.0%}" for which in (0, 1)]
            cells += [f"{median(width[which] for width in widths):.0%}" for which in (0, 1)]
            rows.append([label, f"{len(group):,}", *cells])
        heads = ["", "rows", "TTFT held", "TPOT held", "TTFT reach", "TPOT reach"]
        return Table(
            title=f"What {SHARE:.0%} intervals hold, and how far up they reach (median)", heads=heads, rows=rows
        )

    def _hurt(self, covered: Sequence[Judged]) -> Table:
        """Domains in which a median error of TPOT or TTFT grew."""
        domains: dict[Domain, list[Compared]] = defaultdict(list)
        for one in covered:
            domains[domain_of(one.row)].append(one.compared)
        rows = []
        for domain, group in sorted(domains.items(), key=lambda item: str(item[0])):
            errors = {
                (name, figure): found.median_error
                for name in (BEFORE, AFTER)
                for figure in ("tpot", "ttft")
                if (found := score(group, name, figure))
            }
            if any(errors[AFTER, figure] > errors[BEFORE, figure] for figure in ("tpot", "ttft")):
                cells = (f"{errors[BEFORE, figure]:.0%} to {errors[AFTER, figure]:.0%}" for figure in ("tpot", "ttft"))
                rows.append([str(domain), f"{len(group)}", *cells])
        return Table(
            title=f"Where calibration hurts ({len(rows)} of {len(domains)} domains; median error, before to after)",
            heads=["", "rows", "TPOT", "TTFT"],
            rows=rows,
        )

    def _foreign(self) -> Table:
        groups: dict[str, list[Compared]] = defaultdict(list)
        for one in self.evidence.foreign:
            groups[one.kind].append(one.compared)
        rows = [
            [kind, name, f"{len(group):,}", *_scores(group, name)]
            for kind, group in sorted(groups.items())
            for name in (BEFORE, AFTER)
        ]
        heads = ["", "", "rows", *(FIGURES[figure] for figure in FIGURES_SHOWN)]
        title = "Where it abstains: errors if it did not (median error / mean error / bias)"
        return Table(title=title, heads=heads, rows=rows)

    @property
    def notes(self) -> tuple[str, ...]:
        how = (
            f"Each layout of a domain (model, number format, system, engine, release that ran) is predicted by a "
            f"calibration on at most {self.measurements} rows of the domain's other layouts, taken evenly from their "
            f"order by layout, lengths and load. No row is both fitted and scored; no row is scored twice."
        )
        fixed = (
            "Priors, scatter and limits are round numbers (runners/simulated/calibration.py), the same for all "
            "domains; they and the set of corrections were chosen by people who had seen errors on these rows. "
            "Uncalibrated are the same rows with the step times as they come from the database."
        )
        return how, fixed


def _by(judged: Iterable[Judged], key: Callable[[Recording], str]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        groups[key(one.row)].append(one)
    return dict(sorted(groups.items()))


def _class(reason: str) -> str:
    """The kind of an abstention, without its figures."""
    kinds = {
        "a calibration needs": "fewer measurements of other layouts than it needs",
        "no correction explains": "no correction explains the measurements",
        "too much": "the correction called for is too large",
        "too little": "the measurements say too little",
    }
    return next((kind for mark, kind in kinds.items() if mark in reason), reason)


def _scores(group: Sequence[Compared], name: str) -> list[str]:
    found = (score(group, name, figure) for figure in FIGURES_SHOWN)
    return [f"{item.median_error:.0%} / {item.mean_error:.0%} / {item.bias:.2f}" for item in found if item]


def check_kind(path: Path) -> None:
    """Raises InputError for a file that is not .md."""
    if path.suffix != ".md":
        raise InputError(f"{path}: unknown kind of report {path.suffix!r}; valid with --calibrated: .md")


def write(page: Page, path: Path) -> None:
    """Raises InputError for a file that is not .md, or cannot be written."""
    check_kind(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_markdown(page), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from None


def to_markdown(page: Page) -> str:
    lines = ["# Calibration: what a handful of measurements is worth", "", f"Made by `{page.command}`.", ""]
    for note in page.notes:
        lines += [note, ""]
    for table in page.tables:
        lines += [f"## {table.title}", "", *markdown_rows(table), ""]
    return "\n".join(lines)
