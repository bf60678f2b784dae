"""TreeGym: reinforcement learning and tree search over language-model tokens, as Gymnasium environments.

Importing this package registers the environments and loads nothing heavy: torch, transformers and numba come in when
something needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treegym.registration import register_envs

if TYPE_CHECKING:
    from treegym.check.suite import check_suite
    from treegym.tree.token_tree import TokenTree

__version__ = "0.1.0"
__all__ = ["TokenTree", "__version__", "check_suite"]

_LAZY = {"check_suite": "treegym.check.suite", "TokenTree": "treegym.tree.token_tree"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'treegym' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


register_envs()
