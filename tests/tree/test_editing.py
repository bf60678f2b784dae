from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.tree.editing import merge, select_roots, statistics, subtree
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import Root, TokenTree


def _texts(tree: TokenTree) -> list[tuple[str, str]]:
    ends = np.flatnonzero(~np.isnan(tree.verdict))
    return sorted((tree.prompts[int(tree.root_of(node)[0])], tree.text(int(node))) for node in ends)


def test_merging_keeps_every_text_and_matches_teachers_by_name(hand_made: TokenTree) -> None:
    other = TokenTree.empty(tokens=hand_made.tokens, eos_id=3, teachers=["y", "z"])
    root = other.add_root(Root("second"))
    other.add_children(
        [root], [2], [0, 3], teacher_logp=[[-1, -2], [-3, -4]], proposers=[0b010, 0b101], verdict=[np.nan, 1]
    )
    both = merge([hand_made, other])
    both.validate()
    assert both.teachers == ["x", "y", "z"]
    assert _texts(both) == sorted(_texts(hand_made) + _texts(other))
    np.testing.assert_array_equal(both.teacher_logp[11], [np.nan, -1, -2])
    # y was bit 1 there and is bit 2 here; z moves from bit 2 to bit 3.
    assert both.proposers[[11, 12]].tolist() == [0b0100, 0b1001]


def test_merging_other_vocabularies_is_refused(hand_made: TokenTree) -> None:
    with pytest.raises(ConfigError, match="another vocabulary"):
        merge([hand_made, synthetic_tree(roots=1)])


def test_selecting_roots_keeps_their_families() -> None:
    tree = synthetic_tree(roots=30, seed=1)
    some = select_roots(tree, [4, 17])
    some.validate()
    assert some.prompts == ["prompt 4", "prompt 17"]
    assert _texts(some) == [pair for pair in _texts(tree) if pair[0] in ("prompt 4", "prompt 17")]
    with pytest.raises(ConfigError, match="out of range"):
        select_roots(tree, [30])


def test_a_subtree_starts_where_its_prompt_ends(hand_made: TokenTree) -> None:
    below = subtree(hand_made, 3)
    below.validate()
    assert below.prompts == ["prompt:c"]
    assert below.roots[0].tokens == (0, 1, 2)
    assert _texts(below) == [("prompt:c", "ab")]
    with pytest.raises(ConfigError, match="nothing below"):
        subtree(hand_made, 9)


def test_statistics_of_a_tree_counted_by_hand(hand_made: TokenTree) -> None:
    counted = statistics(hand_made)
    assert (counted["nodes"], counted["leaves"], counted["correct_leaves"]) == (10, 3, 2)
    # Expanded: root with 3, and a, b, c, ab, ca, cab with 1 each: 9 children of 7 nodes.
    assert counted["branching"] == pytest.approx(9 / 7)
    assert counted["mean_correct_length"] == 3.0
    assert counted["mean_shortest_correct_length"] == 2.0
    assert counted["reachable_roots"] == 1.0
    # Three of nine children have proposers: {primary}, {x}, {x, y}.
    assert counted["proposed_by"] == pytest.approx({"primary": 1 / 9, "x": 2 / 9, "y": 1 / 9})
