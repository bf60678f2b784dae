"""The bundled tree of English: what its card promises, read without any model."""

import subprocess
import sys

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.tree.opening import load_tree
from treegym.tree.token_tree import ENGLISH

LIMIT = 12 * 2**20  # bytes


@pytest.fixture(scope="module")
def tree():
    return load_tree("bundled:english")


def test_it_is_closed_and_within_its_limit(tree) -> None:
    tree.validate()
    assert tree.is_closed
    assert ENGLISH.stat().st_size <= LIMIT
    assert all(len(tree.roots_in(split)) >= 24 for split in ("train", "validation", "test"))
    assert len({root.kind for root in tree.roots}) >= 5
    prompts = [root.prompt for root in tree.roots]
    assert len(set(prompts)) == len(prompts)


def test_verdicts_are_those_of_the_questions_rules(tree) -> None:
    from treegym.rewards.answers import AnswerRule

    ends = np.flatnonzero(np.asarray(tree.child_count) == 0)[::7]
    for node, owner in zip(ends, tree.root_of(ends), strict=True):
        root = tree.roots[int(owner)]
        assert tree.verdict[node] == AnswerRule(root.extra["extract"]).right(tree.text(int(node)), root.answer)


def test_at_least_nine_of_ten_questions_can_be_answered(tree) -> None:
    right = np.flatnonzero(np.nan_to_num(np.asarray(tree.verdict)) >= 0.5)
    assert len(np.unique(tree.root_of(right))) >= 0.9 * tree.num_roots


def test_it_is_walked_without_any_model_installed() -> None:
    script = (
        "import sys, gymnasium, treegym\n"
        "env = gymnasium.make('TokenTree-v0', tree='bundled:english', split='test')\n"
        "_, info = env.reset(seed=0)\n"
        "done = False\n"
        "while not done:\n"
        "    _, reward, done, _, info = env.step(int(info['action_mask'].argmax()))\n"
        "assert info['text']\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_another_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match="bundled:english"):
        load_tree("bundled:englisch")
