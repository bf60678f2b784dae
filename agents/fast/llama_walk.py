"""Walking with `Llama`: keys and values of contexts that grow by one token per step, each row in a slot of its own.

Nothing is padded or moved: rows that leave keep their slot until other contexts are read.

Letters: B rows, L context length, C slots, G key/value heads, d head size, D hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from treegym.agents.fast.llama import Layer, Llama, fits, layers_of, norm
from treegym.agents.fast.llama_kernels import attend_step, continues, rms_forward, rotate, swiglu_forward
from treegym.agents.fast.packing import Packed

__all__ = ["LlamaWalk"]


class LlamaWalk:
    """What is kept between two steps of a batch."""

    def __init__(self) -> None:
        self._keys: list[np.ndarray] = []  # of each layer [C, L, G d]
        self._values: list[np.ndarray] = []
        self.forget()

    def forget(self) -> None:
        """Drops what was read: the weights changed, or another batch begins."""
        self._contexts = np.empty((0, 0), np.int32)  # [B, L] as last seen
        self._lengths = np.empty(0, np.int64)  # [B]
        self._slots = np.empty(0, np.int64)  # [B]
        self._layers: list[Layer] = []
        self._weights: list[torch.Tensor] = []

    def can_advance(self, llama: Llama, contexts: np.ndarray) -> bool:
        """Takes the contexts ``[B, L]`` to advance to (padded with -1 on the right); False if `llama` cannot."""
        self._next = np.ascontiguousarray(contexts)
        self._rows = np.empty(len(contexts), np.int64)
        self._goes_on = self._next.shape[1] == self._contexts.shape[1] and continues(
            self._next, self._contexts, self._lengths, self._rows
        )
        return self._goes_on or (contexts.shape[1] <= llama.places and fits(llama.trunk))

    @torch.no_grad()
    def advance(self, llama: Llama) -> torch.Tensor:
        """Returns the hidden state ``[B, D]`` after each of the contexts that `can_advance` took."""
        if self._goes_on:
            places = self._lengths[self._rows]
            self._slots = self._slots[self._rows]
            tokens = self._next[np.arange(len(places)), places].astype(np.int64)
            states = self._append(llama, tokens, places)
            self._lengths = places + 1
        else:
            states = self._read(llama, self._next)
        self._contexts = self._next
        return states

    def _read(self, llama: Llama, contexts: np.ndarray) -> torch.Tensor:
        """Reads contexts from the start; those that are equal once."""
        self._weights = llama.weights()
        self._layers = layers_of(self._weights)
        self._lengths = (contexts >= 0).sum(1)
        self._slots = np.arange(len(contexts))
        packed, at = Packed.of_episodes(contexts, self._lengths, self._lengths)
        slot = np.repeat(self._slots, self._lengths)
        column = np.arange(len(slot)) - np.repeat(np.cumsum(self._lengths) - self._lengths, self._lengths)
        source = at[slot, column]
        wide = llama.shape.groups * llama.shape.size
        self._make_room(len(contexts), contexts.shape[1], wide)
        number = 0

        def store(qkv: torch.Tensor) -> None:
            nonlocal number
            read: Any = qkv.numpy()[source]
            self._keys[number][slot, column] = read[:, -2 * wide : -wide]
            self._values[number][slot, column] = read[:, -wide:]
            number += 1

        packed.store = store
        states = llama.states(packed)
        return states[torch.from_numpy(at[self._slots, self._lengths - 1])]

    def _make_room(self, slots: int, places: int, wide: int) -> None:
        shape = self._keys[0].shape if self._keys else (0, 0, 0)
        if len(self._keys) != len(self._layers) or shape[0] < slots or shape[1:] != (places, wide):
            self._keys = [np.empty((slots, places, wide), np.float32) for _ in self._layers]
            self._values = [np.empty_like(keys) for keys in self._keys]

    def _append(self, llama: Llama, ids: np.ndarray, places: np.ndarray) -> torch.Tensor:
        shape = llama.shape
        x = self._weights[0][torch.from_numpy(ids)]
        mixed, scale = torch.empty(len(ids), shape.heads * shape.size), np.empty(len(ids), np.float32)
        normed = torch.empty_like(x)
        active = torch.empty(len(ids), self._layers[0].gate_up.shape[0] // 2) if self._layers else normed
        for layer, keys, values in zip(self._layers, self._keys, self._values, strict=True):
            rms_forward(x.numpy(), layer.before.numpy(), shape.eps, normed.numpy(), scale)
            qkv = (normed @ layer.qkv.t()).numpy()
            rotate(qkv, places, shape.cos, shape.sin, shape.heads + shape.groups, 1.0)
            attend_step(
                qkv, self._slots, places, keys, values, shape.heads, shape.groups, shape.scaling, mixed.numpy()
            )  # fmt: skip
            x.addmm_(mixed, layer.out.t())
            rms_forward(x.numpy(), layer.after.numpy(), shape.eps, normed.numpy(), scale)
            swiglu_forward((normed @ layer.gate_up.t()).numpy(), active.numpy())
            x.addmm_(active, layer.down.t())
        return norm(x, self._weights[-1], shape.eps)[0]
