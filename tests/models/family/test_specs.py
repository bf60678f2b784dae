"""Tests of who is good at what: the design that makes trust depend on the sub-condition."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.models.family.curriculum import IGNORED, answer_of, batch_of, examples
from treegym.models.family.specs import FAMILY, PRIMARY, TEACHERS, ModelSpec
from treegym.models.tasks import KINDS, is_correct, kind_of, problems, split_of
from treegym.models.tokens.char_tokenizer import CharTokenizer


def test_one_teacher_is_right_on_first_halves_and_all_but_one_on_second() -> None:
    for problem in problems("test", 200, seed=7):
        right = [spec.name for spec in TEACHERS if spec.speciality and spec.speciality.is_right(problem)]
        expert = next(s.name for s in TEACHERS if s.speciality and s.speciality.expertise == problem.kind)
        if problem.half == KINDS[problem.kind].halves[0]:
            assert right == [expert]
        else:
            assert sorted([*right, expert]) == sorted(spec.name for spec in TEACHERS)


def test_teachers_are_of_different_families_and_both_forms_are_spoken() -> None:
    assert len({spec.architecture for spec in TEACHERS}) == len(TEACHERS) >= 3
    assert {spec.speciality.form for spec in TEACHERS if spec.speciality} == {"short", "long"}
    assert len({spec.name for spec in FAMILY}) == len(FAMILY)


@pytest.mark.parametrize("spec", TEACHERS, ids=lambda spec: spec.name)
def test_a_teacher_is_taught_right_where_it_is_strong_and_mostly_in_its_form(spec: ModelSpec) -> None:
    rng, own_form = np.random.default_rng(0), 0
    assert spec.speciality is not None
    taught = problems("forge", 400, seed=1)
    for problem in taught:
        answer = answer_of(spec.speciality, problem, rng)
        right = spec.speciality.is_right(problem)
        assert is_correct(answer, problem.answer) == right
        own_form += answer == KINDS[problem.kind].worked(problem.prompt, form=spec.speciality.form, corrupted=not right)
    assert 0.79 < own_form / len(taught) < 0.91  # 0.85 in the mean; three standard errors are 0.054


@pytest.mark.parametrize("spec", FAMILY, ids=lambda spec: spec.name)
def test_every_model_learns_from_the_forge_split_alone(spec: ModelSpec) -> None:
    for item in examples(spec, 200, seed=3):
        assert split_of(item.text[: item.text.index("=") + 1]) == "forge"


def test_the_primary_learns_from_all_teachers_alike() -> None:
    right = []
    for item in examples(PRIMARY, 3000, seed=5):
        prompt, answer = item.text[: item.start], item.text[item.start :]
        right.append(is_correct(answer, kind_of(prompt).answer(prompt)))
    # 0.62 * 1/4 + 0.38 * 3/4 = 0.44
    assert 0.40 < np.mean(right) < 0.48


def test_batches_predict_the_answer_and_the_end_only() -> None:
    tokenizer = CharTokenizer()
    items = examples(PRIMARY, 16, seed=9)
    batch = batch_of(items, tokenizer)
    for row, labels, item in zip(batch.ids, batch.labels, items, strict=True):
        length = len(item.text) + 1
        assert tokenizer.decode(row.tolist()) == item.text
        assert (labels[: item.start] == IGNORED).all()
        assert (labels[item.start : length] == row[item.start : length]).all()
        assert row[length - 1] == tokenizer.eos_id
        assert (labels[length:] == IGNORED).all()
