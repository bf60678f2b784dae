"""Keys come from the environment and show up nowhere else."""

from __future__ import annotations

import logging

import pytest

from treegym.errors import BackendError, ConfigError
from treegym.models.remote import ChatClient, Endpoint, Refused, RemoteModel
from treegym.models.remote.journal import Journal
from treegym.models.serving.server import running_server

KEY = "sk-very-secret-4711"
VARIABLE = "TREEGYM_TEST_KEY"


@pytest.fixture
def locked(fake, monkeypatch):
    """A server that wants the key."""
    monkeypatch.setenv(VARIABLE, KEY)
    with running_server(fake, key_env=VARIABLE) as served:
        yield served.url


def test_the_key_opens_and_leaves_no_trace(locked, fake, contexts, caplog, capfd, tmp_path, quick):
    caplog.set_level(logging.DEBUG)
    journal = Journal(tmp_path / "journal")
    remote = RemoteModel(locked, tokenizer=fake.tokenizer, key_env=VARIABLE, journal=journal, retry=quick)
    remote.next_logprobs(contexts)
    chat = ChatClient(remote.endpoint, journal=journal)
    assert chat.complete([{"role": "user", "content": "2+2="}], max_tokens=4) is not None
    journal.close()
    printed = capfd.readouterr()
    everything = [caplog.text, repr(remote.endpoint), repr(vars(remote.endpoint)), printed.out, printed.err]
    everything += [str(remote.usage.summary()), (tmp_path / "journal").read_text()]
    assert len(caplog.records) > 0
    assert not any(KEY in text for text in everything)


def test_without_the_key_the_refusal_says_what_to_do(locked, fake):
    with pytest.raises(Refused, match="name its variable with key_env="):
        RemoteModel(locked, tokenizer=fake.tokenizer).fingerprint()


def test_a_wrong_key_is_not_repeated_even_if_the_server_does(proxy, monkeypatch, quick):
    monkeypatch.setenv(VARIABLE, KEY)
    body = f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}'.encode()
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        for status in ("401 No", "500 Broken"):
            connection, _ = listener.accept()
            with connection:
                assert KEY.encode() in connection.recv(65536)
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    threading.Thread(target=answer, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with pytest.raises(Refused, match=r"Incorrect API key provided: \[key hidden\]"):
        Endpoint(url, key_env=VARIABLE, retry=quick).get("models")
    from treegym.models.remote import RetryPolicy

    with pytest.raises(BackendError, match=r"\[key hidden\]"):
        Endpoint(url, key_env=VARIABLE, retry=RetryPolicy(attempts=1)).get("models")
    listener.close()


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "ключ"])
def test_a_missing_or_impossible_key_is_a_sentence(monkeypatch, value):
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match=VARIABLE) as caught:
        Endpoint("http://127.0.0.1:1/v1", key_env=VARIABLE)
    assert not value or not value.strip() or value not in str(caught.value)


def test_a_key_in_place_of_its_variables_name_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        Endpoint("http://127.0.0.1:1/v1", key_env=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://user:{KEY}@h/v1", f"https://h/v1?key={KEY}", f"https://{KEY}:notaport/v1"])
def test_a_key_in_the_url_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError) as caught:
        Endpoint(url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://h/v1", "http://", "file:///etc/passwd", "http://h:99999/v1"]
)
def test_a_url_that_is_none_is_a_sentence(url):
    with pytest.raises(ConfigError, match="base URL"):
        Endpoint(url)


def test_a_key_travels_unencrypted_only_where_told_so(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    with pytest.raises(ConfigError, match=r"unencrypted to 10\.0\.0\.5"):
        Endpoint("http://10.0.0.5:8000/v1", key_env=VARIABLE)
    Endpoint("http://10.0.0.5:8000/v1", key_env=VARIABLE, insecure=True)
    Endpoint("https://10.0.0.5:8000/v1", key_env=VARIABLE)
    Endpoint("http://localhost:8000/v1", key_env=VARIABLE)
    Endpoint("http://[::1]:8000/v1", key_env=VARIABLE)
