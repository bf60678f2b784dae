"""Models that are slow, or that fail when told to, and a raw client."""

from __future__ import annotations

import threading
import time

import pytest

from treegym.models.local.fake import FakeLanguageModel


class SlowModel(FakeLanguageModel):
    """A fake model whose every call takes a while and waits for `gate`; notes how large its batches were."""

    def __init__(self, *, seconds: float = 0.0, **arguments) -> None:
        super().__init__(**arguments)
        self.seconds = seconds
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.poison: int | None = None  # a token that no context may hold

    def next_logprobs(self, contexts):
        assert self.gate.wait(30)
        time.sleep(self.seconds)
        self.batches.append(len(contexts))
        if self.poison is not None and any(self.poison in context for context in contexts):
            raise ValueError("poisoned")
        return super().next_logprobs(contexts)


@pytest.fixture
def slow() -> SlowModel:
    return SlowModel(seed=3)
