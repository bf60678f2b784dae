from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.errors import ConfigError, DataError
from treegym.tree.editing import merge, statistics
from treegym.tree.forest import MANIFEST, Forest, is_forest
from treegym.tree.opening import load_tree
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import TokenTree


@pytest.fixture
def parts() -> list[TokenTree]:
    return [synthetic_tree(roots=12, depth=3 + seed, branching=3, seed=seed) for seed in range(3)]


@pytest.fixture
def folder(tmp_path: Path, parts: list[TokenTree]) -> Path:
    place = tmp_path / "forest"
    place.mkdir()
    for number, tree in enumerate(parts):
        tree.save(place / f"part-{number}.tree")
    Forest.gather(place)
    return place


def test_a_forest_is_numbered_and_read_as_the_merged_tree(folder: Path, parts: list[TokenTree]) -> None:
    forest, whole = Forest.open(folder, open_trees=2), merge(parts)
    assert (forest.size, forest.num_roots) == (whole.size, whole.num_roots)
    for node in range(0, whole.size, 7):
        assert forest.children(node).tolist() == whole.children(node).tolist()
        assert forest.text(node) == whole.text(node)
        assert len(forest._open) <= 2
    assert [forest.root(i) for i in range(36)] == list(whole.roots)
    assert forest.count_in("test").tolist() == [len(tree.roots_in("test")) for tree in parts]
    values = np.concatenate([found.value for found in forest.values()])
    np.testing.assert_array_equal(values, whole.values().value)


def test_statistics_are_those_of_the_merged_tree(folder: Path, parts: list[TokenTree]) -> None:
    found, expected = Forest.open(folder).statistics(), statistics(merge(parts))
    for name in ("proposed_by", "splits"):
        assert found.pop(name) == pytest.approx(expected.pop(name))
    assert found == pytest.approx(expected)


def test_saved_as_one_file_it_is_the_merged_tree(folder: Path, parts: list[TokenTree], tmp_path: Path) -> None:
    assert main(["tree", "export", str(folder), "--out", str(tmp_path / "one.tree")]) == 0
    merge(parts).save(tmp_path / "expected.tree")
    one, expected = TokenTree.open(tmp_path / "one.tree"), TokenTree.open(tmp_path / "expected.tree")
    one.validate()
    for name in expected.column_names:
        np.testing.assert_array_equal(one.column(name), expected.column(name))
    assert list(one.roots) == list(expected.roots)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.tree", "forest", "one.tree"]


def test_the_commands_take_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / MANIFEST).unlink()
    assert not is_forest(folder)
    assert main(["tree", "gather", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trees"] == 3
    assert main(["tree", "stats", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["roots"] == 36
    assert main(["tree", "verify", str(folder)]) == 0
    assert "36 roots" in capsys.readouterr().out
    assert main(["tree", "show", str(folder)]) == 1
    assert "is a forest, and one tree is needed here" in capsys.readouterr().err


def test_damage_is_told_by_the_file(folder: Path, parts: list[TokenTree]) -> None:
    shutil.copyfile(folder / "part-0.tree", folder / "part-1.tree")
    with pytest.raises(DataError, match=r"part-1\.tree is another tree than forest\.json says"):
        Forest.open(folder).validate()
    broken = synthetic_tree(roots=12, depth=4, branching=3, seed=1)
    broken.token[5] = broken.vocab_size
    broken.save(folder / "part-1.tree")
    with pytest.raises(DataError, match=r"part-1\.tree: the tree is damaged at node 5"):
        Forest.open(folder).tree(1)
    os.truncate(folder / "part-1.tree", 100)
    with pytest.raises(DataError, match=r"part-1\.tree"):
        Forest.open(folder).tree(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "../part-0.tree"}, "not a .tree file beside it"),
        ({"file": "part-0.tree"}, "one twice"),
        ({"nodes": -1}, "from 0 to"),
        ({"nodes": "many"}, "parts"),
    ],
)
def test_a_manifest_is_not_to_be_trusted(folder: Path, change: dict[str, object], said: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["parts"][1] |= change
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=said):
        Forest.open(folder)


def test_trees_of_another_vocabulary_make_no_forest(folder: Path) -> None:
    load_tree(None).save(folder / "part-9.tree")
    with pytest.raises(ConfigError, match="another vocabulary"):
        Forest.gather(folder)


def test_no_forest_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no forest"):
        Forest.open(tmp_path)
    with pytest.raises(DataError, match="files to make a forest of"):
        Forest.gather(tmp_path)
