"""What is asked of the server: the `workload` of an experiment file."""

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from runners.workload.workload import Lengths, Shape, Trace, Workload
from search_spaces.config import MAX_DRAFT_LENGTH
from search_spaces.errors import InputError
from search_spaces.models.laws import broken_series
from search_spaces.strict_yaml import SHOWN, shown
from tuner.scenario.experiment.part import MOST_REQUESTS, MOST_TOKENS, Part, broken, known, properties

SHAPES: tuple[Shape, ...] = get_args(Shape)


def _tokens_per_step(values: list[float]) -> list[float]:
    for law in broken_series(values):
        raise broken(law)
    return values


class LengthRange(Part):
    """Token counts, uniform from low to high, both included."""

    low: int = Field(ge=1, le=MOST_TOKENS, description="the shortest, in tokens")
    high: int = Field(ge=1, le=MOST_TOKENS, description="the longest, in tokens")

    @model_validator(mode="after")
    def _ordered(self) -> "LengthRange":
        if self.low > self.high:
            raise broken(f"`low <= high` must hold, but got {self.low} and {self.high}")
        return self

    @property
    def lengths(self) -> Lengths:
        return Lengths(low=self.low, high=self.high)


def _length_range(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_TOKENS:
            raise broken(f"`1 <= tokens <= {MOST_TOKENS}` must hold, but got {shown(value)}")
        return {"low": value, "high": value}
    if isinstance(value, dict):
        return value
    raise broken(f"must be a whole number, or a mapping with `low` and `high`, but got {shown(value)}")


TokenCounts = Annotated[
    LengthRange,
    BeforeValidator(_length_range, json_schema_input_type=Annotated[int, Field(ge=1, le=MOST_TOKENS)] | LengthRange),
]
Drafter = Literal["mtp", "eagle3", "ngram"]
DRAFTERS: tuple[Drafter, ...] = get_args(Drafter)
TokensPerStep = Annotated[
    list[float], Field(min_length=1, max_length=MAX_DRAFT_LENGTH), AfterValidator(_tokens_per_step)
]
Acceptance = Annotated[
    dict[Annotated[Drafter, known("speculation method", lambda: DRAFTERS)], TokensPerStep],
    Field(
        json_schema_extra=properties(lambda: DRAFTERS),
        description="mean tokens for each step at draft lengths 1, 2, ..., measured on this workload's data",
    ),
]
RequestCount = Annotated[
    int, Field(ge=50, le=MOST_REQUESTS, description="requests measured at each load, after the warm-up")
]
SharedPrefix = Annotated[
    int, Field(ge=0, le=MOST_TOKENS, description="tokens that open every prompt, found in the prefix cache")
]


class SyntheticWorkload(Part):
    """Lengths drawn at random, arriving in a closed loop or as a Poisson process."""

    kind: ClassVar[str] = "arrivals: closed_loop or poisson"

    arrivals: Annotated[Literal["closed_loop", "poisson"], known("arrivals", lambda: SHAPES)] = Field(
        description="closed_loop, poisson or trace"
    )
    input_tokens: TokenCounts = Field(description="prompt length: a number, or low and high")
    output_tokens: TokenCounts = Field(description="answer length: a number, or low and high")
    requests: RequestCount = 400
    shared_prefix_tokens: SharedPrefix = 0
    acceptance: Acceptance = Field(default_factory=dict)

    def workload(self, directory: Path, seed: int) -> Workload:  # noqa: ARG002 a trace needs its directory
        return Workload(
            shape=self.arrivals,
            input_tokens=self.input_tokens.lengths,
            output_tokens=self.output_tokens.lengths,
            requests=self.requests,
            shared_prefix_tokens=self.shared_prefix_tokens,
            seed=seed,
        )


class RecordedWorkload(Part):
    """Arrivals and lengths of a recorded trace."""

    kind: ClassVar[str] = "arrivals: trace"

    arrivals: Literal["trace"]
    trace: str = Field(
        min_length=1, description="CSV of TIMESTAMP, ContextTokens, GeneratedTokens, relative to this file"
    )
    requests: RequestCount = 400
    shared_prefix_tokens: SharedPrefix = 0
    acceptance: Acceptance = Field(default_factory=dict)

    def workload(self, directory: Path, seed: int) -> Workload:
        """Raises InputError for a trace that is missing or has a broken line."""
        path = directory / self.trace
        if not os.path.isfile(path):  # noqa: PTH113 Path.is_file raises for names that no file can have
            raise InputError(f"no such file: {shown(str(path)[-SHOWN:])}")
        trace = Trace.read(path)
        return Workload(
            shape="trace",
            input_tokens=Lengths(low=int(trace.input_tokens.min()), high=int(trace.input_tokens.max())),
            output_tokens=Lengths(low=int(trace.output_tokens.min()), high=int(trace.output_tokens.max())),
            trace=trace,
            requests=self.requests,
            shared_prefix_tokens=self.shared_prefix_tokens,
            seed=seed,
        )


def workload_tag(value: object) -> str:
    if isinstance(value, dict):
        return "<recorded>" if value.get("arrivals") == "trace" else "<synthetic>"
    return "<recorded>" if isinstance(value, RecordedWorkload) else "<synthetic>"
