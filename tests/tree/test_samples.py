from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treegym.errors import ConfigError, DataError
from treegym.tree.samples import counts, drawn, fork_starts, leaves, samplers
from treegym.tree.token_tree import TokenTree


def test_draws_follow_the_policy(hand_made: TokenTree) -> None:
    hand_made.verdict[7] = 0.0
    table = np.ones(10)
    table[[1, 2, 3]] = 0.5, 0.3, 0.2
    tree = drawn(hand_made, table, samples=10_000, seed=1)
    tree.validate()
    made = counts(tree)
    # Standard deviation of a share is at most 0.005.
    assert made[[1, 2, 3]] / 10_000 == pytest.approx([0.5, 0.3, 0.2], abs=0.02)
    assert made[[4, 5, 6, 7, 8, 9]].tolist() == made[[1, 2, 3, 1, 3, 3]].tolist()
    assert tree.sampled_logp[[1, 2, 3], 0] == pytest.approx(np.log([0.5, 0.3, 0.2]))
    assert fork_starts(tree, 0).tolist() == [10_000, *[0] * 9]
    assert not hand_made.has("sampled")
    # Depth first: "ab<end>" below a, then "b<end>", then "cab<end>".
    assert leaves(tree, made).node.tolist() == [7, 5, 9]


def test_samples_are_kept_in_the_file(hand_made: TokenTree, tmp_path: Path) -> None:
    tree = drawn(hand_made, samples=5, seed=0)
    tree.save(tmp_path / "s.tree")
    back = TokenTree.open(tmp_path / "s.tree")
    back.validate()
    assert samplers(back) == samplers(tree)
    assert np.array_equal(back.sampled, tree.sampled)
    hand_made.save(tmp_path / "plain.tree")
    assert not TokenTree.open(tmp_path / "plain.tree").has("sampled")


def test_bad_samples_are_refused(hand_made: TokenTree, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples is 0"):
        drawn(hand_made, samples=0)
    tree = drawn(hand_made, samples=5)
    tree.header["samplers"] = [{"model": "x", "kind": "twigs"}]
    with pytest.raises(DataError, match="describes its samplers wrongly"):
        samplers(tree)
    tree.header["samplers"] = ["x"]
    tree.save(tmp_path / "s.tree")
    with pytest.raises(DataError, match="or of samplers"):
        TokenTree.open(tmp_path / "s.tree")
    tree = drawn(hand_made, samples=5)
    tree.sampled_logp[4] = 0.5
    with pytest.raises(DataError, match="node 4: it was sampled under"):
        tree.validate()
