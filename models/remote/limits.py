"""Rate limits kept on our side, so that the server's are rarely met: requests and tokens a minute, and pauses."""

from __future__ import annotations

import asyncio
import time

from treegym.errors import ConfigError

__all__ = ["Allowance", "Limits"]


class Allowance:
    """A token bucket: `per_minute` units flow in evenly, a burst of one second's worth may be spent at once."""

    def __init__(self, per_minute: float) -> None:
        if not per_minute > 0:
            raise ConfigError(f"a rate limit must be above 0 a minute, not {per_minute}")
        self.rate = per_minute / 60.0  # units a second
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
