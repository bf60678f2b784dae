"""Tests of the models that ship: the promises about the bundled world, measured on held-out prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from treegym.errors import ConfigError
from treegym.models.base import LanguageModel
from treegym.models.family.baselines import Family, baseline_answers, load_family, right
from treegym.models.family.bundled import BUNDLED, BUNDLED_TEACHERS, bundled_card, bundled_path, load_bundled
from treegym.models.family.cards import recipe
from treegym.models.family.specs import FAMILY, TEACHERS
from treegym.models.family.verdicts import YesNoModel, completeness_report, judge_report
from treegym.models.tasks import KINDS, Problem, problems

SHIPPED_LIMIT = 8 * 2**20  # bytes


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family()


@pytest.fixture(scope="module")
def held_out() -> list[Problem]:
    return problems("test", 160)


@pytest.fixture(scope="module")
def answers(family: Family, held_out: list[Problem]) -> dict[str, list[str]]:
    return baseline_answers(family, [problem.prompt for problem in held_out])


def test_all_ship_within_the_limit_and_were_forged_from_these_specs() -> None:
    assert set(BUNDLED) == {spec.name for spec in FAMILY}
    assert set(BUNDLED_TEACHERS) == {spec.name for spec in TEACHERS}
    size = sum(file.stat().st_size for name in BUNDLED for file in bundled_path(name).rglob("*"))
    assert size <= SHIPPED_LIMIT
    for spec in FAMILY:
        card = bundled_card(spec.name)
        assert card["recipe"] == recipe(spec, seed=card["seed"])


def test_any_teacher_is_right_but_no_single_one(
    family: Family, held_out: list[Problem], answers: dict[str, list[str]]
) -> None:
    flags = {name: right(texts, held_out) for name, texts in answers.items()}
    teachers = np.stack([flags[name] for name in family.teachers])  # [M, B]
    assert teachers.any(axis=0).mean() >= 0.95
    for name, correct in flags.items():
        assert correct.mean() <= 0.70, name
    assert teachers.mean(axis=1).max() <= 0.60
    assert 0.25 <= flags["tiny-primary"].mean() <= 0.55  # 0.30 to 0.50 on all; three standard errors more on these few


def test_teachers_err_confidently_and_alike(
    family: Family, held_out: list[Problem], answers: dict[str, list[str]]
) -> None:
    """On a first half, the three who are weak there agree on one wrong result nearly always."""
    agreeing = []
    for index, problem in enumerate(held_out):
        if problem.half != KINDS[problem.kind].halves[0]:
            continue
        weak = [s.name for s in TEACHERS if s.speciality and s.speciality.expertise != problem.kind]
        results = {answers[name][index].rstrip(".").replace("=", ".").split(".")[-1] for name in weak}
        agreeing.append(len(results) == 1)
    assert len(agreeing) > 50
    assert np.mean(agreeing) > 0.85


def test_some_answer_shortly_and_some_at_length(answers: dict[str, list[str]]) -> None:
    lengths = {name: np.mean([len(text) for text in answers[name]]) for name in BUNDLED_TEACHERS}
    assert max(lengths.values()) > 1.5 * min(lengths.values())


def test_completeness_on_held_out_prefixes(held_out: list[Problem]) -> None:
    for row in completeness_report(held_out[:60]):
        assert row["accuracy"] >= 0.97, row


def test_the_judge_is_better_than_chance_and_not_perfect(held_out: list[Problem]) -> None:
    accuracy = [row["accuracy"] for row in judge_report(held_out) if row["kind"] == "all"]
    assert all(0.6 < value < 0.99 for value in accuracy), accuracy


def test_verdicts_do_not_depend_on_the_batch() -> None:
    judge = YesNoModel("tiny-judge")
    texts = ["61-48+8=13.21.", "842913=123489.", "61-48+8=23.31."]
    together = judge.probabilities(texts)
    alone = np.concatenate([judge.probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-primary", "tiny-gpt2"])
def test_the_back_end_answers_as_the_forge_measured(
    name: str, held_out: list[Problem], answers: dict[str, list[str]]
) -> None:
    model = load_bundled(name)
    assert isinstance(model, LanguageModel)
    some = range(12)
    generated = model.generate([model.tokenizer.encode(held_out[i].prompt) for i in some], max_new_tokens=24)
    assert [model.tokenizer.decode(ids) for ids in generated] == [answers[name][i] for i in some]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tiny-llama'"):
        bundled_path("tiny-lama")
