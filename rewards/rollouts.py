"""Stored rollouts as a tree, so that any reward can score or rescore them offline.

A rollout is one JSON object per line: ``prompt`` and ``text``; optionally ``answer`` (the reference), ``kind``,
``verdict``, ``judge``, ``truncated``, and ``tokens`` with ``logprobs`` (one per token), which step terms need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import DataError
from treegym.files import read_json_lines
from treegym.rewards.compose import Reward
from treegym.rewards.table import FAILED
from treegym.tree.columns import COLUMNS, OPTIONAL, unset_column
from treegym.tree.flags import EOS, EXPANDED
from treegym.tree.token_tree import Root, TokenTree

__all__ = ["Rollouts", "read_rollouts", "score_rollouts"]


class Rollouts(TokenTree):
    """Every rollout is a root with one chain of nodes below it (a single node when its tokens are not known)."""

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.records = records
        lengths = np.array([max(1, len(record.get("tokens") or ())) for record in records], dtype=np.int64)
        root_node = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]).astype(np.int32)
        self.end_node = root_node + lengths  # [R] the last node of each
        size = int(lengths.sum() + len(records))
        roots = [Root(str(r["prompt"]), str(r.get("answer", "")), kind=str(r.get("kind", ""))) for r in records]
        arrays = {name: unset_column(name, size, 0) for name in COLUMNS if name not in OPTIONAL}
        header: dict[str, Any] = {"tokens": [], "teachers": []}
        super().__init__(arrays, header=header, root_node=root_node, roots=roots, size=size)
        owner = np.repeat(np.arange(len(records)), lengths + 1)
        self.parent[:] = np.arange(-1, size - 1)
        self.parent[root_node] = -1
        self.depth[:] = np.arange(size) - root_node[owner]
        self.first_child[:] = np.arange(1, size + 1)
        self.first_child[self.end_node] = -1
        self.child_count[:] = 1
        self.child_count[self.end_node] = 0
        self.truncated = np.zeros(size, bool)
        self.truncated[self.end_node] = [bool(record.get("truncated", False)) for record in records]
        self.flags[:] = EXPANDED
        self.flags[self.end_node] = np.where(self.truncated[self.end_node], 0, EOS)
        self.prior[:] = np.nan
        for record, root, end in zip(records, root_node, self.end_node, strict=True):
            if record.get("tokens"):
                self.token[root + 1 : end + 1] = record["tokens"]
            if record.get("logprobs"):
                self.prior[root + 1 : end + 1] = record["logprobs"]
            for name, column in (("verdict", self.verdict), ("judge", self.judge)):
                if record.get(name) is not None:
                    column[end] = record[name]

    def root_of(self, nodes: Any) -> np.ndarray:
        """Returns the rollout each node belongs to: chains stand one after the other."""
        return np.searchsorted(self.root_node, np.asarray(nodes), side="right").astype(np.int32) - 1

    def text(self, node: int) -> str:
        """Returns the rollout's text; only its end has one."""
        root = int(self.root_of(node))
        if node != self.end_node[root]:
            raise DataError(f"rollout {root + 1}: the text of a part of it is not known; only whole rollouts have one")
        return str(self.records[root]["text"])


def read_rollouts(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields checked rollouts; raises DataError with the number of a line that is not one."""
    for where, record in read_json_lines(path):
        yield _checked(record, where)


def score_rollouts(reward: Reward, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns each rollout with ``reward`` (its return) and ``reward_terms`` (sum of each term along the path).

    A failed term is named in ``reward_failed``, and null unless its policy has a default; so is a reward that would
    have counted on it: it can be told from a score and scored again later.
    """
    if not records:
        return []
    source = Rollouts(records)
    needs_tokens = [term.name for term in reward.part.terms() if term.scope == "step"]
    lacking = next((i for i, record in enumerate(records) if not record.get("tokens")), None)
    if needs_tokens and lacking is not None:
        raise DataError(
            f"rollout {lacking + 1} has no tokens, which the reward term {needs_tokens[0]!r} needs; "
            "store them, or leave the term out"
        )
    table = reward.on(source, truncated=source.truncated)
    table.ensure(np.arange(source.size))
    of = source.root_of(np.arange(source.size))
    sums, failed, lost = np.zeros((3, len(records), len(table.names)))
    np.add.at(sums, of, np.nan_to_num(table.terms.astype(np.float64)))
    np.add.at(failed, of, table.status == FAILED)
    np.add.at(lost, of, np.isnan(table.terms))
    returns = np.bincount(of, weights=table.total, minlength=len(records))
    scored = []
    for i, record in enumerate(records):
        paid = None if lost[i, table.weights != 0.0].any() else float(returns[i])
        terms = {name: None if lost[i, t] else float(sums[i, t]) for t, name in enumerate(table.names)}
        names = [name for t, name in enumerate(table.names) if failed[i, t]]
        scored.append({**record, "reward": paid, "reward_terms": terms, "reward_failed": names})
    return scored


def _checked(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("prompt", "text")):
        raise DataError(f"{where}: an object with the texts prompt and text was expected")
    tokens, logprobs = record.get("tokens"), record.get("logprobs")
    if tokens is not None and not (isinstance(tokens, list) and all(type(t) is int and 0 <= t < 2**31 for t in tokens)):
        raise DataError(f"{where}: tokens must be a list of token ids")
    if logprobs is not None and not (
        isinstance(logprobs, list)
        and len(logprobs) == len(tokens or ())
        and all(isinstance(p, (int, float)) and not isinstance(p, bool) and p <= 1e-3 for p in logprobs)
    ):
        raise DataError(f"{where}: logprobs must be one number of at most 0 for each of the tokens")
    for name in ("verdict", "judge"):
        value = record.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise DataError(f"{where}: {name} is {value!r}; a number was expected")
    return record
