"""The report of a benchmark: terminal table, Markdown, CSV, JSON, and one HTML page that needs no network."""

from __future__ import annotations

from treegym.bench.report.write import FILES, write_report

__all__ = ["FILES", "write_report"]
