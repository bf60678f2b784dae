"""Terminal detection on the small tree (drawn in conftest.py), each detector and composition by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from treegym.errors import ConfigError, RewardError
from treegym.models.local.fake import FakeLanguageModel, FakeTokenizer
from treegym.rewards import build, build_terminal, register_terminal
from treegym.rewards.terminal.base import Detector
from treegym.rewards.terminal.detection_report import detection_report
from treegym.tree.flags import EOS


def ends(spec, tree):
    return build_terminal(spec).on(tree).nonzero()[0].tolist()


def test_single_detectors(small):
    assert ends("eos", small) == [4, 6, 8]
    assert ends(None, small) == [4, 6, 8]
    assert ends("punctuation", small) == [5]
    assert ends({"punctuation": {"marks": "45"}}, small) == [2, 3, 9]
    assert ends({"minimum": {"tokens": 3}}, small) == [8]
    small.flags[7] |= 4  # stopped by earlier detection
    assert ends("stored", small) == [4, 6, 7, 8]


def test_punctuation_looks_through_closing_marks(small):
    small.header["tokens"][3] = '."'
    assert ends("punctuation", small) == [5]
    small.header["tokens"][3] = "…".encode().decode("latin-1")  # pieces are bytes as latin-1 characters
    assert ends("punctuation", small) == [5]


def test_proxy_compares_stopping_with_the_best_continuation(small):
    # node 2: stop 1/2 against "." 1/4 -> ends; node 3: only stop; node 5: only stop; node 7: no stop among its children
    assert ends("proxy", small) == [2, 3, 4, 5, 6, 8]
    small.prior[5] = np.log(0.6)  # now "." is likelier than stopping at node 2
    assert ends("proxy", small) == [3, 4, 5, 6, 8]


def test_compositions(small):
    assert ends({"any": ["eos", "punctuation"]}, small) == [4, 5, 6, 8]
    assert ends({"all": ["eos", {"minimum": {"tokens": 3}}]}, small) == [8]
    assert ends({"then": ["punctuation", {"minimum": {"tokens": 3}}]}, small) == []


def test_then_asks_the_second_only_where_the_first_said_yes(small):
    asked = []

    def complete(path):
        asked.append(path.node)
        return True

    assert ends({"then": ["punctuation", complete]}, small) == [5]
    assert asked == [5]


def test_any_asks_the_second_only_where_the_first_said_no(small):
    asked = []
    ends({"any": ["eos", lambda path: bool(asked.append(path.node))]}, small)
    assert asked == [2, 3, 5, 7, 9]


class Yes(FakeLanguageModel):
    """Says y after a text whose last full stop stands right before the question mark, else n."""

    def next_logprobs(self, contexts):
        logprobs = np.full((len(contexts), self.tokenizer.vocab_size), -9.0, np.float32)
        yes, no = self.tokenizer.encode("y")[0], self.tokenizer.encode("n")[0]
        for row, context in enumerate(contexts):
            sure = self.tokenizer.decode(context).endswith(".?")
            logprobs[row, [yes, no]] = np.log([0.9, 0.05] if sure else [0.1, 0.3])
        return logprobs


def test_completeness_is_a_probability_against_a_threshold(small):
    from treegym.rewards.terminal.detectors import Completeness

    detector = Completeness(model=Yes(tokenizer=FakeTokenizer()))
    found = detector.probability(small, np.array([2, 5]))
    assert found == pytest.approx([0.25, 0.9 / 0.95])  # 0.1 / (0.1 + 0.3); what else it might say does not count
    assert detector.ends(small, np.array([2, 5])).tolist() == [False, True]
    strict = Completeness(model=Yes(tokenizer=FakeTokenizer()), threshold=0.96)
    assert strict.ends(small, np.array([5])).tolist() == [False]


def test_budget_truncates_and_does_not_end(small):
    terminal = build_terminal({"any": ["eos", {"budget": {"tokens": 2}}]})
    assert terminal.on(small).nonzero()[0].tolist() == [4, 6, 8]
    assert terminal.truncates(small).nonzero()[0].tolist() == [4, 5, 6, 8, 9]
    alone = build_terminal({"budget": {"tokens": 3}})
    assert alone.on(small).sum() == 0
    assert alone.truncates(small).nonzero()[0].tolist() == [8]


@pytest.mark.parametrize(
    "spec",
    [
        "eos",
        {"any": ["eos", {"then": ["punctuation", {"completeness": {"threshold": 0.7}}]}]},
        {"all": ["proxy", {"minimum": {"tokens": 2}}]},
        {"any": ["eos", "punctuation", {"budget": {"tokens": 9}}]},
        {"budget": {"tokens": 9}},
        {"any": ["eos", {"budget": {"tokens": 9}}]},
    ],
)
def test_round_trip(spec):
    terminal = build_terminal(spec)
    assert build_terminal(terminal.spec) == terminal
    assert build_terminal(terminal) is terminal


def test_decided_once_a_node_and_stored(small):
    asked = []

    def complete(path):
        asked.append(path.node)
        return path.node == 2

    decisions = build_terminal(complete).decisions(small)
    for _ in range(3):
        assert decisions(np.array([2, 3, 2, 0])).tolist() == [True, False, True, False]
    assert asked == [2, 3]  # roots are never asked about
    assert decisions.store(small.flags) == 1
    assert decisions.store(small.flags) == 0
    assert small.flags[2] & 4


def test_reward_at_a_detected_end(small):
    terminal = build_terminal({"any": ["eos", "punctuation"]})
    table = build({"verifier": 1.0}).on(small, ends=terminal.decisions(small))
    assert table.total[[4, 5, 6, 8]].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_report_counts_calls_saved(small):
    terminal = build_terminal({"then": ["punctuation", lambda path: True]})
    report = detection_report(terminal, small)
    # looked at: nodes 2, 3, 5, 7; true ends (an end-of-sequence child follows): 2, 3, 5; found: 5
    assert (report["nodes"], report["true_ends"], report["found_ends"]) == (4, 3, 1)
    assert report["agreement"] == 0.5
    assert (report["precision"], report["recall"]) == (1.0, pytest.approx(1 / 3))
    assert report["asked"] == {"punctuation": 4, "function": 1}
    assert report["calls_saved"] == 0.75


def test_registered_by_name(small, monkeypatch):
    from treegym.rewards import registry

    for known in (registry.TERMS, registry.DETECTORS, registry.VERIFIERS):
        monkeypatch.setattr(known, "_registered", {})
    register_terminal("longer_than", lambda path, tokens: path.depth > tokens)
    assert ends({"longer_than": {"tokens": 2}}, small) == [8]
    with pytest.raises(ConfigError, match="no option 'tokns'"):
        build_terminal({"longer_than": {"tokns": 2}})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("eoss", "Did you mean 'eos'"),
        ({"completeness": {"thresold": 1}}, "Did you mean 'threshold'"),
        ({"completeness": {"threshold": 1.5}}, "between 0 and 1"),
        ({"any": "eos"}, "needs a list"),
        ({"then": []}, "at least one part"),
        ({"eos": 3}, "a table was expected"),
        ({"budget": {"tokens": 0}}, "at least 1 token"),
        ({"budget": {"steps": 3}}, "'tokens': 48"),
        ({"all": ["eos", {"budget": {"tokens": 3}}]}, "truncates, not ends"),
        (5, "cannot be made of 5"),
    ],
)
def test_bad_specs(spec, words):
    with pytest.raises(ConfigError, match=words):
        build_terminal(spec)


def test_function_that_fails_or_lies(small):
    with pytest.raises(RewardError, match=r"failed at PathView\(root=0, node=2.*ZeroDivisionError"):
        build_terminal(lambda path: 1 / 0).on(small)
    with pytest.raises(RewardError, match="True or False was expected"):
        build_terminal(lambda path: "yes").on(small)


def test_environments_of_one_tree_share_what_a_model_decided():
    from treegym.envs.token_tree.env import TokenTreeEnv
    from treegym.tree.synthetic import synthetic_tree

    tree = synthetic_tree(roots=6, depth=3, seed=0)

    class Costly(Detector):
        kind, costly, asked_about = "costly", True, 0

        def ends(self, source, nodes):
            Costly.asked_about += len(nodes)
            return np.asarray(source.depth)[nodes] >= 2

    for _ in range(3):
        env = TokenTreeEnv(tree, terminal=build_terminal({"any": ["eos", Costly()]}), reward={"length": -1.0})
        assert env.world.tables.ends[tree.depth >= 2].all()
    assert 0 < Costly.asked_about < tree.size


def test_detected_ends_can_be_stored_in_a_tree_file(tmp_path, capsys):
    from treegym.__main__ import main
    from treegym.envs.token_tree.env import TokenTreeEnv
    from treegym.tree.token_tree import TokenTree

    out = str(tmp_path / "a.tree")
    words = ["tree", "score", "synthetic:roots=6,depth=3,seed=0", "--store", "ends", "--out", out, "--json"]
    assert main([*words, "--terminal", '{"any": ["eos", {"minimum": {"tokens": 2}}]}']) == 0
    figures = json.loads(capsys.readouterr().out)
    tree = TokenTree.open(out)
    tree.validate()
    assert figures["new_ends"] == (tree.depth >= 2).sum() - ((tree.depth >= 2) & (tree.flags & EOS != 0)).sum()
    again = TokenTreeEnv(out, terminal="stored", reward={"length": -1.0})
    assert again.world.tables.ends[tree.depth >= 2].all()
