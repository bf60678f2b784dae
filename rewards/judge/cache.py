"""Judgements on disk, found by content: the same case under the same judge is never paid for twice.

Only hashes and scores are kept, neither texts nor keys. SQLite keeps the file sound when a process is killed, and lets
several processes share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treegym.errors import DataError, StorageError
from treegym.files import cache_folder
from treegym.untrusted import open_regular

__all__ = ["JudgeCache", "content_key", "default_cache"]

_TABLE = "CREATE TABLE judgements (key TEXT PRIMARY KEY, score REAL NOT NULL)"  # and nothing else


def default_cache() -> Path:
    """Returns where judgements are kept."""
    return cache_folder() / "judgements.sqlite"


def content_key(*parts: Any) -> str:
    """Returns a hash of JSON-serialisable parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class JudgeCache:
    """Scores by key."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0  # the process that opened the connection; a forked child opens its own

    def get(self, keys: Sequence[str]) -> dict[str, float]:
        """Returns the scores that are known."""
        found: dict[str, float] = {}
        with self._lock:
            try:
                connection = self._open()
                for start in range(0, len(keys), 500):
                    chunk = list(keys[start : start + 500])
                    marks = ",".join("?" * len(chunk))
                    rows = connection.execute(f"SELECT key, score FROM judgements WHERE key IN ({marks})", chunk)
                    found.update(self._sound(row) for row in rows)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                raise self._problem(error) from error
        return found

    def put(self, key: str, score: float) -> None:
        """Keeps a score; it survives the death of this process when this returns."""
        with self._lock:
            try:
                self._open().execute("INSERT OR REPLACE INTO judgements VALUES (?, ?)", (key, float(score)))
            except sqlite3.DatabaseError as error:
                raise self._problem(error) from error

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._owner != os.getpid():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.exists():
                    open_regular(self.path).close()
                connection = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
            except OSError as error:
                raise DataError(f"{self.path}: cannot be opened: {error.strerror or error}") from error
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()  # left to itself it would keep the file locked
                raise
            self._connection, self._owner = connection, os.getpid()
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_TABLE.replace("TABLE", "TABLE IF NOT EXISTS", 1))
        held = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 2").fetchall()
        if held != [(_TABLE,)]:  # a view or a trigger could compute for ever, or make numbers out of nothing
            raise DataError(f"{self.path}: not a cache of judgements; delete it or name another")

    def _sound(self, row: tuple[Any, Any]) -> tuple[str, float]:
        key, score = row
        if not isinstance(score, float) or not 0.0 <= score <= 1.0:
            raise DataError(f"{self.path}: holds {str(score)[:40]!r} as a score; delete it or name another")
        return key, score

    def _problem(self, error: Exception) -> DataError | StorageError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return StorageError(f"{self.path} could not be written: {error}; the judgements before it are kept")
        return DataError(f"{self.path}: the cache of judgements cannot be used ({error}); delete it or name another")
