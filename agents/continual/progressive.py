"""Progressive networks: a new column for every task, which listens to the frozen ones (arXiv:1606.04671).

    h_l^k = block_l^k(h_{l-1}^k) + sum_{j<k} up_l^{kj}(relu(down_l^{kj}(h_l^j)))

The lateral adapters start at zero, so that a new column begins as a copy of the first one's beginning.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from treegym.agents.continual.base import Method
from treegym.agents.continual.blocks import blocks_of

__all__ = ["Progressive"]


class _Adapter(nn.Module):
    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, rank), nn.Linear(rank, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.up(torch.relu(self.down(hidden)))


class _Column(nn.Module):
    """A copy of the model whose blocks add what adapters make of earlier columns' blocks."""

    def __init__(self, model: nn.Module, earlier: list[_Column], size: int, rank: int) -> None:
        super().__init__()
        self.model = model
        self.hidden: list[torch.Tensor] = []  # what each block gave, in this pass
        self._earlier = earlier  # a plain list: their weights are not this column's
        self.adapters = nn.ModuleList(nn.ModuleList(_Adapter(size, rank) for _ in earlier) for _ in blocks_of(model))
        for level, block in enumerate(blocks_of(model)):
            block.register_forward_hook(self._listener(level))

    def _listener(self, level: int) -> Any:
        def listen(_: nn.Module, __: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            for adapter, column in zip(self.adapters[level], self._earlier, strict=True):  # type: ignore[call-overload]
                hidden = hidden + adapter(column.hidden[level])
            self.hidden.append(hidden)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return listen

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            for column in self._earlier:
                column.run(*args, **kwargs)
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Runs this column alone; the earlier ones have run on the same input."""
        self.hidden = []
        return self.model(*args, **kwargs)


class Progressive(Method):
    """Forgets nothing: earlier columns are never touched.

    Args:
        model: the first column; later ones start as copies of what it was.
        rank: width of the lateral adapters.
    """

    def __init__(self, model: nn.Module, *, rank: int = 16) -> None:
        super().__init__(model)
        self._fresh = copy.deepcopy(model)
        self._rank = rank
        self._size = next(p.shape[-1] for p in blocks_of(model).parameters() if p.dim() == 1)
        self.columns: list[_Column] = []

    @property
    def network(self) -> nn.Module:
        return self.columns[-1] if self.columns else self.model

    def begin(self) -> None:
        super().begin()
        for column in self.columns:
            column.requires_grad_(False)
        model = self.model if not self.columns else copy.deepcopy(self._fresh)
        self.columns.append(_Column(model, list(self.columns), self._size, self._rank))

    @contextmanager
    def recalled(self, task: int) -> Iterator[nn.Module]:
        yield self.columns[task]
