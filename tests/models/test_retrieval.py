"""Passages: cut from files, found by exact search, by faiss, and by maximal marginal relevance."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
import pytest

from treegym.errors import ConfigError, DataError
from treegym.models import retrieval
from treegym.models.embeddings import WordEmbedder
from treegym.models.passages import Passage, digest, passages_of, read_passages
from treegym.models.retrieval import Retriever, RetrieverSettings, mmr

HAS_FAISS = importlib.util.find_spec("faiss")


class Angles:
    """Texts are angles in degrees; so cosines are known."""

    name = "angles"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def fingerprint(self) -> str:
        return "angles"


def passages(*texts: str) -> list[Passage]:
    return [Passage("a.txt", place, text) for place, text in enumerate(texts)]


def found(retriever: Retriever, question: str) -> list[str]:
    return [one.passage.text for one in retriever.find([question])[0]]


def test_paragraphs_stay_whole_as_long_as_they_fit() -> None:
    text = "one two\nthree\n\nfour five\n\n\nsix seven eight nine ten eleven"
    # 3 + 2 words fit into 5; the last paragraph has 6: its first 5 words, then what is left after 2 shared ones.
    assert list(passages_of(text, words=5, overlap=2)) == [
        "one two three four five", "six seven eight nine ten", "nine ten eleven",
    ]  # fmt: skip


def test_passages_of_a_folder_in_the_order_of_names(tmp_path) -> None:
    (tmp_path / "b.md").write_text("second")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("first")
    (tmp_path / "c.json").write_text("no text")
    read = read_passages(tmp_path)
    assert read == [Passage("a/x.txt", 0, "first"), Passage("b.md", 0, "second")]
    assert digest(read) != digest(read[:1])


def test_folders_that_hold_nothing_to_read_say_so(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_passages(tmp_path / "missing")
    with pytest.raises(DataError, match="holds no text file"):
        read_passages(tmp_path)
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(DataError, match="1 text files without a word"):
        read_passages(tmp_path)
    (tmp_path / "blank.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_passages(tmp_path)


def test_the_nearest_above_the_threshold() -> None:
    # cosines with 0 degrees: 0.94 (20), 0.5 (60), 0.87 (30), 0.17 (80)
    retriever = Retriever(passages("20", "60", "30", "80"), Angles(), RetrieverSettings(passages=3, threshold=0.4))
    assert found(retriever, "0") == ["20", "30", "60"]
    assert [round(one.score, 2) for one in retriever.find(["0"])[0]] == [0.94, 0.87, 0.5]
    assert found(retriever, "170") == []  # all cosines are negative, or 0 at 80


def test_blocks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [f"{angle:.3f}" for angle in rng.uniform(0, 90, 100)]
    whole = Retriever(passages(*texts, *texts[:5]), Angles(), RetrieverSettings(passages=7))
    questions = [f"{angle:.3f}" for angle in rng.uniform(0, 90, 20)]
    expected = whole.find(questions)
    by_hand = sorted(texts + texts[:5], key=lambda text: abs(float(text) - float(questions[0])))
    assert [one.passage.text for one in expected[0]] == by_hand[:7]
    monkeypatch.setattr(retrieval, "BLOCK", 8)
    monkeypatch.setattr(retrieval, "ASKED", 3)
    for ours, theirs in zip(whole.find(questions), expected, strict=True):
        assert [one.passage.text for one in ours] == [one.passage.text for one in theirs]
        np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-6)


def test_marginal_relevance_by_hand() -> None:
    # s = (1, .9, .6); v0 . v1 = .95, v0 . v2 = .2: after the first, 1 is worth .5 * .9 - .5 * .95 < .5 * .6 - .5 * .2
    vectors = np.array([[1, 0], [0.95, np.sqrt(1 - 0.95**2)], [0.2, -np.sqrt(1 - 0.2**2)]])
    scores = np.array([1.0, 0.9, 0.6])
    assert mmr(vectors, scores, 2, 0.5) == [0, 2]
    assert mmr(vectors, scores, 2, 0.0) == [0, 1]
    assert mmr(vectors, scores, 5, 0.5) == [0, 2, 1]


def test_diversity_passes_over_what_says_the_same() -> None:
    texts = ["10", "10.1", "10.2", "60"]
    near = Retriever(passages(*texts), Angles(), RetrieverSettings(passages=2))
    diverse = Retriever(passages(*texts), Angles(), RetrieverSettings(passages=2, diversity=0.7))
    assert found(near, "0") == ["10", "10.1"]
    assert found(diverse, "0") == ["10", "60"]


def test_rare_words_decide() -> None:
    texts = ["the roofs of Zor are red", "the roofs of Kel are blue", "the market of Zor sells figs"]
    embedder = WordEmbedder(texts)
    retriever = Retriever(passages(*texts), embedder, RetrieverSettings(passages=1))
    assert found(retriever, "What color are the roofs of Kel?") == [texts[1]]
    assert found(retriever, "What does the market of Zor sell?") == [texts[2]]
    assert np.allclose(np.linalg.norm(embedder.embed([*texts, ""]), axis=1), [1, 1, 1, 0])
    assert embedder.fingerprint() != WordEmbedder(texts[:2]).fingerprint()


@pytest.mark.skipif(not HAS_FAISS, reason="the extra `retrieval` is not installed")
def test_faiss_finds_what_exact_search_finds() -> None:
    rng = np.random.default_rng(1)
    texts = [f"{angle:.3f}" for angle in rng.uniform(0, 90, 400)]
    exact = Retriever(passages(*texts), Angles(), RetrieverSettings(passages=3))
    cells = Retriever(passages(*texts), Angles(), RetrieverSettings(passages=3), exact=399)
    assert cells.to_dict()["exact"] is False
    questions = [f"{angle:.3f}" for angle in rng.uniform(0, 90, 50)]
    for ours, theirs in zip(exact.find(questions), cells.find(questions), strict=True):
        np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-6)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="passages is 0"):
        RetrieverSettings(passages=0)
    with pytest.raises(ConfigError, match="threshold of passages is 2"):
        RetrieverSettings(threshold=2)
    with pytest.raises(DataError, match="no passages"):
        Retriever([], Angles())
