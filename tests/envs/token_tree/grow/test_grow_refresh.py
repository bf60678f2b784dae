"""Refreshing a tree: the same model changes nothing, another one leaves the columns it would have grown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treegym.envs.token_tree.grow.growing import grow
from treegym.envs.token_tree.grow.refresh import refresh
from treegym.envs.token_tree.grow.settings import GrowSettings
from treegym.errors import ConfigError, DataError
from treegym.models.local.fake import FakeLanguageModel, FakeTokenizer
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.tree.token_tree import Root, TokenTree


@pytest.fixture
def tree(tmp_path: Path) -> TokenTree:
    roots = [Root("1+1=", "2"), Root("22+2=", "24")]
    settings = GrowSettings(max_tokens=6, max_nodes=50)
    teachers = [FakeLanguageModel(name="t", seed=9)]
    return grow(roots, primary=FakeLanguageModel(), teachers=teachers, out=tmp_path / "t.tree", settings=settings)


def test_the_same_model_changes_nothing(tree: TokenTree, tmp_path: Path) -> None:
    before = {name: np.array(tree.column(name)) for name in tree.column_names}
    refresh(tree, FakeLanguageModel(), roots_at_once=1)
    for name, column in before.items():
        np.testing.assert_array_equal(tree.column(name), column, err_msg=name)


def test_another_model_replaces_only_the_primarys_columns(tree: TokenTree, tmp_path: Path) -> None:
    teacher = np.array(tree.teacher_logp)
    changed = FakeLanguageModel(name="changed", seed=5)
    refresh(tree, changed)
    node = int(np.flatnonzero(tree.depth == 3)[0])
    path = tree.path(node).tolist()
    context = [*tree.roots[int(tree.root_of(node)[0])].tokens, *path[:-1]]
    assert tree.prior[node] == pytest.approx(changed.score([context], [path[-1:]])[0][0], abs=1e-5)
    np.testing.assert_array_equal(tree.teacher_logp, teacher)
    assert tree.header["primary"]["name"] == "changed"
    tree.save(tmp_path / "again.tree")
    TokenTree.open(tmp_path / "again.tree").validate()


def test_a_model_of_another_vocabulary_or_width_is_refused(tree: TokenTree) -> None:
    with pytest.raises(ConfigError, match="another vocabulary"):
        refresh(tree, FakeLanguageModel(tokenizer=FakeTokenizer("12+=")))
    with pytest.raises(ConfigError, match="describes contexts by 7 numbers"):
        refresh(tree, FakeLanguageModel(width=7))


def test_prompts_are_put_as_they_were_when_the_tree_was_grown(tmp_path: Path) -> None:
    out = tmp_path / "asked.tree"
    model = FakeLanguageModel()
    form = PromptFormat(form="raw", template="ask {prompt} ")
    settings = GrowSettings(max_tokens=6, max_nodes=20, max_children=4, right=4, wrong=2)
    grow([Root("ab", "a")], primary=model, out=out, settings=settings, forms={model.name: form})
    grown = TokenTree.open(out)
    again = refresh(TokenTree.open(out), model)
    np.testing.assert_array_equal(again.prior, grown.prior)
    again.header["forms"][model.name]["stops"] = [7]
    with pytest.raises(DataError, match="a form of prompts is damaged"):
        refresh(again, model)
