"""A server's own latency histograms, from its /metrics page: an independent check of what a client measured."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from runners.measurement import Metric

NAMES: Final[Mapping[str, Metric]] = {
    "time_to_first_token_seconds": "ttft",
    "request_time_per_output_token_seconds": "tpot",
    "e2e_request_latency_seconds": "e2e",
}
"""As the engines call them, each with a prefix of its own (`vllm:`, `sglang:`, `trtllm_`).

Their `time_per_output_token_seconds` and `inter_token_latency_seconds` are of single tokens or chunks: not TPOT.
"""

_LINE = re.compile(rf"^[a-z0-9]+[:_]({'|'.join(NAMES)})_(sum|count)(?:\{{.*\}})? ([0-9.eE+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sum (seconds) and count of each latency since the server started."""

    sums: Mapping[Metric, float]
    counts: Mapping[Metric, float]

    @classmethod
    def of(cls, pages: Iterable[str]) -> "Totals":
        """Of the /metrics pages of one server or several; other lines are passed over."""
        sums: dict[Metric, float] = {}
        counts: dict[Metric, float] = {}
        for page in pages:
            for name, part, value in _LINE.findall(page):
                totals = sums if part == "sum" else counts
                totals[NAMES[name]] = totals.get(NAMES[name], 0.0) + float(value)
        return cls(sums=sums, counts=counts)

    def means_since(self, earlier: "Totals") -> dict[Metric, float]:
        """Mean seconds of what was observed in between; empty where the server keeps no histograms."""
        return {
            metric: (total - earlier.sums.get(metric, 0.0)) / observed
            for metric, total in self.sums.items()
            if (observed := self.counts.get(metric, 0.0) - earlier.counts.get(metric, 0.0)) > 0
        }
