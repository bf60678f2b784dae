"""The network of `search_network` for one state, inside the search kernel. A row of states has room for h behind s."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.compiled import compiled_model, dense_layer, dot_product

__all__ = ["network"]

_STATE, _HIDDEN = 16, 32
_V = _STATE * _HIDDEN  # where the weights of each layer start in `params`; W starts at 0
_R = _V + _HIDDEN * _STATE
_VALUE = _R + _HIDDEN
_U = _VALUE + _STATE
_NONE = -1  # no bias

_enter = dense_layer(_STATE, _HIDDEN, "relu")
_leave = dense_layer(_HIDDEN, _STATE, "softsign")
_reward, _value = dot_product(_HIDDEN), dot_product(_STATE)


@functools.cache
def network(actions: int) -> Any:
    """Returns the network for so many actions."""
    policy = dense_layer(_STATE, actions)
    where = _U + actions * _HIDDEN

    @compiled_model
    def step(params, states, parent, action, new, logits, legal, told):  # type: ignore[no-untyped-def]
        """Steps row `parent` of `states` by `action` into row `new` and judges it."""
        after, hidden = states[new], states[new, _STATE:]
        _enter(states[parent], params, 0, _U + action * _HIDDEN, hidden)
        told[0] = _reward(hidden, params, _R)
        _leave(hidden, params, _V, _NONE, after)
        policy(after, params, where, _NONE, logits)
        estimate = _value(after, params, _VALUE)
        told[1] = estimate / (np.float32(1.0) + abs(estimate))

    return step
