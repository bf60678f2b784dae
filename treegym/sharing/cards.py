"""The card of what is shared: README.md on the hub, made from what the file itself knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from treegym.display import markdown_cell, plain
from treegym.sharing.kinds import Kind

__all__ = ["card"]

_HEADINGS = {
    "primary": "Primary model", "teacher_models": "Teachers", "growth": "Growth", "prompts": "Prompts",
    "statistics": "Figures", "leaderboard": "Leaderboard", "rounds": "Rounds", "settings": "Settings",
    "counters": "Training", "figures": "Figures", "env": "Environment",
}  # fmt: skip


def card(kind: Kind, about: Mapping[str, Any], *, repo: str, version: str, licence: str | None, size: int) -> str:
    """Returns the Markdown of a card: what it is, how it is loaded in three lines, and every figure that is known."""
    tags = ["treegym", kind.name, *(["reinforcement-learning"] if kind.name == "agent" else [])]
    front = [*([f"license: {licence}"] if licence else []), "library_name: treegym", "tags:", *(f"- {t}" for t in tags)]
    folder = repo.partition("/")[2]
    load = kind.load.format(name=repo, folder=folder, algorithm=plain(about.get("algorithm", "")))
    language = "console" if load.startswith("$") else "python"
    lines = ["---", *front, "---", "", f"# {folder}", ""]
    lines += [f"A {kind.noun} of [TreeGym](https://github.com/treegym/treegym) {version}, {size:,} bytes.", ""]
    lines += [f"```{language}", load, "```", ""]
    if licence is None:
        lines += ["No licence was stated by whoever shared it.", ""]
    for name, value in about.items():
        if value not in (None, {}, []):
            lines += [f"## {_HEADINGS.get(name, plain(name).replace('_', ' ').capitalize())}", "", *_shown(value), ""]
    return "\n".join(lines).rstrip() + "\n"


def _shown(value: Any) -> list[str]:
    """Returns a value as a table where it has rows or names, else as a line."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        columns = list(dict.fromkeys(name for row in value for name in row))
        return _table(columns, [[row.get(name) for name in columns] for row in value])
    if isinstance(value, dict):
        return _table(["", ""], [[str(name).replace("_", " "), inner] for name, inner in value.items()])
    return [_cell(value)]


def _table(columns: list[str], rows: list[list[Any]]) -> list[str]:
    head = "| " + " | ".join(markdown_cell(name) for name in columns) + " |"
    body = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return [head, "|" + " --- |" * len(columns), *body]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{markdown_cell(str(name))} {_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list) and not any(isinstance(inner, dict | list) for inner in value):
        return ", ".join(_cell(inner) for inner in value)
    return markdown_cell(value if isinstance(value, str) else json.dumps(value))[:300]
