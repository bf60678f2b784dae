"""Terminal detection: which nodes end an episode. Decided once a node; composed by `any`, `all` and `then`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.rewards.registry import find
from treegym.rewards.source import EOS, TreeSource

__all__ = ["Detector", "Eos", "Terminal", "build_terminal"]


class Detector(ABC):
    """Says which nodes end an episode (B: nodes asked about)."""

    kind: str = ""

    @abstractmethod
    def ends(self, source: TreeSource, nodes: np.ndarray) -> np.ndarray:
        """Returns whether the episode ends at each node, ``[B] bool``."""

    def spec(self) -> Any:
        """Returns the JSON form that builds this detector again."""
        return self.kind


class Eos(Detector):
    """The model's own end-of-sequence token."""

    kind = "eos"

    def ends(self, source: TreeSource, nodes: np.ndarray) -> np.ndarray:
        return (np.asarray(source.flags)[nodes] & EOS) != 0


class Terminal:
    """A composed terminal detector, independent of any tree."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def on(self, source: TreeSource, nodes: np.ndarray | None = None) -> np.ndarray:
        """Returns which nodes (all of the tree by default) end an episode, ``[N] bool``. A root never does."""
        asked = np.arange(source.size) if nodes is None else np.asarray(nodes, dtype=np.int64)
        return self.detector.ends(source, asked) & (np.asarray(source.depth)[asked] > 0)

    @property
    def spec(self) -> Any:
        """The JSON form; `build_terminal(terminal.spec)` makes an equal detector."""
        return self.detector.spec()

    def __repr__(self) -> str:
        return f"Terminal({self.spec!r})"


def build_terminal(spec: Any = None) -> Terminal:
    """Builds a terminal detector from a name or a table ``{name: options}``; None is ``"eos"``."""
    if isinstance(spec, Terminal):
        return spec
    return Terminal(_detector("eos" if spec is None else spec))


def _detector(spec: Any) -> Detector:
    if isinstance(spec, Detector):
        return spec
    if isinstance(spec, str):
        return find("terminal detector", spec)()
    raise ConfigError(f"a terminal detector cannot be made of {spec!r}; expected a name such as 'eos'")
