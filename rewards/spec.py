"""Rewards from JSON: `build` turns a spec into a `Reward`; `load` reads one from a JSON or TOML file.

A spec is a table ``{name: weight}`` or ``{name: {"weight": w, option: value}}``; its entries are added. ``"term"``
among the options lets an entry carry a name of its own. The names ``sum``, ``gate``, ``product``, ``lexicographic`` and
``sparse`` compose; a suffix ``#2`` tells a second one of a kind apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError, DataError, TreeGymError, suggest
from treegym.rewards.base import FunctionTerm, Part, Term, weight_number
from treegym.rewards.compose import Gate, Lexicographic, Product, Reward, Sparse, Sum, sequence
from treegym.rewards.registry import TERMS, misfit
from treegym.untrusted import json_of, read_text, toml_of

__all__ = ["DEFAULT", "build", "load", "make_term"]

DEFAULT: dict[str, float] = {"verifier": 1.0}
COMPOSITIONS = ("gate", "lexicographic", "product", "sparse", "sum")
_COMMON = ("on_error", "default", "range", "anneal", "scope")  # options of every term; the rest are its own


def build(spec: Any = None) -> Reward:
    """Builds a reward.

    Args:
        spec: None (the verifier alone), a name, a table of names and weights, a list of tables, a term, a composition,
            a plain function of a `PathView`, or a `Reward` (returned as it is).
    """
    if isinstance(spec, Reward):
        return spec
    try:
        return Reward(_part(DEFAULT if spec is None else spec))
    except RecursionError:
        raise ConfigError("the reward is nested too deeply to be built; write it flatter") from None


def load(path: str | Path) -> Reward:
    """Builds the reward that a ``.json`` or ``.toml`` file describes (in TOML, under ``[reward]`` or at the top)."""
    file = Path(path)
    try:
        text = read_text(file, limit=2**20)
        where = str(file)
        spec = toml_of(text, where=where) if file.suffix == ".toml" else json_of(text.encode(), where=where)
    except DataError as error:
        raise ConfigError(str(error)) from error
    return build(spec.get("reward", spec) if isinstance(spec, dict) else spec)


def make_term(name: str, options: Mapping[str, Any]) -> Term:
    """Builds one term by registered name or import path from its JSON options."""
    given = dict(options)
    registered = given.pop("term", name.partition("#")[0])
    if not isinstance(registered, str):
        raise ConfigError(f"the 'term' of reward {name!r} is {registered!r}; a registered name was expected")
    thing = TERMS.find(registered, beside=COMPOSITIONS)
    try:
        if isinstance(thing, type) and issubclass(thing, Term):
            return thing(name=name.partition("#")[0], **given)
        common = {key: given.pop(key) for key in _COMMON if key in given}
        return _checked_function(name, registered, thing, given, common)
    except TypeError as error:
        raise misfit(f"reward term {name!r}", thing, given, error, also=(*_COMMON, "weight")) from error
    except (AttributeError, ValueError) as error:  # a value of the wrong kind; our own errors name the term already
        if isinstance(error, TreeGymError):
            raise
        raise ConfigError(f"reward term {name!r} cannot be made: {error}") from error


def _checked_function(
    name: str, reference: str, function: Callable[..., float], parameters: dict[str, Any], common: dict[str, Any]
) -> FunctionTerm:
    inspect.signature(function).bind(None, **parameters)  # TypeError now rather than in the middle of an episode
    label = name if ":" not in name else name.rpartition(":")[2].rpartition(".")[2]
    return FunctionTerm(function=function, parameters=parameters, reference=reference, name=label, **common)


def _part(spec: Any) -> Part:
    if isinstance(spec, Reward):
        return spec.part
    if isinstance(spec, Part):
        return spec
    if isinstance(spec, str):
        return _named(spec, {})
    if isinstance(spec, Mapping):
        if not all(isinstance(name, str) for name in spec):
            raise ConfigError(f"reward {spec!r} has names that are not strings")
        weighted = [_entry(name, value) for name, value in spec.items()]
        if len(weighted) == 1 and weighted[0][1] == 1.0:
            return weighted[0][0]
        return Sum(*weighted)
    if isinstance(spec, (list, tuple)):
        return Sum(*((_part(part), 1.0) for part in sequence(spec, "a reward")))
    if callable(spec):
        return FunctionTerm(function=spec)
    raise ConfigError(
        f"a reward cannot be made of {spec!r}; expected a table such as {{'verifier': 1.0, 'length': -0.01}}"
    )


def _entry(name: str, value: Any) -> tuple[Part, float]:
    """Returns a part and its weight from one entry of a table."""
    if isinstance(value, Mapping):
        options = dict(value)
        weight = weight_number(options.pop("weight", 1.0), f"the weight of reward {name!r}")
        return _named(name, options), weight
    if isinstance(value, Part) or (callable(value) and not isinstance(value, type)):
        part = value if isinstance(value, Part) else FunctionTerm(function=value, name=name)
        return part, 1.0
    return _named(name, {}), weight_number(value, f"the weight of reward {name!r}")


def _named(name: str, options: dict[str, Any]) -> Part:
    maker = _MAKERS.get(name.partition("#")[0])
    return maker(options) if maker is not None and "term" not in options else make_term(name, options)


def _take(options: dict[str, Any], kind: str, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    stray = [key for key in options if key not in (*needed, *optional)]
    if stray:
        raise ConfigError(f"{kind} has no option {stray[0]!r}.{suggest(stray[0], (*needed, *optional))}")
    absent = [key for key in needed if key not in options]
    if absent:
        raise ConfigError(f"{kind} needs {absent[0]!r}: its options are {', '.join((*needed, *optional))}")


def _gate(options: dict[str, Any]) -> Part:
    _take(options, "gate", ("by", "then"), ("threshold", "otherwise"))
    rest = {key: options[key] for key in ("threshold", "otherwise") if key in options}
    return Gate(_part(options["by"]), _part(options["then"]), **rest)


def _product(options: dict[str, Any]) -> Part:
    _take(options, "product", ("of",))
    return Product(*(_part(part) for part in _listed(options["of"], "product")))


def _lexicographic(options: dict[str, Any]) -> Part:
    _take(options, "lexicographic", ("of",), ("levels",))
    rest = {"levels": options["levels"]} if "levels" in options else {}
    return Lexicographic(*(_part(part) for part in _listed(options["of"], "lexicographic")), **rest)


def _sparse(options: dict[str, Any]) -> Part:
    _take(options, "sparse", ("of",))
    return Sparse(_part(options["of"]))


def _sum(options: dict[str, Any]) -> Part:
    _take(options, "sum", ("of",))
    return _part(options["of"])


def _listed(of: Any, kind: str) -> list[Any]:
    """Returns the parts of a composition: a list as it is, a table as one part an entry."""
    if isinstance(of, Mapping):
        return [{name: value} for name, value in of.items()]
    return list(sequence(of, f"`of` of {kind}"))


_MAKERS: dict[str, Callable[[dict[str, Any]], Part]] = dict(
    zip(COMPOSITIONS, (_gate, _lexicographic, _product, _sparse, _sum), strict=True)
)
