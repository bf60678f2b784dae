from __future__ import annotations

import pytest

from treegym.envs.token_tree.synthetic import synthetic_tree
from treegym.envs.token_tree.tree import Root, TokenTree

SPEC = "synthetic:roots=40,depth=6,branching=5,width=4,seed=3"


@pytest.fixture
def spec() -> str:
    return SPEC


@pytest.fixture
def synthetic() -> TokenTree:
    return synthetic_tree(roots=40, depth=6, branching=5, width=4, seed=3)


@pytest.fixture
def hand_made() -> TokenTree:
    """One prompt; answers "ab", "b" (correct) and "cab" (correct).

    nodes: 0 root; 1 a, 2 b, 3 c; 4 ab, 5 b<end>; 6 ca; 7 ab<end>; 8 cab; 9 cab<end>
    """
    tree = TokenTree.empty(tokens=["a", "b", "c", ""], eos_id=3, teachers=["x", "y"])
    root = tree.add_root(Root("prompt:", answer="b", split="train", kind="demo", tokens=(0, 1)))
    tree.add_children([root], [3], [0, 1, 2], prior=[-0.5, -1.0, -2.0], proposers=[1, 2, 6])
    tree.add_children([1, 2, 3], [1, 1, 1], [1, 3, 0])
    tree.verdict[5] = 1.0
    tree.add_children([4, 6], [1, 1], [3, 1])
    tree.verdict[7] = 0.0
    tree.add_children([8], [1], [3], verdict=[1.0])
    return tree
