"""PathView: what a reward term sees of one path, read-only and computed when asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from treegym.tree.flags import EOS
from treegym.tree.paths import path_of
from treegym.tree.token_tree import TokenTree

__all__ = ["PathView"]


class PathView:
    """One path of a tree, from the first token below the root to `node`.

    Attributes are read-only; arrays have one entry per step (T: steps).
    """

    __slots__ = ("__dict__", "_source", "ended", "node", "truncated")

    def __init__(self, source: TokenTree, node: int, *, ended: bool = False, truncated: bool = False) -> None:
        self._source = source
        self.node = int(node)
        self.ended = bool(ended)  # a real or detected end
        self.truncated = bool(truncated)  # cut off by the token budget

    @cached_property
    def nodes(self) -> np.ndarray:  # [T] int64
        return path_of(self._source, self.node)

    @cached_property
    def root(self) -> int:
        return int(np.asarray(self._source.root_of(np.array([self.node])))[0])

    @property
    def prompt(self) -> str:
        return self._source.prompts[self.root]

    @property
    def reference(self) -> str:
        """The reference answer of the prompt."""
        return self._source.answers[self.root]

    @property
    def kind(self) -> str:
        """The kind of task the prompt belongs to."""
        kinds = self._source.kinds
        return str(kinds[self.root]) if len(kinds) else ""

    @cached_property
    def tokens(self) -> np.ndarray:  # [T] int32
        return np.asarray(self._source.path(self.node))

    @cached_property
    def text(self) -> str:
        return self._source.text(self.node)

    @property
    def depth(self) -> int:
        return int(self._source.depth[self.node])

    @property
    def logprobs(self) -> np.ndarray:  # [T] float32, of the primary model
        return np.asarray(self._source.prior)[self.nodes]

    @property
    def teacher_logprobs(self) -> np.ndarray:  # [T, M] float32, NaN without an opinion
        return np.asarray(self._source.teacher_logp)[self.nodes].astype(np.float32)

    @property
    def similarities(self) -> np.ndarray:  # [T] float32, cosine to the primary's own choice
        return np.asarray(self._source.similarity)[self.nodes].astype(np.float32)

    @property
    def proposers(self) -> np.ndarray:  # [T] uint32, one bit per model
        return np.asarray(self._source.proposers)[self.nodes]

    @property
    def end(self) -> str:
        """How the path ended: ``"eos"``, ``"detected"``, ``"truncated"`` or ``""`` (it did not)."""
        if self.ended:
            return "eos" if int(self._source.flags[self.node]) & EOS else "detected"
        return "truncated" if self.truncated else ""

    def __repr__(self) -> str:
        return f"PathView(root={self.root}, node={self.node}, text={self.text!r}, end={self.end!r})"
