"""A real server, and a real proxy in front of it that misbehaves on the wire as it is told."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from treegym.models.local.fake import FakeLanguageModel
from treegym.models.remote.pacing import RetryPolicy
from treegym.models.serving.server import running_server

QUICK = RetryPolicy(attempts=6, first_wait_s=0.01, longest_wait_s=0.05, longest_retry_after_s=2.0)


class FaultyProxy:
    """Forwards requests over real sockets; `fault(number, path)` says what to do to each one instead.

    Faults: "" forward; "close" hang up unanswered; "half" half of the answer, then hang up; "shut" half of the answer,
    then close only the writing side; "drip" a byte now and then for ever; "503", "429" a status; a dict of headers
    under "headers" comes with it; bytes: answer 200 with exactly these; a callable: the upstream's JSON, changed by it.
    """

    def __init__(self, upstream: str, fault: Callable[[int, str], Any]) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname, parts.port)
        self.fault = fault
        self.seen = 0
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._stopping.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            reader = connection.makefile("rb")
            while self._one(connection, reader):
                pass

    def _one(self, connection: socket.socket, reader: Any) -> bool:
        """Serves one request; returns whether the connection goes on."""
        try:
            line = reader.readline().decode().split()
            if len(line) < 2:
                return False
            headers = {}
            while (raw := reader.readline().decode().strip()) != "":
                name, _, value = raw.partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", 0)))
        except OSError:
            return False
        with self._lock:
            self.seen += 1
            number = self.seen
            self.headers.append(headers)
        try:
            return self._act(connection, self.fault(number, line[1]), line[0], line[1], headers, body)
        except OSError:
            return False

    def _act(self, connection: Any, fault: Any, method: str, path: str, headers: Any, body: bytes) -> bool:
        if fault == "close":
            return False
        if fault in ("503", "429"):
            connection.sendall(_message(b"{}", status=f"{fault} no", extra="Retry-After: 0.05\r\n"))
            return True
        if isinstance(fault, bytes):
            connection.sendall(_message(fault))
            return True
        upstream = http.client.HTTPConnection(*self.upstream, timeout=30)
        forwarded = {"Content-Type": "application/json"}
        if "authorization" in headers:
            forwarded["Authorization"] = headers["authorization"]
        upstream.request(method, path, body or None, forwarded)
        response = upstream.getresponse()
        content = response.read()
        status = f"{response.status} {response.reason}"
        upstream.close()
        if callable(fault):
            content = json.dumps(fault(json.loads(content))).encode()
        message = _message(content, status=status)
        if fault == "half":
            connection.sendall(message[: len(message) // 2])
            return False
        if fault == "shut":
            connection.sendall(message[: len(message) // 2])
            connection.shutdown(socket.SHUT_WR)
            self._stopping.wait(1.0)
            return False
        if fault == "drip":
            for place in range(len(message)):
                if self._stopping.wait(0.02):
                    break
                connection.sendall(message[place : place + 1])
            return False
        connection.sendall(message)
        return True


def _message(content: bytes, *, status: str = "200 OK", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{extra}\r\n"
    return head.encode() + content


@pytest.fixture(scope="session")
def fake() -> FakeLanguageModel:
    return FakeLanguageModel(seed=3)


@pytest.fixture(scope="session")
def server(fake: FakeLanguageModel) -> Iterator[str]:
    """The base URL of a server of the fake model."""
    with running_server(fake, max_wait_ms=0.0) as served:
        yield served.url


@pytest.fixture
def proxy(server: str) -> Iterator[Callable[[Callable[[int, str], Any]], FaultyProxy]]:
    """Makes proxies in front of the server."""
    made: list[FaultyProxy] = []

    def make(fault: Callable[[int, str], Any], upstream: str = server) -> FaultyProxy:
        made.append(FaultyProxy(upstream, fault))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def quick() -> RetryPolicy:
    return QUICK


@pytest.fixture
def contexts(fake: FakeLanguageModel) -> list[list[int]]:
    return [fake.tokenizer.encode(text) for text in ("12+3=", "ab", "7*8", "what?", "0")]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(ready: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Waits until something is so, or fails."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
