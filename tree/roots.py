"""The prompts that a tree grows under, and the table of them in a file."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from treegym.errors import ConfigError, DataError
from treegym.tree.pictures import PICTURE_BYTES, picture_name, remember_picture
from treegym.untrusted import json_of

__all__ = ["SPLITS", "Root", "RootTable", "table_of"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Root:
    """A prompt that a tree grows under."""

    prompt: str
    answer: str = ""  # reference answer, for verifiers
    split: str = "train"
    kind: str = ""  # the kind of task, for reports
    tokens: tuple[int, ...] = ()  # the prompt in the primary's vocabulary
    extra: Mapping[str, Any] = field(default_factory=dict)  # whatever the source of the prompt wants kept
    image: bytes = b""  # a picture (plain PNG) that the prompt names, see pictures.py

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"a root's split is {self.split!r}; it must be one of {', '.join(SPLITS)}")
        if self.image:
            self._remember()
            if picture_name(self.image) not in self.prompt:
                raise ConfigError(
                    f"the prompt {self.prompt[:60]!r} comes with a picture but does not name it; put "
                    f"{picture_name(self.image)} where the picture stands"
                )

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)  # a copy, or what another process sent
        if self.image:
            self._remember()

    def _remember(self) -> None:
        remember_picture(self.image, where=f"the picture of the prompt {self.prompt[:60]!r}")


class RootTable(Sequence[Root]):
    """The roots in a file, parsed when first asked for: opening a tree of many prompts stays instant."""

    def __init__(self, path: str, text: np.ndarray, count: int) -> None:
        self._path, self._text, self._count = path, text, count
        self._roots: list[Root] | None = None

    def _parsed(self) -> list[Root]:
        if self._roots is None:
            raw = self._text.tobytes()
            try:
                # A root takes at least 50 bytes, in two containers and a dozen values if its prompt is short.
                entries = json_of(raw, where="roots", values=len(raw) // 2, containers=len(raw) // 8)
                self._roots = [_root(entry) for entry in entries]
            except (ValueError, TypeError, KeyError, ConfigError) as error:
                raise DataError(f"{self._path}: its table of roots is damaged: {error}") from error
            if len(self._roots) != self._count:
                raise DataError(f"{self._path}: {len(self._roots)} roots are described, but {self._count} are there")
        return self._roots

    def __len__(self) -> int:
        return self._count if self._roots is None else len(self._parsed())

    def __iter__(self) -> Iterator[Root]:
        return iter(self._parsed())

    @overload
    def __getitem__(self, index: int) -> Root: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Root]: ...
    def __getitem__(self, index: int | slice) -> Root | Sequence[Root]:
        return self._parsed()[index]


def _root(entry: Any) -> Root:
    prompt, answer, split, kind = entry["prompt"], entry["answer"], entry["split"], entry["kind"]
    if not all(isinstance(text, str) for text in (prompt, answer, split, kind)):
        raise ValueError("a root's prompt, answer, split or kind is not a string")
    tokens = tuple(entry["tokens"])
    if not all(type(token) is int for token in tokens) or not isinstance(entry.get("extra", {}), dict):
        raise ValueError("a root's tokens or extra fields are not what they should be")
    return Root(prompt, answer, split, kind, tokens=tokens, extra=entry.get("extra", {}), image=_picture(entry))


def _picture(entry: Mapping[str, Any]) -> bytes:
    """Returns the PNG of a root, empty for the many that have none."""
    text = entry.get("image", "")
    if not isinstance(text, str) or len(text) > PICTURE_BYTES * 4 // 3 + 4:
        raise ValueError(f"a root's picture is not text of at most {PICTURE_BYTES:,} bytes in base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a root's picture is not base64: {error}") from error


def table_of(roots: Sequence[Root]) -> bytes:
    """Returns the table of roots as a file holds it; the same roots always give the same bytes."""
    entries = [
        {
            "prompt": root.prompt,
            "answer": root.answer,
            "split": root.split,
            "kind": root.kind,
            "tokens": [int(token) for token in root.tokens],
            **({"extra": dict(root.extra)} if root.extra else {}),
            **({"image": base64.b64encode(root.image).decode()} if root.image else {}),
        }
        for root in roots
    ]
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
