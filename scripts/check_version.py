"""Fails unless a tag, pyproject.toml, the package and CITATION.cff name one version: check_version.py v0.1.0."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

__all__ = ["versions"]

ROOT = Path(__file__).resolve().parent.parent


def versions(root: Path = ROOT) -> dict[str, str]:
    """Returns the version that each file names."""
    package = (root / "treegym" / "__init__.py").read_text(encoding="utf-8")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    return {
        "pyproject.toml": tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"],
        "treegym/__init__.py": _only(r'^__version__ = "(.+)"$', package),
        "CITATION.cff": _only(r"^version: (.+)$", citation),
    }


def _only(pattern: str, text: str) -> str:
    [found] = re.findall(pattern, text, re.MULTILINE)
    return str(found)


if __name__ == "__main__":
    named = {"the tag": sys.argv[1].removeprefix("v"), **versions()} if len(sys.argv) > 1 else versions()
    print(", ".join(f"{where} {version}" for where, version in named.items()))
    sys.exit(len(set(named.values())) > 1)
