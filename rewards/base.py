"""Terms and parts: a term scores paths, a part is a term or a composition of parts."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from treegym.errors import ConfigError
from treegym.rewards.path import PathView
from treegym.tree.token_tree import TokenTree

__all__ = [
    "Evaluated",
    "FunctionTerm",
    "OnError",
    "Part",
    "Request",
    "Scope",
    "Scored",
    "Term",
    "number",
    "weight_number",
]

Scope = Literal["step", "episode", "group"]
OnError = Literal["raise", "mask", "default"]


class Request(NamedTuple):
    """The nodes a term is asked about, with how the episode stands at each (B: nodes asked)."""

    nodes: np.ndarray  # [B] int64
    ended: np.ndarray  # [B] bool, a real or detected end
    truncated: np.ndarray  # [B] bool, cut off by the budget


class Scored(NamedTuple):
    """Values with the reasons of those that failed (NaN), for terms that score in batches."""

    values: np.ndarray  # [B] float
    reasons: Mapping[int, str]  # position in the batch -> what went wrong


class Evaluated(Protocol):
    """What a part is told of the terms below it: the face that a `RewardTable` turns to parts (B: nodes)."""

    progress: float  # of training, in [0, 1]

    def ends(self, nodes: np.ndarray) -> np.ndarray: ...  # [B] bool
    def truncated(self, nodes: np.ndarray) -> np.ndarray: ...  # [B] bool
    def column(self, term: Term, nodes: np.ndarray) -> np.ndarray: ...  # [B] float32, a term's raw values
    def returns(self, part: Part, nodes: np.ndarray, *, leave_out: bool = False) -> np.ndarray: ...  # [B] float64
    def skip(self, part: Part, nodes: np.ndarray) -> None: ...
    def unskip(self, part: Part, nodes: np.ndarray) -> None: ...


class Part(ABC):
    """A term or a composition of parts: what a reward is made of."""

    pays_at_end: bool  # true when a step before the end is never paid, so that return and last increment are equal

    @abstractmethod
    def terms(self) -> list[Term]:
        """Returns the terms at the leaves, in order."""

    @abstractmethod
    def increments(self, table: Evaluated, nodes: np.ndarray) -> np.ndarray:
        """Returns the reward credited on entering each node, ``[B] float64``; NaN where it could not be told."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Returns the JSON form ``{name: options}`` that builds this part again."""

    def weights(self, outer: float) -> dict[str, float]:
        """Returns each term's share of the reward: the product of the weights above it."""
        return {term.name: outer for term in self.terms()}


class Term(Part):
    """One named measurement of a path. Subclasses score batches of nodes; plain functions become a `FunctionTerm`.

    Args:
        name: how the term is reported; defaults to the registered name.
        on_error: what a failure leads to: ``raise`` an error that names term, root and path; ``mask`` (leave the term
            out, flag the node, count it); or the given ``default``.
        default: the value that replaces a failed one.
        range: lowest and highest allowed value; anything outside is a failure.
        anneal: ``[start, end]`` of training progress over which the weight falls linearly to zero.
    """

    kind: str = ""  # the registered name
    scope: Scope = "episode"
    lazy: bool = False  # evaluated only for nodes that are visited
    deterministic: bool = True
    at_truncation: bool = False  # an episode term that is also scored where the budget cuts a path off
    shaping: bool = False  # left out of the raw reward that evaluations report
    deployable: bool = False  # needs neither the verdict nor a reference answer, so that planners may be told it
    bounds: tuple[float, float] | None = None

    def __new__(cls, **arguments: Any) -> Term:
        made = super().__new__(cls)
        made.arguments = {key: value for key, value in arguments.items() if key != "name"}
        return made

    arguments: dict[str, Any]  # as given, for the JSON form

    def __init__(
        self,
        *,
        name: str | None = None,
        on_error: OnError = "raise",
        default: float | None = None,
        range: Sequence[float] | None = None,
        anneal: Sequence[float] | None = None,
    ) -> None:
        self.name = name or self.kind
        if on_error not in ("raise", "mask", "default"):
            raise ConfigError(f"reward term {self.name!r}: on_error is 'raise', 'mask' or 'default', not {on_error!r}")
        if (on_error == "default") != (default is not None):
            raise ConfigError(f"reward term {self.name!r}: on_error='default' and a `default` value go together")
        self.on_error = on_error
        self.default = 0.0 if default is None else number(default, f"default of reward term {self.name!r}")
        if range is not None:
            self.bounds = _interval(range, f"range of reward term {self.name!r}")
        self.anneal = None if anneal is None else _interval(anneal, f"anneal of reward term {self.name!r}")

    @property
    def pays_at_end(self) -> bool:  # type: ignore[override]
        return self.scope != "step"

    @abstractmethod
    def values(self, source: TokenTree, asked: Request) -> np.ndarray | Scored:
        """Returns one value for each node asked about; NaN where it failed."""

    def ready(self, source: TokenTree, asked: Request) -> bool:
        """Whether the term comes as a whole array now; lazy terms may, when what they need is stored in the tree."""
        return not self.lazy

    def terms(self) -> list[Term]:
        return [self]

    def increments(self, table: Evaluated, nodes: np.ndarray) -> np.ndarray:
        values = table.column(self, nodes).astype(np.float64)  # a masked failure is NaN
        left = self.factor(table.progress)
        return values * left if left else np.zeros(len(nodes))

    def spec(self) -> dict[str, Any]:
        options = dict(self.arguments)
        if self.name != self.kind:
            options = {"term": self.kind, **options}
        return {self.name: options or 1.0}

    def factor(self, progress: float) -> float:
        """Returns what is left of the weight at a training progress in [0, 1]."""
        if self.anneal is None:
            return 1.0
        start, end = self.anneal
        return float(np.clip((end - progress) / (end - start), 0.0, 1.0))


class FunctionTerm(Term):
    """A plain function of a `PathView`, called at most once per node.

    A function that needs neither the verdict nor a reference answer says so by an attribute: ``f.deployable = True``.

    Args:
        function: takes a `PathView` and returns a number.
        parameters: keyword arguments passed on to it.
    """

    kind = "function"
    lazy = True

    def __init__(
        self,
        *,
        function: Callable[..., float],
        scope: Scope = "episode",
        parameters: Mapping[str, Any] | None = None,
        reference: str | None = None,
        **common: Any,
    ) -> None:
        self.kind = reference or import_path(function)
        super().__init__(**{"name": getattr(function, "__name__", "function"), **common})
        if scope not in ("step", "episode"):
            raise ConfigError(f"reward term {self.name!r}: scope is 'step' or 'episode', not {scope!r}")
        self.function = function
        self.deployable = bool(getattr(function, "deployable", False))
        self.scope = scope
        self.parameters = dict(parameters or {})
        self.arguments = {**self.parameters, **{k: v for k, v in common.items() if k != "name"}}
        if scope != "episode":
            self.arguments["scope"] = scope

    def values(self, source: TokenTree, asked: Request) -> Scored:
        values = np.full(len(asked.nodes), np.nan)
        reasons: dict[int, str] = {}
        for i, (node, ended, truncated) in enumerate(zip(*asked, strict=True)):  # one row per node
            view = PathView(source, node, ended=ended, truncated=truncated)
            try:
                values[i] = number(self.function(view, **self.parameters), "its value")
            except Exception as error:  # noqa: BLE001 - a user's code may raise anything; it is reported, not lost
                reasons[i] = f"{type(error).__name__}: {error}"
        return Scored(values, reasons)

    def spec(self) -> dict[str, Any]:
        if not self.kind:
            raise ConfigError(
                f"reward term {self.name!r} is a function that cannot be imported by name, so it has no JSON form; "
                "define it at the top of a module, or register it: treegym.rewards.register(name, function)"
            )
        return super().spec()


def import_path(function: Callable[..., Any]) -> str:
    """Returns ``module:name`` of a function that can be imported so, else an empty string."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    importable = module not in (None, "__main__") and name.isidentifier() and inspect.getmodule(function) is not None
    return f"{module}:{name}" if importable else ""


def weight_number(value: Any, what: str) -> float:
    """Returns a weight as a float; true and false are none."""
    if isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{what} is {value!r}; one finite number was expected")
    return number(value, what)


def number(value: Any, what: str) -> float:
    """Returns `value` as a float, or raises ConfigError unless it is one finite number."""
    if isinstance(value, np.ndarray) and value.shape != ():
        raise ConfigError(f"{what} has shape {value.shape}; one finite number was expected")
    if isinstance(value, (str, bytes)) or value is None:
        raise ConfigError(f"{what} is {value!r}; one finite number was expected")
    try:
        result = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} is {value!r}; one finite number was expected") from error
    if not math.isfinite(result):
        raise ConfigError(f"{what} is {result}; one finite number was expected")
    return result


def _interval(values: Sequence[float], what: str) -> tuple[float, float]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 2:
        raise ConfigError(f"{what} is {values!r}; two rising numbers were expected")
    low, high = number(values[0], what), number(values[1], what)
    if low >= high:
        raise ConfigError(f"{what} is {values!r}; two rising numbers were expected")
    return low, high
