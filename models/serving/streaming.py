"""Answers sent token by token, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from treegym.models.serving.jobs import Job
from treegym.models.serving.protocol import Asked, Speaker

__all__ = ["attach", "events"]


def attach(job: Job) -> asyncio.Queue[None]:
    """Returns a queue that gets an entry for every token the batcher adds to the job, and one for its end."""
    queue: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, None)

    job.on_token = tell
    job.done.add_done_callback(tell)
    return queue


def _settled(text: str, asked: Asked, finished: bool) -> str:
    """Returns the part of a text that later tokens cannot change: no half character, no half stop string."""
    if finished:
        return text
    held = max((len(stop) - 1 for stop in asked.stops), default=0)
    text = text[: len(text) - held] if held else text
    return text.rstrip("\ufffd")


async def events(
    job: Job, asked: Asked, speaker: Speaker, queue: asyncio.Queue[None], kind: str
) -> AsyncIterator[bytes]:
    """Yields the events of one job; a failure in mid-stream is told as an error event."""
    sent, told = 0, 0  # characters, positions
    noted = None  # what a search has said of itself
    chat = kind.startswith("chat")
    while True:
        await queue.get()
        finished = job.done.done()
        if finished and job.done.cancelled():
            return
        if finished and (error := job.done.exception()) is not None:
            yield b"data: " + json.dumps({"error": {"message": str(error), "type": "server_error"}}).encode() + b"\n\n"
            return
        text = _settled(speaker.text(job, asked), asked, finished)
        positions = job.generated[told : len(job.generated)]
        delta, sent, told = text[sent:], max(sent, len(text)), told + len(positions)
        notes = job.notes
        news = notes is not None and notes is not noted
        if delta or positions or finished or news:
            choice: dict[str, Any] = {"index": 0, "finish_reason": job.finish_reason if finished else None}
            choice |= {"delta": {"content": delta}} if chat else {"text": delta}
            if asked.logprobs and not chat:
                choice["logprobs"] = speaker.logprobs(positions, asked.by_id)
            if asked.list_ids:
                choice["token_ids"] = [p.token for p in positions]
            if news or (finished and notes is not None):
                choice["search"] = noted = notes
            answer = speaker.answer("chat.completion.chunk" if chat else kind, [job], [choice])
            yield b"data: " + json.dumps(answer, allow_nan=False).encode() + b"\n\n"
        if finished:
            yield b"data: [DONE]\n\n"
            return
