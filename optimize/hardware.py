"""What kind of machine this is: times are compared, and measurements shared, only within one kind."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass

__all__ = ["DECLARED", "Kind", "kind_here", "processor"]

DECLARED = "TREEGYM_HARDWARE"  # for what a processor's name does not tell: a power limit, slower memory
_COMPUTING = ("treegym", "torch", "onnxruntime", "openvino")  # packages whose versions tell


@dataclass(frozen=True)
class Kind:
    """A kind of machine: its processor and accelerators, and the versions of what computes."""

    hardware: str
    versions: tuple[str, ...]

    def __str__(self) -> str:
        told = [f"{name} {version}" for name, version in zip(_COMPUTING, self.versions, strict=True) if version]
        return f"{self.hardware} with {', '.join(told)}"

    @property
    def slug(self) -> str:
        """A name for files."""
        words = re.sub(r"[^a-z0-9]+", "-", self.hardware.lower()).strip("-")[:48]
        return f"{words}-{hashlib.sha256(repr(self).encode()).hexdigest()[:6]}"


def kind_here() -> Kind:
    """Returns the kind of this machine."""
    return Kind(_hardware(), tuple(_version(name) for name in _COMPUTING))


def processor() -> str:
    """Returns the name of this machine's processor."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def _hardware() -> str:
    import torch

    parts = [processor()]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        parts += sorted({f"{names.count(name)}x {name}" for name in names})
    declared = os.environ.get(DECLARED, "").strip()
    return " + ".join(parts) + (f" ({declared})" if declared else "")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
