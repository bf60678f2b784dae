"""One sequence that the server works on: what was asked, what has been found so far, and when it is done."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Job", "Position"]


@dataclass(frozen=True)
class Position:
    """A token, its log-probability (None for the first of a prompt), and the likeliest tokens at its place."""

    token: int
    logprob: float | None
    top_ids: list[int]
    top_logprobs: list[float]


@dataclass(eq=False)
class Job:
    """A prompt to score, to continue, or both. Changed by the batcher's thread alone once it was submitted."""

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    generator: np.random.Generator | None = None
    stop_ids: frozenset[int] = frozenset()
    stops_text: Callable[[list[int]], bool] | None = None  # whether the text so far holds a stop string
    top: int | None = None  # log-probabilities wanted per position; None wants not even the token's own
    echo: bool = False  # score the prompt itself
    on_token: Callable[[Position | None], None] | None = None  # for streaming, from the batcher's thread; None: notes

    generated: list[Position] = field(default_factory=list)
    scored: list[Position] | None = None
    finish_reason: str = ""
    notes: dict[str, Any] | None = None  # what a search tells of itself, for the answer
    cancelled: bool = False
    done: concurrent.futures.Future[Job] = field(default_factory=concurrent.futures.Future)
    submitted: float = field(default_factory=time.monotonic)

    @property
    def ids(self) -> list[int]:
        """Returns the prompt with what was generated so far."""
        return [*self.prompt, *(position.token for position in self.generated)]

    @property
    def wants_score(self) -> bool:
        """Whether the prompt is still to be scored."""
        return self.echo and self.top is not None and self.scored is None

    @property
    def wants_tokens(self) -> bool:
        """Whether there are tokens to generate still."""
        return not self.finish_reason and len(self.generated) < self.max_tokens

    def add(self, position: Position) -> None:
        """Takes the next token and notes whether it was the last."""
        self.generated.append(position)
        if position.token in self.stop_ids or (
            self.stops_text is not None and self.stops_text([p.token for p in self.generated])
        ):
            self.finish_reason = "stop"
        elif len(self.generated) >= self.max_tokens:
            self.finish_reason = "length"
        if self.on_token is not None:
            self.on_token(position)
