"""Recording: one published measurement of a real deployment, and the nouns that hold many."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from runners.workload.workload import Workload
from search_spaces.config import Batching, ServingConfig

SMALLEST_SCENARIO = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One published run: what was served, how it was loaded, and the mean latencies that were measured, in seconds.

    `config.engine` is the nearest release with kernel data; `release` is what really ran. Batching limits and the KV
    cache's format are those of the run's published script (see `launch`). `suspect` says why the row is not
    to be trusted; it is empty where nothing is known against it. `changed` names the rules that corrected it.
    """

    model: str
    system: str
    config: ServingConfig
    workload: Workload
    concurrency: int
    ttft: float
    tpot: float
    release: str
    date: dt.date | None
    provenance: str
    suspect: str = ""
    changed: tuple[str, ...] = ()

    @property
    def output_rate(self) -> float:
        """Output tokens/s of the closed loop: concurrency x output / (TTFT + TPOT x (output - 1))."""
        return self.concurrency * closed_loop_rate(self.ttft, self.tpot, self.workload.output_tokens.mean)

    @property
    def scenario(self) -> tuple[str, str, int, int]:
        """Model, system, nominal input and output tokens."""
        return self.model, self.system, self.workload.input_tokens.high, self.workload.output_tokens.high

    @property
    def seconds(self) -> float:
        """How long the load took to send and answer: its requests through the closed loop, start-up excluded."""
        return self.workload.requests * self.workload.output_tokens.mean / self.output_rate


def closed_loop_rate(ttft: float, tpot: float, output_tokens: float) -> float:
    """Output tokens/s of one of the closed loop's requests in flight, by Little's law.

    About 3 % above what is measured: the run's start and end are not full.
    """
    return output_tokens / (ttft + tpot * (output_tokens - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """Every row that can be replayed, with counts of rows by the rule that dropped or corrected them."""

    rows: tuple[Recording, ...]
    total: int
    dropped: Mapping[str, int]
    changed: Mapping[str, int]

    @classmethod
    def of(cls, rows: Iterable[Recording]) -> "Recordings":
        """Some rows, as if no others had been recorded."""
        kept = tuple(rows)
        return cls(rows=kept, total=len(kept), dropped={}, changed={})

    @property
    def clean(self) -> tuple[Recording, ...]:
        """Rows with nothing known against them."""
        return tuple(row for row in self.rows if not row.suspect)

    @property
    def suspects(self) -> Mapping[str, int]:
        """Suspect rows by reason."""
        return Counter(row.suspect for row in self.rows if row.suspect)

    def scenarios(self) -> Mapping[tuple[str, str, int, int], tuple[Recording, ...]]:
        """Clean rows by model, system, input and output tokens, where at least eight configurations were measured."""
        groups: dict[tuple[str, str, int, int], list[Recording]] = defaultdict(list)
        for row in self.clean:
            groups[row.scenario].append(row)
        return {
            key: tuple(rows)
            for key, rows in sorted(groups.items())
            if len({served(row.config) for row in rows}) >= SMALLEST_SCENARIO
        }


def served(config: ServingConfig) -> ServingConfig:
    """What of a configuration the rows tell apart: batching limits follow from the load there."""
    pool = config.disaggregation
    return replace(
        config,
        batching=Batching(),
        disaggregation=replace(pool, prefill_batching=Batching()) if pool else None,
    )
