"""llama.cpp in this process: addresses, and on a pretrained model the text and log-probabilities of transformers."""

import numpy as np
import pytest

from treegym.errors import BackendError, ConfigError, DataError
from treegym.models.backends import BACK_ENDS, back_end_of, open_model
from treegym.models.base import Embeds, able
from treegym.models.local import llama_model
from treegym.models.tree_scores import Trie


def test_names_of_back_ends() -> None:
    assert back_end_of("llama:model.gguf") == BACK_ENDS["llama:"]
    assert back_end_of("http://127.0.0.1:1/v1") == BACK_ENDS["http://"]
    assert back_end_of("tiny-primary") is None
    assert open_model("tiny-primary").name == "tiny-primary"


@pytest.mark.parametrize(
    ("address", "words"),
    [("llama:x.gguf#thread=2", "Did you mean 'threads'"), ("llama:x.gguf#threads=0", "a whole number from 1")],
)
def test_settings_that_cannot_be(address, words) -> None:
    with pytest.raises(ConfigError, match=words):
        open_model(address)


def test_only_gguf_files(tmp_path) -> None:
    with pytest.raises(DataError, match="GGUF files only"):
        open_model("llama:tiny-primary")
    (tmp_path / "broken.gguf").write_bytes(b"hello there")
    with pytest.raises(DataError, match="not a GGUF model"):
        open_model(f"llama:{tmp_path / 'broken.gguf'}")


def test_slots_go_down_contexts_that_begin_alike(monkeypatch) -> None:
    """Two slots, two texts with two contexts each and one more: what is asked at once begins with different tokens.

    Sorted, they are (1), (1, 2), (5), (5, 6), (5, 7): the first slot takes three of them, the second two.
    """
    monkeypatch.setattr(llama_model, "SLOTS", 2)
    contexts = [[5, 6], [1], [5, 7], [5], [1, 2]]
    asked = [contexts[row] for row in llama_model._walk(contexts)]
    assert asked == [[1], [5, 6], [1, 2], [5, 7], [5]]
    assert llama_model._walk([]) == []


@pytest.mark.real
def test_it_agrees_with_transformers_on_the_same_weights() -> None:
    theirs, ours = open_model("llama:smollm2"), open_model("smollm2", dtype="float32")
    assert theirs.tokenizer.fingerprint() == ours.tokenizer.fingerprint()
    texts = ["The capital of France is", "Two and two make", "Water is made of hydrogen and"]
    contexts = [ours.tokenizer.encode(text) for text in texts]
    ids, values = theirs.top_logprobs(contexts, 5)
    own = ours.next_logprobs(contexts)
    differences = np.abs(values - np.take_along_axis(own, ids.astype(np.int64), 1))
    assert differences.mean() < 0.25  # llama.cpp rounds what goes into its products of 4-bit weights to 8 bits
    assert (ids[:, 0] == own.argmax(1)).all()
    assert theirs.generate(contexts, max_new_tokens=4) == ours.generate(contexts, max_new_tokens=4)
    sampled = [theirs.generate(contexts, max_new_tokens=4, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    with pytest.raises(BackendError, match="no hidden states"):
        theirs.score_trees([Trie([contexts[0], [*contexts[0], 1]]).branches], hidden=True)
    assert not able(theirs, Embeds)
    with pytest.raises(ConfigError, match="tokens"):
        theirs.generate([[5] * 9000], max_new_tokens=1)
