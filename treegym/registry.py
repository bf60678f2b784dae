"""Names of things that can be plugged in: the one mechanism behind agents, rewards, strategies, back ends and the rest.

A name leads to an import path, and nothing is imported before it is asked for. Names come from three places: the table
of a room, `Registry.register` at run time, and the entry points of installed packages.

What a file says is not what you say. A checkpoint keeps the arguments of its environment, a result folder those of its
suite, and a stranger may have written either: a reward term ``os:system`` in one of them would be imported and called,
a judge's address asked with your key. While `hearsay` runs, such names are refused; what you give yourself
(``--env-arg``, ``--trust``) is not.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from treegym.errors import ConfigError, suggest

__all__ = ["Registry", "hearsay", "is_hearsay", "lazy_face", "refuse_hearsay", "resolve"]

_heard: ContextVar[tuple[str, frozenset[str], str]] = ContextVar("heard", default=("", frozenset(), ""))


class Registry(Mapping[str, str]):
    """The things of one sort, by name. As a mapping: every name with one line of help.

    Args:
        sort: what is registered, for error texts: "agent", "reward term".
        table: name -> (import path such as ``"my_module:MyAgent"``, one line of help).
        group: the group of entry points through which installed packages add to it.
    """

    def __init__(self, sort: str, table: Mapping[str, tuple[str, str]], *, group: str = "") -> None:
        self.sort, self.table, self.group = sort, dict(table), group
        self._registered: dict[str, Any] = {}

    def register(self, name: str, thing: Any) -> Any:
        """Makes a class or function known in this process; processes started later must name it by import path."""
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError(f"{name!r} cannot name a {self.sort}; use letters, digits and underscores")
        self._check(name, thing)
        if name in self.table or self._registered.get(name, thing) is not thing:
            raise ConfigError(
                f"there is already a {self.sort} called {name!r}; what exists already keeps its name, so choose another"
            )
        self._registered[name] = thing
        return thing

    def find(self, name: str, *, beside: Iterable[str] = ()) -> Any:
        """Returns what a name or import path stands for; names `beside` these may have been meant too."""
        if isinstance(name, str) and name in self._registered:
            return self._registered[name]
        path = self.path_of(name, beside=beside)
        if path is name:  # an import path, and not the name of something known
            refuse_hearsay(name, f"the {self.sort}")
        what = f"{self.sort} {name!r}"
        if name not in self.table and name in self._plugins():  # looking through what is installed takes a while
            return self._check(name, resolve(path, f"{what} of an installed package", cannot_be="loaded"))
        return self._check(name, resolve(path, what))

    def path_of(self, name: str, *, beside: Iterable[str] = ()) -> str:
        """Returns the import path of what a name stands for; an import path is returned as it is."""
        if isinstance(name, str) and name in self._registered:
            thing = self._registered[name]
            return f"{thing.__module__}:{getattr(thing, '__qualname__', name)}"
        if name in self.table:
            return self.table[name][0]
        plugins = self._plugins()
        if name in plugins:
            return plugins[name].value
        if isinstance(name, str) and ":" in name:
            return name
        raise ConfigError(f"unknown {self.sort} {name!r}.{suggest(str(name), {*self, *beside})}")

    def __getitem__(self, name: str) -> str:
        if name in self._registered:
            return (self._registered[name].__doc__ or "").strip().partition("\n")[0]
        return self.table[name][1] if name in self.table else f"from {self._plugins()[name].value}"

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.table, *self._registered, *self._plugins()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        points = importlib.metadata.entry_points(group=self.group) if self.group else ()
        return {point.name: point for point in points if point.name not in self.table}

    def _check(self, name: str, thing: Any) -> Any:
        if not callable(thing):
            raise ConfigError(f"{self.sort} {name!r} is {type(thing).__name__}; a function or a class was expected")
        return thing


def resolve(path: str, what: str, *, cannot_be: str = "imported") -> Any:
    """Returns what an import path ``"module:name"`` leads to; ConfigError says what of `what` could not be found."""
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # somebody else's module: whatever it raises is what is wrong with it
        reason = f"{module} failed to import: {type(error).__name__}: {error}"
        raise ConfigError(f"{what} cannot be {cannot_be}: {reason}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            reason = f"{module} has no {part!r}.{_near(part, found)}"
            raise ConfigError(f"{what} cannot be {cannot_be}: {reason}") from error
    return found


def _near(name: str, owner: Any) -> str:
    public = [known for known in dir(owner) if not known.startswith("_")]
    return suggest(name, public) if len(public) < 40 or "Did you" in suggest(name, public) else ""


def lazy_face(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns ``__getattr__`` and ``__dir__`` of a package whose names are imported when they are first asked for.

    Args:
        package: the package's name.
        homes: public name -> the module it lives in, below the package.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return find, lambda: sorted(homes)


@contextmanager
def hearsay(source: str, value: Any, *, remedy: str = "name it yourself") -> Iterator[None]:
    """Refuses names that occur anywhere in a JSON value, which was read from `source`, while the block runs."""
    before = _heard.get()[1]
    token = _heard.set((source, before | _strings_in(value), remedy))
    try:
        yield
    finally:
        _heard.reset(token)


def _strings_in(value: Any) -> frozenset[str]:
    """Returns every text in a JSON value, keys among them."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found.add(part)
        elif isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
    return frozenset(found)


def is_hearsay(name: Any, *, part: bool = False) -> bool:
    """Whether a name was read from a file; with `part`, also whether it is a part of what was."""
    heard = _heard.get()[1]
    return name in heard or (part and any(name in text for text in heard))


def refuse_hearsay(name: Any, what: str, *, part: bool = False) -> None:
    """Raises ConfigError for a name that was read from a file."""
    if is_hearsay(name, part=part):
        source, _, remedy = _heard.get()
        raise ConfigError(f"{source} names {what} {name!r}, which a file cannot make us use: {remedy}")
