"""A tree small enough to work out by hand, as plain arrays."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

PIECES = ["", "4", "5", ".", " so", "<eos>"]
EOS_ID = 5


class SmallTree(SimpleNamespace):
    """Two questions. Texts by node: 0 and 1 roots;

    0 -> 2 "4" -> 4 "4<eos>" right (depth 2)
              \\-> 5 "4." -> 8 "4.<eos>" right (depth 3)
      -> 3 "5" -> 6 "5<eos>" wrong
    1 -> 7 " so" -> 9 " so5" (a leaf without an end: cut off)
    """

    def path(self, node: int) -> np.ndarray:
        tokens: list[int] = []
        while self.parent[node] >= 0:
            tokens.append(int(self.token[node]))
            node = int(self.parent[node])
        return np.array(tokens[::-1], dtype=np.int32)

    def text(self, node: int) -> str:
        return "".join(PIECES[token] for token in self.path(node) if token != EOS_ID)

    def root_of(self, nodes: np.ndarray) -> np.ndarray:
        nodes = np.asarray(nodes).copy()
        while (self.parent[nodes] >= 0).any():
            nodes = np.where(self.parent[nodes] >= 0, self.parent[nodes], nodes)
        return np.searchsorted(self.root_node, nodes)


@pytest.fixture
def small() -> SmallTree:
    nan = np.nan
    flags = np.array([1, 1, 1, 1, 2, 9, 2, 1, 2, 0], np.uint16)  # 1 expanded, 2 eos, 8 punctuation
    prior = np.log(np.array([1, 1, 0.5, 0.25, 0.5, 0.25, 0.5, 1, 0.5, 0.5], np.float32))
    teacher = np.full((10, 2), nan, np.float16)
    teacher[:, 0] = prior - 0.25
    return SmallTree(
        size=10,
        token=np.array([0, 0, 1, 2, 5, 3, 5, 4, 5, 2], np.int32),
        parent=np.array([-1, -1, 0, 0, 2, 2, 3, 1, 5, 7], np.int32),
        first_child=np.array([2, 7, 4, 6, -1, 8, -1, 9, -1, -1], np.int32),
        child_count=np.array([2, 1, 2, 1, 0, 1, 0, 1, 0, 0], np.uint16),
        depth=np.array([0, 0, 1, 1, 2, 2, 2, 1, 3, 2], np.uint16),
        flags=flags,
        prior=prior,
        teacher_logp=teacher,
        proposers=np.ones(10, np.uint32),
        similarity=np.array([1, 1, 1, 0.5, 1, 0.25, 1, 1, 1, 0.75], np.float16),
        verdict=np.array([nan, nan, nan, nan, 1, nan, 0, nan, 1, nan], np.float32),
        judge=np.array([nan, nan, nan, nan, 0.9, nan, 0.2, nan, 0.6, nan], np.float32),
        root_node=np.array([0, 1], np.int32),
        prompts=["2+2=", "2+3="],
        answers=["4", "5"],
        kinds=["sum", "sum"],
        splits=["train", "test"],
        header={"eos_id": EOS_ID, "teachers": ["ann", "bob"], "tokens": PIECES},
    )
