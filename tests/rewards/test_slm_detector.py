"""The small model that ends a text: by name, as a filter's second step, with a threshold fitted on known ends."""

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.models import load_model
from treegym.rewards.terminal.base import build_terminal
from treegym.rewards.terminal.detection_report import fit_threshold
from treegym.rewards.terminal.detectors import Slm
from treegym.tree.editing import select_roots
from treegym.tree.token_tree import BUNDLED, TokenTree


@pytest.fixture(scope="module")
def tree() -> TokenTree:
    whole = TokenTree.open(BUNDLED)
    return select_roots(whole, whole.roots_in("test")[:2])


def test_it_is_the_models_own_probability_of_an_end(tree) -> None:
    nodes = np.flatnonzero(np.asarray(tree.depth) == 3)[:6]
    given = Slm(model="tiny-primary").probability(tree, nodes)
    model = load_model("tiny-primary")
    for node, probability in zip(nodes, given, strict=True):
        root = int(tree.root_of(np.array([node]))[0])
        ids = model.tokenizer.encode(tree.prompts[root] + tree.text(int(node)))
        expected = np.exp(model.next_logprobs([ids])[0, model.tokenizer.eos_id])
        assert probability == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_by_name_behind_a_filter(tree) -> None:
    terminal = build_terminal({"any": ["eos", {"then": ["punctuation", "slm:tiny-primary"]}]})
    assert build_terminal(terminal.spec) == terminal
    found = terminal.on(tree)
    assert found.dtype == np.bool_
    assert found.any()


def test_thresholds_by_hand(tree) -> None:
    class Told:
        def probability(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
            return np.array([0.9, 0.8, 0.8, 0.3, 0.1])[nodes]

    nodes = np.arange(5)
    # at 0.8 three are found, of which two are true, one is missed: two of five are wrong; at 0.3 it is one
    assert fit_threshold(Told(), tree, nodes, np.array([True, True, False, True, False])) == (0.3, 0.8)
    assert fit_threshold(Told(), tree, nodes, np.array([True, True, True, False, False])) == (0.8, 1.0)
    assert fit_threshold(Told(), tree, nodes, np.array([True, False, False, False, False])) == (0.9, 1.0)
    assert fit_threshold(Told(), tree, nodes, np.zeros(5, bool)) == (1.0, 1.0)


@pytest.mark.parametrize("options", [{"threshold": 2.0}, {"stops": "x"}, {"stops": [""]}])
def test_options_that_cannot_be(options) -> None:
    with pytest.raises(ConfigError):
        Slm(model="tiny-primary", **options)


@pytest.mark.real
def test_gemma_ends_sentences_where_they_end() -> None:
    tree = TokenTree.open(BUNDLED)
    detector = build_terminal("slm:gemma3-270m").detector
    assert isinstance(detector, Slm)
    given = detector.probability(tree, np.asarray(tree.root_node)[:2] + 1)
    assert ((given >= 0) & (given <= 1)).all()
