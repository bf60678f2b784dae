"""Comparing answers: every method, and a regular expression that never ends."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from treegym.errors import ConfigError, RewardError
from treegym.rewards import build
from treegym.rewards.matching import BoundedRegex, last_number, numeric_match, same_answer, to_number


@pytest.mark.parametrize(
    ("text", "value"),
    [("42", 42.0), (" -3.5 ", -3.5), ("1,234", 1234.0), ("1/4", 0.25), ("50%", 0.5), ("$7", 7.0), ("1e3", 1000.0)],
)
def test_to_number(text, value):
    assert to_number(text) == value


@pytest.mark.parametrize("text", ["", "abc", "1 2", "1/0", "--1", "4 apples"])
def test_not_a_number(text):
    assert to_number(text) is None


def test_last_number_stops_at_a_full_stop():
    assert last_number("first 3, then 4.5.") == 4.5
    assert last_number("so it is 12.") == 12.0
    assert last_number("none") is None


def test_numeric_match_tolerance():
    assert numeric_match("about 0.333333", "1/3")
    assert not numeric_match("0.33", "1/3")
    assert numeric_match("0.33", "1/3", tolerance=0.02)
    assert not numeric_match("no idea", "3")


def test_same_answer_by_kind_of_reference():
    assert same_answer("2+2=4. So the answer is 4", "4")
    assert not same_answer("The answer is 44", "4")
    assert same_answer("I think. Paris.", "Paris")
    assert not same_answer("Paris is not it. Rome.", "Paris")


def scores(tree, **options):
    ends = np.zeros(tree.size, bool)
    ends[[5, 9]] = True  # "4." for the reference 4, and " so5" for 5; without stored verdicts
    table = build({"verifier": options}).on(tree, ends=ends)
    table.ensure(np.array([5, 9]))
    return table.total[[5, 9]].tolist()


def test_methods(small):
    assert scores(small, method="exact") == [0.0, 0.0]
    assert scores(small, method="numeric") == [1.0, 1.0]
    assert scores(small, method="regex", pattern=r"^{reference}\.$") == [1.0, 0.0]


def test_callable_by_import_path(small):
    assert scores(small, method="tests_rewards_checks:ends_with_dot") == [1.0, 0.5]


@pytest.fixture(autouse=True)
def checks_module(monkeypatch):
    import sys
    import types

    module = types.ModuleType("tests_rewards_checks")
    module.ends_with_dot = lambda text, reference, prompt: 1.0 if text.endswith(".") else 0.5
    monkeypatch.setitem(sys.modules, "tests_rewards_checks", module)


def test_regex_that_never_ends_is_stopped(small):
    evil = r"^(\s*\w+)+$"
    regex = BoundedRegex(evil, seconds=0.3)
    start = time.monotonic()
    with pytest.raises(RewardError, match="did not finish within"):
        regex.search("a" * 60 + "!")
    assert time.monotonic() - start < 10
    assert regex.search("aaa")  # a new helper serves the next search
    regex.close()


def test_endless_regex_as_a_term_names_root_and_path(small):
    small.text = lambda node: "a" * 60 + "!"
    table = build({"verifier": {"method": "regex", "pattern": r"^(\w+)+$", "seconds": 0.2}}).on(small)
    with pytest.raises(RewardError, match=r"'verifier' failed at root 0 .* node 4.*did not finish"):
        table.ensure(np.array([4]))


def test_reasoning_gym_scorer(small, tmp_path):
    pytest.importorskip("reasoning_gym")
    small.text = lambda node: "4" if node == 5 else "7"
    assert scores(small, method="reasoning_gym", dataset="chain_sum") == [1.0, 0.0]
    with pytest.raises(RewardError, match="no dataset 'sum'"):
        scores(small, method="reasoning_gym")  # the tree's kind is "sum", which that package does not know
    entries = tmp_path / "entries.jsonl"
    entries.write_text(json.dumps({"question": "2+2=", "answer": "7", "metadata": {}}) + "\n")
    assert scores(small, method="reasoning_gym", dataset="chain_sum", entries=str(entries))[0] == 0.0


def test_bad_options(tmp_path):
    for options, words in [
        ({"method": "exakt"}, "Did you mean 'exact'"),
        ({"method": "regex"}, "go together"),
        (
            {
                "method": "regex",
                "pattern": "(",
            },
            "not valid",
        ),
        ({"method": "regex", "pattern": "a", "seconds": 0}, "more than 0 seconds"),
        ({"method": "no.module:f"}, "cannot be imported"),
        ({"entries": str(tmp_path / "none.jsonl")}, "cannot be read"),
    ]:
        with pytest.raises(ConfigError, match=words):
            build({"verifier": options})
    (tmp_path / "bad.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question"\n')
    with pytest.raises(ConfigError, match="line 2"):
        build({"verifier": {"entries": str(tmp_path / "bad.jsonl")}})


def test_a_helper_that_was_killed_is_a_failure_and_is_replaced():
    regex = BoundedRegex("a+b")
    assert regex.search("aab")
    regex._helper.kill()
    regex._helper.wait()
    with pytest.raises(RewardError, match="ended unexpectedly"):
        regex.search("aab")
    assert regex.search("aab")
    regex.close()


def test_a_forked_process_starts_a_helper_of_its_own():
    regex = BoundedRegex("a+b")
    assert regex.search("aab")
    theirs = regex._helper.pid
    regex._owner = 0  # what a child process sees: another owner
    assert not regex.search("ba")
    assert regex._helper.pid != theirs


def test_long_references_are_matched_in_linear_time():
    assert to_number("1" * 200_000 + "x") is None
    assert last_number("1," * 100_000 + "2.") is not None
