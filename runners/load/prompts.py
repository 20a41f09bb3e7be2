"""Prompts of exact token counts, unlike each other but for the prefix that they share."""

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runners.load.stream import Body, Client, Failure
from runners.runner import RunFailedError
from runners.workload.workload import Workload

WIDE_POOL = (1_000, 30_000)
NARROW_POOL = (100, 250)
"""Token ids that any vocabulary has: in byte-level and byte-fallback tokenizers they stand for single bytes."""

WORDS = tuple(
    f" {word}"
    for line in (
        "the of and to in is that for it as was with be by on not he his but at are this have from or had an they",
        "which one you were her all she there would their we him been has when who will more no if out so said what",
        "up its about into than them can only other new some could time these two may then do first any my now such",
        "like our over man me even most made after also did many before must through back years where much your way",
    )
    for word in line.split()
)
"""Common English words: with the space before them, each is one token to nearly every tokenizer."""

FEWEST_WORDS = 8
REPEATS = 32


class Prompts(Protocol):
    """Makes prompts, each unlike the others, whose lengths differ by `grain` tokens or multiples of it.

    Not `exact` where nobody has counted their tokens.
    """

    exact: bool
    grain: int

    def prompt(self, tokens: int) -> bytes:
        """A prompt of so many tokens, the chat template's included, as JSON."""
        ...


async def prepare(client: Client, urls: Sequence[str], workload: Workload, *, nonce: int) -> Prompts:
    """Prompts that all servers take; the shared prefix is in their caches afterwards.

    Token ids where a server takes them (completions of vLLM, SGLang and TensorRT-LLM), from as wide a range as its
    vocabulary has. Else text of words whose token counts are calibrated: the server's own `usage` of whole answers says
    how many tokens a word has, and the template; where it gives none, a word is taken for a token. Raises
    RunFailedError with what the server answers to a first request.
    """
    seed = (workload.seed, nonce)
    names = (f"servetune-{nonce:x}-before-{number}" for number in itertools.count())
    refused: Failure | None = None
    if client.endpoint == "completions":
        for pool in (WIDE_POOL, NARROW_POOL):
            prompts = TokenPrompts(pool, shared_prefix_tokens=workload.shared_prefix_tokens, seed=seed)
            refused = await _first_request(client, urls, workload, prompts, names)
            if refused is None:
                return prompts
            if refused.cause not in ("HTTP 400", "HTTP 422"):
                raise RunFailedError(refused.cause, refused.detail)
    words = await calibrate(client, urls[0], names)
    text = TextPrompts(
        words,
        chat=client.endpoint == "chat",
        shared_prefix_tokens=workload.shared_prefix_tokens,
        seed=seed,
    )
    refused = await _first_request(client, urls, workload, text, names)
    if refused is not None:
        raise RunFailedError(refused.cause, refused.detail)
    return text


async def _first_request(
    client: Client, urls: Sequence[str], workload: Workload, prompts: Prompts, names: Iterator[str]
) -> Failure | None:
    tokens = max(64, workload.shared_prefix_tokens + 1)
    body = Body(name=next(names), prompt=prompts.prompt(tokens), input_tokens=tokens, output_tokens=1)
    outcomes = await asyncio.gather(*(client.ask(url, body) for url in urls))
    return next((outcome for outcome in outcomes if isinstance(outcome, Failure)), None)


class TokenPrompts:
    """Prompts as lists of token ids, drawn from a range of the vocabulary."""

    exact = True
    grain = 1

    def __init__(self, pool: tuple[int, int], *, shared_prefix_tokens: int, seed: Sequence[int]) -> None:
        self._rng = np.random.default_rng(seed)
        self._names = [str(token).encode() for token in range(*pool)]
        # Of the workload's seed alone: the same in every run, as a system prompt is.
        self._prefix = np.random.default_rng(seed[0]).integers(0, len(self._names), size=shared_prefix_tokens)

    def prompt(self, tokens: int) -> bytes:
        """One token at least is the prompt's own."""
        prefix = self._prefix[: tokens - 1]
        own = self._rng.integers(0, len(self._names), size=tokens - len(prefix))
        return b"[" + b",".join(map(self._names.__getitem__, np.concatenate([prefix, own]).tolist())) + b"]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Words of `tokens` tokens each, in a template of `overhead`; not `exact` where the server does not count."""

    words: tuple[str, ...]
    tokens: int
    overhead: int
    exact: bool = True


class TextPrompts:
    """Prompts as text, or as the only message of a chat."""

    def __init__(self, words: Words, *, chat: bool, shared_prefix_tokens: int, seed: Sequence[int]) -> None:
        self.exact, self.grain = words.exact, words.tokens
        self._rng = np.random.default_rng(seed)
        self._words = words
        self._chat = chat
        shared = max(shared_prefix_tokens - words.overhead, 0) // words.tokens
        self._prefix = np.random.default_rng(seed[0]).integers(0, len(words.words), size=shared)

    def prompt(self, tokens: int) -> bytes:
        """One word at least is the prompt's own."""
        size = max(round((tokens - self._words.overhead) / self._words.tokens), 1)
        prefix = self._prefix[: size - 1]
        own = self._rng.integers(0, len(self._words.words), size=size - len(prefix))
        return _text("".join(self._words.words[index] for index in (*prefix, *own)), chat=self._chat)


def _text(text: str, *, chat: bool) -> bytes:
    return json.dumps([{"role": "user", "content": text}] if chat else text).encode()


async def calibrate(client: Client, url: str, names: Iterator[str]) -> Words:
    """How many tokens words have, by the server's own count. Raises RunFailedError where it does not answer.

    A word repeated n times makes overhead + n x its tokens. `names` are of requests: servers may take two of one name
    for one request.
    """
    once = await _count(client, url, WORDS[0] * REPEATS, next(names))
    thrice = await _count(client, url, WORDS[0] * 3 * REPEATS, next(names))
    if once is None or thrice is None:
        return Words(words=WORDS, tokens=1, overhead=0, exact=False)
    overhead = once - round((thrice - once) / 2)
    by_tokens: dict[int, list[str]] = defaultdict(list)
    for start in range(0, len(WORDS), FEWEST_WORDS):
        some = WORDS[start : start + FEWEST_WORDS]
        counts = await asyncio.gather(*(_count(client, url, word * REPEATS, next(names)) for word in some))
        for word, count in zip(some, counts, strict=True):
            if count is not None and (count - overhead) % REPEATS == 0:
                by_tokens[(count - overhead) // REPEATS].append(word)
    for tokens, words in sorted(by_tokens.items()):
        if tokens and len(words) >= FEWEST_WORDS:
            return Words(words=tuple(words), tokens=tokens, overhead=overhead)
    raise RunFailedError("prompts", "no words of equal token counts were found: is `usage` right?")


async def _count(client: Client, url: str, text: str, name: str) -> int | None:
    prompt, tokens = _text(text, chat=client.endpoint == "chat"), len(text.split())
    count = await client.count(url, Body(name=name, prompt=prompt, input_tokens=tokens, output_tokens=1))
    if isinstance(count, Failure):
        raise RunFailedError(count.cause, count.detail)
    return count
