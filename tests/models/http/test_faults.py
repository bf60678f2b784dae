"""A server that fails in every way a network can: answers come out right, or a sentence does, and never a wrong one."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import numpy as np
import pytest

from treegym.errors import BackendError
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.remote import Endpoint, Refused, RemoteModel, RetryPolicy
from treegym.models.remote.dialect import DifferentModel
from treegym.models.serving.server import running_server

DEEP = b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HOSTILE = {
    "no JSON": b"<html>502 Bad Gateway</html>",
    "cut JSON": b'{"choices": [{"index": 0, "te',
    "deep JSON": DEEP,
    "a list": b"[1, 2, 3]",
    "null": b"null",
    "empty": b"",
    "not UTF-8": b'{"choices": "\xff\xfe"}',
    "a huge number": b'{"choices": ' + b"9" * 10_000 + b"}",
    "no choices": b'{"choices": []}',
    "choices of another kind": b'{"choices": {"0": 1}}',
    "a choice of another kind": b'{"choices": [7]}',
    "an index that cannot be hashed": b'{"choices": [{"index": [], "text": ""}]}',
    "NaN": b'{"choices": [{"index": 0, "text": "", "logprobs": {"tokens": ["a"], "token_logprobs": [NaN],'
    b' "top_logprobs": [{"a": NaN}]}}]}',
    "a positive log-probability": b'{"choices": [{"index": 0, "text": "", "logprobs": {"tokens": ["a"],'
    b' "token_logprobs": [3.5], "top_logprobs": [{"a": 3.5}]}}]}',
    "text for a number": b'{"choices": [{"index": 0, "text": "", "logprobs": {"tokens": ["a"],'
    b' "token_logprobs": ["-1"], "top_logprobs": [{"a": "-1"}]}}]}',
    "a token beyond the vocabulary": b'{"choices": [{"index": 0, "text": "", "logprobs": {"tokens": ["token_id:99999"],'
    b' "token_logprobs": [-1], "top_logprobs": [{"token_id:99999": -1}]}}]}',
    "lists of different lengths": b'{"choices": [{"index": 0, "text": "", "logprobs": {"tokens": ["a", "b"],'
    b' "token_logprobs": [-1], "top_logprobs": [{"a": -1}]}}]}',
}


def completions_only(fault, numbers=None):
    """Returns a script that does `fault` to completions (of the given order numbers), once the model is known."""
    count = 0

    def script(number, path):
        nonlocal count
        if not path.endswith("/completions") or not script.armed:
            return ""
        count += 1
        return fault if numbers is None or count in numbers else ""

    script.armed = False
    return script


def known(proxy, script, fake, **settings):
    """Returns a model that knows its server already; its completions go wrong from now on."""
    made = proxy(script)
    remote = RemoteModel(made.url, tokenizer=fake.tokenizer, prompts_per_request=1, **settings)
    remote.fingerprint()
    _ = remote.dialect
    script.armed = True
    return remote


@pytest.mark.parametrize("fault", ["close", "half", "shut", "503", "429", *HOSTILE])
def test_answers_are_right_although_every_other_request_fails(proxy, fake, contexts, quick, fault):
    script = completions_only(HOSTILE.get(fault, fault), range(1, 100, 2))
    remote = known(proxy, script, fake, retry=quick)
    np.testing.assert_array_equal(remote.next_logprobs(contexts), fake.next_logprobs(contexts))
    assert remote.usage.failures >= 1


@pytest.mark.parametrize("fault", ["close", "503", *HOSTILE])
def test_a_server_that_never_recovers_is_a_sentence(proxy, fake, contexts, quick, fault):
    remote = known(proxy, completions_only(HOSTILE.get(fault, fault)), fake, retry=quick)
    with pytest.raises(BackendError, match="failed 6 times in a row") as caught:
        remote.next_logprobs(contexts)
    assert "\n" not in str(caught.value)


def test_answers_without_or_with_damaged_log_probabilities_are_asked_for_again(proxy, fake, contexts, quick):
    def without(answer):
        for choice in answer["choices"]:
            choice["logprobs"] = None
        return answer

    def one_short(answer):
        for choice in answer["choices"]:
            choice["logprobs"]["top_logprobs"][0].popitem()
        return answer

    def not_normalised(answer):
        for choice in answer["choices"]:
            row = choice["logprobs"]["top_logprobs"][0]
            choice["logprobs"]["top_logprobs"][0] = {name: value - 1.0 for name, value in row.items()}
        return answer

    for change in (without, one_short, not_normalised):
        remote = known(proxy, completions_only(change, [1, 2, 4]), fake, retry=quick)
        np.testing.assert_array_equal(remote.next_logprobs(contexts), fake.next_logprobs(contexts))
        assert remote.usage.failures == 3


def test_a_dripping_answer_is_given_up_on_time(proxy, fake, contexts, quick):
    remote = known(proxy, completions_only("drip", [1]), fake, retry=quick, timeout_s=0.5)
    started = time.monotonic()
    np.testing.assert_array_equal(remote.next_logprobs(contexts), fake.next_logprobs(contexts))
    assert time.monotonic() - started < 30
    assert remote.usage.failures == 1


def test_an_endless_answer_is_not_read_to_its_end(proxy, fake, quick):
    endless = b'{"data": "' + b"x" * 200_000 + b'"}'
    endpoint = Endpoint(proxy(lambda number, path: endless).url, retry=quick, max_answer_bytes=100_000)
    with pytest.raises(BackendError, match="longer than 100000 bytes"):
        endpoint.get("models")


def test_thirty_percent_failing_changes_nothing(proxy, fake, contexts):
    dice = random.Random(7)
    faults = ["close", "half", "503", HOSTILE["cut JSON"], HOSTILE["NaN"]]

    def script(number, path):
        return dice.choice(faults) if dice.random() < 0.3 else ""

    policy = RetryPolicy(attempts=12, first_wait_s=0.005, longest_wait_s=0.02)
    remote = RemoteModel(proxy(script).url, tokenizer=fake.tokenizer, retry=policy, prompts_per_request=2)
    many = [[*context, token] for context in contexts for token in range(2, 12)]
    np.testing.assert_array_equal(remote.next_logprobs(many), fake.next_logprobs(many))
    assert remote.generate(many, max_new_tokens=9) == fake.generate(many, max_new_tokens=9)


def test_a_refusal_is_not_repeated(proxy, fake, contexts, quick):
    made = proxy(lambda number, path: "")
    endpoint = Endpoint(made.url, retry=quick)
    with pytest.raises(Refused, match="served only as 1"):
        endpoint.post("completions", {"prompt": "1", "n": 5})
    assert made.seen == 1


def test_retry_after_is_honoured_by_all_requests(proxy, fake, contexts, quick):
    times: list[float] = []

    def script(number, path):
        times.append(time.monotonic())
        return "429" if number == 1 else ""

    endpoint = Endpoint(proxy(script).url, retry=quick)
    endpoint.get("models")
    assert len(times) == 2
    assert times[1] - times[0] >= 0.05  # what the proxy's Retry-After says


def test_a_retry_after_too_long_is_a_sentence_at_once(quick):
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\nContent-Length: 2\r\n\r\n{}")

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(BackendError, match="come back in 3600 s"):
        Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", retry=quick).get("models")
    listener.close()


def test_redirects_are_not_followed(quick):
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(Refused, match="redirects are not followed"):
        Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", retry=quick).get("models")
    listener.close()


def test_nobody_there_is_a_sentence(free_port, quick):
    with pytest.raises(BackendError, match=f"127.0.0.1:{free_port}/v1/models failed 6 times in a row"):
        Endpoint(f"http://127.0.0.1:{free_port}/v1", retry=quick).get("models")


class TestAnotherModelBehindTheUrl:
    def test_by_the_servers_own_word(self, server, proxy, fake, contexts, quick):
        with running_server(FakeLanguageModel(seed=8)) as other:
            proxied = proxy(lambda number, path: "")
            remote = RemoteModel(proxied.url, tokenizer=fake.tokenizer, retry=quick)
            remote.next_logprobs(contexts)
            proxied.upstream = ("127.0.0.1", int(other.url.split(":")[2].split("/")[0]))
            with pytest.raises(DifferentModel, match="its fingerprint is"):
                remote.next_logprobs(contexts)
            remote.renewed()
            assert np.isfinite(remote.next_logprobs(contexts)).all()

    def test_by_its_behaviour_where_the_server_says_nothing(self, server, proxy, fake, contexts, quick):
        def silent(answer):
            answer.pop("system_fingerprint", None)
            for card in answer.get("data", []):
                card.pop("fingerprint", None)
            return answer

        with running_server(FakeLanguageModel(seed=8)) as other:
            proxied = proxy(lambda number, path: silent)
            remote = RemoteModel(proxied.url, tokenizer=fake.tokenizer, retry=quick)
            np.testing.assert_array_equal(remote.next_logprobs(contexts), fake.next_logprobs(contexts))
            first = remote.fingerprint()
            again = RemoteModel(proxied.url, tokenizer=fake.tokenizer, retry=quick)
            assert again.fingerprint() == first
            proxied.upstream = ("127.0.0.1", int(other.url.split(":")[2].split("/")[0]))
            with pytest.raises(DifferentModel, match="log-probabilities changed"):
                remote.next_logprobs(contexts)
            again.renewed()
            assert again.fingerprint() != first


def test_the_first_failure_for_good_ends_the_batch(proxy, fake, contexts):

    def script(number, path):
        if not path.endswith("/completions") or not script.armed:
            return ""
        return HOSTILE["no JSON"]

    script.armed = False
    made = proxy(script)
    policy = RetryPolicy(attempts=1)
    remote = RemoteModel(made.url, tokenizer=fake.tokenizer, prompts_per_request=1, retry=policy, concurrency=1)
    remote.fingerprint()
    script.armed = True
    before = made.seen
    many = contexts * 20
    with pytest.raises(BackendError):
        remote.next_logprobs(many)
    time.sleep(0.1)
    assert made.seen - before < len(many) // 2


def test_ctrl_c_cancels_what_is_under_way_and_leaves_the_client_usable(proxy, fake, contexts, quick):
    script = completions_only("drip")
    remote = known(proxy, script, fake, retry=quick)
    timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        remote.next_logprobs(contexts)
    timer.join()
    script.armed = False
    np.testing.assert_array_equal(remote.next_logprobs(contexts), fake.next_logprobs(contexts))
