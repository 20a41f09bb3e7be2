"""Prompts of exact token counts, unlike each other but for the prefix that they share."""

import json
from collections.abc import Sequence

import numpy as np

WIDE_POOL = (1_000, 30_000)
NARROW_POOL = (100, 250)
"""Token ids that any vocabulary has: in byte-level and byte-fallback tokenizers they stand for single bytes."""


class TokenPrompts:
    """Prompts as lists of token ids, drawn from a range of the vocabulary."""

    def __init__(self, pool: tuple[int, int], *, shared_prefix_tokens: int, seed: Sequence[int]) -> None:
        self._rng = np.random.default_rng(seed)
        self._low, self._high = pool
        self._names = [str(token).encode() for token in range(*pool)]
        # Of the workload's seed alone: the same in every run, as a system prompt is.
        self._prefix = np.random.default_rng(seed[0]).integers(0, len(self._names), size=shared_prefix_tokens)

    def prompt(self, tokens: int) -> bytes:
        """JSON. One token at least is the prompt's own."""
        prefix = self._prefix[: tokens - 1]
        own = self._rng.integers(0, len(self._names), size=tokens - len(prefix))
        return b"[" + b",".join(map(self._names.__getitem__, np.concatenate([prefix, own]).tolist())) + b"]"


class TextPrompts:
    """Prompts as words of which each is one token; the chat template adds `overhead` tokens."""

    def __init__(
        self, words: Sequence[str], *, overhead: int, chat: bool, shared_prefix_tokens: int, seed: Sequence[int]
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._words = list(words)
        self._overhead = overhead
        self._chat = chat
        self._prefix = np.random.default_rng(seed[0]).integers(0, len(words), size=shared_prefix_tokens)

    def prompt(self, tokens: int) -> bytes:
        """JSON: a string, or the messages of a chat."""
        size = max(tokens - self._overhead, 1)
        prefix = self._prefix[: max(size - 1, 0)]
        own = self._rng.integers(0, len(self._words), size=size - len(prefix))
        text = "".join(self._words[index] for index in (*prefix, *own))
        return json.dumps([{"role": "user", "content": text}] if self._chat else text).encode()
