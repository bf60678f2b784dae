"""The network of `search_network` for one state, inside the search kernel. A row of states has room for h behind s."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from treegym.search.compiled import compiled_model, dense_layer, dot_product

__all__ = ["network"]

_STATE = 16
_NONE = -1  # no bias


@functools.cache
def network(actions: int, hidden: int = 32, deeper: int = 0) -> Any:
    """Returns the network for so many actions, of so many hidden units and further hidden layers."""
    at_v = _STATE * hidden  # where the weights of each layer start in `params`; W starts at 0
    at_r = at_v + hidden * _STATE
    at_value = at_r + hidden
    at_u = at_value + _STATE
    at_p = at_u + actions * hidden
    at_d = at_p + _STATE * actions
    last = _STATE + deeper * hidden
    enter, leave = dense_layer(_STATE, hidden, "relu"), dense_layer(hidden, _STATE, "softsign")
    middle, policy = dense_layer(hidden, hidden, "relu"), dense_layer(_STATE, actions)
    reward_of, value_of = dot_product(hidden), dot_product(_STATE)

    @compiled_model
    def step(params, states, parent, action, new, logits, legal, told):  # type: ignore[no-untyped-def]
        """Steps row `parent` of `states` by `action` into row `new` and judges it."""
        after = states[new]
        enter(states[parent], params, 0, at_u + action * hidden, states[new, _STATE:])
        for i in range(deeper):
            place = _STATE + i * hidden
            middle(states[new, place:], params, at_d + i * hidden * hidden, _NONE, states[new, place + hidden :])
        told[0] = reward_of(states[new, last:], params, at_r)
        leave(states[new, last:], params, at_v, _NONE, after)
        policy(after, params, at_p, _NONE, logits)
        estimate = value_of(after, params, at_value)
        told[1] = estimate / (np.float32(1.0) + abs(estimate))

    return step
