"""Item 3: a server may echo the key anywhere in its words; no part of it that says something reaches an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treegym.errors import BackendError
from treegym.models.remote.endpoint import Endpoint
from treegym.models.remote.keys import redact
from treegym.models.remote.pacing import RetryPolicy

KEY = "sk-Zx9LmQ2vWt7RbY4nKc8HdP1sGf6JaU3e5XoTiE0M"  # 44 characters, made up
VARIABLE = "TREEGYM_HOSTILE_KEY"
SHORTEST = 8  # characters that say something of a key


def leaked(text: str) -> int:
    """Returns the length of the longest part of the key that a text holds."""
    lengths = range(len(KEY), 0, -1)
    return next((n for n in lengths for i in range(len(KEY) - n + 1) if KEY[i : i + n] in text), 0)


@settings(max_examples=300, deadline=None)
@given(before=st.integers(0, 700), start=st.integers(0, 43), length=st.integers(1, 44), cut=st.integers(1, 1000))
def test_no_cut_through_a_key_shows_any_of_it(before: int, start: int, length: int, cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        text = ("wörds of a server, " * 50)[:before] + KEY[start : start + length] + " and more"
        assert leaked(redact(text, VARIABLE)[:cut]) < SHORTEST
        assert leaked(redact(text[:cut], VARIABLE)) < SHORTEST
        assert redact("nothing of the kind", VARIABLE) == "nothing of the kind"


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that refuses, or answers with nonsense, and repeats the key somewhere in its body."""
    monkeypatch.setenv(VARIABLE, KEY)
    answers: dict[str, Any] = {"status": 400, "body": b""}

    class Echo(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answers["status"])
            self.send_header("Content-Length", str(len(answers["body"])))
            self.end_headers()
            self.wfile.write(answers["body"])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    answers["url"] = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("shape", ["text", "message", "field", "escaped"])
@pytest.mark.parametrize("before", [0, 40, 60, 75, 262, 280, 299])
def test_no_answer_of_a_server_leaks_it(echo: Any, status: int, shape: str, before: int) -> None:
    said = "x" * before + KEY + "y" * 100
    bodies = {
        "text": said.encode(),
        "message": json.dumps({"error": {"message": said}}).encode(),
        "field": json.dumps({"choices": said}).encode(),
        "escaped": json.dumps({"error": {"message": said}}).replace("s", "\\u0073").encode(),
    }
    echo |= {"status": status, "body": bodies[shape]}
    endpoint = Endpoint(echo["url"], key_env=VARIABLE, retry=RetryPolicy(attempts=1, first_wait_s=0.0))

    def check(answer: dict[str, Any]) -> None:
        from treegym.models.remote.answers import field

        field(answer, "choices", list)

    with pytest.raises(BackendError) as caught:
        endpoint.post("chat/completions", {}, check=check)
    endpoint.close()
    assert leaked(str(caught.value)) < SHORTEST
    assert leaked(repr(caught.value.__cause__)) < SHORTEST
