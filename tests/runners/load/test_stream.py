"""Streams as servers really send them: which chunks are tokens, and how many there are."""

import json

import pytest

from runners.load.connection import StreamError
from runners.load.stream import Body, Reading

BODY = Body(name="one", prompt=b"[]", input_tokens=7, output_tokens=3)
USAGE = {"prompt_tokens": 5, "completion_tokens": 3}


def chunk(text, finish=None, **more):
    reason = {} if finish is None else {"finish_reason": finish}
    return {"choices": [{"index": 0, "text": text, **reason}], **more}


def read(*events):
    """The answer of which one event comes each second, from the first second on."""
    reading = Reading(lambda _now: None)
    for second, event in enumerate(events, start=1):
        text = event if isinstance(event, str) else json.dumps(event)
        reading.feed(f"data: {text}\n\n".encode(), float(second))
    return reading.answer(BODY, 0.0)


def test_vllm_sends_its_counts_after_the_last_token():
    answer = read(
        {"choices": [{"index": 0, "text": "a", "finish_reason": None}]},
        {"choices": [{"index": 0, "text": "b", "finish_reason": None}]},
        chunk("", "length"),
        {"choices": [], "usage": USAGE},
        "[DONE]",
    )
    assert answer.chunks == (1, 2, 3), "a token's text may be empty"
    assert (answer.input_tokens, answer.output_tokens, answer.counted) == (5, 3, True)


def test_transformers_sends_its_counts_with_the_end_and_no_mark_after_it():
    answer = read(chunk("a"), chunk("b"), chunk("c"), chunk("", "length", usage=USAGE))
    assert answer.chunks == (1, 2, 3)
    assert (answer.input_tokens, answer.output_tokens, answer.counted) == (5, 3, True)


def test_an_answer_of_one_token_may_be_nothing_but_its_end():
    assert read(chunk("", "length", usage={"prompt_tokens": 5, "completion_tokens": 1})).chunks == (1,)
    assert read(chunk("", "length"), "[DONE]").chunks == (1,)


@pytest.mark.parametrize(("reason", "tokens"), [("length", 3), ("stop", 2)])
def test_without_counts_an_answer_at_its_limit_has_what_was_asked_for_and_a_shorter_one_its_chunks(reason, tokens):
    answer = read(chunk("a"), chunk("b"), chunk("", reason))
    assert answer.chunks == (1, 2)
    assert (answer.input_tokens, answer.output_tokens, answer.counted) == (7, tokens, False)


def test_counts_that_are_no_numbers_are_none():
    assert not read(chunk("a"), chunk("b", "stop", usage={"prompt_tokens": None, "completion_tokens": 2})).counted


def test_a_chat_opens_with_its_role_and_may_end_with_nothing():
    def delta(said, finish=None, **more):
        return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}], **more}

    answer = read(delta({"role": "assistant"}), delta({"content": "a"}), delta({}, "length", usage=USAGE))
    assert answer.chunks == (2,)


def test_a_stream_that_ends_without_a_reason_broke():
    with pytest.raises(StreamError, match="it ended after 2 chunks without") as caught:
        read(chunk("a"), chunk("b"))
    assert caught.value.cause == "stream broke"


def test_what_is_no_event_of_openai_is_named():
    with pytest.raises(StreamError, match="hello") as caught:
        read("hello")
    assert caught.value.cause == "not an OpenAI answer"
    with pytest.raises(StreamError) as caught:
        read(chunk("a"), {"error": {"message": "out of memory"}})
    assert caught.value.cause == "error in the stream"
