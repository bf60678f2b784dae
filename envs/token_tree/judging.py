"""What is computed of a tree's nodes: where episodes end, what coming there pays, and whether an end is right."""

from __future__ import annotations

import numpy as np

from treegym.envs.token_tree.tables import NodeTables, Stretch
from treegym.rewards import Reward, Terminal, build
from treegym.tree.flags import END

__all__ = ["Judging"]


class Judging:
    """Fills the judged columns of the tables; what costs a model call waits until a node is visited."""

    def __init__(
        self, tables: NodeTables, stretch: Stretch, *, reward: Reward, terminal: Terminal, token_limit: int
    ) -> None:
        """Decides the first stretch of nodes: a reward is evaluated where ends are known."""
        self.tables, self.tree = tables, tables.tree
        self._token_limit = token_limit
        self._looks_ahead = terminal.looks_ahead
        self._decided = terminal.decisions(self.tree)
        self.decide(stretch)
        self.table = reward.on(self.tree, ends=self._ends_at, truncated=self._cut_off_at)
        self._verifier = build({"verifier": 1.0}).on(self.tree, ends=self._ends_at)

    def decide(self, stretch: Stretch) -> np.ndarray:
        """Finds where episodes end among the new nodes; returns old ones that turned out to be ends."""
        tables, fresh = self.tables, stretch.fresh
        self._ask(stretch.nodes)
        turned = stretch.parents[:0]
        if self._looks_ahead:  # a decision on a node's children is made again now that they are known
            self._decided.forget(stretch.parents)
            self._ask(stretch.parents)
            turned = stretch.parents[tables.ends[stretch.parents]]
        tables.cut_off[fresh] = (self.tree.depth[fresh] >= self._token_limit) & ~tables.ends[fresh]
        return turned

    def pay(self, stretch: Stretch, turned: np.ndarray) -> None:
        """Evaluates the reward at the new nodes, and again where a node `turned` out to be an end."""
        tables, table = self.tables, self.table
        for each in (table, self._verifier):
            each.forget(turned)
            each.ensure(turned)  # lets it grow with the tree, too
        tables.terms[stretch.fresh] = table.vector(stretch.nodes) if table.complete else 0.0
        tables.terms[turned] = table.vector(turned)
        for part in (stretch.fresh, turned):
            tables.unjudged[part] = tables.ends[part] & np.isnan(self.tree.verdict[part])

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be asked: every node is paid, every end judged."""
        return self.table.complete and not self.tables.unjudged.any()

    def judge(self, nodes: np.ndarray) -> None:
        """Pays and judges nodes that are about to be stood on."""
        tables = self.tables
        if not self.table.complete:
            tables.terms[nodes] = self.table.vector(nodes)
            self.tell(nodes)
        asked = np.unique(nodes[tables.unjudged[nodes]])
        if len(asked):
            self._verifier.ensure(asked)
            tables.cells["right"][asked] = self._verifier.total[asked] >= 0.5
            tables.unjudged[asked] = False

    def tell(self, nodes: np.ndarray | slice) -> None:
        """Writes what nodes pay now into the cells that stepping reads."""
        cells = self.tables.cells
        cells["pays"][nodes], cells["failed"][nodes] = self.table.total[nodes], self.table.failed[nodes]

    def _ask(self, nodes: np.ndarray) -> None:
        """Asks the terminal detector; a real end is one in any case."""
        self.tables.ends[nodes] = ((self.tree.flags[nodes] & END) != 0) | self._decided(nodes)

    def _ends_at(self, nodes: np.ndarray) -> np.ndarray:
        return self.tables.ends[nodes]

    def _cut_off_at(self, nodes: np.ndarray) -> np.ndarray:
        return self.tables.cut_off[nodes]
