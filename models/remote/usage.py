"""What was asked of a server and what it cost."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Prices", "Usage"]


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
