"""A tree small enough to work out by hand, as plain arrays."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest

PIECES = ["", "4", "5", ".", " so", "<eos>"]
EOS_ID = 5


class SmallTree(SimpleNamespace):
    """Two questions. Texts by node: 0 and 1 roots;

    0 -> 2 "4" -> 4 "4<eos>" right (depth 2)
              \\-> 5 "4." -> 8 "4.<eos>" right (depth 3)
      -> 3 "5" -> 6 "5<eos>" wrong
    1 -> 7 " so" -> 9 " so5" (a leaf without an end: cut off)
    """

    def path(self, node: int) -> np.ndarray:
        tokens: list[int] = []
        while self.parent[node] >= 0:
            tokens.append(int(self.token[node]))
            node = int(self.parent[node])
        return np.array(tokens[::-1], dtype=np.int32)

    def text(self, node: int) -> str:
        return "".join(PIECES[token] for token in self.path(node) if token != EOS_ID)

    def root_of(self, nodes: np.ndarray) -> np.ndarray:
        nodes = np.asarray(nodes).copy()
        while (self.parent[nodes] >= 0).any():
            nodes = np.where(self.parent[nodes] >= 0, self.parent[nodes], nodes)
        return np.searchsorted(self.root_node, nodes)


@pytest.fixture
def small() -> SmallTree:
    nan = np.nan
    flags = np.array([1, 1, 1, 1, 2, 9, 2, 1, 2, 0], np.uint16)  # 1 expanded, 2 eos, 8 punctuation
    prior = np.log(np.array([1, 1, 0.5, 0.25, 0.5, 0.25, 0.5, 1, 0.5, 0.5], np.float32))
    teacher = np.full((10, 2), nan, np.float16)
    teacher[:, 0] = prior - 0.25
    return SmallTree(
        size=10,
        token=np.array([0, 0, 1, 2, 5, 3, 5, 4, 5, 2], np.int32),
        parent=np.array([-1, -1, 0, 0, 2, 2, 3, 1, 5, 7], np.int32),
        first_child=np.array([2, 7, 4, 6, -1, 8, -1, 9, -1, -1], np.int32),
        child_count=np.array([2, 1, 2, 1, 0, 1, 0, 1, 0, 0], np.uint16),
        depth=np.array([0, 0, 1, 1, 2, 2, 2, 1, 3, 2], np.uint16),
        flags=flags,
        prior=prior,
        teacher_logp=teacher,
        proposers=np.ones(10, np.uint32),
        similarity=np.array([1, 1, 1, 0.5, 1, 0.25, 1, 1, 1, 0.75], np.float16),
        verdict=np.array([nan, nan, nan, nan, 1, nan, 0, nan, 1, nan], np.float32),
        judge=np.array([nan, nan, nan, nan, 0.9, nan, 0.2, nan, 0.6, nan], np.float32),
        root_node=np.array([0, 1], np.int32),
        prompts=["2+2=", "2+3="],
        answers=["4", "5"],
        kinds=["sum", "sum"],
        splits=["train", "test"],
        header={"eos_id": EOS_ID, "teachers": ["ann", "bob"], "tokens": list(PIECES)},
    )


class ChatServer:
    """A real HTTP server that speaks the chat-completions protocol, in a thread, and can be told to misbehave.

    `reply` turns the messages of a request into the assistant's text; `script` holds faults for the next requests, in
    order: a status number, ``(status, {header: value})``, or a word that `_misbehave` knows.
    """

    def __init__(self) -> None:
        self.reply = lambda messages: "yes"
        self.script: list[object] = []
        self.requests: list[dict] = []  # bodies, in order of arrival
        self.headers: list[str] = []
        self.latency = 0.0
        self.under_way = self.most_under_way = self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _start(self):
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def stop(self) -> None:
        """Stops listening; connections under way are cut."""

        async def end():
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    async def _serve(self, reader, writer) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                head = line + await reader.readuntil(b"\r\n\r\n")
                self.headers.append(head.decode("latin-1"))
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    going = await self._answer(line, body, writer)
                finally:
                    self.under_way -= 1
                if not going:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as it may
        finally:
            writer.close()

    async def _answer(self, line: bytes, body: bytes, writer) -> bool:
        if line.startswith(b"GET"):
            self._send(writer, 200, {"object": "list", "data": [{"id": "judge", "object": "model"}]})
            return True
        request = json.loads(body)
        self.requests.append(request)
        if self.script and (fault := self.script.pop(0)) is not None:
            return await self._misbehave(fault, writer)
        if self.latency:
            await asyncio.sleep(self.latency)
        self._send(writer, 200, completion(self.reply(request["messages"])))
        await writer.drain()
        return True

    async def _misbehave(self, fault, writer) -> bool:
        if fault == "reset":
            writer.transport.abort()
        elif fault == "truncated":  # says how long it is, and ends before
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b'{"choices": [{"mess')
            await writer.drain()
        elif fault == "not json":
            self._send(writer, 200, b"<html>busy</html>")
            return True
        elif fault == "wrong schema":
            self._send(writer, 200, {"choices": [{"text": "yes"}]})
            return True
        elif fault == "slow":
            await asyncio.sleep(30.0)
        else:
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            self._send(writer, status, {"error": {"message": "no"}}, headers)
            return True
        return False

    def _send(self, writer, status: int, answer, headers=None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{more}\r\n".encode() + content)


def completion(text: str) -> dict:
    """Returns an answer of the chat-completions protocol."""
    message = {"role": "assistant", "content": text}
    return {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


@pytest.fixture
def chat_server():
    server = ChatServer()
    yield server
    server.stop()
