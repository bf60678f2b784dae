"""A journal of finished answers: an interrupted batch goes on where it stopped, and nothing is paid for twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from treegym.errors import DataError
from treegym.files import told_by
from treegym.untrusted import json_of, open_regular

__all__ = ["Journal"]

LINE_LIMIT = 2**26  # bytes; an answer with log-probabilities for a long prompt takes a few million


class Journal:
    """An append-only file, one checked JSON line per answer; a line torn by a kill is dropped when it is opened.

    Keys are hashes of the request, so the file holds answers but neither prompts nor keys of servers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens or begins a journal."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        try:
            kept = self._read() if self.path.exists() else 0
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (held open; `close` closes it)
            self._file.truncate(kept)
            self._sound = kept
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
        line = f"{_check(text)} {text}\n".encode()
        with self._lock, told_by(self.path, kept=f"the {len(self._answers)} answers before it are kept"):
            try:
                if self._file.write(line) != len(line):  # a disk that has room for a part of it only
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(self._sound)  # or the next line would be joined to a torn one
                raise
            self._sound += len(line)
            self._answers[key] = answer

    def close(self) -> None:
        """Flushes the file to disk and closes it."""
        with self._lock:
            if not self._file.closed:
                os.fsync(self._file.fileno())
                self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> int:
        """Fills the table from the file and returns the length of its sound part."""
        sound, number = 0, 0
        with open_regular(self.path) as file:
            while line := file.readline(LINE_LIMIT):
                number += 1
                where = f"{self.path}: line {number}"
                check, _, text = line.rstrip(b"\n").partition(b" ")
                if line.endswith(b"\n") and check == _check(text.decode("utf-8", "replace")).encode():
                    entry = json_of(text, where=where, values=2**22)
                    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str) or "answer" not in entry:
                        raise DataError(f"{where} is not an answer; delete the file to ask again")
                    self._answers[entry["key"]] = entry["answer"]
                    sound += len(line)
                elif len(line) < LINE_LIMIT and not file.read(1):
                    break  # the last line was torn by a kill
                else:
                    raise DataError(f"{where} is damaged; restore the file or delete it")
        return sound


def _key(kind: str, request: dict[str, Any]) -> str:
    text = json.dumps([kind, request], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
