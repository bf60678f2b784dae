"""A lean HTTP/1.1 client for plain-http servers nearby, where a general client's time per request would be the limit.

Messages are parsed by h11, which the general client (httpx) is built on and brings along; what is left out is its
machinery of pools and transports, which takes most of the time of a request. This one offers the few methods of
`httpx.AsyncClient` that `Endpoint` uses, over kept-alive connections; addresses with https keep the general client.

A connection on which more came than was asked for is closed: what follows would be taken for the next answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from treegym.errors import require
from treegym.models.remote.endpoint import Endpoint

__all__ = ["LeanClient", "NearEndpoint"]

_LONGEST_HEAD = 64 * 1024


class NearEndpoint(Endpoint):
    """An `Endpoint` that speaks to plain-http servers through the lean client.

    Args:
        base_url: as for `Endpoint`.
        keep: whether a connection carries more than one request, one after the other.
        **settings: as for `Endpoint`.
    """

    def __init__(self, base_url: str, *, keep: bool = True, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        self._keep = keep

    def _connected(self) -> Any:
        client = super()._connected()  # also makes the gate; no connection is opened before a request
        parts = urlsplit(self.base_url)
        if parts.scheme != "http":
            if not self._keep:
                client.headers["Connection"] = "close"
            return client
        if not isinstance(client, LeanClient):
            self._client = LeanClient(
                parts.hostname or "",
                parts.port or 80,
                connect_timeout=self._connect_timeout_s,
                longest=self._max_answer_bytes,
                keep=self._keep,
            )
        return self._client


class LeanClient:
    """Keeps connections to one host; a connection carries one request at a time."""

    def __init__(self, host: str, port: int, *, connect_timeout: float, longest: int, keep: bool = True) -> None:
        self.host, self.port, self.connect_timeout, self.longest = host, port, connect_timeout, longest
        self.keep = keep
        self._idle: list[_Connection] = []

    def stream(self, method: str, url: str, *, content: bytes | None, headers: dict[str, str]) -> _Exchange:
        """Returns a request to be entered with ``async with``; inside, the response is there."""
        parts = urlsplit(url)
        told = [("Host", parts.netloc), *headers.items()]
        if content is not None:
            told.append(("Content-Length", str(len(content))))
        h11 = require("h11", extra="http", purpose="talking to a model server")
        return _Exchange(self, h11.Request(method=method, target=parts.path, headers=told), content or b"")

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
        if self.keep and connection.usable:
            self._idle.append(connection)
        else:
            connection.abort()

    async def aclose(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop().abort()


class _Exchange:
    """One request and its response."""

    def __init__(self, client: LeanClient, head: Any, body: bytes) -> None:
        self._client, self._head, self._content = client, head, body
        self.status_code = 0
        self.headers: dict[str, str] = {}
        self._body = b""

    async def __aenter__(self) -> _Exchange:
        connection = await self._client.take()
        try:
            response, self._body = await connection.ask(self._head, self._content)
        except BaseException:  # cancelled or broken: what comes later on this connection belongs to nobody
            connection.abort()
            raise
        self._client.give(connection)
        self.status_code = response.status_code
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Yields the body."""
        yield self._body


class _Connection(asyncio.Protocol):
    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._h11 = require("h11", extra="http", purpose="talking to a model server")
        self._talk = self._h11.Connection(self._h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._head: Any = None  # of the response that is awaited, once it is there
        self._body = bytearray()
        self._waiting: asyncio.Future[tuple[Any, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def usable(self) -> bool:
        open_ = self._transport is not None and not self._transport.is_closing()
        return open_ and self._talk.our_state is self._h11.IDLE

    async def ask(self, head: Any, body: bytes) -> tuple[Any, bytes]:
        """Sends a request and returns head and body of the response."""
        if not self.usable:
            raise _broken("the connection was closed")
        assert self._transport is not None
        self._head, self._body = None, bytearray()
        self._waiting = asyncio.get_running_loop().create_future()
        sent = self._talk.send(head) + (self._talk.send(self._h11.Data(body)) if body else b"")
        self._transport.write(sent + self._talk.send(self._h11.EndOfMessage()))
        return await self._waiting

    def abort(self) -> None:
        """Drops the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.abort()  # nothing was asked: whatever this is, it must not be taken for the next answer
        else:
            self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._read(b"")  # the end of the connection may be the end of the body
        self._fail("the connection broke off before the whole answer was there")

    def _read(self, data: bytes) -> None:
        h11, talk = self._h11, self._talk
        try:
            talk.receive_data(data)
            while (event := talk.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Response):
                    self._head = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > self._longest:
                        self._fail(f"the answer is longer than {self._longest} bytes")
                        return
                elif isinstance(event, h11.EndOfMessage):
                    self._finish()
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except h11.RemoteProtocolError as error:
            self._fail(f"the answer is not HTTP ({error})")

    def _finish(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((self._head, bytes(self._body)))
        if self._talk.trailing_data[0] or self._talk.their_state is not self._h11.DONE:
            self.abort()
        else:
            self._talk.start_next_cycle()

    def _fail(self, words: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(_broken(words))
        self.abort()


def _broken(words: str) -> Exception:
    httpx = require("httpx", extra="http", purpose="talking to a model server")
    return httpx.RemoteProtocolError(words)
