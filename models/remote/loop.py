"""One event loop in one background thread, in which all clients of this process do their waiting."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["background_loop", "run"]

Result = TypeVar("Result")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = 0  # process id; a forked child starts a loop of its own


def background_loop() -> asyncio.AbstractEventLoop:
    """Returns the loop, started on first use."""
    global _loop, _owner
    with _lock:
        if _loop is None or _owner != os.getpid():
            _loop, _owner = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="treegym-http", daemon=True).start()
        return _loop


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine in the background loop and waits for it; an interruption (Ctrl-C) cancels it there."""
    loop = background_loop()
    try:
        inside = asyncio.get_running_loop() is loop
    except RuntimeError:
        inside = False
    if inside:
        work.close()
        raise RuntimeError("a blocking call was made inside the HTTP loop itself, which would wait for ever")
    future: concurrent.futures.Future[Result] = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
