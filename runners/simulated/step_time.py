"""StepTimes: seconds of one engine iteration, interpolated over a small grid of measured points."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Curve:
    """A piecewise linear function through (x, y) points; beyond the last point its last slope goes on."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.xs) != len(self.ys) or len(self.xs) < 2:  # noqa: PLR2004 a slope needs two points
            raise ValueError(f"a curve needs two or more points, but got {len(self.xs)} x and {len(self.ys)} y")
        if any(after <= before for before, after in pairwise(self.xs)):
            raise ValueError(f"a curve's x must increase, but got {self.xs}")

    def line(self, x: float) -> tuple[float, float]:
        """(value, slope) at x."""
        index = min(max(bisect_right(self.xs, x) - 1, 0), len(self.xs) - 2)
        x0, y0 = self.xs[index], self.ys[index]
        slope = (self.ys[index + 1] - y0) / (self.xs[index + 1] - x0)
        return y0 + slope * (x - x0), slope

    def __call__(self, x: float) -> float:
        return self.line(x)[0]


@dataclass(frozen=True, slots=True)
class Surface:
    """A bilinear function over a grid: `rows[i]` is the curve over y at xs[i]."""

    xs: tuple[float, ...]
    rows: tuple[Curve, ...]

    def at(self, x: float) -> Curve:
        """The curve over y at this x."""
        if x <= self.xs[0]:
            return self.rows[0]
        index = min(bisect_right(self.xs, x) - 1, len(self.xs) - 2)
        share = (x - self.xs[index]) / (self.xs[index + 1] - self.xs[index])
        low, high = self.rows[index], self.rows[index + 1]
        mixed = zip(low.ys, high.ys, strict=True)
        return Curve(low.xs, tuple(a + share * (b - a) for a, b in mixed))

    def __call__(self, x: float, y: float) -> float:
        return self.at(x)(y)


LEAST_SHARE = 0.1
"""A correction leaves at least this share of a step: a smaller one would be no correction of kernel times."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTimes:
    """Seconds of one iteration of one scheduler's batch, by what is in the batch.

    An iteration is work that depends on the number of tokens alone (projections, experts, communication) and
    attention, which depends on contexts. The grids hold, in seconds:

    - prefill_shared(tokens), decode_shared(tokens): the first kind, in a pass with prompts and without;
    - prefill_attention(prompts, prompt length): attention of that many whole prompts;
    - decode_attention(sequences, context): attention of one query token for each sequence;
    - draft(sequences): one draft token for each sequence.

    `verify_intensity` says how compute-bound attention over the KV cache is with one query token (1 = exactly
    balanced with memory, see `decode`). `prefill_host` is the host's time to issue a pass with prompts, which the GPU
    works through meanwhile: no such pass is shorter. `tokenization` is the host's time for each token of a prompt,
    before the scheduler sees the request, and `request_host` for each request, whatever its length.
    """

    prefill_shared: Curve
    decode_shared: Curve
    prefill_attention: Surface
    decode_attention: Surface
    draft: Curve
    verify_intensity: float
    prefill_host: float = 0.0
    tokenization: float = 0.0
    request_host: float = 0.0
    _decode: dict[tuple[int, int, int], "DecodeTimes"] = field(default_factory=dict, repr=False)

    def prefill(self, chunks: Sequence[tuple[int, int, int]], *, decoding_tokens: int = 0) -> float:
        """Seconds for prompt chunks (tokens done before, tokens now, prompt length) and the shared work of
        `decoding_tokens` that ride along (their attention is not included).

        A chunk takes its part of its prompt's attention by causal area; prompts in one pass share the efficiency of
        a batch of that many.
        """
        whole = self.prefill_attention.at(len(chunks))
        tokens = decoding_tokens
        attention = 0.0
        for done, now, prompt in chunks:
            tokens += now
            attention += whole(prompt) * now * (2 * done + now) / (prompt * prompt)
        return max(self.prefill_shared(tokens) + attention / len(chunks), self.prefill_host)

    def corrected(
        self, *, prefill: float = 1.0, decode: float = 1.0, iteration_s: float = 0.0, request_s: float = 0.0
    ) -> "StepTimes":
        """Passes with prompts take `prefill` times as long, decode steps and drafts `decode` times.

        Every iteration takes `iteration_s` seconds more (less, where negative), but never under LEAST_SHARE of what it
        took; every request waits `request_s` more before the scheduler sees it.
        """
        return replace(
            self,
            prefill_shared=_scaled(self.prefill_shared, prefill, iteration_s),
            prefill_attention=_scaled_surface(self.prefill_attention, prefill),
            prefill_host=max(self.prefill_host * prefill + iteration_s, 0.0) if self.prefill_host else 0.0,
            decode_shared=_scaled(self.decode_shared, decode, iteration_s),
            decode_attention=_scaled_surface(self.decode_attention, decode),
            draft=_scaled(self.draft, decode, 0.0),
            request_host=max(self.request_host + request_s, 0.0),
            _decode={},
        )

    def decode(self, sequences: int, draft_length: int = 0, *, drafted: int = 0) -> "DecodeTimes":
        """Step times of a batch that verifies `draft_length` draft tokens, `drafted` of them computed on the GPU.

        A verification passes draft_length + 1 query tokens for each sequence. Work that scales with query tokens is
        taken at sequences x (draft_length + 1). The KV cache is read once for all query tokens of a sequence; that
        part grows only where the extra queries make it compute-bound: max(1, (draft_length + 1) x verify_intensity).
        """
        key = (sequences, draft_length, drafted)
        if key not in self._decode:
            self._decode[key] = self._decode_times(*key)
        return self._decode[key]

    def _decode_times(self, sequences: int, draft_length: int, drafted: int) -> "DecodeTimes":
        queries = sequences * (draft_length + 1)
        attention = self.decode_attention.at(sequences)
        if draft_length:
            least = attention.ys[0]
            growth = max(1.0, (draft_length + 1) * self.verify_intensity) / max(1.0, self.verify_intensity)
            widened = self.decode_attention.at(queries).ys[0]
            attention = Curve(attention.xs, tuple(widened + growth * max(0.0, y - least) for y in attention.ys))
        return DecodeTimes(
            shared=self.decode_shared(queries),
            drafting=drafted * self.draft(sequences),
            attention=attention,
        )


@dataclass(frozen=True, slots=True)
class DecodeTimes:
    """One decode step of a fixed batch: `shared` seconds plus attention, a curve over the mean context.

    `drafting` seconds are part of every step, also one that carries prompts along.
    """

    shared: float
    drafting: float
    attention: Curve

    def line(self, context: float) -> tuple[float, float]:
        """(seconds, seconds for each further token of context) of a decode-only step."""
        value, slope = self.attention.line(context)
        return self.shared + self.drafting + value, max(slope, 0.0)


def _scaled(curve: Curve, factor: float, offset: float) -> Curve:
    return Curve(curve.xs, tuple(max(y * factor + offset, y * LEAST_SHARE) for y in curve.ys))


def _scaled_surface(surface: Surface, factor: float) -> Surface:
    return Surface(surface.xs, tuple(_scaled(row, factor, 0.0) for row in surface.rows))
