"""Tests of the task kinds: worked answers, misconceptions, halves, hand-worked."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.models.tasks import FORMS, KINDS, MAX_ANSWER_TOKENS, final_answer, is_correct, kind_of
from treegym.models.tokens.char_tokenizer import CharTokenizer

# prompt: (half, short, long, long corrupted), each worked by hand
WORKED = {
    # 81-48 borrows (1 < 8); dropping the borrow gives 43, and 43+8=51
    "81-48+8=": ("minus", "33.41.", "81-48=33.33+8=41.", "81-48=43.43+8=51."),
    # 68-41 does not borrow; borrowing all the same gives 17
    "68-41-5=": ("minus", "27.22.", "68-41=27.27-5=22.", "68-41=17.17-5=12."),
    # 27+35 carries (7+5=12); dropping the carry gives 52
    "27+35+1=": ("plus", "62.63.", "27+35=62.62+1=63.", "27+35=52.52+1=53."),
    # 21+35 does not carry; carrying all the same gives 66
    "21+35-9=": ("plus", "56.47.", "21+35=56.56-9=47.", "21+35=66.66-9=57."),
    # 8*4=32, read one row too far: 8*5=40
    "7*6+8*4=": ("odd", "42.32.74.", "7*6=42.8*4=32.74.", "7*6=42.8*4=40.82."),
    "6*9-2*3=": ("even", "54.6.48.", "6*9=54.2*3=6.48.", "6*9=54.2*3=8.46."),
    # 67 = 11 * 6 + 1; counted from one, the remainder is 2
    "37+30%6=": ("large", "67-66=1.", "37+30=67.67-66=1.", "37+30=67.67-66=2."),
    "10+11%3=": ("small", "21-21=0.", "10+11=21.21-21=0.", "10+11=21.21-21=1."),
    "842913=": ("high", "123489.", "248.139.123489.", "248.139.124389."),
    "057641=": ("low", "014567.", "057.146.014567.", "057.146.015467."),
}


@pytest.mark.parametrize("prompt", WORKED)
def test_worked_by_hand(prompt: str) -> None:
    half, short, long, corrupted = WORKED[prompt]
    kind = kind_of(prompt)
    problem = kind.problem(prompt)
    assert problem.half == half
    assert kind.worked(prompt, form="short") == short
    assert kind.worked(prompt, form="long") == long
    assert kind.worked(prompt, form="long", corrupted=True) == corrupted
    assert is_correct(short, problem.answer)
    assert is_correct(long, problem.answer)
    assert not is_correct(corrupted, problem.answer)


@pytest.mark.parametrize("name", KINDS)
def test_every_sample_can_be_worked_and_verified(name: str) -> None:
    kind, rng, tokenizer = KINDS[name], np.random.default_rng(3), CharTokenizer()
    first_half = 0
    for _ in range(2000):
        prompt = kind.sample(rng)
        problem = kind.problem(prompt)
        assert [other.name for other in KINDS.values() if other.matches(prompt)] == [name]
        assert problem.half in kind.halves
        first_half += problem.half == kind.halves[0]
        results = set()
        for form in FORMS:
            good, bad = (kind.worked(prompt, form=form, corrupted=corrupted) for corrupted in (False, True))
            assert is_correct(good, problem.answer)
            assert not is_correct(bad, problem.answer)
            results.add(final_answer(bad))
            for text in (good, bad):
                assert len(text) + 1 <= MAX_ANSWER_TOKENS
                assert tokenizer.decode(tokenizer.encode(prompt + text)) == prompt + text
        assert len(results) == 1  # the misconception leads to one result, whatever the form
    assert 0.55 < first_half / 2000 < 0.68


def test_steps_are_true_when_right() -> None:
    """Every equation in a right answer holds, checked by a calculation of its own."""
    rng = np.random.default_rng(5)
    for name in ("chain", "products", "modular"):
        for _ in range(300):
            prompt = KINDS[name].sample(rng)
            for step in KINDS[name].worked(prompt, form="long").split("."):
                left, equals, result = step.partition("=")
                if equals:
                    assert _calculate(left) == int(result), (prompt, step)


def _calculate(expression: str) -> int:
    for sign, operation in (("+", int.__add__), ("-", int.__sub__), ("*", int.__mul__)):
        left, found, right = expression.partition(sign)
        if found:
            return operation(int(left), int(right))
    raise AssertionError(expression)


@pytest.mark.parametrize("text", ["", "21", "13.21", "21.0", "21=", "x.", "13.21.!", "021.", "61-48=21"])
def test_verifier_refuses_what_does_not_end_with_the_result(text: str) -> None:
    assert not is_correct(text, "21")


@pytest.mark.parametrize("text", ["21.", "13.21.", "13.13+8=21.", "nonsense=21.", "21. "])
def test_verifier_looks_at_the_last_result_only(text: str) -> None:
    assert is_correct(text, "21")


def test_unknown_prompt_is_an_error() -> None:
    with pytest.raises(ConfigError, match="not a prompt of the bundled tasks"):
        kind_of("tell me a joke")
    with pytest.raises(ConfigError):
        kind_of("842813=")  # a digit twice
