"""Chat: answers in order, concurrently, and refused in a sentence when they are none."""

from __future__ import annotations

import pytest

from treegym.errors import BackendError, ConfigError
from treegym.models.remote import ChatClient, Journal


def ask(text):
    return [{"role": "system", "content": "be short"}, {"role": "user", "content": text}]


def test_answers_come_in_order_and_are_the_models(server, fake, contexts):
    chat = ChatClient(server, concurrency=3)
    texts = [fake.tokenizer.decode(context) for context in contexts]
    told = chat.complete_many([ask(text) for text in texts], max_tokens=8)
    # A model without a chat template answers the last user message.
    assert told == [fake.tokenizer.decode(row) for row in fake.generate(contexts, max_new_tokens=8)]
    assert chat.complete(ask(texts[1]), max_tokens=8) == told[1]


def test_how_an_answer_ended_is_told(server, fake, contexts):
    chat = ChatClient(server)
    texts = [fake.tokenizer.decode(context) for context in contexts]
    ends = {answer.finish_reason for answer in chat.answers([ask(t) for t in texts], max_tokens=40)}
    assert ends <= {"stop", "length"}
    assert chat.answers([ask(texts[0])], max_tokens=1)[0].finish_reason == "length"


def test_stop_strings_cut_the_answer(server, fake, contexts):
    chat = ChatClient(server)
    text = fake.tokenizer.decode(contexts[0])
    whole = chat.complete(ask(text), max_tokens=8)
    assert chat.complete(ask(text), max_tokens=8, stop=[whole[2:4]]) == whole[: whole.find(whole[2:4])]


def test_seeds_make_samples_repeatable(server):
    chat = ChatClient(server)
    asked = [ask("12+3=")] * 5
    first = chat.complete_many(asked, max_tokens=10, temperature=2.0, seed=1)
    assert first == chat.complete_many(asked, max_tokens=10, temperature=2.0, seed=1)
    assert len(set(first)) > 1  # row r has the seed 1 + r


@pytest.mark.parametrize(
    "message", [{"role": "user"}, {"role": "king", "content": "x"}, {"role": "user", "content": 3}]
)
def test_messages_are_checked_before_they_are_sent(server, message):
    with pytest.raises(ConfigError, match="needs a role"):
        ChatClient(server).complete([message])


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": ["x"]}}]}',
    ],
)
def test_answers_without_text_are_no_answers(proxy, quick, body):
    made = proxy(lambda number, path: body if "chat" in path else "")
    with pytest.raises(BackendError, match="failed 6 times"):
        ChatClient(made.url, retry=quick).complete(ask("1"))


def test_a_batch_that_was_interrupted_is_not_paid_for_twice(server, proxy, tmp_path, quick):
    count = 0

    def script(number, path):
        nonlocal count
        count += "chat" in path
        return "close" if "chat" in path and count > 3 else ""

    made = proxy(script)
    asked = [ask(str(number)) for number in range(6)]
    with Journal(tmp_path / "j") as journal, pytest.raises(BackendError):
        ChatClient(made.url, journal=journal, concurrency=1, retry=quick).complete_many(asked, max_tokens=3)
    with Journal(tmp_path / "j") as journal:
        chat = ChatClient(server, journal=journal, model="fake")
        told = chat.complete_many(asked, max_tokens=3)
        assert chat.usage.requests == 3
    assert told == ChatClient(server).complete_many(asked, max_tokens=3)
