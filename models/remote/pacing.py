"""What requests cost and when they may be sent: rate limits, retries, running totals."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import math
import random
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from treegym.errors import ConfigError

__all__ = ["RETRYABLE", "Allowance", "Limits", "Prices", "RetryPolicy", "Usage", "retry_after_seconds"]


class Allowance:
    """A token bucket: `per_minute` units flow in evenly, a burst of one second's worth may be spent at once."""

    def __init__(self, per_minute: float) -> None:
        if not per_minute > 0:
            raise ConfigError(f"a rate limit must be above 0 a minute, not {per_minute}")
        self.rate = per_minute / 60.0  # units per second
        self.burst = max(1.0, self.rate)
        self._level = self.burst
        self._seen: float | None = None

    def take(self, units: float, now: float) -> float:
        """Takes units, going into debt if need be; returns the seconds to wait until the debt is paid."""
        if self._seen is not None:
            self._level = min(self.burst, self._level + (now - self._seen) * self.rate)
        self._seen = now
        self._level -= units
        return max(0.0, -self._level / self.rate)


class Limits:
    """What every request passes before it is sent; used from one event loop."""

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._requests = Allowance(requests_per_minute) if requests_per_minute is not None else None
        self._tokens = Allowance(tokens_per_minute) if tokens_per_minute is not None else None
        self._paused_until = 0.0

    def pause(self, seconds: float) -> None:
        """Holds every request back: the server told one of them to come later, and means all."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    async def enter(self, tokens: int) -> None:
        """Waits until a request of about `tokens` tokens may be sent."""
        now = time.monotonic()
        wait = self._requests.take(1, now) if self._requests else 0.0
        if self._tokens:
            wait = max(wait, self._tokens.take(tokens, now))
        if wait > 0:
            await asyncio.sleep(wait)
        while (left := self._paused_until - time.monotonic()) > 0:
            await asyncio.sleep(left)


RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


@dataclass(frozen=True)
class RetryPolicy:
    """Bounded retries: exponential waits with jitter, never shorter than the server asked for."""

    attempts: int = 10  # in all, the first one included
    first_wait_s: float = 0.25
    longest_wait_s: float = 15.0
    longest_retry_after_s: float = 120.0  # a server that asks for more is given up on at once

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.first_wait_s <= self.longest_wait_s:
            raise ConfigError(
                f"retries need attempts >= 1 and 0 <= first_wait_s <= longest_wait_s, not attempts={self.attempts}, "
                f"first_wait_s={self.first_wait_s}, longest_wait_s={self.longest_wait_s}"
            )

    def wait(self, attempt: int, retry_after_s: float | None, generator: random.Random) -> float:
        """Returns the seconds before the next try, `attempt` counted from 1.

        Half of the wait is jitter, so that requests which failed together do not come back together.
        """
        doubled = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempt - 1, 60))
        return max(doubled * generator.uniform(0.5, 1.0), retry_after_s or 0.0)


def retry_after_seconds(value: str | None) -> float | None:
    """Returns a Retry-After header (seconds or a date) in seconds from now; None when absent or unreadable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        seconds = (moment - datetime.datetime.now(datetime.UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


@dataclass(frozen=True)
class Prices:
    """Money per million tokens, in whatever currency the server bills."""

    prompt: float = 0.0
    completion: float = 0.0


@dataclass
class Usage:
    """Running totals of one endpoint, safe to update from several threads."""

    prices: Prices = field(default_factory=Prices)
    requests: int = 0  # answered
    failures: int = 0  # tries that failed and were repeated or given up
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False  # some answer came without its usage, so its tokens were counted here
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def failed(self) -> None:
        """Counts a try that failed."""
        with self._lock:
            self.failures += 1

    def answered(self, answer: dict[str, Any], *, about_prompt: int, about_completion: int) -> None:
        """Counts an answered request by the server's own numbers, else by the estimates given."""
        reported = answer.get("usage")
        table = reported if isinstance(reported, dict) else {}
        prompt, completion = table.get("prompt_tokens"), table.get("completion_tokens")
        known = all(type(n) is int and 0 <= n < 2**40 for n in (prompt, completion))
        with self._lock:
            self.requests += 1
            self.prompt_tokens += prompt if known and isinstance(prompt, int) else about_prompt
            self.completion_tokens += completion if known and isinstance(completion, int) else about_completion
            self.estimated = self.estimated or (not known and about_prompt + about_completion > 0)

    @property
    def cost(self) -> float:
        """Returns what the tokens so far cost at the given prices."""
        return (self.prompt_tokens * self.prices.prompt + self.completion_tokens * self.prices.completion) / 1e6

    def summary(self) -> dict[str, Any]:
        """Returns the totals as a JSON-serialisable table."""
        with self._lock:
            table = {name: getattr(self, name) for name in _TOTALS}
        return {**table, "cost": self.cost, "prices": asdict(self.prices)}


_TOTALS = ("requests", "failures", "prompt_tokens", "completion_tokens", "estimated")
