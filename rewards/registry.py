"""Names of reward terms and terminal detectors: bundled, registered at run time, or from installed packages.

A new bundled term is one module under rewards/terms/ and one line here. An installed package adds terms with an
entry point: `[project.entry-points."treegym.rewards"]`, ``my_term = "my_package.rewards:my_term"``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable
from typing import Any

from treegym.errors import ConfigError, suggest

__all__ = ["DETECTORS", "TERMS", "catalogue", "find", "register", "register_terminal"]

_TERMS, _ENDS = "treegym.rewards.terms", "treegym.rewards.terminal.detectors"

# name: ("module:object", one line of help)
TERMS: dict[str, tuple[str, str]] = {
    "answer_similarity": (f"{_TERMS}.similarity:AnswerSimilarity", "cosine of the answer to the reference"),
    "diversity": (f"{_TERMS}.diversity:Diversity", "how different a group's answers are (group scope)"),
    "judge": ("treegym.rewards.judge.term:Judge", "a language model's opinion of the answer, local or over HTTP"),
    "kl": (f"{_TERMS}.kl:KL", "KL of the primary to a frozen teacher, token by token (negative weight)"),
    "length": (f"{_TERMS}.length:Length", "1 for every token (use a small negative weight)"),
    "lmgt": (f"{_TERMS}.lmgt:LMGT", "a guide's advice on each step, -1, 0 or +1, annealed"),
    "loglikelihood": (f"{_TERMS}.likelihood:LogLikelihood", "log-probability of each token"),
    "perplexity": (f"{_TERMS}.likelihood:Perplexity", "perplexity of the answer (negative weight)"),
    "reward_model": ("treegym.rewards.learned.reward_model:LearnedReward", "a learned reward model (`train-reward`)"),
    "shortest_path": (f"{_TERMS}.shortest:ShortestPath", "penalty for a right answer by a longer way"),
    "similarity": (f"{_TERMS}.similarity:Similarity", "cosine of each child to the primary's own choice"),
    "soft_overlong": (f"{_TERMS}.overlong:SoftOverlong", "penalty for coming near the length limit"),
    "verifier": (f"{_TERMS}.verifier:Verifier", "1 where the answer is right, 0 where it is wrong"),
    "zoning": (f"{_TERMS}.zoning:Zoning", "fitted adjustment of the zone a path is in, annealed"),
}
DETECTORS: dict[str, tuple[str, str]] = {
    "completeness": (f"{_ENDS}:Completeness", "a small language model finds the text complete"),
    "eos": (f"{_ENDS}:Eos", "the model's own end-of-sequence token"),
    "minimum": (f"{_ENDS}:Minimum", "at least so many tokens (for use within `all`)"),
    "proxy": (f"{_ENDS}:Proxy", "stopping is likelier than the best continuation"),
    "punctuation": (f"{_ENDS}:Punctuation", "the text ends with . ! ? or another end mark"),
    "stored": (f"{_ENDS}:Stored", "ends stored in the tree: end-of-sequence or stopped by detection"),
}
GROUPS = {  # entry points of installed packages
    "reward term": "treegym.rewards",
    "terminal detector": "treegym.terminals",
    "verifier": "treegym.verifiers",
}

_REGISTERED: dict[str, dict[str, Any]] = {"reward term": {}, "terminal detector": {}, "verifier": {}}
_BUNDLED = {"reward term": TERMS, "terminal detector": DETECTORS, "verifier": {}}


def register(name: str, term: Any) -> Any:
    """Makes a plain function of a `PathView`, or a `Term` subclass, known under a name in this process.

    Processes started later (remote workers) import nothing of yours: name such terms ``"my_module:my_function"``.
    """
    return _register("reward term", name, term)


def register_terminal(name: str, detector: Any) -> Any:
    """Makes a plain function of a `PathView` that returns a bool, or a `Detector` subclass, known under a name."""
    return _register("terminal detector", name, detector)


def _register(sort: str, name: str, thing: Any) -> Any:
    if not name.isidentifier():
        raise ConfigError(f"{name!r} cannot name a {sort}; use letters, digits and underscores")
    if not callable(thing):
        raise ConfigError(f"{sort} {name!r} is {type(thing).__name__}; a function or a class was expected")
    known = _REGISTERED[sort].get(name)
    if name in _BUNDLED[sort] or (known is not None and known is not thing):
        raise ConfigError(f"there is already a {sort} called {name!r}; choose another name")
    _REGISTERED[sort][name] = thing
    return thing


def find(sort: str, name: str, *, beside: Iterable[str] = ()) -> Any:
    """Returns the object registered under a name or import path, or raises ConfigError with the nearest name.

    Names `beside` the registered ones, such as those of compositions, may have been meant too.
    """
    if name in _REGISTERED[sort]:
        return _REGISTERED[sort][name]
    if name in _BUNDLED[sort]:
        return _import(_BUNDLED[sort][name][0], sort)
    plugins = _plugins(sort)
    if name in plugins:
        return _load(plugins[name], sort)
    if ":" in name:
        return _import(name, sort)
    raise ConfigError(f"there is no {sort} called {name!r}.{suggest(name, {*_names(sort), *beside})}")


def catalogue(sort: str) -> dict[str, str]:
    """Returns every known name with one line of help."""
    lines = {name: line for name, (_, line) in _BUNDLED[sort].items()}
    for name, thing in _REGISTERED[sort].items():
        lines[name] = _first_line(thing)
    for name, point in _plugins(sort).items():
        lines.setdefault(name, f"from {point.value}")
    return dict(sorted(lines.items()))


def _names(sort: str) -> set[str]:
    return {*_BUNDLED[sort], *_REGISTERED[sort], *_plugins(sort)}


def _plugins(sort: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUPS[sort])}


def _load(point: importlib.metadata.EntryPoint, sort: str) -> Callable[..., Any]:
    try:
        thing = point.load()
    except Exception as error:
        raise ConfigError(f"{sort} {point.name!r} of an installed package cannot be loaded: {error}") from error
    if not callable(thing):
        kind = type(thing).__name__
        raise ConfigError(f"{sort} {point.name!r} of an installed package is {kind}; a function or class was expected")
    return thing


def _import(path: str, sort: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        thing = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{sort} {path!r} cannot be imported: {error}") from error
    if not callable(thing):
        raise ConfigError(f"{sort} {path!r} is {type(thing).__name__}; a function or a class was expected")
    return thing


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
