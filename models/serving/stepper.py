"""How the batcher asks its model for next tokens: plainly, or with keys and values kept between a sequence's tokens.

Letters: B rows, P columns of keys, V vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from treegym.models.base import Scores, TokenIds

__all__ = ["CachedStepper", "PlainStepper", "Stepper", "stepper_for"]


class Stepper(Protocol):
    """Gives the next-token distributions of sequences that come back with one more token each time."""

    def next_logprobs(self, keys: Sequence[Hashable], contexts: Sequence[TokenIds], last: Sequence[bool]) -> np.ndarray:
        """Returns ``[B, V] float32``; `keys` name the sequences, `last` says which will not come back."""
        ...

    def reset(self) -> None:
        """Forgets everything kept, as after a failure."""
        ...


class PlainStepper:
    """Asks any model with whole contexts."""

    def __init__(self, model: Scores) -> None:
        self._model = model

    def next_logprobs(self, keys: Sequence[Hashable], contexts: Sequence[TokenIds], last: Sequence[bool]) -> np.ndarray:
        return self._model.next_logprobs(contexts)

    def reset(self) -> None:
        return


class CachedStepper:
    """Keeps keys and values of running sequences in one left-padded batch, which sequences join and leave."""

    def __init__(self, model: Any) -> None:
        """Takes a `TransformersModel`."""
        self._model = model
        self._keys: list[Hashable] = []
        self._lengths: list[int] = []  # tokens cached of each row
        self._running: Any = None  # the `RowCache` of all rows

    def reset(self) -> None:
        self._keys, self._lengths, self._running = [], [], None

    def next_logprobs(self, keys: Sequence[Hashable], contexts: Sequence[TokenIds], last: Sequence[bool]) -> np.ndarray:
        import torch

        place = {key: row for row, key in enumerate(keys)}
        kept = [
            row
            for row, key in enumerate(self._keys)
            if key in place and self._lengths[row] == len(contexts[place[key]]) - 1
        ]
        self._keep(kept)
        old = [place[key] for key in self._keys]
        new = [row for row in range(len(keys)) if row not in set(old)]
        brief = [row for row in new if last[row]]  # one token and gone: nothing to keep
        long = [row for row in new if not last[row]]
        result = np.empty((len(keys), self._model.tokenizer.vocab_size), np.float32)  # [B, V]
        with torch.inference_mode():
            if old:
                result[old] = self._logprobs(self._advance([int(contexts[row][-1]) for row in old]))
            if long:
                result[long] = self._logprobs(self._admit([keys[row] for row in long], [contexts[row] for row in long]))
        if brief:
            result[brief] = self._model.next_logprobs([contexts[row] for row in brief])
        self._keep([row for row, key in enumerate(self._keys) if not last[place[key]]])
        return result

    def _logprobs(self, states: Any) -> np.ndarray:
        import torch

        return torch.log_softmax(self._model.logits(states), dim=-1).cpu().numpy()

    def _advance(self, tokens: list[int]) -> Any:
        """Reads one more token of every row and returns the states ``[B, D]``."""
        import torch

        self._lengths = [length + 1 for length in self._lengths]
        self._running.advance(torch.tensor(tokens))
        return self._running.state

    def _admit(self, keys: list[Hashable], contexts: list[TokenIds]) -> Any:
        """Reads new contexts, joins them to the running batch, and returns their states ``[B, D]``."""
        from treegym.models.local.row_cache import RowCache

        fresh = RowCache.read(self._model, contexts)
        if self._running is None:
            self._running = fresh
        else:
            self._running.join(fresh)
        self._keys += keys
        self._lengths += [len(context) for context in contexts]
        return fresh.state

    def _keep(self, rows: list[int]) -> None:
        """Drops all other rows, and the columns that only they needed."""
        import torch

        if len(rows) == len(self._keys):
            return
        if not rows:
            self.reset()
            return
        index = torch.tensor(rows, device=self._model.device)
        self._keys, self._lengths = [self._keys[row] for row in rows], [self._lengths[row] for row in rows]
        self._running.keep(index)
        self._running.trim()


def stepper_for(model: Scores) -> Stepper:
    """Returns the best stepper for a model: cached for the transformers back end, plain for any other."""
    module = sys.modules.get("treegym.models.local.transformers_model")  # loads no torch for models without
    if module is not None and isinstance(model, module.TransformersModel):
        return CachedStepper(model)
    return PlainStepper(model)
