"""A judge's server that does everything wrong that servers do, one fault for each request, and says what it did.

The right answer to a case follows from the text under judgement alone, so a score that belongs to another case, or to
another request, is seen at once.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["FAULTS", "FaultyServer", "right_score"]

Write = Callable[[bytes], None]


def right_score(answer: str) -> int:
    """Returns the score from 0 to 10 that a text deserves."""
    return hashlib.blake2b(answer.encode()).digest()[0] % 11


def reply_to(messages: list[dict[str, str]], *, wrong: bool = False) -> str:
    """Returns what an obedient judge says, or the contrary under another case's tag."""
    system, fields = messages[0]["content"], json.loads(messages[-1]["content"])
    tag = re.search(r'"tag": "([0-9a-f]{8})"', system)
    if "answer_a" in fields:
        first, second = right_score(fields["answer_a"]), right_score(fields["answer_b"])
        better = "tie" if first == second else "A" if (first > second) != wrong else "B"
        return better if tag is None else json.dumps({"tag": "0" * 8 if wrong else tag[1], "better": better})
    score = right_score(fields["answer"])
    if tag is None:
        return "yes" if (score >= 5) != wrong else "no"
    named = {"tag": "0" * 8 if wrong else tag[1]}
    if '"scores"' in system:
        count = int(re.search(r'"scores": \[(\d+) numbers', system)[1])  # type: ignore[index]
        return json.dumps({**named, "scores": [10 - score if wrong else score] * count})
    return json.dumps({**named, "score": 10 - score if wrong else score})


def completion(content: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}).encode()


def response(body: bytes, *, status: str = "200 OK", headers: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status.encode(), size, headers, body)


def _status(status: str, headers: bytes = b"") -> Callable[..., bytes]:
    return lambda good, bad, ask: response(b'{"error": {"message": "no"}}', status=status, headers=headers)


def _raw(raw: bytes) -> Callable[..., bytes]:
    return lambda good, bad, ask: raw


def _body(body: bytes) -> Callable[..., bytes]:
    return lambda good, bad, ask: response(body)


def _says(content: Any) -> Callable[..., bytes]:
    return lambda good, bad, ask: response(completion(content))


CUT, HANG, LATER = b"<cut>", b"<hang>", b"<later>"  # what to do at this place of the bytes

# name: the bytes of a response, of the right completion, a wrong one, and the request
FAULTS: dict[str, Callable[[bytes, bytes, bytes], bytes]] = {
    "status 500": _status("500 Oops"),
    "status 503": _status("503 Later"),
    "status 429 at once": _status("429 Slow", b"Retry-After: 0\r\n"),
    "status 429 with nonsense": _status("429 Slow", b"Retry-After: soon\r\n"),
    "status 408": _status("408 Late"),
    "redirect": _status("301 Moved", b"Location: http://127.0.0.1:1/\r\n"),
    "status 400": _status("400 Bad"),
    "no content": _status("204 Nothing"),
    "interim first": lambda good, bad, ask: b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + response(good),
    "status line without a space": _raw(b"HTTP/1.1-200\r\nContent-Length: 0\r\n\r\n"),
    "status line without a number": _raw(b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
    "status of another version": _raw(b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "status beyond numbers": _raw(b"HTTP/1.1 99999999999999999999 OK\r\nContent-Length: 0\r\n\r\n"),
    "no http": _raw(b"SSH-2.0-OpenSSH_9.9\r\n" + CUT),
    "noise": _raw(bytes(range(256)) * 4 + CUT),
    "closed at once": _raw(CUT),
    "closed in the head": _raw(b"HTTP/1.1 200 OK\r\nContent-Le" + CUT),
    "closed in the body": lambda good, bad, ask: response(good, length=len(good) + 9) + CUT,
    "never ends": lambda good, bad, ask: response(good, length=len(good) + 9) + HANG,
    "header without a colon": lambda good, bad, ask: response(good, headers=b"nonsense\r\n"),
    "two lengths": lambda good, bad, ask: response(good, headers=b"Content-Length: 3\r\n"),
    "length beyond numbers": lambda good, bad, ask: response(good, length=10**30) + CUT,
    "length is too short": lambda good, bad, ask: response(good, length=len(good) - 4),
    "two answers at once": lambda good, bad, ask: response(good) + response(bad),
    "two answers, one late": lambda good, bad, ask: response(good) + LATER + response(bad),
    "bad chunk": _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    "negative chunk": _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n"),
    "endless head": _raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000),
    "endless body": _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n" + b"[" * 9_000_000 + CUT),
    "not json": _body(b"<html>" + b"x" * 100_000),
    "nested json": _body(b"[" * 200_000),
    "not a number": _body(b'{"choices": NaN}'),
    "no utf-8": _body(b'{"choices": "\xff\xfe"}'),
    "wrong schema": _body(b'{"choices": []}'),
    "empty reply": _says(None),
    "unreadable reply": _says("9/10, surely"),
    "packed though not asked for": lambda good, bad, ask: response(
        gzip.compress(good), headers=b"Content-Encoding: gzip\r\n"
    ),
}


class FaultyServer:
    """Serves in a thread; `share` of the requests get a fault, drawn from `faults` by `seed`."""

    def __init__(self, faults: list[str], *, share: float = 0.6, seed: int = 0) -> None:
        self.faults, self.share = faults, share
        self.done: Counter[str] = Counter()  # faults by name
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**22)
        self._server = asyncio.run_coroutine_threadsafe(_made(start), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        deadline = time.monotonic() + 1.0
        while self._server.is_serving() and time.monotonic() < deadline:
            time.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(found[1])) if found else b""
                if not await self._answer(body, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as it may
        finally:
            writer.transport.abort()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> bool:
        messages = json.loads(body)["messages"]
        good, bad = completion(reply_to(messages)), completion(reply_to(messages, wrong=True))
        if self._random.random() >= self.share:
            writer.write(response(good))
            await writer.drain()
            return True
        name = self._random.choice(self.faults)
        self.done[name] += 1
        rest = FAULTS[name](good, bad, body)
        while True:
            places = [(rest.find(mark), mark) for mark in (CUT, HANG, LATER) if mark in rest]
            at, mark = min(places) if places else (len(rest), b"")
            writer.write(rest[:at])
            await writer.drain()
            rest = rest[at + len(mark) :]
            if mark == CUT:
                return False
            if mark == HANG:
                await asyncio.sleep(30)
            if not mark:
                return True
            await asyncio.sleep(self._random.choice([0.0, 0.001, 0.004]))


async def _made(coroutine: Any) -> Any:
    return await coroutine
