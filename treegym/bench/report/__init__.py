"""The report of a benchmark: terminal table, Markdown, CSV, JSON, and one HTML page that needs no network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treegym.bench.report.page import as_html
from treegym.bench.report.tables import as_csv, as_markdown
from treegym.files import atomic_write

__all__ = ["FILES", "write_report"]

FILES = ("leaderboard.json", "leaderboard.csv", "report.md", "report.html")


def write_report(board: Mapping[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes leaderboard.json, leaderboard.csv, report.md and report.html; returns their paths."""
    texts = (json.dumps(board, allow_nan=False) + "\n", as_csv(board), as_markdown(board), as_html(board))
    paths = [Path(folder) / name for name in FILES]
    for path, text in zip(paths, texts, strict=True):
        atomic_write(path, text)
    return paths
