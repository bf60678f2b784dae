"""OpenEnv's own client against our server: the same walks as in this process, sessions apart from each other."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("openenv.core.env_server")
uvicorn = pytest.importorskip("uvicorn")
from openenv.core.generic_client import GenericEnvClient  # noqa: E402

from treegym.errors import BackendError, ConfigError  # noqa: E402
from treegym.integrations.openenv import GymClient, GymServer, app  # noqa: E402

WORLD = {"tree": "synthetic:roots=8,depth=4,branching=3,width=3,seed=0", "split": "all"}


@contextmanager
def served(application: Any) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(app(**WORLD)) as address:
        yield address


def _same_walk(env: Any, client: Any, seed: int) -> None:
    """Walks both at once, by the last legal action."""
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
        assert result.observation["is_success"] == info["is_success"]


@pytest.mark.parametrize("env_id", ["TokenTree-v0", "CandidateSelection-v0", "TestTimeCompute-v0"])
def test_a_walk_over_the_protocol_is_the_walk_here(env_id: str) -> None:
    world = WORLD if env_id == "TokenTree-v0" else {}
    env = gym.make(env_id, **world)
    with served(app(env_id, **world)) as address, GenericEnvClient(base_url=address).sync() as client:
        for seed in range(3):
            _same_walk(env, client, seed)


def test_sessions_share_a_start_and_nothing_else(url: str) -> None:
    clients = [GenericEnvClient(base_url=url).sync() for _ in range(8)]
    for client in clients:
        client.connect()
    assert len({json.dumps(client.reset().observation) for client in clients}) > 1  # no seed: each draws its own
    starts = [client.reset(root=3).observation for client in clients]
    assert all(start == starts[0] for start in starts)
    assert len({json.dumps(client.reset(seed=11).observation) for client in clients}) == 1
    starts = [client.reset(root=3).observation for client in clients]
    legal = np.flatnonzero(starts[0]["action_mask"])
    texts = [
        client.step({"action": int(legal[i % len(legal)])}).observation["text"] for i, client in enumerate(clients)
    ]
    assert len(set(texts)) == len(legal)
    for client in clients:
        client.close()


def test_a_hundred_sessions_at_once_walk_as_they_would_alone(url: str) -> None:
    async def walk(seed: int) -> list[str]:
        texts = []
        async with GymClient(base_url=url) as client:
            result = await client.reset(seed=seed)
            while not result.done:
                mask = result.observation["action_mask"]
                result = await client.step({"action": int(np.flatnonzero(mask)[seed % sum(mask)])})
                texts.append(result.observation["text"])
        return texts

    async def together() -> list[list[str]]:
        return await asyncio.gather(*(walk(seed) for seed in range(100)))

    env = gym.make("TokenTree-v0", **WORLD)
    for seed, texts in enumerate(asyncio.run(together())):
        seen, _ = env.reset(seed=seed)
        alone, done = [], False
        while not done:
            mask = seen["action_mask"]
            seen, _, terminated, truncated, info = env.step(int(np.flatnonzero(mask)[seed % mask.sum()]))
            alone.append(info["text"])
            done = terminated or truncated
        assert texts == alone


class Slow(gym.Wrapper[Any, Any, Any, Any]):
    """Takes its time over the second step of each episode."""

    steps = 0

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 2:
            time.sleep(1.0)
        return self.env.step(action)


def test_an_answer_that_comes_too_late_is_never_taken_for_the_next() -> None:
    from openenv.core.env_server.http_server import create_fastapi_app

    from treegym.integrations.openenv import Choice, Seen

    application = create_fastapi_app(
        lambda: GymServer(Slow(gym.make("TokenTree-v0", **WORLD))), Choice, Seen, max_concurrent_envs=4
    )
    with served(application) as address:
        with GymClient(base_url=address, message_timeout_s=0.4).sync() as client:
            first = client.reset(root=2).observation
            client.step({"action": 0})
            with pytest.raises(BackendError, match="did not answer a step in time"):
                client.step({"action": 1})
            with pytest.raises(RuntimeError, match="reset first"):  # a session of its own, where nothing has begun
                client.step({"action": 2})
            assert client.reset(root=2).observation == first
            begun = client.step({"action": 2}).observation["text"]
        env = gym.make("TokenTree-v0", **WORLD)
        env.reset(options={"root": 2})
        assert begun == env.step(2)[4]["text"]


def test_what_cannot_be_served_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="pays a vector"):
        app("MO-TokenTree-v0", **WORLD)
    monkeypatch.setenv("TREEGYM_ENV_ARGS", "{tree}")
    with pytest.raises(ConfigError, match="no JSON"):
        app()
    monkeypatch.setenv("TREEGYM_ENV_ARGS", "[1]")
    with pytest.raises(ConfigError, match="a JSON object"):
        app()
    with GenericEnvClient(base_url=url).sync() as client:
        client.reset(root=0)
        with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
            client.step({"action": "left"})
        with pytest.raises(RuntimeError, match="root"):
            client.reset(root=99)
        assert client.reset(root=0).observation["text"] == ""


def test_openenv_finds_the_server_sound(url: str) -> None:
    validation = pytest.importorskip("openenv.cli._validation")
    report = validation.validate_running_environment(url)
    failed = [one for one in report["criteria"] if not one["passed"]]
    assert report["passed"], failed
