from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treegym.errors import ConfigError, DataError
from treegym.tree.flags import EOS, EXPANDED
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import Root, TokenTree


def test_children_stand_side_by_side_and_know_their_place(hand_made: TokenTree) -> None:
    hand_made.validate()
    assert hand_made.children(0).tolist() == [1, 2, 3]
    assert hand_made.depth.tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    assert hand_made.flags[5] == EOS
    assert hand_made.flags[4] == EXPANDED
    assert hand_made.is_closed


def test_a_node_determines_its_path_and_text(hand_made: TokenTree) -> None:
    assert hand_made.path(9).tolist() == [2, 0, 1, 3]
    assert hand_made.text(9) == "cab"
    assert hand_made.path_nodes(9) == [3, 6, 8, 9]
    assert hand_made.root_of([0, 9]).tolist() == [0, 0]


def test_text_of_split_multibyte_characters() -> None:
    euro = "€".encode()
    tree = TokenTree.empty(tokens=[euro[:1].decode("latin-1"), euro[1:].decode("latin-1"), ""], eos_id=2)
    tree.add_children([tree.add_root("")], [1], [0])
    tree.add_children([1], [1], [1])
    assert tree.text(2) == "€"
    assert tree.text(1) == "\N{REPLACEMENT CHARACTER}"


def test_the_arena_doubles_and_keeps_everything() -> None:
    tree = TokenTree.empty(tokens=["a", "b", ""], eos_id=2, capacity=2)
    nodes = [tree.add_root("p")]
    for _ in range(100):
        nodes = [int(tree.add_children([nodes[-1]], [2], [0, 1], prior=[-1.0, -2.0])[0])]
    assert tree.size == 201
    tree.validate()
    assert not tree.is_closed
    assert set(tree.prior[1::2].tolist()) == {-1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.add_children([1], [1], [0]), "expanded already"),
        (lambda t: t.add_children([99], [1], [0]), "outside the tree"),
        (lambda t: t.add_children([5], [2], [0, 0]), "same token"),
        (lambda t: t.add_children([5], [1], [7]), "outside the vocabulary"),
        (lambda t: t.add_children([5], [2], [0]), "do not fit"),
        (lambda t: t.roots_in("holdout"), "must be one of"),
        (lambda t: Root("p", split="dev"), "must be one of"),
        (lambda t: TokenTree.empty(tokens=["a"], eos_id=1), "outside the vocabulary"),
    ],
)
def test_bad_growth_is_one_clear_sentence(hand_made: TokenTree, call: object, message: str) -> None:
    size = hand_made.size
    with pytest.raises(ConfigError, match=message):
        call(hand_made)  # type: ignore[operator]
    assert hand_made.size == size
    hand_made.validate()


def test_a_file_gives_the_same_tree_back_and_the_same_bytes(tmp_path: Path, synthetic: TokenTree) -> None:
    path, again = tmp_path / "a.tree", tmp_path / "b.tree"
    synthetic.save(path)
    opened = TokenTree.open(path)
    opened.validate()
    for name in synthetic.column_names:
        np.testing.assert_array_equal(opened.column(name), synthetic.column(name))
    assert list(opened.roots) == list(synthetic.roots)
    assert opened.header == synthetic.header
    opened.save(again)
    assert path.read_bytes() == again.read_bytes()


def test_an_opened_tree_is_read_only_until_it_grows(tmp_path: Path, hand_made: TokenTree) -> None:
    hand_made.save(tmp_path / "a.tree")
    before = (tmp_path / "a.tree").read_bytes()
    opened = TokenTree.open(tmp_path / "a.tree")
    with pytest.raises(ValueError, match="read-only"):
        opened.prior[0] = -1.0
    opened.add_root("another prompt")
    opened.prior[0] = -1.0
    opened.validate()
    assert opened.num_roots == 2
    assert (tmp_path / "a.tree").read_bytes() == before


def test_a_newer_file_asks_for_an_upgrade(tmp_path: Path, hand_made: TokenTree) -> None:
    path = tmp_path / "a.tree"
    hand_made.save(path)
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"9"'))
    with pytest.raises(DataError, match=r"version 9.*upgrade"):
        TokenTree.open(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such tree file"):
        TokenTree.open(tmp_path / "none.tree")


@pytest.mark.parametrize(
    ("column", "node", "value", "message"),
    [
        ("parent", 4, 7, "not an earlier node"),
        ("first_child", 1, 9, "node"),
        ("child_count", 0, 9, "node"),
        ("depth", 3, 5, "depth"),
        ("token", 2, 0, "same token"),
        ("token", 2, 99, "vocabulary"),
        ("prior", 2, np.nan, "log-probability"),
        ("prior", 2, 1.5, "log-probability"),
        ("proposers", 2, 64, "proposers"),
        ("similarity", 2, 3.0, "similarity"),
        ("verdict", 5, np.inf, "infinite"),
        ("flags", 5, 1 << 12, "flags"),
        ("flags", 4, EOS | EXPANDED, "flags"),
        ("teacher_logp", 2, 2.0, "teacher"),
        ("weight", 2, -1.0, "weight"),
        ("parent", 5, -1, "root"),
    ],
)
def test_validation_finds_every_kind_of_damage(
    hand_made: TokenTree, column: str, node: int, value: float, message: str
) -> None:
    hand_made.validate()
    hand_made.column(column)[node] = value
    with pytest.raises(DataError, match=message):
        hand_made.validate()


def test_synthetic_trees_are_closed_solvable_and_reproducible() -> None:
    first, second = synthetic_tree(roots=20, seed=5), synthetic_tree(roots=20, seed=5)
    first.validate()
    assert first.is_closed
    for name in first.column_names:
        np.testing.assert_array_equal(first.column(name), second.column(name))
    other = synthetic_tree(roots=20, seed=6)
    assert other.size != first.size or (other.token != first.token).any()


@pytest.mark.parametrize("spec", ["synthetic:rots=3", "synthetic:roots=x", "synthetic:roots=0", "synthetic:depth=-1"])
def test_bad_synthetic_specs(spec: str) -> None:
    from treegym.tree.opening import load_tree

    with pytest.raises(ConfigError, match="synthetic tree"):
        load_tree(spec)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"priorr": [0.0, 0.0]}, "no column 'priorr' to fill. Did you mean 'prior'"),
        ({"prior": [0.0, 0.0, 0.0]}, r"came as \(3,\); numbers of shape \(2,\)"),
        ({"verdict": "right"}, "'verdict' came as"),
        ({"teacher_logp": [[-1.0, -2.0]]}, r"shape \(2, 1\) were expected"),
        ({"depth": 3}, "no column 'depth'"),
    ],
)
def test_bad_columns_leave_nothing_half_made(columns: dict, message: str) -> None:
    tree = TokenTree.empty(tokens=["a", "b", ""], eos_id=2, teachers=["x"])
    tree.add_root("p")
    with pytest.raises(ConfigError, match=message):
        tree.add_children([0], [2], [0, 1], **columns)
    assert (tree.size, tree.child_count[0], tree.flags[0]) == (1, 0, 0)
    with pytest.raises(ConfigError, match="Did you mean 'context'"):
        tree.add_root("q", contxt=1)
    assert (tree.num_roots, tree.size) == (1, 1)


def test_nothing_follows_an_end(hand_made: TokenTree) -> None:
    with pytest.raises(ConfigError, match="node 5 is an end"):
        hand_made.add_children([5], [1], [0])
