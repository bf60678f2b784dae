"""TokenTree: nodes in flat arrays, only ever added to, the children of a node side by side.

Letters: N nodes, R roots, M teachers, P parents.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.tree.columns import COLUMNS, OPTIONAL, column_shape, unset_column
from treegym.tree.flags import EOS, EXPANDED
from treegym.tree.roots import SPLITS, Root
from treegym.tree.storage import read_tree, write_tree

if TYPE_CHECKING:
    from treegym.tree.values import Values

__all__ = ["BUNDLED", "CAPTIONS", "ENGLISH", "SPLITS", "Root", "TokenTree"]

BUNDLED = Path(__file__).parent / "data" / "bundled.tree"
ENGLISH = BUNDLED.with_name("english.tree")
CAPTIONS = BUNDLED.with_name("captions.tree")
GROWING = "treegym.envs.token_tree.grow.refresh"
NODE_LIMIT = 2**31 - 1
CHILD_LIMIT = DEPTH_LIMIT = 2**16 - 1
_LINKS = {"token", "parent", "first_child", "child_count", "depth"}  # the tree's own business


class TokenTree:
    """A tree of tokens under many prompts. Every column is an attribute: ``tree.token``, ``tree.prior``, ...

    Make one with `TokenTree.empty`, `TokenTree.open` or `synthetic_tree`. Trees that were opened from a file are
    memory-mapped and read-only; the first change copies them into memory.
    """

    token: np.ndarray  # [N] int32
    parent: np.ndarray  # [N] int32
    first_child: np.ndarray  # [N] int32
    child_count: np.ndarray  # [N] uint16
    depth: np.ndarray  # [N] uint16
    flags: np.ndarray  # [N] uint16
    prior: np.ndarray  # [N] float32
    teacher_logp: np.ndarray  # [N, M] float16
    proposers: np.ndarray  # [N] uint32
    similarity: np.ndarray  # [N] float16
    verdict: np.ndarray  # [N] float32
    judge: np.ndarray  # [N] float32
    context: np.ndarray  # [N, 24] int8, optional
    weight: np.ndarray  # [N] float32, optional
    sampled: np.ndarray  # [N, S] uint32, optional: see `treegym.tree.samples`
    sampled_logp: np.ndarray  # [N, S] float32, optional
    answer: np.ndarray  # [N] int32, optional

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        *,
        header: Mapping[str, Any],
        root_node: np.ndarray,
        roots: Sequence[Root],
        size: int,
    ) -> None:
        """Wraps existing arrays."""
        self._arrays = arrays  # each at least `size` long
        self._size = size
        self.header = dict(header)
        self._root_node: Any = root_node if len(root_node) else []
        self._roots = roots

    # ---------------------------------------------------------------- making

    @classmethod
    def empty(
        cls,
        *,
        tokens: Sequence[str],
        eos_id: int,
        teachers: Sequence[str] = (),
        context: bool = False,
        header: Mapping[str, Any] | None = None,
        capacity: int = 1024,
    ) -> Self:
        """Returns a tree without nodes.

        Args:
            tokens: what each token id stands for; bytes as latin-1 characters, special tokens empty.
            eos_id: the id that ends a text.
            teachers: names, in the order of `teacher_logp`'s columns.
            context: whether nodes carry an embedding of their context.
            header: anything else to keep in the file (models, growth settings, seed).
            capacity: nodes to make room for at first; the arena doubles as it grows.
        """
        if not 0 <= eos_id < len(tokens):
            raise ConfigError(f"eos_id is {eos_id}, outside the vocabulary of {len(tokens)} tokens")
        if len(teachers) > 31:
            raise ConfigError(f"{len(teachers)} teachers came; at most 31 fit the proposers' bits")
        names = [name for name in COLUMNS if name not in OPTIONAL or (name == "context" and context)]
        arrays = {name: unset_column(name, capacity, len(teachers)) for name in names}
        full = {**(header or {}), "tokens": list(tokens), "eos_id": int(eos_id), "teachers": list(teachers)}
        return cls(arrays, header=full, root_node=np.empty(0, np.int32), roots=[], size=0)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Returns the tree in a `.tree` file, memory-mapped; raises DataError for a file that is not a sound one."""
        return cls(**read_tree(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the tree to a `.tree` file: to a temporary name first, then renamed."""
        arrays = {name: self.column(name) for name in self.column_names}
        write_tree(path, arrays, header=self.header, root_node=self.root_node, roots=self.roots)

    # ---------------------------------------------------------------- growing

    def add_root(self, root: Root | str, **columns: Any) -> int:
        """Adds a prompt and returns its node. Columns such as ``context=...`` may be given."""
        values = self._checked_columns(columns, 1)
        node = self._reserve(1)
        self._roots = [*self._roots] if not isinstance(self._roots, list) else self._roots
        self._root_node = list(self._root_node) if not isinstance(self._root_node, list) else self._root_node
        self._roots.append(root if isinstance(root, Root) else Root(root))
        self._root_node.append(node)
        self._assign(values, np.arange(node, node + 1))
        return node

    def add_children(
        self, parents: Sequence[int] | np.ndarray, counts: Sequence[int] | np.ndarray, tokens: Any, **columns: Any
    ) -> np.ndarray:
        """Expands parents, each once, and returns the new nodes' ids ``[sum(counts)]``.

        Args:
            parents: ``[P]`` nodes that have no children yet.
            counts: ``[P]`` how many children each gets.
            tokens: ``[sum(counts)]`` the children's tokens, parent after parent, distinct under one parent.
            **columns: further columns of the children, such as ``prior`` or ``teacher_logp``.
        """
        parents = np.asarray(parents, np.int64)
        counts = np.asarray(counts, np.int64)
        tokens = np.asarray(tokens, np.int64)
        self._check_expansion(parents, counts, tokens)
        values = self._checked_columns(columns, len(tokens))
        first = self._reserve(len(tokens))
        nodes = np.arange(first, first + len(tokens))
        owner = np.repeat(parents, counts)
        self.token[nodes] = tokens
        self.parent[nodes] = owner
        self.depth[nodes] = self.depth[owner] + 1
        self.flags[nodes] = np.where(tokens == self.eos_id, EOS, 0)
        starts = first + np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(parents) else parents
        self.first_child[parents] = np.where(counts > 0, starts, -1)
        self.child_count[parents] = counts
        self.flags[parents] |= EXPANDED
        self._assign(values, nodes)
        return nodes

    def _check_expansion(self, parents: np.ndarray, counts: np.ndarray, tokens: np.ndarray) -> None:
        if len(parents) != len(counts) or counts.sum() != len(tokens):
            raise ConfigError(f"{len(parents)} parents, {len(counts)} counts and {len(tokens)} tokens do not fit")
        if not len(parents):
            return
        if parents.min() < 0 or parents.max() >= self.size:
            raise ConfigError(f"a parent is outside the tree's {self.size} nodes")
        taken = parents[self.first_child[parents] >= 0]
        if len(taken) or len(np.unique(parents)) != len(parents):
            raise ConfigError(
                f"node {taken[0] if len(taken) else parents[0]} is expanded already; a node is expanded once"
            )
        if self.depth[parents].max() >= DEPTH_LIMIT:
            raise ConfigError(f"a path holds at most {DEPTH_LIMIT} tokens")
        if counts.min() < 0 or counts.max() > CHILD_LIMIT:
            raise ConfigError(f"a node gets 0 to {CHILD_LIMIT} children, not {counts.max()}")
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self.vocab_size):
            raise ConfigError(f"a token is outside the vocabulary of {self.vocab_size}")
        pairs = np.repeat(parents, counts) * self.vocab_size + tokens
        if len(np.unique(pairs)) != len(pairs):
            raise ConfigError("two children of one node carry the same token; merge them first")
        ended = parents[((self.flags[parents] & EOS) != 0) & (counts > 0)]
        if len(ended):
            raise ConfigError(f"node {ended[0]} is an end; nothing can follow it")

    def _checked_columns(self, columns: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """Returns columns of new nodes in their types; raises before anything is added that could not be filled."""
        checked = {}
        for name, values in columns.items():
            if name not in COLUMNS or name in _LINKS:
                raise ConfigError(f"nodes have no column {name!r} to fill.{suggest(name, set(COLUMNS) - _LINKS)}")
            shape = column_shape(name, count, self.num_teachers, self.num_samplers)
            try:
                checked[name] = np.broadcast_to(np.asarray(values).astype(COLUMNS[name].dtype), shape)
            except (TypeError, ValueError) as error:
                got = np.shape(values)
                raise ConfigError(f"column {name!r} came as {got}; numbers of shape {shape} were expected") from error
        return checked

    def _assign(self, columns: Mapping[str, np.ndarray], nodes: np.ndarray) -> None:
        for name, values in columns.items():
            if name == "flags":
                self.flags[nodes] |= values
            else:
                self.column(name)[nodes] = values

    def _reserve(self, count: int) -> int:
        """Makes room for `count` nodes and returns the first new id."""
        first, needed = self._size, self._size + count
        if needed > NODE_LIMIT:
            raise ConfigError(f"a tree holds at most {NODE_LIMIT} nodes")
        capacity = len(self._arrays["token"])
        if needed > capacity or not self._arrays["token"].flags.writeable:
            capacity = max(2 * capacity, needed, 16) if needed > capacity else capacity
            for name, array in self._arrays.items():
                grown = self._unset(name, capacity)
                grown[:first] = array[:first]
                self._arrays[name] = grown
        self._size = needed
        return first

    def make_writable(self) -> None:
        """Copies a memory-mapped tree into memory, so that its columns can be changed."""
        self._reserve(0)

    # ---------------------------------------------------------------- reading

    def __getattr__(self, name: str) -> np.ndarray:
        if name in COLUMNS:
            return self.column(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def column(self, name: str) -> np.ndarray:
        """Returns a column; an optional one that the tree lacks is made, unset."""
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = self._unset(name, len(self._arrays["token"]))
        return array[: self._size]

    def _unset(self, name: str, nodes: int) -> np.ndarray:
        return unset_column(name, nodes, self.num_teachers, self.num_samplers)

    def with_column(self, name: str, values: np.ndarray) -> TokenTree:
        """Returns this tree with another column; everything else is shared."""
        arrays = {**self._arrays, name: values}
        return TokenTree(arrays, header=self.header, root_node=self.root_node, roots=self.roots, size=self.size)

    def has(self, name: str) -> bool:
        """Whether the tree carries this column."""
        return name in self._arrays

    @property
    def column_names(self) -> list[str]:
        return list(self._arrays)

    @property
    def size(self) -> int:
        return self._size

    def __len__(self) -> int:
        return self._size

    @property
    def teachers(self) -> list[str]:
        return self.header["teachers"]

    @property
    def num_teachers(self) -> int:
        return len(self.header["teachers"])

    @property
    def num_samplers(self) -> int:
        return len(self.header.get("samplers", ()))

    @property
    def eos_id(self) -> int:
        return self.header["eos_id"]

    @property
    def tokens(self) -> list[str]:
        return self.header["tokens"]

    @property
    def vocab_size(self) -> int:
        return len(self.header["tokens"])

    @property
    def roots(self) -> Sequence[Root]:
        return self._roots

    @property
    def num_roots(self) -> int:
        return len(self._root_node)

    @property
    def root_node(self) -> np.ndarray:
        """The node of every root ``[R] int32``, in ascending order."""
        return np.asarray(self._root_node, np.int32)

    @property
    def prompts(self) -> list[str]:
        return [root.prompt for root in self._roots]

    @property
    def answers(self) -> list[str]:
        return [root.answer for root in self._roots]

    @property
    def splits(self) -> list[str]:
        return [root.split for root in self._roots]

    @property
    def kinds(self) -> list[str]:
        return [root.kind for root in self._roots]

    def roots_in(self, split: str) -> np.ndarray:
        """Returns the indices of the roots of a split ``[.] int32``; "all" is every root."""
        if split == "all":
            return np.arange(self.num_roots, dtype=np.int32)
        if split not in SPLITS:
            raise ConfigError(f"split is {split!r}; it must be one of {', '.join(SPLITS)} or all")
        return np.flatnonzero(np.array([root.split == split for root in self._roots], bool)).astype(np.int32)

    def children(self, node: int) -> np.ndarray:
        """Returns the ids of a node's children."""
        first = int(self._arrays["first_child"][node])
        return np.arange(first, first + int(self._arrays["child_count"][node])) if first >= 0 else np.arange(0)

    def root_of(self, nodes: Any) -> np.ndarray:
        """Returns the root index of each node ``int32``, by climbing."""
        here = np.array(nodes, np.int64, ndmin=1)
        while True:
            above = self.parent[here]
            if (above < 0).all():
                return np.searchsorted(self.root_node, here).astype(np.int32)
            here = np.where(above < 0, here, above)

    def path_nodes(self, node: int) -> list[int]:
        """Returns the nodes from below the root down to `node`."""
        parent, path = self._arrays["parent"], []
        while parent[node] >= 0:
            path.append(int(node))
            node = int(parent[node])
        return path[::-1]

    def path(self, node: int) -> np.ndarray:
        """Returns the tokens from below the root down to `node` ``int32``."""
        return self._arrays["token"][self.path_nodes(node)].astype(np.int32)

    def text_of(self, tokens: Iterable[int]) -> str:
        """Returns the text that tokens stand for; bytes that are not UTF-8 yet show as the replacement character."""
        pieces = self.header["tokens"]
        return "".join(pieces[token] for token in tokens).encode("latin-1").decode("utf-8", "replace")

    def text(self, node: int) -> str:
        """Returns the generated text from below the root down to `node`."""
        return self.text_of(self.path(node))

    def values(self, policy: str | np.ndarray = "primary", **options: Any) -> Values:
        """Returns V, Q and A of every node under a policy over the children; see `treegym.tree.values`."""
        from treegym.tree.values import values  # the compiler is loaded when it is needed

        return values(self, policy, **options)

    # ---------------------------------------------------------------- checking

    def refresh(self, model: Any, **options: Any) -> TokenTree:
        """Recomputes the primary's columns in one pass, after the primary changed.

        The work belongs to growing, which knows models and lives above this room: its address is looked up.
        """
        refreshed: TokenTree = importlib.import_module(GROWING).refresh(self, model, **options)
        return refreshed

    def validate(self) -> None:
        """Checks every invariant in one compiled pass; raises DataError naming the first node that breaks one."""
        from treegym.tree.validation import validate_tree  # the compiler is loaded when it is needed

        validate_tree(self)

    @property
    def is_closed(self) -> bool:
        """Whether every path ends in a real terminal."""
        from treegym.tree.validation import count_frontier

        return self.size > 0 and count_frontier(self) == 0

    def __repr__(self) -> str:
        return f"TokenTree({self.num_roots:,} roots, {self.size:,} nodes, {self.num_teachers} teachers)"
