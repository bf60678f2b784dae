"""TreeGym: reinforcement learning and tree search over language-model tokens, as Gymnasium environments.

Importing this package registers the environments and loads nothing heavy: torch, transformers and numba come in when
something needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registration import register_envs
from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.check.suite import check_suite
    from treegym.tree.token_tree import TokenTree

__version__ = "0.1.0"
__all__ = ["TokenTree", "__version__", "check_suite"]

__getattr__, __dir__ = lazy_face(__name__, {"check_suite": "check.suite", "TokenTree": "tree.token_tree"})

register_envs()
