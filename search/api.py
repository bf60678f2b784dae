"""Every way to plan, by name; a method is a function ``(simulator, states, *, num_simulations, seed, **options)``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, Protocol, cast, get_args, get_type_hints

from treegym.errors import ConfigError, suggest
from treegym.registry import Registry
from treegym.search.plan import Limits
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["METHODS", "Method", "load", "names", "register", "search"]


class Method(Protocol):
    """A way to plan: from each of B states, with so many simulations (model evaluations) per root at most."""

    def __call__(
        self, simulator: Simulator, states: Any, *, num_simulations: int, seed: int = 0, **options: Any
    ) -> SearchResult:
        """Returns what was found at each state."""
        ...


_HERE = "treegym.search"

METHODS = Registry(
    "search method",
    {
        "puct": (f"{_HERE}.run:puct", "tree search by prior, value and visits, as AlphaZero's"),
        "gumbel": (f"{_HERE}.run:gumbel", "tree search that halves the candidates at the root"),
        "uct": (f"{_HERE}.run:uct", "plain UCT"),
        "similarity": (f"{_HERE}.run:similarity", "tree search led by the children's similarity"),
        "ments": (f"{_HERE}.run:ments", "tree search with a soft maximum"),
        "rents": (f"{_HERE}.run:rents", "the same, relative to the prior"),
        "greedy": (f"{_HERE}.rollouts:greedy", "the likeliest move, no search"),
        "sample": (f"{_HERE}.rollouts:sample", "a move drawn from the policy"),
        "best_of_n": (f"{_HERE}.rollouts:best_of_n", "the best of several sampled paths"),
        "lookahead": (f"{_HERE}.rollouts:lookahead", "each move followed by the policy for some steps"),
        "beam": (f"{_HERE}.frontier:beam", "the best few states of every depth"),
        "best_first": (f"{_HERE}.frontier:best_first", "the best states first, at any depth"),
        "depth_first": (f"{_HERE}.frontier:depth_first", "the deepest states first"),
        "rebase": (f"{_HERE}.rebase:rebase", "level by level, children shared out by what states look like"),
        "dvts": (f"{_HERE}.dvts:dvts", "the best of its own children in each of several subtrees"),
        "lats": (f"{_HERE}.lats:lats", "a tree of sampled children, each walked to its end, with reflection"),
        "self_refine": (
            f"{_HERE}.self_refine:self_refine",
            "refines any answer found so far, the most promising first",
        ),
        "ab_mcts": (f"{_HERE}.ab_mcts:ab_mcts", "wider or deeper, by Thompson sampling"),
        "ab_mcts_m": (f"{_HERE}.ab_mcts:ab_mcts_m", "the same, children as groups of a mixed model"),
    },
    group="treegym.methods",
)


def register(name: str, method: Method) -> None:
    """Adds a method of your own under `name`."""
    if not isinstance(name, str) or not callable(method):
        raise ConfigError(f"a method needs a name (text) and a function; got {name!r} and {method!r}")
    METHODS.register(name, method)


def names() -> list[str]:
    """Returns the names of all methods."""
    return list(METHODS)


_found = functools.cache(METHODS.find)


def load(name: str) -> Method:
    """Returns the method called `name`, or what an import path ``"module:function"`` leads to."""
    if not isinstance(name, str):
        raise ConfigError(f"method is {name!r}; it must be one of {', '.join(names())}")
    return _found(name)


@functools.cache
def _accepted(method: Callable[..., SearchResult]) -> frozenset[str] | None:
    """Returns the settings that a method takes by name, None for one that looks at them itself."""
    parameters = inspect.signature(method).parameters.values()
    named = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    for rest in (parameter for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD):
        function = method.func if isinstance(method, functools.partial) else method
        (limits,) = get_args(get_type_hints(function).get(rest.name)) or (None,)
        if limits is not Limits:
            return None
        named |= Limits.__annotations__.keys()
    return frozenset(named)


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
            raise ConfigError(f"{option!r} is not a setting of {method!r}.{suggest(option, accepted)}")
    return found(simulator, states, num_simulations=num_simulations, seed=seed, **options)
