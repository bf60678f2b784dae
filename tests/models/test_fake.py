"""The fake model keeps the promises of the protocol: pure, batch-independent, normalised, seeded."""

import numpy as np
import pytest

from treegym.errors import DataError
from treegym.models.base import LanguageModel
from treegym.models.local.fake import FakeLanguageModel, FakeTokenizer


def test_it_fits_the_protocol_and_distributions_sum_to_one() -> None:
    model = FakeLanguageModel(seed=3)
    assert isinstance(model, LanguageModel)
    logprobs = model.next_logprobs([[2, 3], [4]])
    np.testing.assert_allclose(np.exp(logprobs).sum(axis=-1), 1.0, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = FakeLanguageModel(seed=3)
    together = model.next_logprobs([[2, 3], [4], [5, 6, 7]])
    np.testing.assert_array_equal(together[1], model.next_logprobs([[4]])[0])


def test_score_equals_the_chain_of_next_logprobs() -> None:
    model = FakeLanguageModel(seed=1)
    scores = model.score([[2]], [[5, 9]])
    expected = [model.next_logprobs([[2]])[0, 5], model.next_logprobs([[2, 5]])[0, 9]]
    np.testing.assert_allclose(scores[0], expected)
    assert [len(s) for s in model.score([[2], [3]], [[], [4]])] == [0, 1]


def test_it_speaks_given_answers_and_ends() -> None:
    model = FakeLanguageModel(answers={"1+1=": "2.", "1+1=2.1+": "9."})
    [made] = model.generate([model.tokenizer.encode("1+1=")], max_new_tokens=8)
    assert model.tokenizer.decode(made) == "2."
    assert made[-1] == model.tokenizer.eos_id


def test_sampling_is_seeded() -> None:
    model = FakeLanguageModel(seed=2, confidence=1.0)
    first = model.generate([[2], [2]], max_new_tokens=12, temperature=1.0, seed=5)
    assert first == model.generate([[2], [2]], max_new_tokens=12, temperature=1.0, seed=5)
    assert first != model.generate([[2], [2]], max_new_tokens=12, temperature=1.0, seed=6)
    assert first[0] != first[1]


def test_fingerprints_tell_models_apart() -> None:
    assert FakeLanguageModel(seed=1).fingerprint() == FakeLanguageModel(seed=1).fingerprint()
    assert FakeLanguageModel(seed=1).fingerprint() != FakeLanguageModel(seed=2).fingerprint()


def test_a_foreign_character_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="'é' is not in the vocabulary"):
        FakeTokenizer().encode("é")
