"""A policy learns over OpenEnv's protocol: groups of sessions share a start, as GRPO wants it. Needs openenv-core."""

import asyncio
import socket
import sys
import threading
import time

try:
    import uvicorn
    from openenv.core.generic_client import GenericEnvClient  # noqa: F401 (what GymClient is made of)
except ImportError as error:
    print(f"openenv-core or uvicorn is not installed: {error}", file=sys.stderr)
    sys.exit(3)

import numpy as np

from treegym.integrations.openenv import GymClient, app

GROUP, GROUPS, RATE = 8, 4, 2.0
TREE = "synthetic:roots=40,depth=5,branching=3,seed=0"


def serve() -> tuple[str, uvicorn.Server]:
    """Starts a server in this process; `uvicorn --factory treegym.integrations.openenv:app` starts one of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app(tree=TREE), host="127.0.0.1", port=port, log_level="critical"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    return f"http://127.0.0.1:{port}", server


async def episode(client, weights, seed, rng):
    """Walks once by a softmax over what is linear in the observation; returns the return and the policy's gradient."""
    result, total, gradient = await client.reset(seed=seed), 0.0, np.zeros_like(weights)
    while not result.done:
        seen = np.append(result.observation["observations"], 1.0)
        logits = np.where(result.observation["action_mask"], weights @ seen, -np.inf)
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        action = int(rng.choice(len(chances), p=chances))
        chances[action] -= 1.0
        gradient -= np.outer(chances, seen)
        result = await client.step({"action": action})
        total += result.reward
    return total, gradient


async def train(url, updates):
    """Ascends the group-centred returns; returns their means, update by update."""
    rng, means = np.random.default_rng(0), []
    clients = [GymClient(base_url=url) for _ in range(GROUP * GROUPS)]
    first = await clients[0].reset(seed=0)
    weights = np.zeros((len(first.observation["action_mask"]), len(first.observation["observations"]) + 1))
    for _ in range(updates):
        starts = np.repeat(rng.integers(2**31, size=GROUPS), GROUP)
        walked = await asyncio.gather(
            *(episode(client, weights, int(seed), rng) for client, seed in zip(clients, starts, strict=True))
        )
        returns = np.array([total for total, _ in walked]).reshape(GROUPS, GROUP)
        advantage = (returns - returns.mean(1, keepdims=True)).ravel()
        weights += RATE / len(walked) * sum(a * gradient for a, (_, gradient) in zip(advantage, walked, strict=True))
        means.append(returns.mean())
    for client in clients:
        await client.close()
    return means


def main(updates: int = 100) -> tuple[float, float]:
    """Trains, and returns the mean return of the first and of the last fifth of the updates."""
    url, server = serve()
    means = asyncio.run(train(url, updates))
    server.should_exit = True
    return float(np.mean(means[: updates // 5])), float(np.mean(means[-updates // 5 :]))


if __name__ == "__main__":
    before, after = main()
    print(f"mean return: {before:.3f} at first, {after:.3f} at last")
    sys.exit(0 if after > before else 1)
