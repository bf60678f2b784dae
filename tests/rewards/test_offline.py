"""Scoring stored trees and rollouts, and the commands."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.commands import tree_score
from treegym.errors import ConfigError, DataError
from treegym.rewards import build, build_terminal
from treegym.rewards.rollouts import read_rollouts, score_rollouts
from treegym.tree.flags import EOS
from treegym.tree.synthetic import synthetic_tree

SIX = {"verifier": 1.0, "length": -0.01, "shortest_path": 0.2, "perplexity": -0.01, "similarity": 0.05}
SIX |= {"loglikelihood": 0.01}


@pytest.fixture(scope="module")
def tree():
    return synthetic_tree(roots=12, depth=6, branching=3, seed=1)


def test_a_real_tree_satisfies_the_source(tree):
    table = build(SIX).on(tree)
    assert table.complete
    assert table.total.shape == (tree.size,)
    assert np.isfinite(table.total).all()
    right = np.nonzero(tree.verdict >= 0.5)[0]
    assert (table.terms[right, 0] == 1.0).all()
    assert table.terms[:, 0].sum() == len(right)


def test_function_sees_what_the_tree_says(tree):
    node = int(np.nonzero(tree.verdict >= 0.5)[0][0])

    def check(path):
        assert path.text == tree.text(node)
        assert path.tokens.tolist() == tree.path(node).tolist()
        assert path.prompt == tree.prompts[path.root]
        return float(path.depth)

    table = build({"mine": check}).on(tree)
    table.ensure(np.array([node]))
    assert table.total[node] == tree.depth[node]


def test_table_grows_with_the_tree():
    tree = synthetic_tree(roots=3, depth=4, branching=3, seed=2)
    terminal = build_terminal("eos").decisions(tree)
    table = build({"verifier": 1.0, "length": -0.1}).on(tree, ends=terminal)
    before = table.total.copy()
    root = tree.add_root("new")
    (child,) = tree.add_children([root], [1], [tree.eos_id], verdict=[1.0], prior=[0.0])
    table.ensure(np.array([child]))
    assert table.total[child] == pytest.approx(0.9)
    assert np.array_equal(table.total[: len(before)], before)


def run_score(capsys, *words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    tree_score.configure(parser)
    assert tree_score.run(parser.parse_args(["--json", *words])) == 0
    return json.loads(capsys.readouterr().out)


def test_score_a_tree(capsys, tree, tmp_path):
    path = tmp_path / "a.tree"
    tree.save(path)
    figures = run_score(capsys, str(path), "--reward", json.dumps(SIX))
    ends = int(((tree.flags & EOS) != 0).sum())
    assert figures["ends"] == ends
    assert figures["terms"]["verifier"]["mean"] == pytest.approx(float(np.nanmean(tree.verdict)))
    assert figures["terms"]["verifier"]["mean_if_wrong"] == 0.0


def test_store_writes_a_column(capsys, tree, tmp_path):
    from treegym.tree.token_tree import TokenTree

    path, out = tmp_path / "a.tree", tmp_path / "b.tree"
    tree.save(path)
    reward = '{"perplexity": {"form": "log"}}'
    run_score(capsys, str(path), "--reward", reward, "--store", "judge", "--out", str(out))
    scored = TokenTree.open(out)
    expected = build(json.loads(reward)).on(tree).terms[:, 0]
    ends = (tree.flags & EOS) != 0
    assert scored.judge[ends] == pytest.approx(expected[ends])
    assert np.isnan(scored.judge[~ends]).all()
    with pytest.raises(ConfigError, match="a reward of one term"):
        run_score(capsys, str(path), "--reward", json.dumps(SIX), "--store", "judge")


def test_detection_report_of_a_tree(capsys, tree, tmp_path):
    path = tmp_path / "a.tree"
    tree.save(path)
    report = run_score(capsys, str(path), "--terminal", "proxy", "--report-ends")
    assert report["asked"] == {"proxy": report["nodes"]}
    assert 0.0 < report["agreement"] <= 1.0


ROLLOUTS = [
    {"prompt": "2+2=", "text": "4", "answer": "4", "tokens": [1, 5], "logprobs": [-0.5, -0.1]},
    {"prompt": "2+2=", "text": "5", "answer": "4", "tokens": [2, 5], "logprobs": [-1.5, -0.1], "judge": 0.25},
]


def test_score_rollouts(capsys, tmp_path):
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in ROLLOUTS))
    reward = json.dumps({"verifier": 1.0, "length": -0.1, "loglikelihood": 0.1})
    figures = run_score(capsys, "--rollouts", str(path), "--reward", reward, "--out", str(out))
    # 1 - 0.2 - 0.06 and 0 - 0.2 - 0.16
    assert figures["mean_reward"] == pytest.approx((0.74 - 0.36) / 2)
    scored = list(read_rollouts(out))
    assert scored[0]["reward"] == pytest.approx(0.74)
    assert scored[1]["reward_terms"] == pytest.approx({"verifier": 0.0, "length": 2.0, "loglikelihood": -1.6})
    assert scored[0]["answer"] == "4"


def test_a_judge_that_is_down_leaves_rollouts_to_score_later(chat_server, tmp_path):
    chat_server.script = [500] * 9
    spec = {"judge": {"url": chat_server.url, "cache": False, "attempts": 1, "on_error": "mask", "form": "yes_no"}}
    scored = score_rollouts(build(spec), ROLLOUTS)
    assert [record["reward_failed"] for record in scored] == [["judge"], ["judge"]]
    assert [record["reward_terms"]["judge"] for record in scored] == [None, None]
    assert [record["reward"] for record in scored] == [None, None]  # unknown, which is not 0
    chat_server.script = []
    again = score_rollouts(build(spec), scored)
    assert [record["reward_terms"]["judge"] for record in again] == [1.0, 1.0]
    assert [record["reward_failed"] for record in again] == [[], []]


def test_defaults_are_named_and_unscored_rollouts_stay_out_of_the_mean(capsys, chat_server, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in ROLLOUTS))
    judge = {"url": chat_server.url, "cache": False, "attempts": 1, "form": "yes_no", "concurrency": 1}
    chat_server.script = [None, 500]
    masked = json.dumps({"judge": {**judge, "on_error": "mask"}, "length": -0.1})
    figures = run_score(capsys, "--rollouts", str(path), "--reward", masked)
    assert figures == {
        "rollouts": 2,
        "unscored": 1,
        "mean_reward": pytest.approx(0.8),
        "failed": {"judge": 1, "length": 0},
    }
    chat_server.script = [None, 500]
    scored = score_rollouts(build({"judge": {**judge, "on_error": "default", "default": 0.5}}), ROLLOUTS)
    assert [record["reward"] for record in scored] == [1.0, 0.5]
    assert [record["reward_failed"] for record in scored] == [[], ["judge"]]


def test_a_tree_is_scored_by_whole_returns(capsys, tree, tmp_path):
    path = tmp_path / "a.tree"
    tree.save(path)
    ends = (tree.flags & EOS) != 0
    figures = run_score(capsys, str(path), "--reward", json.dumps({"verifier": 1.0, "length": -0.1}))
    expected = tree.verdict[ends] - 0.1 * tree.depth[ends]
    assert figures["mean_reward"] == pytest.approx(expected.mean(), abs=1e-5)
    assert figures["terms"]["length"]["mean"] == pytest.approx(tree.depth[ends].mean())
    assert figures["unscored"] == 0


def test_what_a_judge_could_not_say_is_neither_averaged_nor_stored(capsys, chat_server, tree, tmp_path):
    from treegym.tree.token_tree import TokenTree

    path = tmp_path / "a.tree"
    tree.save(path)
    chat_server.script = [500] * 3
    judge = {"url": chat_server.url, "model": "m", "cache": False, "attempts": 1, "form": "yes_no"}
    reward = json.dumps({"judge": {**judge, "on_error": "default", "default": 0.0}})
    figures = run_score(capsys, str(path), "--reward", reward, "--store", "judge")
    assert figures["terms"]["judge"]["failed"] == 3
    ends = (tree.flags & EOS) != 0
    stored = TokenTree.open(path).judge[ends]
    assert (np.isnan(stored).sum(), set(stored[~np.isnan(stored)])) == (3, {1.0})
    chat_server.script = [500] * 3
    figures = run_score(capsys, str(path), "--reward", json.dumps({"judge": {**judge, "on_error": "mask"}}))
    assert (figures["unscored"], figures["mean_reward"]) == (3, 1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--store", "judge"], "needs --out"),
        (["synthetic:roots=3", "--store", "judge"], "needs --out"),
        (["synthetic:roots=3", "--store", "judge", "--out", "/nowhere/at/all.tree"], "does not exist"),
        (["--out", "x.tree"], "--out goes with"),
        (["--rollouts", "x.jsonl", "--store", "judge", "--out", "y"], "leave the tree"),
    ],
)
def test_unusable_outputs_are_refused_before_anybody_is_asked(capsys, words, message):
    with pytest.raises(ConfigError, match=message):
        run_score(capsys, *words, "--reward", '{"judge": {"url": "http://127.0.0.1:9/v1", "model": "m"}}')


def test_truncated_rollout_is_not_judged():
    records = [{"prompt": "2+2=", "text": "4", "answer": "4", "truncated": True}]
    assert score_rollouts(build("verifier"), records)[0]["reward"] == 0.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: not valid JSON"),
        ('{"prompt": "a"}', "the texts prompt and text"),
        ('{"prompt": "a", "text": "b", "tokens": [-1]}', "a list of token ids"),
        ('{"prompt": "a", "text": "b", "tokens": [1], "logprobs": [0.5]}', "at most 0"),
        ('{"prompt": "a", "text": "b", "tokens": [1], "logprobs": []}', "one number"),
        ('{"prompt": "a", "text": "b", "verdict": "yes"}', "verdict is 'yes'"),
    ],
)
def test_bad_rollouts(tmp_path, line, words):
    path = tmp_path / "in.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=words):
        list(read_rollouts(path))


def test_step_terms_need_tokens():
    with pytest.raises(DataError, match="rollout 1 has no tokens, which the reward term 'length' needs"):
        score_rollouts(build("length"), [{"prompt": "a", "text": "b"}])


def test_list_and_check(capsys):
    assert main(["rewards"]) == 0
    text = capsys.readouterr().out
    assert "verifier" in text
    assert "completeness" in text
    assert main(["rewards", "--check", '{"verifier": 1, "length": -0.01}', "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"verifier": 1.0, "length": -0.01}
    assert main(["rewards", "--check", '{"verifer": 1}']) == 1
    assert "Did you mean 'verifier'" in capsys.readouterr().err


def test_train_reward_command(capsys, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{i}=", "chosen": "2.", "rejected": "3."} for i in range(30)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["train-reward", "--out", str(tmp_path / "rm"), "--from", "pairs", "--pairs", str(pairs), "--epochs", "5"]
    assert main([*words, "--model", "tiny-llama", "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["held_out_accuracy"] == 1.0
    assert main(["train-reward", "--out", "x", "--from", "pairs"]) == 1
    assert "go together" in capsys.readouterr().err
