"""Every way to plan, by name; a method is a function ``(simulator, states, *, num_simulations, seed, **options)``."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Hashable
from typing import Any, Protocol, cast

from treegym.errors import ConfigError, suggest
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["METHODS", "Method", "load", "names", "register", "search"]


class Method(Protocol):
    """A way to plan: from each of B states, with so many simulations (model evaluations) a root at most."""

    def __call__(
        self, simulator: Simulator, states: Any, *, num_simulations: int, seed: int = 0, **options: Any
    ) -> SearchResult:
        """Returns what was found at each state."""
        ...


# name -> "module:function", with fixed settings where several methods share a function
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    name: ("treegym.search.run:tree_search", {"method": name})
    for name in ("puct", "gumbel", "uct", "similarity", "ments", "rents")
} | {
    "greedy": ("treegym.search.rollouts:greedy", {}),
    "sample": ("treegym.search.rollouts:sample", {}),
    "best_of_n": ("treegym.search.rollouts:best_of_n", {}),
    "lookahead": ("treegym.search.rollouts:lookahead", {}),
    "beam": ("treegym.search.frontier:frontier_search", {"order": "beam"}),
    "best_first": ("treegym.search.frontier:frontier_search", {"order": "best"}),
    "depth_first": ("treegym.search.frontier:frontier_search", {"order": "depth"}),
    "ab_mcts": ("treegym.search.ab_mcts:ab_mcts", {}),
}
_OWN: dict[str, Method] = {}


def register(name: str, method: Method) -> None:
    """Adds a method of your own under `name`."""
    if not isinstance(name, str) or not callable(method):
        raise ConfigError(f"a method needs a name (text) and a function; got {name!r} and {method!r}")
    if name in METHODS or name in _OWN:
        raise ConfigError(f"a search method called {name!r} exists already")
    _OWN[name] = method


def names() -> list[str]:
    """Returns the names of all methods."""
    return sorted([*METHODS, *_OWN])


@functools.cache
def _built_in(name: str) -> Method:
    place, fixed = METHODS[name]
    module, function = place.split(":")
    return functools.partial(getattr(importlib.import_module(module), function), **fixed)


def load(name: str) -> Method:
    """Returns the method called `name`."""
    if not isinstance(name, str):
        raise ConfigError(f"method is {name!r}; it must be one of {', '.join(names())}")
    if name in _OWN:
        return _OWN[name]
    if name not in METHODS:
        raise ConfigError(f"no search method is called {name!r}.{suggest(name, names())}")
    return _built_in(name)


@functools.cache
def _accepted(method: Callable[..., SearchResult]) -> frozenset[str] | None:
    """Returns the settings that a method takes by name, None for one that looks at them itself."""
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


def search(
    simulator: Simulator,
    states: Any,
    *,
    method: str = "gumbel",
    num_simulations: int,
    seed: int = 0,
    **options: Any,
) -> SearchResult:
    """Plans from each of B states: the one call most users need.

    Args:
        simulator: the world; see `treegym.search.simulator.Simulator`.
        states: B states, in the form the simulator keeps them.
        method: a name in `names()`: "gumbel", "puct", "uct", "beam", ...
        num_simulations: how many simulations (new states judged, at most) each root may take.
        seed: seeds all noise; with ``root_ids=`` the result does not depend on how a batch is split.
        **options: settings of the method, such as ``discount=0.99`` or ``gumbel_scale=0.0``.
    """
    found = load(method)
    accepted = _accepted(cast(Hashable, found))
    for option in options:
        if accepted is not None and option not in accepted:
            raise ConfigError(f"{option!r} is no setting of {method!r}.{suggest(option, accepted)}")
    return found(simulator, states, num_simulations=num_simulations, seed=seed, **options)
