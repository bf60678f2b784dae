"""The order in which runs were finished, each line sealed over the one before it: ``chain.jsonl`` in a result folder.

A line holds a run's name, the SHA-256 of its summary (cost, settings, seed, provenance, and the hashes of its episodes)
and the seal: the SHA-256 of the line before and of this one. So what is edited, exchanged or removed later shows. It is
no proof against somebody who writes all of it anew; running a sample again is (`treegym bench verify --rerun`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from treegym.errors import DataError
from treegym.files import told_by
from treegym.untrusted import read_text

__all__ = ["CHAIN", "append", "entries", "faults", "head"]

CHAIN = "chain.jsonl"


def append(folder: Path, names: Iterable[str]) -> None:
    """Adds finished runs; one whose summary has not changed since it was added stays where it is."""
    held = entries(folder)
    latest = {entry["run"]: entry["summary"] for entry in held}
    seal, added = held[-1]["seal"] if held else "", []
    for name in names:
        line = {"run": name, "summary": _digest((folder / "runs" / f"{name}.json").read_bytes())}
        if latest.get(name) != line["summary"]:
            seal = line["seal"] = _seal(seal, line)
            added.append(json.dumps(line) + "\n")
    if not added:
        return
    kept = "the finished runs are kept; make room and give the same command again"
    with told_by(folder / CHAIN, kept=kept), open(folder / CHAIN, "a", encoding="utf-8") as file:
        file.writelines(added)
        file.flush()
        os.fsync(file.fileno())


def entries(folder: Path) -> list[dict[str, str]]:
    """Returns the lines of a folder's chain; a last line that a kill cut short is dropped from the file too."""
    path = folder / CHAIN
    if not path.exists():
        return []
    text = read_text(path, limit=2**26)
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, len(whole.encode()))
    try:
        lines: list[Any] = [json.loads(line) for line in whole.splitlines()]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    for line in lines:
        if not isinstance(line, dict) or not all(isinstance(line.get(key), str) for key in ("run", "summary", "seal")):
            raise DataError(f"{path} is damaged: {str(line)[:60]} is not a line of a chain")
    return lines


def faults(folder: Path) -> Iterator[str]:
    """Yields what contradicts the chain: edited, exchanged, removed or added runs."""
    held, seal = entries(folder), ""
    for entry in held:
        seal = _seal(seal, {key: entry[key] for key in ("run", "summary")})
        if entry["seal"] != seal:
            yield f"{CHAIN}: the line of {entry['run']} does not follow from the line before it"
            return
    latest = {entry["run"]: entry["summary"] for entry in held}  # a run that was repeated counts as it is now
    for name, digest in latest.items():
        path = folder / "runs" / f"{name}.json"
        if not path.exists():
            yield f"{name} was finished once, and is gone"
        elif _digest(path.read_bytes()) != digest:
            yield f"{path.name} is not as the run left it (cost, settings, seed or provenance were changed)"
    for path in sorted((folder / "runs").glob("*.json")):
        if path.stem not in latest:
            yield f"{path.name} was put there by somebody else: {CHAIN} does not know it"


def head(folder: Path) -> str:
    """Returns the last seal, which stands for the whole folder; "" where there is no chain."""
    held = entries(folder)
    return held[-1]["seal"] if held else ""


def _seal(before: str, line: dict[str, str]) -> str:
    return _digest(f"{before}\n{line['run']}\n{line['summary']}".encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
