"""The tree methods: one search with one rule each."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np

from treegym.checks import one_of, whole
from treegym.errors import ConfigError, require
from treegym.search.checks import positive
from treegym.search.compiled import CompiledSimulator, compiled_search
from treegym.search.session import Session
from treegym.search.settings import TREE_RULES, make_options
from treegym.search.simulator import SearchResult, Simulator

__all__ = ["gumbel", "ments", "puct", "rents", "similarity", "tree_search", "uct"]


def tree_search(
    simulator: Simulator,
    states: Any,
    *,
    method: str,
    num_simulations: int,
    seed: int = 0,
    root_ids: np.ndarray | None = None,
    num_threads: int = 1,
    model_calls: int | None = None,
    seconds: float | None = None,
    answers: int = 0,
    backend: str = "kernels",
    **options: Any,
) -> SearchResult:
    """Searches from each of B states with `num_simulations` simulations; options as in `Options`.

    Fewer when `model_calls` (calls of the evaluator) or `seconds` are spent before. A compiled simulator runs whole
    searches in one kernel, on `num_threads` threads. The best `answers` paths are part of the result.
    With ``backend="torch"`` the trees are tensors on the device of the states (`treegym.search.tensors`).
    """
    settings = make_options(options)
    common: dict[str, Any] = {
        "method": method,
        "num_simulations": num_simulations,
        "seed": seed,
        "options": settings,
        "root_ids": root_ids,
    }
    if one_of("backend", backend, ("kernels", "torch")) == "torch":
        given = {"model_calls": model_calls, "seconds": seconds, "answers": answers or None}
        for name, value in {**given, "num_threads": num_threads if num_threads != 1 else None}.items():
            if value is not None:
                raise ConfigError(
                    f"{name} is {value!r}, which backend='torch' does not offer; leave one of the two out"
                )
        require("torch", extra="models", purpose="backend='torch'")
        from treegym.search.tensors.run import tensor_search

        return tensor_search(simulator, states, **common)
    unlimited = model_calls is None and seconds is None
    plain = settings.leaves == 1 and not settings.transpositions and settings.widen_factor == 0
    whole("answers", answers, low=0)
    plain = plain and not answers  # a kernel that runs whole searches keeps no tree
    plain = plain and settings.players == 1 and not settings.outcomes  # a compiled model does not say whose turn it is
    if hasattr(simulator, "model") and unlimited and plain:
        return compiled_search(cast(CompiledSimulator, simulator), states, num_threads=num_threads, **common)
    if positive("num_threads", num_threads) > 1:
        raise ConfigError(
            f"num_threads is {num_threads}, but threads share whole searches inside one kernel: that takes a compiled "
            "model, one leaf at a time, no transpositions, widening, answers or budgets in calls or seconds"
        )
    session = Session(simulator, states, **common)
    result = session.run(model_calls=model_calls, seconds=seconds)
    return result._replace(answers=session.answers(answers)) if answers else result


puct, gumbel, uct, similarity, ments, rents = (partial(tree_search, method=name) for name in TREE_RULES)
