"""The bundled judge and completeness model on the bundled tree, in this process and behind a real server."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from treegym.models.loading import load_model
from treegym.rewards import build, build_terminal
from treegym.rewards.judge.prompt import Case
from treegym.rewards.judge.term import Judge
from treegym.rewards.terminal.detection_report import detection_report
from treegym.tree.flags import EOS
from treegym.tree.opening import load_tree

TEMPLATE = "{prompt}{answer}?"


@pytest.fixture(scope="module")
def tree():
    return load_tree(None)


@pytest.fixture(scope="module")
def judge():
    """The bundled judge, asked directly."""
    return Judge(model="tiny-judge", template=TEMPLATE)


@pytest.fixture(scope="module")
def cases(tree):
    ends = np.nonzero((tree.flags & EOS) != 0)[0][::800]
    prompts = tree.prompts
    return [Case(prompts[int(tree.root_of(end)[0])], tree.text(int(end))) for end in ends]


def test_judge_knows_right_from_wrong_but_not_always(tree, judge):
    """Imperfect on purpose: what reward hacking needs. It must still carry some signal."""
    ends = np.nonzero(np.isfinite(tree.verdict))[0][::25]
    prompts = tree.prompts
    scores, _ = judge.judge([Case(prompts[int(tree.root_of(end)[0])], tree.text(int(end))) for end in ends])
    right = tree.verdict[ends] >= 0.5
    values = np.array(scores)
    rank = (values[right][:, None] > values[~right][None, :]).mean()  # area under the ROC curve
    assert 0.55 < rank < 0.999


def test_completeness_behind_the_filter(tree):
    filtered = build_terminal({"then": ["punctuation", "completeness"]})
    few = np.nonzero(tree.depth > 0)[0][::60]
    decided = filtered.on(tree, few)
    punctuation, completeness = filtered.detector.parts()
    assert punctuation.asked == len(few)
    assert completeness.asked < 0.5 * len(few)
    candidates = few[build_terminal("punctuation").on(tree, few)]
    assert decided.sum() == completeness.ends(tree, candidates).sum() > 0


def test_proxy_agrees_with_true_ends(tree):
    assert detection_report(build_terminal("proxy"), tree)["agreement"] > 0.9


def test_detected_ends_are_verified_without_their_end_token(tree):
    """A text that is complete but for the end token gets the verdict of its end."""
    ends = np.nonzero(np.isfinite(tree.verdict))[0][::50]
    before = tree.parent[ends]
    before, first = np.unique(before, return_index=True)
    flags = np.zeros(tree.size, bool)
    flags[before] = True
    table = build("verifier").on(tree, ends=flags)
    assert table.total[before].tolist() == tree.verdict[ends[first]].tolist()


def test_behind_a_server_that_misbehaves(chat_server, judge, cases):
    local = dict(zip(((c.prompt + c.answer + "?") for c in cases), judge.judge(cases)[0], strict=True))
    chat_server.reply = lambda messages: "y" if local[messages[-1]["content"]] >= 0.5 else "n"
    faults = [500, "reset", None, "truncated", (429, {"Retry-After": "0"}), None, "not json", "wrong schema"]
    chat_server.script = faults * 3
    served = Judge(url=chat_server.url, template=TEMPLATE, form="yes_no", cache=False, concurrency=4, timeout=5.0)
    scores, reasons = served.judge(cases)
    assert reasons == {}
    assert scores == [float(score >= 0.5) for score in local.values()]


def test_behind_the_project_own_server(judge, cases):
    # Unlike the local judge a served one may say anything; after whole answers the bundled one says y or n.
    cases = [case for case in cases if case.answer.endswith(".")]
    command = [sys.executable, "-m", "treegym", "serve", "tiny-judge", "--port", "0", "--json", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            said = json.loads(server.stdout.readline())
            url = said["url"] if said["url"].endswith("/v1") else said["url"] + "/v1"
            served = Judge(url=url, template=TEMPLATE, form="yes_no", cache=False, max_tokens=1)
            scores, reasons = served.judge(cases)
            served.close()
        finally:
            server.terminate()
    assert reasons == {}
    assert scores == [float(score >= 0.5) for score in judge.judge(cases)[0]]


def test_reward_model_learns_the_tasks(tree, tmp_path):
    from treegym.rewards.learned.preference import pairs_from_tree
    from treegym.rewards.learned.preference_training import TrainingSettings, train_reward_model

    pairs = pairs_from_tree(tree, roots=tree.roots_in("train")[:150].tolist(), per_root=4)
    settings = TrainingSettings(epochs=15, batch=64, suffix="?")  # the place where this model was taught to judge
    model = train_reward_model(load_model("tiny-judge", device="cpu"), pairs, tmp_path / "rm", settings=settings)
    assert model.facts["held_out_accuracy"] > 0.6  # chance is 0.5
