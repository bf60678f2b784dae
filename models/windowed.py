"""Going on beyond a model's positions: a text's first tokens and its latest ones are read, those between are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from treegym.checks import whole
from treegym.models.base import Generates, Sampling, SamplingSettings, TokenIds, context_length
from treegym.models.tokens.ends import ending_at

__all__ = ["Windowed"]

SINKS = 4  # first tokens that are kept, as in the paper


class Windowed:
    """A model whose prompts and answers may be of any length.

    Where a text and what is still to be written do not fit, the model reads the first `sinks` tokens and as many of the
    latest ones as leave room, at positions counted anew, and writes up to the end of its positions; then the window
    moves on (Xiao et al. 2023, https://arxiv.org/abs/2309.17453; there it moves by one token at a time, here by at
    least a quarter of the positions, so that little is read twice). What lies between is forgotten: a prompt that is
    cut is no longer the prompt that was put.
    """

    def __init__(self, model: Generates, *, sinks: int = SINKS) -> None:
        """Takes a model that says how many positions it has; any other goes on as it is.

        Args:
            model: any back end that generates.
            sinks: first tokens that are kept.
        """
        limit = context_length(model)
        self.sinks = whole("sinks", sinks, low=0, high=None if limit is None else limit // 4)
        self.context_length: int | None = None
        self._model, self._limit = model, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def ending_at(self, stops: Sequence[str]) -> Windowed:
        """Returns the same with answers that are over at stop strings too."""
        return Windowed(ending_at(self._model, stops), sinks=self.sinks)

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        """Returns a continuation per context, in as many windows as it takes."""
        asked = Sampling(**settings)
        if self._limit is None:
            return self._model.generate(contexts, **settings)
        stops = asked.stops(self._model.tokenizer)
        made: list[list[int]] = [[] for _ in contexts]
        going, left, lap = list(range(len(made))), asked.max_new_tokens, 0
        while going and left:
            texts = [[*contexts[row], *made[row]] for row in going]
            room = min(left, max(self._limit - max(map(len, texts)), self._limit // 4, 1))
            written = self._model.generate(
                [self._window(text, room) for text in texts],
                max_new_tokens=room,
                temperature=asked.temperature,
                seed=asked.seed + lap,
                stop_ids=asked.stop_ids,
            )
            for row, ids in zip(going, written, strict=True):
                made[row] += ids
            going = [row for row, ids in zip(going, written, strict=True) if len(ids) == room and ids[-1] not in stops]
            left, lap = left - room, lap + 1
        return made

    def _window(self, text: list[int], room: int) -> list[int]:
        """Returns what is read of a text that `room` tokens are to follow."""
        assert self._limit is not None
        if len(text) + room <= self._limit:
            return text
        return text[: self.sinks] + text[len(text) - (self._limit - room - self.sinks) :]
