"""The lean HTTP client against raw bytes: every way a response may be framed, whole and in single bytes."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from treegym.rewards.judge.wire import LeanClient, NearEndpoint

BODY = b'{"a": 1}'
FRAMED = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + BODY,
    "lower case": b"HTTP/1.1 200 OK\r\ncontent-length:8\r\n\r\n" + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n"
    + BODY[:3]
    + b"\r\n5;x=y\r\n"
    + BODY[3:]
    + b"\r\n0\r\n\r\n",
    "close": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "said close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\n" + BODY,
}
BROKEN = {
    "no http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut body": b"HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\n" + BODY,
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabc",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "too long": b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
    "nothing": b"",
}


def exchange(answer: bytes, *, piece: int, times: int = 1, keep: bool = False):
    """Serves the bytes in pieces, asks `times`, and returns the bodies and the number of connections."""

    async def everything():
        connections = 0

        async def serve(reader, writer):
            nonlocal connections
            connections += 1
            try:
                while await reader.readline():
                    await reader.readuntil(b"\r\n\r\n")
                    for at in range(0, len(answer), piece):
                        writer.write(answer[at : at + piece])
                        await writer.drain()
                        await asyncio.sleep(0)
                    if not keep:
                        break
            except (ConnectionError, asyncio.IncompleteReadError):
                return  # the client went away
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = LeanClient("127.0.0.1", port, connect_timeout=5.0, longest=1000)
        bodies = []
        try:
            for _ in range(times):
                async with asyncio.timeout(10):
                    url = f"http://127.0.0.1:{port}/v1/x"
                    async with client.stream("POST", url, content=b"{}", headers={"A": "b"}) as response:
                        bodies.append((response.status_code, b"".join([c async for c in response.aiter_bytes()])))
        finally:
            await client.aclose()
            server.close()
        return bodies, connections

    return asyncio.run(everything())


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize("framing", FRAMED)
def test_every_framing_is_read(framing, piece):
    bodies, _ = exchange(FRAMED[framing], piece=piece)
    assert bodies == [(200, BODY)]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_connections_are_kept(framing):
    bodies, connections = exchange(FRAMED[framing], piece=10_000, times=3, keep=True)
    assert bodies == [(200, BODY)] * 3
    assert connections == 1


@pytest.mark.parametrize("framing", BROKEN)
def test_broken_answers_are_errors_and_never_hang(framing):
    with pytest.raises(httpx.HTTPError):
        exchange(BROKEN[framing], piece=10_000)


def test_refused_connection():
    async def ask():
        client = LeanClient("127.0.0.1", 1, connect_timeout=1.0, longest=10)
        async with client.stream("GET", "http://127.0.0.1:1/x", content=None, headers={}):
            pass

    with pytest.raises(httpx.ConnectError):
        asyncio.run(ask())


def test_https_keeps_the_general_client():
    async def client_of(url):
        return NearEndpoint(url)._connected()

    assert isinstance(asyncio.run(client_of("https://example.org/v1")), httpx.AsyncClient)
    assert isinstance(asyncio.run(client_of("http://127.0.0.1:9/v1")), LeanClient)
