"""Evaluation of language models: forms, choices, samples, cut answers, and the page of wrong ones."""

import json

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.iterate.evaluate import Answered, summary
from treegym.rewards.answers import AnswerRule
from treegym.tree.token_tree import Root


def answered(right: list[bool], texts: list[str], kind: str = "") -> Answered:
    return Answered(Root("p", "7", "test", kind), tuple(texts), (True,) * len(right), tuple(right), (1,) * len(right))


def test_pass_and_majority_by_hand() -> None:
    first = answered([False, True, False, False], ["1", "7", "2", "2"], "a")  # 1 of 4 right; most say 2
    second = answered([True, True, False, True], ["7", "7.0", "3", "7"], "b")  # 3 of 4
    found = summary([first, second], AnswerRule())
    assert found["accuracy"] == 0.5
    assert found["by_kind"] == {"a": 0.0, "b": 1.0}
    # pass@2: 1 - C(3,2)/C(4,2) = 1/2, and 1 - C(1,2)/C(4,2) = 1
    np.testing.assert_allclose([found["pass_at"][k] for k in (1, 2, 4)], [0.5, 0.75, 1.0])
    assert found["majority_at"] == {1: 0.5, 2: 0.5, 4: 0.5}


@pytest.fixture
def sums(tmp_path):
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b), "kind": "sum"} for a, b in ((12, 30), (7, 8), (50, 1))]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "sums.jsonl")


def run(capsys, *arguments: str) -> dict:
    assert main(["eval", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_cut_answers_count_where_the_task_says_so(sums, capsys) -> None:
    strict = run(capsys, "tiny-primary", "--prompts", sums, "--max-tokens", "1")
    assert strict["cut"] == 1.0
    assert strict["accuracy"] == 0.0
    assert strict["form"] == "raw"
    assert main(["eval", "tiny-primary", "--prompts", sums, "--max-tokens", "1", "--show", "2"]) == 0
    page = capsys.readouterr().out
    assert "100% of the answers were cut at 1 tokens" in page
    assert page.count("expected ") == 2
    assert "[cut]" in page


def test_samples_are_seeded_and_counted(sums, capsys) -> None:
    flags = ("tiny-primary", "--prompts", sums, "--samples", "3", "--show", "1")
    once, again = run(capsys, *flags), run(capsys, *flags)
    assert once == again
    assert set(once["pass_at"]) == {"1", "2", "3"}
    assert once["temperature"] == 1.0
    assert len(once["wrong"]) <= 1


def test_choices_are_chosen_by_likelihood(tmp_path, capsys) -> None:
    from treegym.models import load_model

    model = load_model("tiny-primary")
    context = model.tokenizer.encode("12+30-5=")
    choices = ["1", "2", "37"]
    scores = model.score([context] * 3, [model.tokenizer.encode(choice) for choice in choices])
    best = choices[int(np.argmax([values.sum() for values in scores]))]
    row = {"prompt": "12+30-5=", "choices": choices, "answer": best}
    (tmp_path / "choice.jsonl").write_text(json.dumps(row) + "\n")
    flags = ("tiny-primary", "--prompts", str(tmp_path / "choice.jsonl"), "--template", "{prompt}", "--between", "")
    assert run(capsys, *flags)["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"choices": ["a"], "answer": "a"}, "at least two texts"),
        ({"choices": ["a", "b"], "answer": "c"}, "not among the choices"),
        ({"extract": "last-nmber", "answer": "3"}, "Did you mean 'last-number'"),
    ],
)
def test_lines_that_cannot_be_judged(row, words, tmp_path, capsys) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps({"prompt": "1+1=", **row}) + "\n")
    assert main(["eval", "tiny-primary", "--prompts", str(tmp_path / "bad.jsonl")]) == 1
    assert words in capsys.readouterr().err


def test_several_equal_answers_are_refused(sums, capsys) -> None:
    assert main(["eval", "tiny-primary", "--prompts", sums, "--samples", "2", "--temperature", "0"]) == 1
    assert "gives equal answers" in capsys.readouterr().err
