"""Trees by name: a bundled one, a synthetic one, one in a file, at a URL or on a hub; those opened last are shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from treegym import hub, remote
from treegym.errors import ConfigError, DataError, suggest
from treegym.tree.forest import is_forest
from treegym.tree.synthetic import parse_synthetic, synthetic_tree
from treegym.tree.token_tree import BUNDLED, CAPTIONS, ENGLISH, TokenTree

__all__ = ["load_tree"]

_REMEMBERED = 4
_BUNDLED = {"bundled": BUNDLED, "bundled:captions": CAPTIONS, "bundled:english": ENGLISH}
_opened: dict[str, TokenTree] = {}  # the trees opened last: many environments share one


def load_tree(tree: str | TokenTree | None) -> TokenTree:
    """Returns a tree: the bundled one for None, another by its name, or one in a file.

    Names are ``"bundled"``, ``"bundled:captions"``, ``"bundled:english"``, ``"synthetic:..."``, ``"hf:user/name"``
    and URLs.
    """
    if isinstance(tree, TokenTree):
        tree.validate()
        return tree
    if isinstance(tree, str) and tree.split(":", 1)[0] == "synthetic":
        settings = parse_synthetic(tree)
        return _remembered(repr(settings), lambda: synthetic_tree(**vars(settings)))
    if tree is not None and not isinstance(tree, str | Path):
        raise ConfigError(
            f"tree is {tree!r}; expected a .tree file's path or URL, 'bundled:english', 'hf:user/name', "
            "'synthetic:...' or a TokenTree"
        )
    if is_forest(tree):
        raise DataError(
            f"{tree} is a forest, and one tree is needed here: name a .tree file in it, or join them with "
            f"`treegym tree export {tree} --out one.tree`"
        )
    path = _path("bundled" if tree is None else str(tree))
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _remembered(f"{path.resolve()} {changed}", lambda: TokenTree.open(path))


def _path(name: str) -> Path:
    if name.startswith("bundled:") and name not in _BUNDLED:
        raise ConfigError(f"there is no bundled tree {name!r}.{suggest(name, _BUNDLED)}")
    if remote.is_url(name):
        return remote.fetched(name)
    return _BUNDLED.get(name) or (hub.fetched(name, kind="tree") if hub.is_hub_name(name) else Path(name))


def _remembered(key: str, make: Callable[[], TokenTree]) -> TokenTree:
    if key not in _opened:
        tree = make()
        tree.validate()
        while len(_opened) >= _REMEMBERED:
            _opened.pop(next(iter(_opened)))
        _opened[key] = tree
    return _opened[key]
