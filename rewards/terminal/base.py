"""Terminal detection: which nodes end an episode. Decided once per node; composed by `any`, `all` and `then`.

A spec is a name (``"eos"``), a table ``{name: options}``, or a composition: ``{"any": [..]}``, ``{"all": [..]}``,
``{"then": [..]}`` (each is asked only where those before said yes, so a cheap filter saves calls of a model). A budget,
``{"budget": {"tokens": 48}}``, stands alone or among the parts of an outer ``any``; it truncates rather than ends.
"""

from __future__ import annotations

import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from treegym.checks import whole
from treegym.errors import ConfigError, RewardError
from treegym.rewards.base import import_path
from treegym.rewards.path import PathView
from treegym.rewards.registry import DETECTORS, misfit
from treegym.tree.flags import EOS, STOPPED
from treegym.tree.paths import distinct
from treegym.tree.token_tree import TokenTree

__all__ = ["All", "AnyOf", "Decisions", "Detector", "FunctionDetector", "Terminal", "Then", "build_terminal"]


class Detector(ABC):
    """Says which nodes end an episode (B: nodes asked about). Counts in `asked` how many nodes it was asked about."""

    kind: str = ""
    arguments: dict[str, Any]
    asked: int = 0
    costly: bool = False  # whether a model is asked, so that decisions are worth sharing
    looks_ahead: bool = False  # whether a decision depends on a node's children, which a live tree may not know yet

    def __new__(cls, *positional: Any, **arguments: Any) -> Detector:
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __init__(self) -> None:  # noqa: B027 - not abstract: it refuses options that a detector does not have
        """Takes nothing."""

    @abstractmethod
    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        """Returns whether the episode ends at each node, ``[B] bool``."""

    def parts(self) -> Sequence[Detector]:
        """Returns the detectors this one is composed of."""
        return ()

    def spec(self) -> Any:
        """Returns the JSON form that builds this detector again."""
        return {self.kind: self.arguments} if self.arguments else self.kind


class FunctionDetector(Detector):
    """A plain function of a `PathView` that returns whether the text ends there."""

    def __init__(self, *, function: Callable[..., Any], reference: str | None = None, **parameters: Any) -> None:
        self.function, self.parameters = function, parameters
        self.kind = reference or import_path(function)
        self.arguments = parameters

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        decided = np.zeros(len(nodes), bool)
        for i, node in enumerate(nodes):
            view = PathView(source, int(node))
            try:
                answer = self.function(view, **self.parameters)
            except Exception as error:
                raise RewardError(
                    f"terminal detector {self.kind or 'function'!r} failed at {view!r}: {type(error).__name__}: {error}"
                ) from error
            if not isinstance(answer, (bool, np.bool_)):
                raise RewardError(
                    f"terminal detector {self.kind or 'function'!r} returned {answer!r} at {view!r}; "
                    "True or False was expected"
                )
            decided[i] = answer
        return decided

    def spec(self) -> Any:
        if not self.kind:
            raise ConfigError(
                "a terminal detector is a function that cannot be imported by name, so it has no JSON form; "
                "define it at the top of a module, or register it: treegym.rewards.register_terminal(name, function)"
            )
        return super().spec()


class _Composed(Detector):
    def __init__(self, *parts: Detector) -> None:
        if not parts:
            raise ConfigError(f"terminal detector {self.kind!r} needs at least one part, such as 'eos'")
        self._parts = parts

    def parts(self) -> Sequence[Detector]:
        return self._parts

    @property
    def costly(self) -> bool:  # type: ignore[override]
        return any(part.costly for part in self._parts)

    @property
    def looks_ahead(self) -> bool:  # type: ignore[override]
        return any(part.looks_ahead for part in self._parts)

    def spec(self) -> Any:
        return {self.kind: [part.spec() for part in self._parts]}


class AnyOf(_Composed):
    """Ends where one of its parts does; a later part is asked only where no earlier one said yes."""

    kind = "any"

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        decided = np.zeros(len(nodes), bool)
        for part in self._parts:
            open_ = np.nonzero(~decided)[0]
            decided[open_] = ask(part, source, nodes[open_])
        return decided


class Then(_Composed):
    """Ends where all of its parts say so, each asked only where those before said yes: cheap filters go first."""

    kind = "then"

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        decided = np.ones(len(nodes), bool)
        for part in self._parts:
            open_ = np.nonzero(decided)[0]
            decided[open_] = ask(part, source, nodes[open_])
        return decided


class All(_Composed):
    """Ends where all of its parts say so, each asked everywhere (so that their counts can be compared)."""

    kind = "all"

    def ends(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
        return np.logical_and.reduce([ask(part, source, nodes) for part in self._parts])


def ask(detector: Detector, source: TokenTree, nodes: np.ndarray) -> np.ndarray:
    """Asks a detector, counts the nodes, and checks the shape of its answer."""
    if not nodes.size:
        return np.zeros(0, bool)
    detector.asked += len(nodes)
    decided = np.asarray(detector.ends(source, nodes))
    if decided.shape != nodes.shape or decided.dtype != np.bool_:
        raise RewardError(
            f"terminal detector {detector.kind!r} returned {decided.dtype} of shape {decided.shape} for "
            f"{len(nodes)} nodes; bool {nodes.shape} was expected"
        )
    return decided


class Terminal:
    """A composed terminal detector, independent of any tree.

    Attributes:
        detector: what ends an episode; None when only a budget was given.
        budget: tokens after which an episode is truncated, or None.
    """

    def __init__(self, detector: Detector | None, *, budget: int | None = None) -> None:
        self.detector = detector
        self.budget = None if budget is None else whole("the budget", budget, low=1, unit="token")

    def on(self, source: TokenTree, nodes: np.ndarray | None = None) -> np.ndarray:
        """Returns which nodes (all of the tree by default) end an episode, ``[N] bool``. A root never does."""
        asked = np.arange(source.size) if nodes is None else np.asarray(nodes, dtype=np.int64)
        ended = np.zeros(len(asked), bool)
        below = np.nonzero(np.asarray(source.depth)[asked] > 0)[0]
        if self.detector is not None:
            ended[below] = ask(self.detector, source, asked[below])
        return ended

    def truncates(self, source: TokenTree, nodes: np.ndarray | None = None) -> np.ndarray:
        """Returns which nodes the budget cuts off, ``[N] bool`` (ends among them too: an end wins)."""
        asked = np.arange(source.size) if nodes is None else np.asarray(nodes, dtype=np.int64)
        depth = np.asarray(source.depth)[asked]
        return np.zeros(len(asked), bool) if self.budget is None else depth >= self.budget

    def decisions(self, source: TokenTree) -> Decisions:
        """Returns a memory of decisions for a tree that grows: each node is decided once.

        Where a model decides, all who ask about one tree in this process share the memory.
        """
        alone = self.detector is None or not self.detector.costly or self.looks_ahead
        if alone or not isinstance(source, Hashable):
            return Decisions(self, source)
        try:
            name = repr(self.spec)
        except ConfigError:  # a function without a name: it cannot be told whether it is the same
            return Decisions(self, source)
        return _SHARED.setdefault(source, {}).setdefault(name, Decisions(self, weakref.proxy(source)))

    @property
    def looks_ahead(self) -> bool:
        """Whether a decision depends on a node's children: in a live tree it is made again when they are known."""
        return self.detector is not None and self.detector.looks_ahead

    @property
    def spec(self) -> Any:
        """The JSON form; `build_terminal(terminal.spec)` makes an equal detector."""
        budget = {"budget": {"tokens": self.budget}}
        if self.detector is None:
            return budget
        spec = self.detector.spec()
        if self.budget is None:
            return spec
        parts = spec["any"] if isinstance(self.detector, AnyOf) else [spec]
        return {"any": [*parts, budget]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Terminal) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(repr(self.spec))

    def __repr__(self) -> str:
        return f"Terminal({self.spec!r})"


class Decisions:
    """Ends decided so far in one tree, each node once. Callable, so it serves as `ends` of `Reward.on`."""

    def __init__(self, terminal: Terminal, source: TokenTree) -> None:
        self.terminal, self.source = terminal, source
        self._known = np.full(0, -1, np.int8)  # [capacity], -1 undecided, 0 goes on, 1 ends

    def __call__(self, nodes: np.ndarray) -> np.ndarray:
        """Returns whether the episode ends at each node, ``[B] bool``; asks the detector where it is not known yet."""
        nodes = np.asarray(nodes, dtype=np.int64)
        if len(self._known) < self.source.size:
            grown = np.full(max(self.source.size, 2 * len(self._known)), -1, np.int8)
            grown[: len(self._known)] = self._known
            self._known = grown
        open_ = distinct(nodes[self._known[nodes] < 0])
        if open_.size:
            self._known[open_] = self.terminal.on(self.source, open_)
        return self._known[nodes] == 1

    def forget(self, nodes: np.ndarray) -> None:
        """Forgets decisions, so that they are made again."""
        self._known[nodes] = -1

    def store(self, flags: np.ndarray) -> int:
        """Marks the detected ends in a tree's writable `flags` ``[N] uint16``; returns how many were new."""
        detected = np.nonzero(self._known[: len(flags)] == 1)[0]
        new = detected[(flags[detected] & (EOS | STOPPED)) == 0]  # the others are ends anyway
        flags[new] |= STOPPED
        return len(new)


def build_terminal(spec: Any = None) -> Terminal:
    """Builds a terminal detector from a name, a table ``{name: options}``, a composition, a function or a Terminal.

    None is ``"eos"``.
    """
    if isinstance(spec, Terminal):
        return spec
    budget, rest = _split_budget("eos" if spec is None else spec)
    return Terminal(None if rest is None else _detector(rest), budget=budget)


def _split_budget(spec: Any) -> tuple[int | None, Any]:
    """Takes a budget that stands alone or among the parts of an outer ``any`` out of a spec."""
    if _is_budget(spec):
        return _tokens(spec["budget"]), None
    if isinstance(spec, Mapping) and list(spec) == ["any"] and isinstance(spec["any"], (list, tuple)):
        budgets = [_tokens(part["budget"]) for part in spec["any"] if _is_budget(part)]
        others = [part for part in spec["any"] if not _is_budget(part)]
        if budgets:
            return min(budgets), (others[0] if len(others) == 1 else {"any": others}) if others else None
    return None, spec


def _is_budget(spec: Any) -> bool:
    return isinstance(spec, Mapping) and list(spec) == ["budget"]


def _tokens(options: Any) -> Any:
    if isinstance(options, Mapping):
        if set(options) != {"tokens"}:
            raise ConfigError(f"the options of a budget are {dict(options)!r}; {{'tokens': 48}} was expected")
        return options["tokens"]
    return options


_SHARED: weakref.WeakKeyDictionary[Any, dict[str, Decisions]] = weakref.WeakKeyDictionary()
_COMPOSED: dict[str, type[_Composed]] = {"all": All, "any": AnyOf, "then": Then}


def _detector(spec: Any) -> Detector:
    if isinstance(spec, Detector):
        return spec
    if isinstance(spec, str):
        if spec.startswith("slm:"):
            return _make("slm", {"model": spec.removeprefix("slm:")})
        return _make(spec, {})
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, options),) = spec.items()
        if name == "budget":
            raise ConfigError("a budget stands alone or among the parts of the outermost 'any': it truncates, not ends")
        if name in _COMPOSED:
            if not isinstance(options, (list, tuple)):
                raise ConfigError(f"terminal detector {name!r} needs a list of detectors, not {options!r}")
            return _COMPOSED[name](*(_detector(part) for part in options))
        if not isinstance(options, Mapping):
            raise ConfigError(f"the options of terminal detector {name!r} are {options!r}; a table was expected")
        return _make(str(name), dict(options))
    if callable(spec):
        return FunctionDetector(function=spec)
    raise ConfigError(
        f"a terminal detector cannot be made of {spec!r}; expected a name such as 'eos', or a table with one entry"
    )


def _make(name: str, options: dict[str, Any]) -> Detector:
    thing = DETECTORS.find(name)
    try:
        if isinstance(thing, type) and issubclass(thing, Detector):
            return thing(**options)
        inspect.signature(thing).bind(None, **options)
        return FunctionDetector(function=thing, reference=name, **options)
    except TypeError as error:
        raise misfit(f"terminal detector {name!r}", thing, options, error) from error
