"""Judge: reward terms, their composition, and terminal detection. Knows no environment: a term sees a read-only path.

`build(spec).on(tree)` evaluates a reward on a tree; `build_terminal(spec).on(tree)` says where episodes end.
"""

from treegym.rewards.base import FunctionTerm, Part, Request, Scored, Term
from treegym.rewards.compose import Gate, Lexicographic, Product, Reward, Sparse, Sum, group_bonus
from treegym.rewards.path import PathView
from treegym.rewards.registry import catalogue, register, register_terminal
from treegym.rewards.scalarise import scalarise
from treegym.rewards.spec import build, load
from treegym.rewards.table import RewardTable
from treegym.rewards.terminal.base import Detector, Terminal, build_terminal
from treegym.tree.token_tree import TokenTree as TreeSource  # a reward is evaluated on any tree

Asked = Request  # its name in version 0.1

__all__ = [
    "Asked",
    "Detector",
    "FunctionTerm",
    "Gate",
    "Lexicographic",
    "Part",
    "PathView",
    "Product",
    "Request",
    "Reward",
    "RewardTable",
    "Scored",
    "Sparse",
    "Sum",
    "Term",
    "Terminal",
    "TreeSource",
    "build",
    "build_terminal",
    "catalogue",
    "group_bonus",
    "load",
    "register",
    "register_terminal",
    "scalarise",
]
