"""The boundary between vocabularies is exact: bytes in are bytes out, wherever texts and characters are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treegym.errors import DataError
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.tokens.boundary import Boundary, complete_text, pieces_of, spoken
from treegym.models.tokens.retokenize import Retokenized, in_vocabulary_of
from treegym.models.tree_scores import Branches, score_trees

KINDS = ("byte_bpe", "word_piece", "character")
LETTERS = "thefirstanswdcolu0123579é数三🙂×"
WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=6), min_size=1, max_size=5).map(" ".join)
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def expressible(tokenizer: Any, text: str) -> list[int] | None:
    try:
        return tokenizer.encode(text)
    except DataError:
        return None


@RELAXED
@given(text=WORDS)
def test_pieces_write_what_was_encoded(tokenizer: Any, text: str) -> None:
    ids = expressible(tokenizer, text)
    if ids is not None:
        assert spoken(tokenizer, ids) == text.encode()
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("teacher_kind", KINDS)
@pytest.mark.parametrize("primary_kind", KINDS)
@RELAXED
@given(text=WORDS, data=st.data())
def test_a_teachers_text_arrives_exactly_token_by_token(
    primary_kind: str, teacher_kind: str, text: str, data: st.DataObject, request: pytest.FixtureRequest
) -> None:
    """Whatever the teacher writes, cut between any two of its tokens, is written in the primary's tokens exactly."""
    primary, teacher = request.getfixturevalue(primary_kind), request.getfixturevalue(teacher_kind)
    theirs = expressible(teacher, text)
    if theirs is None or expressible(primary, text) is None:
        return
    boundary = Boundary(primary)
    standing: list[int] = []
    for token in theirs:
        before = spoken(primary, standing)
        whole = spoken(teacher, [*_prefix(teacher, theirs, before), token])
        addition = whole[len(before) :]
        made = boundary.tokens_for(addition, after=standing)
        if made is None:  # refused, never altered: the cut falls inside what this vocabulary can write
            assert primary_kind != "byte_bpe"
            return
        standing = [*standing, *made]
        assert spoken(primary, standing) == whole
    assert primary.decode(standing) == text


def _prefix(tokenizer: Any, ids: list[int], written: bytes) -> list[int]:
    """Returns the leading ids that write exactly these bytes."""
    return next(ids[:cut] for cut in range(len(ids) + 1) if spoken(tokenizer, ids[:cut]) == written)


@RELAXED
@given(text=WORDS, cut=st.integers(0, 200))
def test_bytes_cut_anywhere_split_into_text_and_pending_bytes(text: str, cut: int) -> None:
    written = text.encode()[:cut]
    complete, pending = complete_text(written)
    assert complete.encode() + pending == written
    assert len(pending) < 4


def test_multi_byte_characters_are_split_and_joined(byte_bpe: Any, character: Any) -> None:
    ids = byte_bpe.encode("数🙃")
    pieces = [pieces_of(byte_bpe)[i] for i in ids]
    assert any(piece.decode("utf-8", "replace") == "\ufffd" for piece in pieces)  # a character is cut indeed
    # a character teacher sees nothing of the half character, and must go on with exactly its other half
    teacher = Retokenized(FakeLanguageModel(tokenizer=character, seed=3), byte_bpe)
    first = next(
        cut for cut in range(1, len(ids)) if spoken(byte_bpe, ids[:cut]) not in ("数".encode(), "数🙃".encode())
    )
    context = [*byte_bpe.encode("a "), *ids[:first]]
    situation = teacher.teacher_context(context)
    assert situation is not None
    text, pending = complete_text(spoken(byte_bpe, context))
    assert character.decode(situation[0]) == text
    assert situation[1] == pending
    [row] = teacher.next_logprobs([context])
    for token in np.flatnonzero(row > -1e3):
        piece = pieces_of(byte_bpe)[token]
        assert any(c.startswith(pending + piece) for c in pieces_of(character))
    assert np.isfinite(row).all()


def test_marginals_by_hand(byte_bpe: Any, character: Any) -> None:
    """P("a") of a character model that reads "1" is its probability of "a": the marginal over pieces that begin so."""
    inner = FakeLanguageModel(tokenizer=character, seed=4)
    teacher = Retokenized(inner, byte_bpe)
    context = byte_bpe.encode("1")
    theirs = inner.next_logprobs([character.encode("1")])[0]
    a = byte_bpe.encode("a")
    assert len(a) == 1
    [ours] = teacher.next_logprobs([context])
    assert ours[a[0]] == pytest.approx(theirs[character.encode("a")[0]], abs=1e-5)
    assert ours[byte_bpe.eos_id] == pytest.approx(theirs[character.eos_id], abs=1e-5)
    # " answer" is one token there and seven characters here: the product of the characters' probabilities
    [word] = byte_bpe.encode(" answer")
    spelled = character.encode(" answer")
    expected = inner.score([character.encode("1")], [spelled])[0].sum()
    assert teacher.score([context], [[word]])[0][0] == pytest.approx(expected, abs=1e-3)


def test_a_longer_piece_gives_its_mass_to_all_its_beginnings(byte_bpe: Any, character: Any) -> None:
    inner = FakeLanguageModel(tokenizer=byte_bpe, seed=5)
    teacher = Retokenized(inner, character)
    theirs = np.exp(inner.next_logprobs([byte_bpe.encode("1")])[0].astype(np.float64))
    pieces = pieces_of(byte_bpe)
    mass = sum(p for p, piece in zip(theirs, pieces, strict=True) if piece.startswith(b"a"))
    [ours] = teacher.next_logprobs([character.encode("1")])
    assert np.exp(ours[character.encode("a")[0]]) == pytest.approx(mass, rel=1e-4)


@pytest.mark.parametrize("primary_kind", ["byte_bpe", "character"])
@pytest.mark.parametrize("teacher_kind", KINDS)
def test_answers_are_the_teachers_text(primary_kind: str, teacher_kind: str, request: pytest.FixtureRequest) -> None:
    if primary_kind == teacher_kind:
        pytest.skip("the same vocabulary needs no boundary")
    primary, teacher = request.getfixturevalue(primary_kind), request.getfixturevalue(teacher_kind)
    prompt, answer = "the first answer is", " 12 and 7."
    inner = FakeLanguageModel(tokenizer=teacher, seed=6)
    told = [*teacher.encode(prompt + answer)[len(teacher.encode(prompt)) :], teacher.eos_id]
    inner._answers = [(teacher.encode(prompt), told)]
    model = in_vocabulary_of(inner, primary)
    assert in_vocabulary_of(inner, teacher) is inner
    [made] = model.generate([primary.encode(prompt)], max_new_tokens=40)
    assert made[-1] == primary.eos_id
    assert spoken(primary, made[:-1]).decode() == answer
    best = score_trees(model, [Branches(tuple(primary.encode(prompt)), *_chain(made))], best=2)[0].best_ids
    first = pieces_of(primary)[best[0, 0]]
    assert answer.encode().startswith(first)  # what it finds likeliest begins what it says
    assert best[len(made) - 1, 0] == primary.eos_id


def test_an_answer_stops_before_what_the_primary_cannot_write(byte_bpe: Any, character: Any) -> None:
    inner = FakeLanguageModel(tokenizer=byte_bpe, seed=6)
    inner._answers = [(byte_bpe.encode("12"), [*byte_bpe.encode(" is 3 ж 4"), byte_bpe.eos_id])]
    [made] = Retokenized(inner, character).generate([character.encode("12")], max_new_tokens=40)
    assert character.decode(made) == " is 3 "
    assert made[-1] != character.eos_id  # not ended: somebody has to go on from there


def _chain(ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(ids, np.int32), np.arange(-1, len(ids) - 1, dtype=np.int32)


def test_no_opinion_on_what_is_no_text_or_not_its_own(byte_bpe: Any, character: Any) -> None:
    teacher = Retokenized(FakeLanguageModel(tokenizer=character), byte_bpe)
    broken = [pieces_of(byte_bpe).index(b"\x98"), *byte_bpe.encode("a")]
    foreign = byte_bpe.encode("ж")
    assert np.isnan(teacher.next_logprobs([broken, foreign])).all()
    [scores] = score_trees(teacher, [Branches(tuple(byte_bpe.encode("1")), *_chain(broken))], best=2, worst=1)
    assert np.isnan(scores.logp[1])
    assert (scores.best_ids[1] == -1).all()
    with pytest.raises(DataError, match="cannot read the text"):
        teacher.generate([foreign], max_new_tokens=3)
