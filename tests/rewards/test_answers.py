"""The one matcher: every extractor on texts worked out by hand, numbers by value, majorities, bad rules."""

import pytest

from treegym.errors import ConfigError
from treegym.rewards.answers import EXTRACTORS, AnswerRule, majority
from treegym.rewards.number_words import in_figures


@pytest.mark.parametrize(
    ("extract", "text", "given"),
    [
        ("whole", " The sea. ", " The sea. "),
        ("first-line", "\n 12 \nbecause", " 12 "),
        ("last-line", "because\n 12 \n\n", " 12 "),
        ("first-number", "I have 3, then 5.", "3"),
        ("last-number", "I have 3, then 5.", "5"),
        ("last-number", "nothing", None),
        ("boxed", r"so \boxed{\frac{1}{2}} and done", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1} then \boxed{2}", "2"),
        ("boxed", r"\boxed{never closed", None),
        ("choice", "The answer is (b), not A.", "B"),
        ("choice", "C) because", "C"),
        ("choice", "I think so", None),
        ("after:Answer:", "Answer: 3\nAnswer: 4 apples\nBye", " 4 apples"),
        ("after:Answer:", "no marker", None),
        ("json:answer", 'thinking {x} {"answer": 12}', "12"),
        ("json:result.name", '{"result": {"name": "Rome"}}', "Rome"),
        ("json:answer", '{"other": 1}', None),
        (r"regex:(\d+) euros", "it costs 12 euros or 13 euros", "12"),
        (r"regex:\d+", "no digits", None),
        ("stated", "6*7 = 42.", "42"),
    ],
)
def test_extractors(extract, text, given) -> None:
    assert AnswerRule(extract).given(text) == given


@pytest.mark.parametrize(
    ("extract", "text", "reference", "right"),
    [
        ("stated", "The capital is: Paris.", "paris", True),
        ("stated", "72", "so 48+24 #### 72", True),
        ("stated", "12 apples", "12", True),
        ("stated", "$1,234", "1234", True),
        ("stated", "12 km", "12 miles", False),
        ("stated", "12 or 13", "12", False),
        ("last-number", "It is 1,234.0 in all.", "1234", True),
        ("last-number", "1234 and then 5", "1234", False),
        ("contains", "It is Paris, the capital.", "Paris", True),
        ("contains", "It is Parisian.", "Paris", False),
        ("choice", "I choose option B.", "B", True),
        ("first-line", "Rome\nParis", "Paris", False),
        ("whole", "  The  SEA! ", "the sea", True),
        ("boxed", r"\boxed{0.50}", "1/2", True),
        ("last-number", "none", "3", False),
    ],
)
def test_right_or_wrong(extract, text, reference, right) -> None:
    assert AnswerRule(extract).right(text, reference) is right


@pytest.mark.parametrize(
    ("extract", "words"),
    [("last-nubmer", "Did you mean 'last-number'"), ("after", "takes an argument"), ("boxed:x", "takes no argument"),
     ("regex:(", "not valid")],
)  # fmt: skip
def test_rules_that_cannot_be(extract, words) -> None:
    with pytest.raises(ConfigError, match=words):
        AnswerRule(extract)


def test_every_extractor_survives_any_text() -> None:
    arguments = {"after": ":x", "json": ":a.b", "regex": ":a+"}
    for name in EXTRACTORS:
        rule = AnswerRule(name + arguments.get(name, ""))
        for text in ("", "\x00", "{" * 2000, "\\boxed{" * 50, "1" * 5000, "\ud83d", "９９ ٣"):
            assert rule.right(text, "no such answer") is False


def test_majority_groups_numbers_by_value() -> None:
    assert majority(["7", "12", None, "12.0", "7"]) == 0  # a tie: the first seen
    assert majority(["7", "12", "12.0"]) == 1
    assert majority([None, None]) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("zero", 0),
        ("Twelve", 12),
        ("forty-two", 42),
        ("forty two", 42),
        ("one hundred", 100),
        ("one hundred and five", 105),
        ("two thousand and three", 2003),
        ("nine hundred thousand one hundred ninety-nine", 900_199),
        ("three million", 3_000_000),
        ("", None),
        ("hundred", None),
        ("forty twelve", None),
        ("twelve apples", None),
        ("thousand two million", None),
        ("one two", None),
        ("one hundred and zero", None),
    ],
)
def test_numbers_in_words_have_a_value(text, value) -> None:
    assert in_figures(text) == value


def test_figures_and_words_are_the_same_number() -> None:
    rule = AnswerRule("after: is ")
    assert rule.right("Three times two is 6.", "six")
    assert rule.right("It is forty-two.", "42")
    assert not rule.right("It is forty-three.", "42")
    assert majority(["6", "seven", "six"]) == 0
