"""Prompts of exact token counts, for servers with and without token ids."""

import asyncio
import itertools
import json

import pytest

from runners.load.prompts import WORDS, TextPrompts, TokenPrompts, Words, calibrate, prepare
from runners.load.stream import Answer, Body, Failure
from runners.runner import RunFailedError
from runners.workload.workload import Lengths, Workload


class Tokenizing:
    """Answers as a server would whose tokenizer makes `tokens(word)` of each word, in a template of `overhead`."""

    def __init__(self, tokens, *, overhead=0, endpoint="completions", takes_ids=True, off=lambda _count: 0):
        self.tokens, self.overhead, self.takes_ids, self.off = tokens, overhead, takes_ids, off
        self.endpoint = endpoint
        self.counted = []
        self.names = []

    async def ask(self, _url: str, body: Body):
        count = await self.count(_url, body)
        if isinstance(count, Failure):
            return count
        return Answer(name=body.name, sent=0, chunks=(1.0,), input_tokens=count, output_tokens=1)

    async def count(self, _url: str, body: Body):
        self.names.append(body.name)
        prompt = json.loads(body.prompt)
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            if not self.takes_ids:
                return Failure(sent=0, ended=0, cause="HTTP 400", detail="prompt must be text")
            count = len(prompt)
        else:
            text = prompt if isinstance(prompt, str) else prompt[0]["content"]
            count = self.overhead + sum(self.tokens(word) for word in text.split())
        count += self.off(count)
        self.counted.append(count)
        return count


def workload(**changes):
    lengths = Lengths(low=10, high=10)
    return Workload(input_tokens=lengths, output_tokens=lengths, **changes)


def counts(server, lengths, **changes):
    prompts = asyncio.run(prepare(server, ["http://there"], workload(**changes), nonce=1))
    bodies = [Body(name="", prompt=prompts.prompt(length), input_tokens=length, output_tokens=1) for length in lengths]
    return [asyncio.run(server.ask("", body)).input_tokens for body in bodies]


def test_token_ids_where_a_server_takes_them():
    assert counts(Tokenizing(len), [1, 10, 5000]) == [1, 10, 5000]


def test_text_where_it_does_not():
    server = Tokenizing(lambda word: 1 if len(word) < 5 else 2, overhead=1, takes_ids=False)
    assert counts(server, [10, 500]) == [10, 500]
    named = [name for name in server.names if name]
    assert len(named) == len(set(named)), "a server may take two requests of one name for one"


def test_a_chats_template_is_part_of_the_prompt():
    assert counts(Tokenizing(lambda _word: 1, overhead=17, endpoint="chat"), [20, 300]) == [20, 300]


def test_words_of_several_tokens_come_as_near_as_they_can():
    found = counts(Tokenizing(lambda _word: 3, overhead=2, endpoint="chat"), [100, 101, 102])
    assert all(abs(count - asked) <= 1.5 for count, asked in zip(found, [100, 101, 102], strict=True))


def test_counts_that_make_no_sense_are_told():
    extra = itertools.count()
    server = Tokenizing(lambda _word: 1, endpoint="chat", off=lambda _count: next(extra))
    with pytest.raises(RunFailedError, match="no words of equal token counts"):
        asyncio.run(calibrate(server, "http://there", map(str, itertools.count())))


def test_a_word_is_taken_for_a_token_where_a_server_counts_nothing():
    class Silent(Tokenizing):
        async def count(self, _url, body):
            return None

        async def ask(self, _url, body):
            return Answer(name=body.name, sent=0, chunks=(1.0,), input_tokens=1, output_tokens=1, counted=False)

    prompts = asyncio.run(prepare(Silent(len, endpoint="chat"), ["http://there"], workload(), nonce=1))
    assert (prompts.exact, prompts.grain) == (False, 1)
    (message,) = json.loads(prompts.prompt(40))
    assert len(message["content"].split()) == 40


def test_an_error_other_than_a_refused_prompt_is_no_reason_to_try_another():
    class Broken(Tokenizing):
        async def ask(self, url, body):
            self.counted.append(1)
            return Failure(sent=0, ended=0, cause="HTTP 503", detail="loading")

    server = Broken(len)
    with pytest.raises(RunFailedError, match="HTTP 503: loading"):
        asyncio.run(prepare(server, ["http://there"], workload(), nonce=1))
    assert len(server.counted) == 1


@pytest.mark.parametrize("kind", ["tokens", "text"])
def test_the_prefix_is_the_same_in_every_run_and_the_rest_in_none(kind):
    def prompt(nonce):
        options = {"shared_prefix_tokens": 20, "seed": (3, nonce)}
        if kind == "tokens":
            return json.loads(TokenPrompts((100, 250), **options).prompt(40))
        words = Words(words=WORDS, tokens=1, overhead=0)
        return json.loads(TextPrompts(words, chat=False, **options).prompt(40)).split()

    first, second = prompt(1), prompt(2)
    assert len(first) == len(second) == 40
    assert first[:20] == second[:20]
    assert first[20:] != second[20:]


def test_a_prefix_longer_than_the_prompt_leaves_a_token_of_its_own():
    prompts = TokenPrompts((0, 100_000), shared_prefix_tokens=50, seed=(0, 0))
    first, second = json.loads(prompts.prompt(8)), json.loads(prompts.prompt(8))
    assert first[:7] == second[:7]
    assert first[7] != second[7]
