"""The bundled terminal detectors; rewards/registry.py names them (B: nodes asked about)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treegym.checks import number, whole
from treegym.errors import ConfigError
from treegym.models.tokens.ends import ending_at
from treegym.models.tokens.tokenizers import prefix_ids
from treegym.rewards.local import local_model, verdict_probability
from treegym.rewards.terminal.base import Detector
from treegym.tree.flags import EOS
from treegym.tree.paths import flagged_ends
from treegym.tree.token_tree import TokenTree

__all__ = ["Completeness", "Eos", "Minimum", "Proxy", "Punctuation", "Slm", "Stored"]


class Eos(Detector):
    """The model's own end-of-sequence token."""

    kind = "eos"

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        return (np.asarray(source.flags)[nodes] & EOS) != 0


class Stored(Detector):
    """Ends that the tree stores: end-of-sequence, or stopped by earlier detection."""

    kind = "stored"

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        return flagged_ends(source, nodes)


class Minimum(Detector):
    """At least so many tokens."""

    kind = "minimum"

    def __init__(self, *, tokens: int) -> None:
        self.tokens = whole("terminal detector 'minimum': tokens", tokens, low=1)

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        return np.asarray(source.depth)[nodes] >= self.tokens


class Punctuation(Detector):
    """The token ends with an end mark. A cheap filter: most such places are not the end of the text.

    Args:
        marks: the characters that count; closing quotes and brackets after them are looked through.
    """

    kind = "punctuation"

    def __init__(self, *, marks: str = ".!?…。！？") -> None:
        if not isinstance(marks, str) or not marks:
            raise ConfigError(f"terminal detector 'punctuation': marks are {marks!r}; at least one mark was expected")
        self.marks = marks

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        pieces = source.header["tokens"]
        table = np.zeros(len(pieces) + 1, bool)  # the last row is for token -1, a root's
        for i, piece in enumerate(pieces):
            text = piece.encode("latin-1", "replace").decode("utf-8", "ignore")
            table[i] = text.rstrip().rstrip("\"')]}”’»").endswith(tuple(self.marks))
        return table[np.asarray(source.token)[nodes]]


class Completeness(Detector):
    """A small language model finds the text complete.

    Args:
        model: the model (bundled name, directory or hub name).
        threshold: probability of "yes" from which the text counts as complete.
        template: what the model reads; ``{prompt}`` and ``{text}`` are filled in.
        yes: what it would say if the text is complete.
        no: what it would say if not.
    """

    kind = "completeness"
    costly = True

    def __init__(
        self,
        *,
        model: str = "tiny-complete",
        threshold: float = 0.5,
        template: str = "{prompt}{text}?",
        yes: str = "y",
        no: str = "n",
    ) -> None:
        if not 0.0 < threshold < 1.0:
            raise ConfigError(
                f"terminal detector 'completeness': threshold is {threshold}; between 0 and 1 was expected"
            )
        self.model, self.threshold, self.template, self.yes, self.no = model, threshold, template, yes, no

    def probability(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        """Returns the probability that the text at each node is complete, ``[B] float64``."""
        prompts = source.prompts
        texts = [
            self.template.replace("{prompt}", prompts[int(root)]).replace("{text}", source.text(int(node)))
            for node, root in zip(nodes, np.asarray(source.root_of(nodes)), strict=True)
        ]
        return verdict_probability(local_model(self.model), texts, yes=[self.yes], no=[self.no])

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        return self.probability(source, nodes) >= self.threshold


class Slm(Detector):
    """A small language model would end the text here: its probability of an end after prompt and text is high enough.

    An end is the model's own EOS or a stop string, so that base models, which write a new line instead, can be asked.
    ``"slm:gemma3-270m"`` is short for ``{"slm": {"model": "gemma3-270m"}}``; see `fit_threshold` for the threshold.

    Args:
        model: the model (bundled or provided name, GGUF file, directory or hub name).
        threshold: probability of an end from which the text counts as ended.
        stops: strings at which the model's own answers are over.
    """

    kind = "slm"
    costly = True

    def __init__(self, *, model: str, threshold: float = 0.5, stops: Sequence[str] = ("\n",)) -> None:
        self.model = model
        self.threshold = number("the threshold of terminal detector 'slm'", threshold, low=0.0, high=1.0)
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise ConfigError(f"terminal detector 'slm': stops is {stops!r}; a list of texts was expected")
        self.stops = tuple(stops)

    def probability(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        """Returns the probability that the text at each node ends there, ``[B] float64``."""
        model = local_model(self.model)
        texts = _texts(source, nodes)
        if not texts:
            return np.zeros(0)
        distinct = list(dict.fromkeys(texts))
        contexts = [[*prefix_ids(model.tokenizer), *model.tokenizer.encode(text)] for text in distinct]
        scores = ending_at(model, self.stops).score(contexts, [[model.tokenizer.eos_id]] * len(contexts))
        found = {text: float(np.exp(score[0])) for text, score in zip(distinct, scores, strict=True)}
        return np.array([found[text] for text in texts])

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        return self.probability(source, nodes) >= self.threshold


class Proxy(Detector):
    """Stopping is likelier than the best continuation: p(end | text) >= max over other tokens of p(token | text).

    Args:
        model: a model to ask; by default the primary's log-probabilities stored at the node's children decide, and a
            node without an end token among them goes on.
    """

    kind = "proxy"

    def __init__(self, *, model: str | None = None) -> None:
        self.model = model
        self.looks_ahead, self.costly = model is None, model is not None

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        done = (np.asarray(source.flags)[nodes] & EOS) != 0
        rest = np.nonzero(~done)[0]
        decide = self._from_children if self.model is None else self._from_model
        done[rest] = decide(source, nodes[rest])
        return done

    def _from_children(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        counts = np.asarray(source.child_count)[nodes].astype(np.int64)
        ends = np.zeros(len(nodes), bool)
        expanded = np.nonzero(counts > 0)[0]
        if not expanded.size:
            return ends
        starts = np.concatenate([[0], np.cumsum(counts[expanded])[:-1]])
        owner = np.repeat(np.arange(len(expanded)), counts[expanded])
        children = np.asarray(source.first_child)[nodes[expanded]][owner] + np.arange(len(owner)) - starts[owner]
        prior = np.asarray(source.prior)[children]
        stops = (np.asarray(source.flags)[children] & EOS) != 0
        stop = np.maximum.reduceat(np.where(stops, prior, -np.inf), starts)
        best = np.maximum.reduceat(np.where(stops, -np.inf, prior), starts)
        ends[expanded] = (stop >= best) & np.isfinite(stop)
        return ends

    def _from_model(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        assert self.model is not None
        model = local_model(self.model)
        texts = _texts(source, nodes)
        if not texts:
            return np.zeros(0, bool)
        contexts = [model.tokenizer.encode(text) or [model.tokenizer.eos_id] for text in texts]
        return model.top_logprobs(contexts, 1)[0][:, 0] == model.tokenizer.eos_id


def _texts(source: TokenTree, nodes: np.ndarray) -> list[str]:
    """Returns prompt and text of every node."""
    prompts, roots = source.prompts, np.asarray(source.root_of(nodes))
    return [prompts[int(root)] + source.text(int(node)) for node, root in zip(nodes, roots, strict=True)]
