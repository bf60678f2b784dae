"""Where a result comes from: versions, git revision, hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import treegym

__all__ = ["cores", "git_revision", "processor", "provenance", "versions"]

_PACKAGES = ("gymnasium", "numpy", "numba", "torch", "transformers", "stable-baselines3", "sb3-contrib", "openskill")


def versions(packages: tuple[str, ...] = _PACKAGES) -> dict[str, str]:
    """Returns the versions of Python, TreeGym and what else is installed of `packages`."""
    found = {"python": platform.python_version(), "treegym": treegym.__version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def git_revision() -> str:
    """Returns the commit TreeGym runs from, with "+changes" if the tree is dirty; "" outside a checkout."""
    folder = Path(treegym.__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return ""
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return revision + ("+changes" if changes else "")


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return result.stdout.strip()


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Returns versions, git revision and hardware, as written into every result."""
    return {
        "versions": versions(),
        "git": git_revision(),
        "hardware": {
            "processor": processor(),
            "cores": cores(),
            "memory_gb": _memory_gb(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def processor() -> str:
    """Returns the processor's name; "unknown" where the system does not tell it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or "unknown"
    return platform.processor() or "unknown"


def _memory_gb() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return 0.0
