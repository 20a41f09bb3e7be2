"""Engine: what a server that is up says of itself: whether it answers, its release, its model and its metrics."""

import http.client
import itertools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from runners.load.prompts import FEWEST_WORDS, NARROW_POOL, WORDS
from runners.measurement import Observed
from search_spaces.engines.facts import MetricNames

ASK_S = 5.0
SCRAPE_EVERY_S = 1.0
FIRST_SCRAPE_S = 0.05

NO_TOKEN_IDS = (400, 422)
"""What servers answer to a prompt in a form that they do not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status and text of one answer."""

    status: int
    text: str


def ask(url: str, path: str, body: Mapping[str, object] | None = None, *, timeout_s: float = ASK_S) -> Reply:
    """GET, or POST of JSON. Raises OSError or http.client.HTTPException where nobody answers."""
    server = urlsplit(url)
    connection = http.client.HTTPConnection(server.hostname or "", server.port, timeout=timeout_s)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return Reply(status=response.status, text=response.read().decode("utf-8", errors="replace"))
    finally:
        connection.close()


def complete(url: str, model_name: str, *, prompt_tokens: int, timeout_s: float) -> Reply:
    """A real completion of one token: the only sign of life that a hung engine does not give.

    Its prompt is as long as asked: for a prompt of one word engines choose other code, and may die of it. Where a
    server takes no token ids, it is half as many words, but FEWEST_WORDS: a word is a token or a few.
    """
    body: dict[str, object] = {"model": model_name, "max_tokens": 1, "temperature": 0}
    ids = list(itertools.islice(itertools.cycle(range(*NARROW_POOL)), prompt_tokens))
    reply = ask(url, "/v1/completions", body | {"prompt": ids}, timeout_s=timeout_s)
    if reply.status not in NO_TOKEN_IDS:
        return reply
    words = itertools.islice(itertools.cycle(WORDS), max(prompt_tokens // 2, FEWEST_WORDS))
    return ask(url, "/v1/completions", body | {"prompt": "".join(words)}, timeout_s=timeout_s)


def model_served(url: str) -> str | None:
    """The name under which the server offers its model; None where it does not say."""
    with suppress(OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return str(json.loads(ask(url, "/v1/models").text)["data"][0]["id"])
    return None


def release(url: str) -> str | None:
    """The engine's release; None where the server does not say."""
    for path in ("/version", "/get_server_info"):
        with suppress(OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
            return str(json.loads(ask(url, path).text)["version"])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """One look at the metrics of all workers: counters are summed over them, gauges are the highest."""

    totals: Mapping[str, float] = field(default_factory=dict)
    highest: Mapping[str, float] = field(default_factory=dict)
    by_position: Mapping[int, float] = field(default_factory=dict)


def scrape(urls: Sequence[str], names: MetricNames) -> Scrape:
    """A worker that does not answer is left out."""
    totals: dict[str, float] = {}
    highest: dict[str, float] = {}
    by_position: dict[int, float] = {}
    for name, labels, value in _samples(urls):
        if name == names.accepted_by_position:
            position = int(labels["position"])
            by_position[position] = by_position.get(position, 0.0) + value
        totals[name] = totals.get(name, 0.0) + value
        highest[name] = max(highest.get(name, value), value)
    return Scrape(totals=totals, highest=highest, by_position=by_position)


def _samples(urls: Sequence[str]) -> Iterator[tuple[str, dict[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    for url in urls:
        with suppress(OSError, http.client.HTTPException, ValueError):
            for family in text_string_to_metric_families(ask(url, "/metrics").text):
                for sample in family.samples:
                    yield sample.name, sample.labels, sample.value


@dataclass(slots=True, kw_only=True)
class Watch:
    """Metrics of one window, looked at about every second."""

    names: MetricNames
    before: Scrape
    after: Scrape = field(default_factory=Scrape)
    kv_peak: float = 0.0
    waiting_peak: float = 0.0

    def look(self, seen: Scrape) -> None:
        self.after = seen
        self.kv_peak = max(self.kv_peak, seen.highest.get(self.names.kv_usage, 0.0))
        self.waiting_peak = max(self.waiting_peak, seen.highest.get(self.names.waiting, 0.0))

    @property
    def saw_any(self) -> bool:
        """Whether the engine gave one of the metrics that it is known to have."""
        return any(name in self.after.totals for name in (self.names.kv_usage, self.names.waiting))

    @property
    def preemptions(self) -> int:
        return round(self._grown(self.names.preemptions))

    def observed(self, *, watts: float | None, versions: tuple[tuple[str, str], ...]) -> Observed:
        names = self.names
        return Observed(
            queue_time_s=self._ratio(f"{names.queue_seconds}_sum", f"{names.queue_seconds}_count"),
            waiting_peak=round(self.waiting_peak) if names.waiting in self.after.totals else None,
            prefix_cache_hits=self._ratio(names.prefix_hits, names.prefix_queries),
            acceptance=self._acceptance(),
            watts=watts,
            versions=versions,
        )

    def _acceptance(self) -> tuple[float, ...]:
        drafts = self._grown(self.names.drafts)
        if not drafts:
            return ()
        positions = sorted(self.after.by_position)
        grown = (self.after.by_position[at] - self.before.by_position.get(at, 0.0) for at in positions)
        return tuple(accepted / drafts for accepted in grown)

    def _ratio(self, part: str, whole: str) -> float | None:
        counted = self._grown(whole)
        return self._grown(part) / counted if counted else None

    def _grown(self, name: str) -> float:
        return self.after.totals.get(name, 0.0) - self.before.totals.get(name, 0.0)


@contextmanager
def watched(urls: Sequence[str], names: MetricNames, *, every_s: float = SCRAPE_EVERY_S) -> Iterator[Watch]:
    """Looks at the metrics in a thread of its own until the block ends: at once, and then ever less often."""
    watch = Watch(names=names, before=scrape(urls, names))
    over = threading.Event()

    def keep_looking() -> None:
        pause = min(FIRST_SCRAPE_S, every_s)
        while not over.wait(pause):
            watch.look(scrape(urls, names))
            pause = min(2 * pause, every_s)

    thread = threading.Thread(target=keep_looking, name="metrics", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
    watch.look(scrape(urls, names))
