"""What an agent spends on an answer, in worlds that pay 1 for a correct one and charge for every token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from treegym.bench.gathering import AgentRuns
from treegym.bench.statistics import Interval, bootstrap
from treegym.bench.suite import EnvEntry

__all__ = ["price_of", "spent"]

CHARGING = {"TestTimeCompute-v0": 0.05}  # by environment, its usual `token_cost`


def price_of(env: EnvEntry) -> float | None:
    """Returns what an average chain costs in an environment that charges for tokens; None in all others.

    A range of prices tells no tokens: which price an episode was played at is not in its line.
    """
    settings: Mapping[str, Any] = {**env.kwargs, **env.evaluation}
    price = settings.get("token_cost", CHARGING.get(env.id))
    charges = env.id in CHARGING and env.metric == "return" and not isinstance(price, list | tuple)
    return float(price) if charges and price else None


def spent(entry: AgentRuns, price: float, *, seed: int) -> dict[str, Any]:
    """Returns accuracy over runs, with its interval, and the average chains spent on an answer.

    The reward is 1 for a correct answer less the price of every chain, so chains = (accuracy - return) / price.
    """
    finals = [run["final"] for run in entry.summaries]
    correct = np.array([[final["correct"]] for final in finals], np.float64)  # [N, 1]
    chains = (correct[:, 0] - [final["return"] for final in finals]) / price
    found: Interval = bootstrap([correct], _mean, seed=seed)
    ends = [None, None] if entry.deterministic else [round(found.low, 6), round(found.high, 6)]
    return {
        "price": price,
        "accuracy": [round(found.point, 6), *ends],
        "chains": round(float(chains.mean()), 6),
        "runs": [[round(float(x), 6), round(float(y), 6)] for x, y in zip(chains, correct[:, 0], strict=True)],
    }


def _mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.mean(axis=-1))
