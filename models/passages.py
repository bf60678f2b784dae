"""Passages of a folder of texts: what retrieval chooses among."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from treegym.checks import whole
from treegym.errors import DataError
from treegym.untrusted import read_text

__all__ = ["SUFFIXES", "Passage", "digest", "passages_of", "read_passages"]

SUFFIXES = (".txt", ".md")
LONGEST_FILE = 2**26  # bytes
_PARAGRAPHS = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Passage:
    """A piece of a file.

    Attributes:
        source: the file's path below the folder.
        place: which piece of the file it is, from 0 on.
        text: what stands there, white space made single.
    """

    source: str
    place: int
    text: str


def read_passages(folder: str | os.PathLike[str], *, words: int = 120, overlap: int = 20) -> list[Passage]:
    """Returns the passages of all text files (.txt, .md) below a folder, in the order of their names.

    Args:
        folder: the folder.
        words: the longest passage.
        overlap: words that two pieces of a paragraph longer than that share.
    """
    whole("words of a passage", words, low=1)
    whole("overlap of passages", overlap, low=0, high=words - 1)
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; name one that holds text files ({', '.join(SUFFIXES)})")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    found = [
        Passage(file.relative_to(path).as_posix(), place, text)
        for file in files
        for place, text in enumerate(passages_of(read_text(file, limit=LONGEST_FILE), words=words, overlap=overlap))
    ]
    if not found:
        held = f"{len(files)} text files without a word" if files else f"no text file ({', '.join(SUFFIXES)})"
        raise DataError(f"{path}: holds {held}; put what teachers should read there")
    return found


def passages_of(text: str, *, words: int, overlap: int = 0) -> Iterator[str]:
    """Yields the passages of a text: whole paragraphs as long as they fit, pieces of those that do not."""
    held: list[str] = []
    for paragraph in _PARAGRAPHS.split(text):
        read = paragraph.split()
        if held and len(held) + len(read) > words:
            yield " ".join(held)
            held = []
        while len(read) > words:
            yield " ".join(read[:words])
            read = read[words - overlap :]
        held += read
    if held:
        yield " ".join(held)


def digest(passages: Sequence[Passage]) -> str:
    """Returns a hash of the passages, in order."""
    rows = [list(asdict(passage).values()) for passage in passages]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
