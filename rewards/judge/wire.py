"""A lean HTTP/1.1 client for plain-http servers nearby, where a general client's time per request would be the limit.

Measured here with 1,000 requests at 20 ms latency and 32 at a time: the general client takes 2.8 to 3.8 ms of processor
time a request, several times what the server's latency allows. This one offers the few methods of `httpx.AsyncClient`
that `Endpoint` uses, over kept-alive connections; addresses with https keep the general client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from treegym.errors import require
from treegym.models.remote.endpoint import Endpoint

__all__ = ["LeanClient", "NearEndpoint"]

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_LONGEST_HEAD = 64 * 1024


class NearEndpoint(Endpoint):
    """An `Endpoint` that speaks to plain-http servers through the lean client."""

    def _connected(self) -> Any:
        client = super()._connected()  # also makes the gate; no connection is opened before a request
        parts = urlsplit(self.base_url)
        if parts.scheme != "http":
            return client
        if not isinstance(client, LeanClient):
            self._client = LeanClient(
                parts.hostname or "",
                parts.port or 80,
                connect_timeout=self._connect_timeout_s,
                longest=self._max_answer_bytes,
            )
        return self._client


class LeanClient:
    """Keeps connections to one host; a connection carries one request at a time."""

    def __init__(self, host: str, port: int, *, connect_timeout: float, longest: int) -> None:
        self.host, self.port, self.connect_timeout, self.longest = host, port, connect_timeout, longest
        self._idle: list[_Connection] = []

    def stream(self, method: str, url: str, *, content: bytes | None, headers: dict[str, str]) -> _Exchange:
        """Returns a request to be entered with ``async with``; inside, the response is there."""
        parts = urlsplit(url)
        lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content is not None:
            lines.append(f"Content-Length: {len(content)}")
        return _Exchange(self, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (content or b""))

    async def take(self) -> _Connection:
        """Returns an idle connection, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        httpx = require("httpx", extra="http", purpose="talking to a model server")
        try:
            async with asyncio.timeout(self.connect_timeout):
                made = await loop.create_connection(lambda: _Connection(self.longest), self.host, self.port)
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection within {self.connect_timeout:g} s") from None
        except OSError as error:
            raise httpx.ConnectError(error.strerror or str(error)) from None
        return made[1]

    def give(self, connection: _Connection) -> None:
        """Takes a connection back."""
        if connection.usable:
            self._idle.append(connection)

    async def aclose(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop().abort()


class _Exchange:
    """One request and its response."""

    def __init__(self, client: LeanClient, request: bytes) -> None:
        self._client, self._request = client, request
        self._connection: _Connection | None = None
        self.status_code = 0
        self.headers: dict[str, str] = {}
        self._body = b""

    async def __aenter__(self) -> _Exchange:
        self._connection = connection = await self._client.take()
        try:
            head, self._body = await connection.ask(self._request)
        except BaseException:  # cancelled or broken: what comes later on this connection belongs to nobody
            connection.abort()
            raise
        lines = head.decode("latin-1").split("\r\n")
        self.status_code = int(lines[0].split(" ", 2)[1])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._client.give(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connection = None

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Yields the body."""
        yield self._body


class _Connection(asyncio.Protocol):
    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._head = -1  # where the body begins, once the head is there
        self._length: int | None = None  # of the body, if the head says so
        self._chunked = False
        self._closing = False
        self._waiting: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self._closing

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Sends a request and returns head and body of the response."""
        if not self.usable:
            raise _broken("the connection was closed")
        assert self._transport is not None
        self._buffer.clear()
        self._head, self._length, self._chunked = -1, None, False
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def abort(self) -> None:
        """Drops the connection."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._advance()
        except ValueError:
            self._fail("the answer is not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._head >= 0 and self._length is None and not self._chunked:
            self._finish(bytes(self._buffer[self._head :]))  # the end of the connection is the end of the body
        else:
            self._fail("the connection broke off before the whole answer was there")

    def _advance(self) -> None:
        """Looks whether the response is complete."""
        if self._head < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _LONGEST_HEAD:
                    self._fail("the head of the answer does not end")
                return
            head = bytes(self._buffer[: end + 2])
            if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
                raise ValueError("no status line")
            self._head = end + 4
            self._chunked = _CHUNKED.search(head) is not None
            found = _LENGTH.search(head)
            self._length = int(found[1]) if found and not self._chunked else None
            self._closing = self._closing or _CLOSE.search(head) is not None
        if len(self._buffer) - self._head > self._longest:
            self._fail(f"the answer is longer than {self._longest} bytes")
        elif self._length is not None and len(self._buffer) - self._head >= self._length:
            self._finish(bytes(self._buffer[self._head : self._head + self._length]))
        elif self._chunked and (body := _unchunked(self._buffer, self._head)) is not None:
            self._finish(body)

    def _finish(self, body: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((bytes(self._buffer[: self._head - 4]), body))
        if self._closing and self._transport is not None:
            self._transport.abort()

    def _fail(self, words: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(_broken(words))
        self.abort()


def _unchunked(buffer: bytearray, start: int) -> bytes | None:
    """Returns the body of a chunked response, or None while it is incomplete."""
    body, at = bytearray(), start
    while True:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(bytes(buffer[at:line]).partition(b";")[0], 16)
        if size < 0:
            raise ValueError("a chunk of negative size")
        if len(buffer) < line + 2 + size + 2:
            return None
        if size == 0:
            return bytes(body)
        body += buffer[line + 2 : line + 2 + size]
        at = line + 2 + size + 2


def _broken(words: str) -> Exception:
    httpx = require("httpx", extra="http", purpose="talking to a model server")
    return httpx.RemoteProtocolError(words)
