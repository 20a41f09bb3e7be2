"""Fidelity: a comparison of predictions with measured rows as a page, in Markdown or HTML."""

import html
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from runners.recorded.mlperf import Submission, Submissions, submissions, unsearchable
from runners.recorded.recording import Recordings
from search_spaces.errors import InputError
from tuner.evidence.replay import GRID, TPOT_LIMITS, TTFT_LIMITS, Decision, Quality, quality
from tuner.evidence.validate import (
    FIGURES,
    GROUPS,
    RUNNERS,
    SPLITS,
    Compared,
    Score,
    cautious,
    coverage,
    decisions,
    dollars,
    gpu_price,
    grouped,
    rank_correlation,
    score,
    scores_of,
    spread,
)
from tuner.scenario.amounts import dollars as dollars_in_words
from tuner.scenario.amounts import milliseconds, rate
from tuner.scenario.cost import dollars_per_million
from tuner.show.fidelity.scatter import UNITS, scatter
from tuner.show.fidelity.tables import Table, markdown_rows

KINDS = (".md", ".html")
HEADROOMS = (0.0, 0.1, 0.2, 0.4)
CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95)
QUALITY = ("decisions", "SLA broken", "by (median)", "nothing found", "share of the best")
FEWEST_IN_GROUP = 5
"""Rows that a group of a split needs for its error to be counted."""

LOOK = (
    "body{font:15px system-ui;max-width:1100px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:left}"
    "svg{margin:0 1em 1em 0}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Predictions next to what was measured, and what the measurements are. `command` made it."""

    compared: Sequence[Compared]
    recordings: Recordings
    command: str

    @property
    def tables(self) -> Iterator[Table]:
        yield self._coverage()
        shared = [row for row in self.compared if _predicted_by_all(row)]
        yield self._errors("Errors on the rows that all predict", {"all": shared})
        yield from self._decisions()
        yield self._headrooms()
        yield self._confidences()
        yield self._distributions()
        yield self._ranks()
        yield self._errors("Errors by mode, each on the rows that it predicts", grouped(self.compared, "mode"))
        for by in (name for name in GROUPS if name not in {"all", "mode", "scenario", "layout"}):
            yield self._errors(f"Errors on the rows that all predict, by {by}", grouped(shared, by))
        yield self._splits(shared)
        yield self._dollars(shared)
        yield _mlperf(submissions())
        yield self._cleaning()

    @property
    def scores(self) -> dict[str, dict[str, Score]]:
        """On the rows that all predict."""
        return scores_of([row for row in self.compared if _predicted_by_all(row)], RUNNERS)

    def _decisions(self) -> Iterator[Table]:
        """On the rows that all predict, then on all rows, where what a runner abstains from cannot be picked."""
        heads = ["", "", *QUALITY]
        for title, only in (
            ("Decisions among the rows that all predict", _predicted_by_all),
            ("Decisions among all rows", lambda _row: True),
        ):
            rows = []
            for name in RUNNERS:
                made = decisions(self.compared, name, only=only)
                by_model: dict[str, list[Decision]] = defaultdict(list)
                for decision in made:
                    by_model[decision.best.model].append(decision)
                for label, group in {"all": made, **dict(sorted(by_model.items()))}.items():
                    found = quality(group)
                    rows += [[label, name, *_quality_cells(found)]] if found else []
            if rows:
                yield Table(title=title, heads=heads, rows=sorted(rows, key=lambda row: (row[0] != "all", row[0])))

    def _headrooms(self) -> Table:
        """What a user gains who keeps a distance from the limits."""
        rows = [
            [f"{headroom:.0%}", name, *_quality_cells(found)]
            for headroom in HEADROOMS
            for name in RUNNERS
            if (found := quality(_with_headroom(self.compared, name, headroom)))
        ]
        heads = ["headroom", "", *QUALITY]
        return Table(title="The same with headroom, predictions raised by that share", heads=heads, rows=rows)

    def _confidences(self) -> Table:
        """What `sla.confidence` does where nothing was measured yet."""
        rows = [
            [f"{confidence:.0%}", name, *_quality_cells(found)]
            for confidence in CONFIDENCES
            for name in RUNNERS
            if (found := quality(cautious(self.compared, name, confidence, only=_predicted_by_all)))
        ]
        title = "The same with a confidence, both limits together, by the errors on other models' rows"
        return Table(title=title, heads=["confidence", "", *QUALITY], rows=rows)

    def _distributions(self) -> Table:
        rows = []
        for name in RUNNERS:
            found = [spread(self.compared, name, figure) for figure in list(FIGURES)[:3]]
            rows.append([name, *(f"{one.median:.2f} / {one.sd:.2f}" if one else "-" for one in found)])
        title = "How measurements spread about predictions: log(measured / predicted), median / standard deviation"
        return Table(title=title, heads=["", *list(FIGURES.values())[:3]], rows=rows)

    def _splits(self, shared: Sequence[Compared]) -> Table:
        """How far the error of a group that was seen by nobody may lie from the error of all rows."""
        rows = []
        for by in SPLITS:
            groups = {name: group for name, group in grouped(shared, by).items() if len(group) >= FEWEST_IN_GROUP}
            for runner in RUNNERS:
                rows += [[by, runner, str(len(groups)), *_spread(groups, runner)]] if groups else []
        heads = ["group", "", "groups", *(f"{name}: median, worst" for name in list(FIGURES.values())[:3])]
        return Table(title="Median error by group: of the median group, and of the worst", heads=heads, rows=rows)

    def _dollars(self, shared: Sequence[Compared]) -> Table:
        rows = []
        groups = {"all": list(shared), **grouped(shared, "system"), **grouped(shared, "model")}
        for label, group in groups.items():
            for name in RUNNERS:
                if found := dollars(group, name):
                    figures = (found.measured, found.predicted, found.error)
                    rows.append([label, name, f"{found.rows:,}", *map(dollars_in_words, figures)])
        heads = ["", "", "rows", "measured", "predicted", "error"]
        title = "Dollars per million output tokens, at hyperscaler list prices (medians)"
        return Table(title=title, heads=heads, rows=rows)

    def _coverage(self) -> Table:
        rows = []
        for name in RUNNERS:
            count, missing = coverage(self.compared, name)
            reasons = ", ".join(f"{cause} {number}" for cause, number in missing.items())
            rows.append([name, f"{count:,} of {len(self.compared):,}", reasons or "-"])
        return Table(title="Rows predicted", heads=["", "rows", "not predicted, by reason"], rows=rows)

    def _errors(self, title: str, groups: Mapping[str, Sequence[Compared]]) -> Table:
        rows = []
        for label, group in groups.items():
            for name in RUNNERS:
                found = [score(group, name, figure) for figure in FIGURES]
                if found[0] is not None:
                    cells = (
                        f"{item.median_error:.0%} / {item.mean_error:.0%} / {item.bias:.2f}" for item in found if item
                    )
                    rows.append([label, name, f"{found[0].rows:,}", *cells])
        heads = ["", "", "rows", *FIGURES.values()]
        return Table(title=f"{title} (median error / mean error / bias)", heads=heads, rows=rows)

    def _ranks(self) -> Table:
        rows = []
        for name in RUNNERS:
            found = (rank_correlation(self.compared, name, figure) for figure in FIGURES)
            rows.append([name, *("-" if value is None else f"{value:.2f}" for value in found)])
        return Table(title="Rank correlation within scenarios", heads=["", *FIGURES.values()], rows=rows)

    def _cleaning(self) -> Table:
        found = self.recordings
        parts = (("dropped", found.dropped), ("corrected", found.changed), ("suspect", found.suspects))
        rows = [[what, rule, f"{count:,}"] for what, counts in parts for rule, count in counts.items()]
        rows.append(["clean", "all systems", f"{len(found.clean):,} of {found.total:,}"])
        known = submissions()
        parts = (("dropped", known.dropped), ("corrected", known.changed), ("suspect", known.suspects))
        rows += [[f"MLPerf, {what}", rule, f"{count:,}"] for what, counts in parts for rule, count in counts.items()]
        rows.append(["MLPerf, clean", "all systems", f"{len(known.clean):,} of {known.total:,}"])
        return Table(title="How the rows were cleaned", heads=["", "rule", "rows"], rows=rows)

    @property
    def notes(self) -> tuple[str, ...]:
        measured = (
            "Measured: mean TTFT and TPOT of InferenceX and NVIDIA runs that ship with aiconfigurator_core 0.12.0 "
            "(systems/silicon_sample.csv, Apache-2.0). Throughput follows from them by Little's law, for predictions "
            "alike, and runs about 3 % high. $/M is in inverse proportion to it, so its bias is the reciprocal."
        )
        releases = (
            "The engines measured are older than the releases that the kernel times are of (TensorRT-LLM 1.3.0rc20, "
            "SGLang 0.5.14, vLLM 0.24.0): part of the error is the difference between them."
        )
        peer = (
            "Nothing was fitted to these rows. AIConfigurator is asked as its own `cli estimate` does, on aggregated "
            "rows only: its disaggregated estimate is not run."
        )
        ttfts, tpots = (", ".join(f"{limit * 1000:g}" for limit in limits) for limits in (TTFT_LIMITS, TPOT_LIMITS))
        decided = (
            f"Decisions: in each scenario with eight configurations, at each of {len(GRID)} pairs of limits (mean TTFT "
            f"{ttfts} ms, mean TPOT {tpots} ms) that a row keeps, the row with the most predicted tokens/s/GPU of "
            "those predicted to keep them is picked. Its share of the best measured tokens/s/GPU counts 0 where it "
            "breaks them or nothing is found. Of repeats, the newest counts."
        )
        apart = (
            "MLPerf's figures are percentiles of an open loop and stand apart; a run is charged the 600 s that the "
            "rules ask for at least. Its input lengths are not published with the results, so nothing is predicted."
        )
        return measured, releases, peer, decided, apart


def _with_headroom(compared: Sequence[Compared], runner: str, headroom: float) -> list[Decision]:
    return decisions(
        compared,
        runner,
        only=_predicted_by_all,
        meets=lambda _row, predicted, limits: limits.met_by(predicted, headroom=headroom),
    )


def _predicted_by_all(row: Compared) -> bool:
    return all(name in row.predictions for name in RUNNERS)


def _quality_cells(found: Quality) -> list[str]:
    shares = (found.broken, found.excess, found.none)
    return [f"{found.decisions:,}", *(f"{share:.0%}" for share in shares), f"{found.share:.2f}"]


def _spread(groups: Mapping[str, Sequence[Compared]], runner: str) -> Iterator[str]:
    for figure in list(FIGURES)[:3]:
        errors = {name: found.median_error for name, group in groups.items() if (found := score(group, runner, figure))}
        worst = max(errors, key=lambda name: errors[name], default=None)
        yield "-" if worst is None else f"{median(errors.values()):.0%}, {errors[worst]:.0%} ({worst})"


def _mlperf(found: Submissions) -> Table:
    """The best result of each experiment; nothing predicts them, since the inputs' lengths are not published."""
    rows = []
    for (model, system, mode), group in found.experiments().items():
        best = max(group, key=lambda row: row.output_rate / row.gpus)
        rows.append(
            [
                model,
                system,
                mode,
                str(len(group)),
                *_mlperf_cells(best),
                f"{best.gpu_seconds / 3600:.1f}",
                unsearchable(group),
            ]
        )
    heads = ["model", "system", "scenario", "results", "best tokens/s/GPU", "$/M output", "TTFT p99 (limit)"]
    heads += ["TPOT p99 (limit)", "GPU-hours", "why it cannot be searched"]
    return Table(title="MLPerf Inference v5.1 and v6.0, the best result of each experiment", heads=heads, rows=rows)


def _mlperf_cells(best: Submission) -> list[str]:
    paid = dollars_per_million(best.output_rate, best.gpus, gpu_price(best.system))
    latencies = ((best.ttft, best.ttft_limit), (best.tpot, best.tpot_limit))
    shown = [
        f"{milliseconds(found.at(99))} ({milliseconds(limit)})" if found and limit else "-"
        for found, limit in latencies
    ]
    return [rate(best.output_rate / best.gpus), dollars_in_words(paid), *shown]


def check_kind(path: Path) -> None:
    """Raises InputError for a file that no report can be written to as."""
    if path.suffix not in KINDS:
        raise InputError(f"{path}: unknown kind of report {path.suffix!r}; valid: {', '.join(KINDS)}")


def write(report: Fidelity, path: Path) -> None:
    """Raises InputError for a file that is neither .md nor .html, or cannot be written."""
    check_kind(path)
    as_page = path.suffix == ".html"
    beside = {} if as_page else plots(report, path.stem)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_html(report) if as_page else to_markdown(report, stem=path.stem), encoding="utf-8")
        for name, picture in beside.items():
            (path.parent / name).write_text(picture, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from None


def plots(report: Fidelity, stem: str) -> Mapping[str, str]:
    """A scatter plot for each figure and runner, by file name."""
    drawn = {
        f"{stem}-{figure}-{name.lower()}.svg": scatter(report.compared, name, figure, named=False)
        for figure in UNITS
        for name in RUNNERS
    }
    return {name: picture for name, picture in drawn.items() if picture}


def to_markdown(report: Fidelity, *, stem: str = "fidelity") -> str:
    """A page; its pictures are those of `plots`."""
    lines = ["# Fidelity: predictions against measured runs", "", f"Made by `{report.command}`.", ""]
    for note in report.notes:
        lines += [note, ""]
    lines += [*(f"![{name}]({name})" for name in plots(report, stem)), ""]
    for table in report.tables:
        lines += [f"## {table.title}", "", *markdown_rows(table), ""]
    return "\n".join(lines)


def to_html(report: Fidelity) -> str:
    """One page without scripts: the tables, and a scatter plot for each figure and runner."""
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Fidelity</title>",
        f"<style>{LOOK}</style>",
        "<h1>Predictions against measured runs</h1>",
        f"<p>Made by <code>{html.escape(report.command)}</code>.</p>",
        *(f"<p>{html.escape(note)}</p>" for note in report.notes),
    ]
    parts += [scatter(report.compared, name, figure) for figure in UNITS for name in RUNNERS]
    for table in report.tables:
        parts.append(f"<h2>{html.escape(table.title)}</h2><table>{_html_row(table.heads, 'th')}")
        parts += [_html_row(row, "td") for row in table.rows]
        parts.append("</table>")
    return "\n".join(parts)


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
