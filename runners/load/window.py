"""The window in which requests count: what was answered in it, and the measurement that this makes."""

import math
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Final

import numpy as np

from runners.load.stream import Answer
from runners.measurement import Measurement, Percentiles
from runners.runner import RunFailedError
from runners.workload.workload import Request
from search_spaces.engines.facts import Server

WRONG_LENGTHS: Final = "wrong lengths"

LENGTH_TOLERANCE: Final = 0.02
"""Share by which the mean input and output tokens may differ from what was asked."""

SURE_ERRORS: Final = 3.25
"""Standard errors above which the true throughput is in 1 of 200 runs (Student's t with 9 degrees of freedom)."""

UNCOUNTED: Final = (
    "the server's count of tokens (as many as asked for, or chunks where an answer ended before its limit)"
)

BATCHES: Final = 10
"""Consecutive answers are put into so many batches, to see how their throughput varies."""


@dataclass(slots=True, kw_only=True)
class Window:
    """Opens when the warm-up is over. `answers` are the counted ones, `asked` what each was asked for."""

    load: float
    gpus: int
    opened: float = math.inf
    in_flight_at_start: int = 0
    answers: list[Answer] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    failed: int = 0

    @property
    def is_open(self) -> bool:
        return self.opened < math.inf

    def open(self, now: float, in_flight: int) -> None:
        self.opened, self.in_flight_at_start = now, in_flight

    def take(self, request: Request, answer: Answer) -> None:
        self.answers.append(answer)
        self.asked.append(request)

    def backlog_growth(self, in_flight: int) -> int:
        return in_flight - self.in_flight_at_start

    def measurement(self, *, failed_requests: int, in_flight: int) -> Measurement:
        """Of what has been answered so far, with all requests that failed since the first."""
        answers = self.answers
        gaps = [np.diff(answer.chunks) for answer in answers if len(answer.chunks) > 1]
        tpot = [answer.tpot for answer in answers if answer.tpot is not None]
        return Measurement(
            load=self.load,
            gpus=self.gpus,
            duration_s=max(answer.ended for answer in answers) - self.opened,
            requests=len(answers),
            failed_requests=failed_requests,
            input_tokens=sum(answer.input_tokens for answer in answers),
            output_tokens=sum(answer.output_tokens for answer in answers),
            ttft=Percentiles.of([answer.ttft for answer in answers]),
            tpot=Percentiles.of(tpot or [0.0]),
            itl=Percentiles.of(np.concatenate(gaps) if gaps else [0.0]),
            e2e=Percentiles.of([answer.e2e for answer in answers]),
            backlog_growth=self.backlog_growth(in_flight),
            source="measured",
        )

    def optimistic(self, measured: Measurement) -> Measurement:
        """With a throughput that is higher than the true one in all but 1 of 100 runs or so."""
        return replace(measured, duration_s=measured.duration_s / (1 + SURE_ERRORS * self._rate_error()))

    def _rate_error(self) -> float:
        """Relative standard error of the throughput so far, from batches of consecutive answers."""
        size = len(self.answers) // BATCHES
        batches = [self.answers[i * size : (i + 1) * size] for i in range(BATCHES)]
        edges = [self.opened, *(batch[-1].ended for batch in batches)]
        tokens = np.array([sum(answer.output_tokens for answer in batch) for batch in batches])
        rates = tokens / np.maximum(np.diff(edges), 1e-9)
        return float(rates.std(ddof=1) / rates.mean() / math.sqrt(BATCHES))

    def check_lengths(self, server: Server, *, grain: int) -> None:
        """Raises RunFailedError for other lengths than asked for, where those of a prompt differ by whole `grain`s."""
        for name, (found, asked) in self._lengths().items():
            binds = name == "input" or server.keeps_lengths
            tolerance = max(LENGTH_TOLERANCE * asked, grain / 2 if name == "input" else 0)
            if binds and abs(found - asked) > tolerance:
                detail = f"{asked:.0f} {name} tokens were asked for on average, but there were {found:.0f}"
                raise RunFailedError(WRONG_LENGTHS, detail)

    def not_had(self, server: Server, *, exact: bool) -> tuple[str, ...]:
        """What a measurement of these answers lacks; `exact` says whether the tokens of prompts were counted."""
        counted = all(answer.counted for answer in self.answers)
        found, asked = self._lengths()["output"]
        other_lengths = any(a.output_tokens != r.output_tokens for a, r in zip(self.answers, self.asked, strict=True))
        longer = f"answers as long as asked for ({found:.1f} output tokens on average, of {asked:.1f})"
        lacks = {
            UNCOUNTED: not counted,
            "prompts of known length (a word counts as one token)": not (counted or exact),
            longer: other_lengths and not server.keeps_lengths,
        }
        return tuple(words for words, lacking in lacks.items() if lacking)

    def _lengths(self) -> dict[str, tuple[float, float]]:
        """Mean tokens of answers, found and asked for."""
        answers, asked = self.answers, self.asked
        return {
            "input": (fmean(a.input_tokens for a in answers), fmean(r.input_tokens for r in asked)),
            "output": (fmean(a.output_tokens for a in answers), fmean(r.output_tokens for r in asked)),
        }
