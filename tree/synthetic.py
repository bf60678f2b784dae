"""Synthetic closed trees: any size, a planted correct path, and teachers of whom each is right about some prompts only.

Every root has a hidden kind; the embedding of the prompt tells the kind, with noise; at every fork the teachers that
are good at this kind back the right child, the others agree on a wrong one. So, as in the real trees, whom to trust
when must be learned, the optimum is known, and nothing else needs a model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np

from treegym.errors import ConfigError, suggest
from treegym.tree.columns import CONTEXT_SIZE
from treegym.tree.token_tree import Root, TokenTree

__all__ = ["SyntheticSettings", "parse_synthetic", "synthetic_tree"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_EOS = len(_LETTERS) + 38


@dataclass(frozen=True)
class SyntheticSettings:
    """The shape and the difficulty of a synthetic tree."""

    roots: int = 64
    depth: int = 8  # most tokens of an answer, before its end
    branching: int = 4  # most children of a node
    width: int = 6  # nodes expanded on each level of each root
    teachers: int = 4
    difficulty: float = 0.3  # 0: the good teachers are surely right and the kind is plain; 1: all is noise
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "roots": (1, 10_000_000), "depth": (1, 1000), "branching": (2, 64),
            "width": (1, 1000), "teachers": (1, 31), "difficulty": (0, 1), "seed": (0, 2**63),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"synthetic tree: {name} is {getattr(self, name)}; it must be {low} to {high}")


def parse_synthetic(spec: str) -> SyntheticSettings:
    """Returns the settings in ``"synthetic:roots=64,depth=8,..."``."""
    types = {field.name: float if field.name == "difficulty" else int for field in fields(SyntheticSettings)}
    values: dict[str, float] = {}
    for part in filter(None, spec.removeprefix("synthetic").removeprefix(":").split(",")):
        name, _, value = part.partition("=")
        name = name.strip()
        if name not in types:
            raise ConfigError(f"synthetic tree: unknown setting {name!r}.{suggest(name, types)}")
        try:
            values[name] = types[name](value)
        except ValueError:
            raise ConfigError(f"synthetic tree: {name} is {value!r}; expected a number") from None
    return SyntheticSettings(**values)  # type: ignore[arg-type]


def synthetic_tree(**settings: float) -> TokenTree:
    """Returns a closed tree made from `SyntheticSettings`, the same for the same settings on every machine."""
    try:
        chosen = SyntheticSettings(**settings)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(f"synthetic tree: {error}") from None
    return _Maker(chosen).make()


class _Maker:
    def __init__(self, settings: SyntheticSettings) -> None:
        self.s = settings
        self.rng = np.random.default_rng(settings.seed)
        tokens = [*_LETTERS, *(chr(c) for c in range(48, 86)), ""]
        self.tree = TokenTree.empty(
            tokens=tokens,
            eos_id=_EOS,
            teachers=[f"teacher{m}" for m in range(settings.teachers)],
            context=True,
            header={"source": "synthetic", "settings": asdict(settings), "seed": settings.seed},
            capacity=min(settings.roots * settings.width * settings.branching * settings.depth, 2**22),
        )
        # A kind is known by which teachers are good at it: in kind z teacher z, and every second kind one more.
        self.kinds = max(2, settings.teachers)
        self.good = np.eye(self.kinds, settings.teachers, dtype=bool)  # [kinds, M]
        for kind in range(0, self.kinds, 2):
            self.good[kind, (kind + 1) % settings.teachers] = True
        self.signature = np.random.default_rng(1234).normal(size=(self.kinds, CONTEXT_SIZE))  # the same in all trees

    def make(self) -> TokenTree:
        s, tree = self.s, self.tree
        self.kind = self.rng.integers(self.kinds, size=s.roots)  # [R]
        splits = np.array(["train", "validation", "test"])[np.digitize(np.arange(s.roots) % 10, [6, 7])]
        noise = self.rng.normal(size=(s.roots, CONTEXT_SIZE)) * s.difficulty
        self.embedding = _int8(self.signature[self.kind] / 2.5 + noise / 2.5)  # [R, 24]
        for r in range(s.roots):
            name = f"prompt {r}"
            tree.add_root(Root(name, kind=f"kind{self.kind[r]}", split=str(splits[r])), context=self.embedding[r])
        frontier = np.arange(s.roots)  # nodes to expand, root by root
        root = np.arange(s.roots)  # [.] root index of each
        on_path = np.ones(s.roots, bool)  # [.] whether it lies on the planted correct path
        end_at = self.rng.integers(max(1, s.depth // 2), s.depth + 1, size=s.roots)  # [R] length of the planted answer
        for level in range(s.depth + 1):
            frontier, root, on_path = self._grow_level(level, frontier, root, on_path, end_at)
        return tree

    def _grow_level(
        self, level: int, nodes: np.ndarray, root: np.ndarray, on_path: np.ndarray, end_at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gives the frontier of one depth its children; returns the next frontier."""
        s, rng = self.s, self.rng
        keep = self._within_width(root, on_path)
        counts = np.where(keep, rng.integers(2, s.branching + 1, size=len(nodes)), 1)
        planted_end = on_path & (end_at[root] == level)
        counts[planted_end] = np.maximum(counts[planted_end], 2)
        if level == s.depth:
            counts[:] = 1  # nothing left to say: every text ends here
        owner = np.repeat(np.arange(len(nodes)), counts)
        slot = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        # A text may end wherever it stands; where it has just one continuation it must.
        has_end = (counts == 1) | planted_end | (rng.random(len(nodes)) < 0.15 * (level > 0))
        is_end = has_end[owner] & (slot == counts[owner] - 1)
        right_slot = np.where(planted_end, counts - 1, rng.integers(0, np.maximum(counts - has_end, 1)))
        right = on_path[owner] & (slot == right_slot[owner])
        start = rng.integers(_EOS, size=len(nodes))
        tokens = np.where(is_end, _EOS, (start[owner] + slot) % _EOS)
        columns = self._opinions(owner, slot, counts, right_slot, on_path, root)
        verdict = np.where(is_end, (right & planted_end[owner]).astype(np.float32), np.nan)
        children = self.tree.add_children(
            nodes, counts, tokens, verdict=verdict, context=self._context(root[owner]), **columns
        )
        alive = ~is_end
        return children[alive], root[owner][alive], right[alive]

    def _within_width(self, root: np.ndarray, on_path: np.ndarray) -> np.ndarray:
        """Returns which frontier nodes are expanded: the planted one and the first few others of each root."""
        order = np.lexsort((self.rng.random(len(root)), ~on_path, root))
        rank = np.empty(len(root), np.int64)
        starts = np.flatnonzero(np.r_[True, np.diff(root[order]) > 0])
        rank[order] = np.arange(len(root)) - np.repeat(starts, np.diff(np.r_[starts, len(root)]))
        return rank < self.s.width

    def _context(self, root: np.ndarray) -> np.ndarray:
        noise = self.rng.integers(-4, 5, size=(len(root), CONTEXT_SIZE))
        return np.clip(self.embedding[root] + noise, -127, 127).astype(np.int8)

    def _opinions(
        self, owner: np.ndarray, slot: np.ndarray, counts: np.ndarray, right: np.ndarray, on_path: np.ndarray,
        root: np.ndarray,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Returns what primary and teachers think of every child."""
        s, rng = self.s, self.rng
        teachers = s.teachers
        wrong = (right + 1 + rng.integers(0, np.maximum(counts - 1, 1))) % np.maximum(counts, 1)  # the shared error
        slip = rng.random((len(counts), teachers)) < 0.5 * s.difficulty
        knows = (self.good[self.kind[root]] & ~slip) & on_path[:, None]  # [nodes, M]
        favourite = np.where(knows, right[:, None], wrong[:, None])
        scores = rng.normal(size=(len(owner), teachers)) * (0.5 + s.difficulty)
        scores += 4.0 * (slot[:, None] == favourite[owner])
        logp = _log_softmax(scores, owner, counts)
        prior = _log_softmax(rng.normal(size=(len(owner), 1)) + 0.5 * logp.mean(1, keepdims=True), owner, counts)[:, 0]
        best = np.maximum.reduceat(prior, np.cumsum(counts) - counts)[owner]
        proposers = ((logp > -1.5) * (2 << np.arange(teachers))).sum(1) | (prior == best)
        return {
            "prior": prior,
            "teacher_logp": logp,
            "proposers": proposers,
            "similarity": np.exp(prior - best) * 2 - 1,
        }


def _log_softmax(scores: np.ndarray, owner: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns log-probabilities ``[children, M]`` normalised among the children of each owner."""
    starts = np.cumsum(counts) - counts
    scores = scores - np.maximum.reduceat(scores, starts, axis=0)[owner]
    return scores - np.log(np.add.reduceat(np.exp(scores), starts, axis=0))[owner]


def _int8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values * 127), -127, 127).astype(np.int8)
