"""A journal of finished answers: an interrupted batch goes on where it stopped, and nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from treegym.errors import DataError

__all__ = ["Journal"]


class Journal:
    """An append-only file, one checked JSON line an answer; a line torn by a kill is dropped when it is opened.

    Keys are hashes of the request, so the file holds answers but neither prompts nor keys of servers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens or begins a journal."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        try:
            kept = self._read() if self.path.exists() else 0
            self._file = open(self.path, "ab")  # noqa: SIM115 (held open; `close` closes it)
            self._file.truncate(kept)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be opened: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, kind: str, request: dict[str, Any]) -> Any:
        """Returns the answer kept for this request, or None."""
        return self._answers.get(_key(kind, request))

    def put(self, kind: str, request: dict[str, Any], answer: Any) -> None:
        """Keeps an answer; it is in the file when this returns."""
        key = _key(kind, request)
        text = json.dumps({"key": key, "answer": answer}, separators=(",", ":"), allow_nan=False)
        with self._lock:
            self._answers[key] = answer
            self._file.write(f"{_check(text)} {text}\n".encode())
            self._file.flush()

    def close(self) -> None:
        """Flushes the file to disk and closes it."""
        with self._lock:
            if not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> int:
        """Fills the table from the file and returns the length of its sound part."""
        sound = 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines):
            check, _, text = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and check == _check(text.decode("utf-8", "replace")).encode():
                entry = json.loads(text)
                self._answers[entry["key"]] = entry["answer"]
                sound += len(line)
            elif number == len(lines) - 1:
                break  # the last line was torn by a kill
            else:
                raise DataError(f"{self.path}: line {number + 1} is damaged; restore the file or delete it")
        return sound


def _key(kind: str, request: dict[str, Any]) -> str:
    text = json.dumps([kind, request], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
