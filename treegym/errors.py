"""The errors TreeGym raises for its users: each says what came, what was expected and what to do next."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "BackendError",
    "ConfigError",
    "DataError",
    "LossIsNaN",
    "MissingDependency",
    "RewardError",
    "StorageError",
    "TreeGymError",
    "require",
    "suggest",
]


LONGEST = 500  # characters of a message: what came from outside and is quoted in it may have any length


class TreeGymError(Exception):
    """Base of every error a user of TreeGym may want to catch."""

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if len(text) > LONGEST:  # both ends say most: what it is about, and what to do
            text = f"{text[: LONGEST - 155]} [...] {text[-148:]}"
        super().__init__(text)


class ConfigError(TreeGymError, ValueError):
    """An argument, option or configuration value that cannot be used."""


class DataError(TreeGymError, ValueError):
    """A file or array from outside that is damaged, too new, or of another kind than expected."""


class RewardError(TreeGymError, ValueError):
    """A reward term that failed; names the term, the root and the path."""


class StorageError(TreeGymError, OSError):
    """What should be kept could not be written: the disk is full, read-only or broken."""

    def __init__(self, message: str, errno: int | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.errno, self.strerror = errno, reason  # as the operating system has them

    def __str__(self) -> str:
        return str(self.args[0])


class BackendError(TreeGymError, RuntimeError):
    """A language-model back end or server that failed for good."""


class LossIsNaN(TreeGymError, ArithmeticError):
    """Training ran into NaN or infinity; the weights from before are what is kept."""


class MissingDependency(TreeGymError, ImportError):
    """An optional package that is not installed; the message carries the install command."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x'?"``, or the known names when nothing is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(names)}." if names else ""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Imports an optional module, or raises `MissingDependency` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f'{purpose} needs the package {module.split(".")[0]!r}: pip install "treegym[{extra}]" ({error})'
        ) from error
