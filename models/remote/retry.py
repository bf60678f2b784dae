"""When to ask a server again, and how long to wait before."""

from __future__ import annotations

import datetime
import email.utils
import math
import random
from dataclasses import dataclass

from treegym.errors import ConfigError

__all__ = ["RETRYABLE", "RetryPolicy", "retry_after_seconds"]

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
