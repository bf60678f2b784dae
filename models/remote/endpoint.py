"""One server behind one base URL: a shared connection pool, bounded concurrency, retries, limits and accounting.

All clients of this process do their waiting in one event loop in one background thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from treegym.errors import BackendError, ConfigError, require
from treegym.models.remote.answers import MalformedAnswer, parse
from treegym.models.remote.keys import checked_url, is_loopback, key_from, redact, redact_bytes
from treegym.models.remote.pacing import RETRYABLE, Limits, Prices, RetryPolicy, Usage, retry_after_seconds
from treegym.registry import refuse_hearsay

__all__ = ["Endpoint", "Refused", "Transient", "background_loop", "run"]

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


Item = TypeVar("Item")
Value = TypeVar("Value")
QUOTED = 300  # characters of a server's words that an error repeats


class Refused(BackendError):
    """The server understood and refused (a 4xx that asking again will not change)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Transient(Exception):
    """A try that failed in a way worth repeating."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, broken: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.broken = broken  # the connection itself failed: another server may answer there next time


class Endpoint:
    """Sends JSON to an OpenAI-compatible server and returns checked JSON, whatever happens on the way."""

    def __init__(
        self,
        base_url: str,
        *,
        key_env: str | None = None,
        insecure: bool = False,
        concurrency: int = 32,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout_s: float = 300.0,
        connect_timeout_s: float = 10.0,
        retry: RetryPolicy | None = None,
        prices: Prices | None = None,
        max_answer_bytes: int = 256 * 2**20,
        seed: int = 0,
    ) -> None:
        """Prepares an endpoint; nothing is sent yet.

        Args:
            base_url: such as ``http://127.0.0.1:8000/v1``.
            key_env: name of the environment variable with the server's key; None sends none.
            insecure: allow the key to travel over plain http to another machine.
            concurrency: most requests under way at once.
            requests_per_minute: rate limit kept on this side.
            tokens_per_minute: likewise, over prompt tokens and the most that may be generated.
            timeout_s: for one whole try, however slowly its answer drips.
            connect_timeout_s: for opening a connection.
            retry: how failures are repeated.
            prices: money per million tokens, for `usage`.
            max_answer_bytes: an answer longer than this is not read on.
            seed: of the jitter.
        """
        if concurrency < 1 or timeout_s <= 0 or connect_timeout_s <= 0:
            raise ConfigError("concurrency, timeout_s and connect_timeout_s must be above 0")
        self.base_url = checked_url(base_url, sends_key=key_env is not None, insecure=insecure)
        self.key_env = key_env
        key_from(key_env)  # says at once when it is missing
        refuse_hearsay(self.base_url, "the server", part=True)  # nothing, and no key, is sent where a file says
        self.retry = retry or RetryPolicy()
        self.usage = Usage(prices=prices or Prices())
        self.concurrency = concurrency
        self.breaks = 0  # connections that failed; behind a new one another server may answer
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._limits = Limits(requests_per_minute, tokens_per_minute)
        self._random = random.Random(seed)
        self._client: Any = None
        self._gate: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, key_env={self.key_env!r})"

    # ---------------------------------------------------------------- from ordinary code

    def get(self, path: str, *, check: Callable[[dict[str, Any]], Any] | None = None) -> Any:
        """Returns the answer to a GET, or what `check` makes of it."""
        return run(self.ask("GET", path, None, check=check))

    def post(
        self,
        path: str,
        body: dict[str, Any],
        *,
        check: Callable[[dict[str, Any]], Any] | None = None,
        malformed_tries: int | None = None,
    ) -> Any:
        """Returns the answer to a POST, or what `check` makes of it."""
        return run(self.ask("POST", path, body, check=check, malformed_tries=malformed_tries))

    def map(self, work: Callable[[Item], Awaitable[Value]], items: Sequence[Item]) -> list[Value]:
        """Runs `work` over all items concurrently; the first failure for good cancels the rest and is raised."""

        async def everything() -> list[Value]:
            tasks = [asyncio.ensure_future(work(item)) for item in items]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        return run(everything())

    def close(self) -> None:
        """Closes the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            run(client.aclose())

    # ---------------------------------------------------------------- in the loop

    async def chat(self, body: dict[str, Any], check: Callable[[dict[str, Any]], Any]) -> Any:
        """Asks ``/chat/completions``; see `ask`."""
        letters = sum(len(message["content"]) for message in body["messages"])
        return await self.ask(
            "POST",
            "chat/completions",
            body,
            check=check,
            about_prompt=1 + letters // 4,
            about_completion=body["max_tokens"],
        )

    async def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        *,
        check: Callable[[dict[str, Any]], Any] | None = None,
        malformed_tries: int | None = None,
        about_prompt: int = 0,
        about_completion: int = 0,
    ) -> Any:
        """Returns the answer, or what `check` makes of it; repeated until it is good or the policy's tries are spent.

        `check` raises `MalformedAnswer` for an answer that cannot be believed; after `malformed_tries` of them it is
        passed on, for callers who find out what a server understands. The `about_` numbers are this side's
        estimates of tokens, for rate limits and for servers that report no usage.
        """
        client = self._connected()
        raw = None if body is None else json.dumps(body, allow_nan=False).encode()
        last_words, malformed = "", 0
        for attempt in range(1, self.retry.attempts + 1):
            await self._limits.enter(about_prompt + about_completion)
            try:
                assert self._gate is not None
                async with self._gate:
                    answer = await self._once(client, method, path, raw)
                value = answer if check is None else check(answer)
                self.usage.answered(answer, about_prompt=about_prompt, about_completion=about_completion)
                return value
            except (Transient, MalformedAnswer) as error:
                self.usage.failed()
                retry_after = getattr(error, "retry_after_s", None)
                self.breaks += bool(getattr(error, "broken", False))
                last_words = redact(str(error), self.key_env)
                malformed += isinstance(error, MalformedAnswer)
                if malformed_tries is not None and malformed >= malformed_tries:
                    raise MalformedAnswer(last_words) from None
                if retry_after is not None:
                    if retry_after > self.retry.longest_retry_after_s:
                        raise BackendError(
                            f"{self.base_url} asks to come back in {retry_after:.0f} s, which is longer than "
                            f"longest_retry_after_s={self.retry.longest_retry_after_s:.0f}; try again then"
                        ) from None
                    self._limits.pause(retry_after)
                if attempt < self.retry.attempts:
                    await asyncio.sleep(self.retry.wait(attempt, retry_after, self._random))
        raise BackendError(
            f"{self.base_url}/{path} failed {self.retry.attempts} times in a row; the last time: {last_words}. "
            "Check that the server runs, then start again: what was finished is kept"
        ) from None

    async def _once(self, client: Any, method: str, path: str, raw: bytes | None) -> dict[str, Any]:
        """Sends one request; raises `Transient`, `Refused` or `MalformedAnswer` when no good answer comes."""
        import httpx

        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if raw is not None:
            headers["Content-Type"] = "application/json"
        key = key_from(self.key_env)
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                client.stream(method, f"{self.base_url}/{path}", content=raw, headers=headers) as response,
            ):
                content = bytearray()
                if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
                    raise MalformedAnswer("the answer is compressed, which was not asked for and may hide any length")
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > self._max_answer_bytes:
                        raise MalformedAnswer(f"the answer is longer than {self._max_answer_bytes} bytes")
        except TimeoutError:
            raise Transient(f"no whole answer within {time.monotonic() - started:.1f} s", broken=True) from None
        except httpx.InvalidURL:
            raise ConfigError(f"{self.base_url}/{path} is not a URL") from None
        except httpx.HTTPError as error:
            raise Transient(f"{type(error).__name__} {error}".strip(), broken=True) from None
        if response.status_code == 200:
            return parse(redact_bytes(bytes(content), self.key_env))
        raise self._failure(
            response.status_code, redact_bytes(bytes(content), self.key_env), response.headers.get("retry-after")
        )

    def _failure(self, status: int, content: bytes, retry_after: str | None) -> Exception:
        words = redact(_message(content, self.key_env), self.key_env)
        if status in RETRYABLE:
            return Transient(f"status {status}: {words}", retry_after_s=retry_after_seconds(retry_after))
        hint = ""
        if status in (401, 403):
            named = f"the key in {self.key_env} was not accepted" if self.key_env else "name its variable with key_env="
            hint = f" (the server wants a key: {named})"
        elif 300 <= status < 400:
            hint = " (redirects are not followed, so that no key goes astray; use the address it points to)"
        return Refused(f"{self.base_url} refused with status {status}{hint}: {words}", status)

    def _connected(self) -> Any:
        """Returns the connection pool of the running loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            httpx = require("httpx", extra="http", purpose="talking to a model server")
            self._loop = loop
            self._gate = asyncio.Semaphore(self.concurrency)
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout_s, connect=self._connect_timeout_s),
                limits=httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency),
                follow_redirects=False,
                trust_env=not is_loopback(urlsplit(self.base_url).hostname),
            )
        return self._client


def _message(content: bytes, key_env: str | None) -> str:
    """Returns the server's own words out of an error's body, shortened once the whole key is out of them."""
    try:
        answer: Any = parse(content)
    except MalformedAnswer:
        return content[:QUOTED].decode("utf-8", "replace")
    error = answer.get("error", answer)
    words = error.get("message", error) if isinstance(error, dict) else error
    return redact_bytes(str(words).encode("utf-8", "replace"), key_env).decode()[:QUOTED]
