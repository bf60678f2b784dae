"""OpenEnv's own client against our server: the same walk as in this process, sessions apart from each other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("openenv.core.env_server")
uvicorn = pytest.importorskip("uvicorn")
from openenv.core.generic_client import GenericEnvClient  # noqa: E402

from treegym.integrations.openenv import app  # noqa: E402

WORLD = {"tree": "synthetic:roots=8,depth=4,branching=3,width=3,seed=0", "split": "all"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app(**WORLD), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_a_walk_over_the_protocol_is_the_walk_here(url: str) -> None:
    env = gym.make("TokenTree-v0", **WORLD)
    with GenericEnvClient(base_url=url).sync() as client:
        for seed in range(3):
            seen, _ = env.reset(seed=seed)
            result = client.reset(seed=seed)
            done = False
            while not done:
                assert result.observation["action_mask"] == seen["action_mask"].tolist()
                np.testing.assert_allclose(result.observation["observations"], seen["observations"], atol=1e-6)
                action = int(np.flatnonzero(seen["action_mask"])[-1])
                seen, reward, terminated, truncated, info = env.step(action)
                result = client.step({"action": action})
                done = terminated or truncated
                assert result.done == done
                assert result.reward == pytest.approx(reward)
                assert result.observation["text"] == info["text"]


def test_sessions_share_a_start_and_nothing_else(url: str) -> None:
    clients = [GenericEnvClient(base_url=url).sync() for _ in range(8)]
    for client in clients:
        client.connect()
    starts = [client.reset(root=3).observation for client in clients]
    assert all(start == starts[0] for start in starts)
    legal = np.flatnonzero(starts[0]["action_mask"])
    texts = [
        client.step({"action": int(legal[i % len(legal)])}).observation["text"] for i, client in enumerate(clients)
    ]
    assert len(set(texts)) == len(legal)
    for client in clients:
        client.close()
