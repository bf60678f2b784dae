"""Verifier: is the answer right? The stored verdict where there is one, else the text against the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from treegym.errors import ConfigError, DataError, RewardError, require, suggest
from treegym.files import read_json_lines
from treegym.models.tasks import KINDS, is_correct
from treegym.rewards.answers import AnswerRule
from treegym.rewards.base import Request, Scored, Term, number
from treegym.rewards.matching import BoundedRegex, exact_match, numeric_match, same_answer
from treegym.rewards.registry import VERIFIERS
from treegym.tree.token_tree import TokenTree

__all__ = ["Verifier"]

Check = Callable[[str, str, str], float]  # text, reference, prompt -> score in [0, 1]
METHODS = ("auto", "exact", "numeric", "extract", "regex", "reasoning_gym")


class Verifier(Term):
    """1.0 where the answer is right, 0.0 where it is wrong (or between, with a scorer that gives part marks).

    Args:
        method: ``auto``: the tree's stored verdict where there is one, else the task's own verifier for the bundled
            tasks, else the comparison that fits the reference;
            ``exact``: equal text; ``numeric``: the last number; ``extract``: what `extract` finds in the text;
            ``regex``: `pattern` is found; ``reasoning_gym``: the
            scorer of that package for the prompt's kind; or ``"module:function"``, called with text, reference, prompt.
        extract: for ``extract``: how the answer is found, one of `treegym.rewards.answers.EXTRACTORS`.
        pattern: for ``regex``; ``{reference}`` in it stands for the escaped reference answer.
        seconds: longest time for one search of the pattern.
        tolerance: relative tolerance of ``numeric``.
        dataset: for ``reasoning_gym``: the dataset's name, when the prompts' kinds do not say it.
        entries: for ``reasoning_gym``: a JSONL file with the entries (question, answer, metadata), for datasets whose
            scorer needs more than question and answer.
    """

    kind = "verifier"
    bounds = (0.0, 1.0)

    def __init__(
        self,
        *,
        method: str = "auto",
        extract: str | None = None,
        pattern: str | None = None,
        seconds: float = 1.0,
        tolerance: float = 1e-6,
        dataset: str | None = None,
        entries: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if method not in METHODS and ":" not in method:
            raise ConfigError(f"reward term {self.name!r}: there is no method {method!r}.{suggest(method, METHODS)}")
        if (method == "regex") != (pattern is not None):
            raise ConfigError(f"reward term {self.name!r}: method='regex' and a `pattern` go together")
        if (method == "extract") != (extract is not None):
            raise ConfigError(f"reward term {self.name!r}: method='extract' and `extract` go together")
        self._rule = AnswerRule(extract) if extract is not None else AnswerRule()
        self.method, self.tolerance, self.dataset = method, tolerance, dataset
        self._entries = None if entries is None else _read_entries(entries, self.name)
        self.lazy = method not in ("auto", "exact", "numeric", "extract")  # the others may be slow: only where visited
        self._regex = None if pattern is None else BoundedRegex(pattern, seconds=seconds)
        self._call: Callable[..., Any] | None = VERIFIERS.find(method) if ":" in method else None

    def values(self, source: TokenTree, asked: Request) -> np.ndarray | Scored:
        nodes = asked.nodes
        values = np.full(len(nodes), np.nan)
        if self.method == "auto":
            values = np.asarray(source.verdict)[nodes].astype(np.float64)
        missing = np.nonzero(np.isnan(values))[0]
        if not missing.size:
            return values
        reasons: dict[int, str] = {}
        roots = np.asarray(source.root_of(nodes[missing]))
        prompts, answers, kinds = source.prompts, source.answers, source.kinds  # may be built anew at each access
        for i, root in zip(missing, roots, strict=True):
            text, kind = source.text(int(nodes[i])), str(kinds[root]) if len(kinds) else ""
            try:
                values[i] = self._score(text, answers[root], prompts[root], kind)
            except RewardError as error:
                reasons[int(i)] = str(error)
            except Exception as error:  # noqa: BLE001 - a scorer from outside may raise anything; it is reported
                reasons[int(i)] = f"{type(error).__name__}: {error}"
        return Scored(values, reasons)

    def _score(self, text: str, reference: str, prompt: str, kind: str) -> float:
        if self.method == "auto":
            return float(is_correct(text, reference) if kind in KINDS else same_answer(text, reference))
        if self.method == "exact":
            return float(exact_match(text, reference))
        if self.method == "numeric":
            return float(numeric_match(text, reference, tolerance=self.tolerance))
        if self.method == "extract":
            return float(self._rule.right(text, reference))
        if self._regex is not None:
            return float(self._regex.search(text, reference))
        if self._call is not None:
            return number(self._call(text, reference, prompt), "its value")
        entry = (self._entries or {}).get(prompt, {"question": prompt, "answer": reference, "metadata": {}})
        return self._reasoning_gym(text, entry, self.dataset or kind)

    def _reasoning_gym(self, text: str, entry: Mapping[str, Any], dataset: str) -> float:
        package = require("reasoning_gym", extra="prompts", purpose="scoring answers with reasoning-gym")
        try:
            scorer = package.get_score_answer_fn(dataset)
        except (KeyError, ValueError) as error:
            raise RewardError(f"reasoning-gym has no dataset {dataset!r}; give dataset='name'") from error
        return number(scorer(text, dict(entry)), "its value")


def _read_entries(path: str, term: str) -> dict[str, dict[str, Any]]:
    """Returns reasoning-gym entries by question."""
    found: dict[str, dict[str, Any]] = {}
    try:
        for where, entry in read_json_lines(path):
            if not isinstance(entry, dict) or not {"question", "answer"} <= entry.keys():
                raise DataError(f"{where}: an object with question and answer was expected")
            found[str(entry["question"])] = {"metadata": {}, **entry}
    except DataError as error:
        raise ConfigError(f"reward term {term!r}: {error}") from error
    return found
