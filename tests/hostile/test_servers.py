"""Item 11: the explorer and `serve` answer many, at once and on kept connections, and nobody can make them wait."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from treegym.envs.token_tree.world import TreeWorld
from treegym.explorer.server import ExplorerServer, _Handler
from treegym.explorer.view import TreeView
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.serving.server import running_server


@pytest.fixture
def explorer() -> Iterator[ExplorerServer]:
    server = ExplorerServer(TreeView(TreeWorld("synthetic:roots=2,depth=3", split="all")))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_small_answers_do_not_wait_for_acknowledgements(explorer: ExplorerServer) -> None:
    options: list[int] = []
    setup = _Handler.setup

    def noted(self: Any) -> None:
        setup(self)
        options.append(self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Handler, "setup", noted)
        connection = http.client.HTTPConnection(*explorer.server_address)
        for _ in range(3):
            connection.request("GET", f"/{explorer.token}/meta")
            assert connection.getresponse().read()
        connection.close()
    assert [bool(option) for option in options] == [True]
    assert _Handler.wbufsize != 0


def test_nobody_is_lost_among_two_hundred(explorer: ExplorerServer) -> None:
    answered: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(*explorer.server_address, timeout=30)
        connection.request("GET", f"/{explorer.token}/meta")
        answered.append(connection.getresponse().status)
        connection.close()

    clients = [threading.Thread(target=ask) for _ in range(200)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    assert answered == [200] * 200


def test_idle_connections_are_let_go(explorer: ExplorerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Handler.timeout
    assert _Handler.timeout <= 60
    monkeypatch.setattr(_Handler, "timeout", 0.2)
    idle = [socket.create_connection(explorer.server_address[:2]) for _ in range(5)]
    for connection in idle:
        connection.settimeout(20)
        assert connection.recv(1) == b""  # closed by the server
        connection.close()


def ask(url: str, path: str, body: Any = None) -> tuple[int, bytes]:
    host = url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(host, timeout=30)
    raw = None if body is None else json.dumps(body).encode()
    connection.request("GET" if raw is None else "POST", path, raw, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_others_are_answered_while_a_prompt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeLanguageModel(seed=3)
    gate, reached = threading.Event(), threading.Event()
    encode = model.tokenizer.encode

    def held(text: str) -> Any:
        reached.set()
        assert gate.wait(30)
        return encode(text)

    monkeypatch.setattr(model.tokenizer, "encode", held, raising=False)
    with running_server(model) as served:
        found: list[Any] = []
        body = {"prompt": "a", "max_tokens": 1}
        client = threading.Thread(target=lambda: found.append(ask(served.url, "/v1/completions", body)))
        client.start()
        assert reached.wait(30)
        assert ask(served.url, "/health")[0] == 200  # while the other waits
        gate.set()
        client.join(30)
        assert found[0][0] == 200


def test_a_prompt_that_cannot_fit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeLanguageModel(seed=3)

    def never(text: str) -> Any:
        raise AssertionError("it was made into tokens")

    monkeypatch.setattr(model.tokenizer, "encode", never, raising=False)
    with running_server(model) as served:
        for path, body in (
            ("/v1/completions", {"prompt": "a" * 8_000_000}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 8_000_000}]}),
        ):
            status, said = ask(served.url, path, body)
            assert status == 400
            assert b"characters" in said
        status, _ = ask(served.url, "/v1/completions", {"prompt": [[]] * 100_000})
        assert status == 400


def test_a_client_that_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), running_server(FakeLanguageModel(seed=3)) as served:
        host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
        for _ in range(5):
            leaving = socket.create_connection((host, int(port)))
            leaving.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            time.sleep(0.05)
            leaving.close()
        assert ask(served.url, "/health")[0] == 200
        time.sleep(0.2)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
