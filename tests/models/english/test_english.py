"""The questions of English: exact answers, all different, and none that a taught teacher has practised."""

import itertools
import re

import numpy as np
import pytest

from treegym.models.english.facts import CAPITALS, CONTINENTS, PLURALS, SYMBOLS
from treegym.models.english.forms import EXAMPLES
from treegym.models.english.kinds import KINDS, ONES, TAUGHT, in_words
from treegym.models.english.questions import SPLITS, practice, questions
from treegym.rewards.answers import AnswerRule


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_sentence_gives_its_answer_and_no_other_sentence_does(kind) -> None:
    rng = np.random.default_rng(0)
    drawn = [kind.draw(rng) for _ in range(60)]
    for question in drawn:
        rule = AnswerRule(question.extract)
        assert rule.right(f" {question.sentence}", question.answer), question
        wrong = next(other for other in drawn if other.answer.casefold() != question.answer.casefold())
        assert not rule.right(wrong.sentence, question.answer)
        assert not rule.right("I do not know.", question.answer)


def test_numbers_in_words() -> None:
    assert [in_words(n) for n in (0, 13, 20, 45, 100, 142, 999)] == [
        "zero", "thirteen", "twenty", "forty-five", "one hundred", "one hundred and forty-two",
        "nine hundred and ninety-nine",
    ]  # fmt: skip


def test_sums_and_products_in_words_are_right() -> None:
    value = {in_words(n): n for n in range(200)}
    does = {"plus": int.__add__, "times": int.__mul__}
    rng = np.random.default_rng(1)
    for _ in range(50):
        question = KINDS["arithmetic"].draw(rng)
        a, word, b = re.fullmatch(r"What is (\S+) (plus|times) (\S+)\?", question.prompt).groups()
        assert value[question.answer] == does[word](value[a], value[b])


def test_tables_of_facts_have_one_entry_each() -> None:
    assert len(set(CAPITALS.values())) == len(CAPITALS)
    assert len(set(SYMBOLS.values())) == len(SYMBOLS)
    assert len(set(PLURALS.values())) == len(PLURALS)
    assert set(CONTINENTS.values()) == {"Africa", "Asia", "Europe", "North America", "South America"}
    assert len(ONES) == 20


def test_questions_differ_and_teachers_practise_none_of_them() -> None:
    pytest.importorskip("reasoning_gym")
    found = questions()
    prompts = [question.prompt for _, question in found]
    assert len(set(prompts)) == len(prompts) == sum(SPLITS.values()) * (len(KINDS) + 1)
    assert found == questions()
    assert not {prompt for prompt, _ in EXAMPLES.values()} & set(prompts)
    for kinds in TAUGHT.values():
        practised = list(itertools.islice(practice(kinds), 400))
        assert {question.kind for question in practised} == set(kinds)
        assert not {question.prompt for question in practised} & set(prompts)
    for _, question in found:
        assert AnswerRule(question.extract).right(question.sentence, question.answer), question
