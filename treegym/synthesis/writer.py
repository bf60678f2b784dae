"""A model that writes texts, every batch of them kept in a journal, and every token counted.

Any back end that generates will do. A batch is one entry of the journal, found again by what was asked: a run that was
killed asks for nothing twice and ends in the same texts, and its costs are those of the whole run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write
from treegym.locks import held
from treegym.models.base import Generates, Scores, needed
from treegym.models.remote.journal import Journal
from treegym.models.tokens.ends import ending_at
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.models.tokens.tokenizers import prefix_ids
from treegym.rewards.terms.likelihood import perplexity

__all__ = ["Costs", "Output", "Text", "Writer"]

BATCH = 16


@dataclass(frozen=True)
class Text:
    """What a model wrote, and whether it came to an end by itself."""

    text: str
    ended: bool


@dataclass
class Costs:
    """What was asked of a model."""

    requests: int = 0
    read: int = 0  # tokens
    written: int = 0

    def add(self, kept: Mapping[str, Any]) -> None:
        self.requests += len(kept["texts"])
        self.read += kept["read"]
        self.written += kept["written"]

    def join(self, other: Costs) -> None:
        self.requests, self.read = self.requests + other.requests, self.read + other.read
        self.written += other.written


@dataclass
class Writer:
    """A model asked in text.

    Attributes:
        model: any back end that generates.
        journal: where finished batches are kept; None keeps nothing.
        form: how texts are put to it.
        max_tokens: longest text that it writes.
        batch: texts asked for at once.
    """

    model: Generates
    journal: Journal | None = None
    form: PromptFormat = field(default_factory=PromptFormat)
    max_tokens: int = 64
    batch: int = BATCH
    costs: Costs = field(default_factory=Costs)

    def write(
        self, asked: Sequence[str], *, temperature: float = 0.0, seed: int = 0, form: PromptFormat | None = None
    ) -> list[Text]:
        """Returns a text for each of what is asked, in order.

        Args:
            asked: what is put to the model.
            temperature: 0 is greedy.
            seed: of the draws; every batch draws by one of its own.
            form: in place of the writer's own form.
        """
        made: list[Text] = []
        for start in range(0, len(asked), self.batch):
            part = list(asked[start : start + self.batch])
            kept = self._written(part, temperature, seed + start, form or self.form)
            self.costs.add(kept)
            made += [Text(text, ended) for text, ended in kept["texts"]]
        return made

    def perplexities(self, texts: Sequence[str]) -> list[float]:
        """Returns exp of the mean surprise per token of texts under the model, each read by itself."""
        model = needed(self.model, Scores)
        request = {"model": self._fingerprint, "read": list(texts)}
        kept = self.journal.get("perplexities", request) if self.journal is not None else None
        if kept is None:
            start = list(prefix_ids(model.tokenizer)) or [model.tokenizer.eos_id]
            ids = [model.tokenizer.encode(text) for text in texts]
            scores = model.score([start] * len(ids), ids) if ids else []
            kept = {"values": [perplexity(score) for score in scores], "read": sum(map(len, ids))}
            if self.journal is not None:
                self.journal.put("perplexities", request, kept)
        self.costs.read += kept["read"]
        return list(kept["values"])

    @cached_property
    def _fingerprint(self) -> str:
        return self.model.fingerprint()

    def _written(self, asked: list[str], temperature: float, seed: int, form: PromptFormat) -> dict[str, Any]:
        request = {
            "model": self._fingerprint, "asked": asked, "form": form.to_dict(), "max_tokens": self.max_tokens,
            "temperature": temperature, "seed": seed,
        }  # fmt: skip
        kept = self.journal.get("texts", request) if self.journal is not None else None
        if kept is None:
            kept = self._generated(asked, temperature, seed, form)
            if self.journal is not None:
                self.journal.put("texts", request, kept)
        return dict(kept)

    def _generated(self, asked: list[str], temperature: float, seed: int, form: PromptFormat) -> dict[str, Any]:
        begin, eos = form.begin(self.model), self.model.tokenizer.eos_id
        contexts = [list(begin(text)) for text in asked]
        made = ending_at(self.model, form.stops).generate(
            contexts, max_new_tokens=self.max_tokens, temperature=temperature, seed=seed
        )
        texts = [
            (self.model.tokenizer.decode([token for token in ids if token != eos]), bool(ids) and ids[-1] == eos)
            for ids in made
        ]
        return {"texts": texts, "read": sum(map(len, contexts)), "written": sum(map(len, made))}


class Output:
    """A JSONL file being made, its lock, and its journal, which is kept until the file is written."""

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Nothing is opened yet; raises ConfigError where the file cannot be written or stands already."""
        self.path = Path(path)
        self._journal_path = self.path.with_name(f"{self.path.name}.journal")
        if not self.path.parent.is_dir():
            raise ConfigError(f"{self.path.parent} is no directory; make it first")
        if self.path.is_dir():
            raise ConfigError(f"{self.path} is a directory; name the file to write")
        if self.path.exists() and not overwrite and not self._journal_path.exists():
            raise ConfigError(f"{self.path} exists already; choose another name, or ask to overwrite it")
        self._open = ExitStack()

    def __enter__(self) -> Self:
        lock = self.path.with_name(f".{self.path.name}.lock")
        self._open.enter_context(held(lock, what=f"the making of {self.path}"))
        self.journal = self._open.enter_context(Journal(self._journal_path))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def finish(self, rows: Iterable[Mapping[str, Any]], *, apart: Iterable[Mapping[str, Any]] | None = None) -> None:
        """Writes the rows, and those kept apart to ``NAME.apart.jsonl``, and removes the journal."""
        written = _lines(rows)
        if apart is not None and (lines := _lines(apart)):
            atomic_write(self.path.with_name(f"{self.path.stem}.apart.jsonl"), lines)
        if not written:
            raise DataError(f"nothing is left to write to {self.path}: every row was refused; the journal is kept")
        atomic_write(self.path, written)
        self.journal.close()
        self._journal_path.unlink()


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
