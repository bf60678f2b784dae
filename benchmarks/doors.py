"""Steps per CPU-second through each door against native: run in an environment that has the library.

python benchmarks/doors.py [SECONDS [NAME ...]]      prints one JSON line per door that can be tried here
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
warnings.filterwarnings("ignore")

import gymnasium as gym  # noqa: E402 (after warnings were silenced)
import numpy as np  # noqa: E402

import treegym  # noqa: E402, F401 (registers the ids)

SESSIONS = 64  # of an OpenEnv server at once
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0


def rate(step: Callable[[], int]) -> float:
    """Returns steps per CPU-second of the whole process, after a warm-up."""
    step()
    begun, count = time.process_time(), 0
    while time.process_time() - begun < SECONDS:
        count += step()
    return count / (time.process_time() - begun)


def gymnasium_single() -> float:
    env = gym.make("TokenTree-v0", split="train")
    state = {"mask": env.reset(seed=0)[1]["action_mask"]}

    def step() -> int:
        for _ in range(100):
            _, _, terminated, truncated, info = env.step(int(state["mask"].argmax()))
            state["mask"] = info["action_mask"] if not (terminated or truncated) else env.reset()[1]["action_mask"]
        return 100

    return rate(step)


def native() -> float:
    env: Any = gym.make_vec("TokenTree-v0", num_envs=64, split="train")
    state = {"mask": env.reset(seed=0)[1]["action_mask"]}

    def step() -> int:
        for _ in range(10):
            state["mask"] = env.step(state["mask"].argmax(1))[4]["action_mask"]
        return 640

    return rate(step)


def torchrl() -> float:
    from treegym.integrations.torchrl import make_env

    env = make_env("TokenTree-v0", seed=0, split="train")
    return rate(lambda: int(env.rollout(64, break_when_any_done=False).shape[0]))


def tianshou() -> float:
    from tianshou.env import DummyVectorEnv

    from treegym.integrations.tianshou import masked

    envs = DummyVectorEnv([lambda: masked(gym.make("TokenTree-v0", split="train")) for _ in range(8)])
    state = {"seen": envs.reset()[0]}

    def step() -> int:
        seen = state["seen"]
        for _ in range(10):
            seen, _, terminated, truncated, _ = envs.step(np.array([int(o["mask"].argmax()) for o in seen]))
            done = np.flatnonzero(terminated | truncated)
            if len(done):
                seen[done] = envs.reset(done)[0]
        state["seen"] = seen
        return 80

    return rate(step)


def puffer() -> float:
    import pufferlib.emulation
    import pufferlib.vector

    def make(buf: Any = None, seed: int = 0) -> Any:
        creator = partial(gym.make, "TokenTree-v0", split="train")
        return pufferlib.emulation.GymnasiumPufferEnv(env_creator=creator, buf=buf, seed=seed)

    lanes: Any = pufferlib.vector.make(make, num_envs=8, backend=pufferlib.vector.Serial)
    layout = lanes.driver_env.emulated["emulated_observation_dtype"]
    state = {"rows": lanes.reset(seed=0)[0]}

    def step() -> int:
        for _ in range(10):
            mask = state["rows"].view(layout).reshape(-1)["action_mask"]
            state["rows"] = lanes.step(mask.argmax(1).astype(np.int32))[0]
        return 80

    return rate(step)


def sb3() -> float:
    from treegym.agents.play.evaluation import vector_world
    from treegym.agents.play.vec_env import WorldVecEnv

    env: Any = WorldVecEnv(vector_world("TokenTree-v0", 64, split="train"))
    state = {"mask": env.reset()["action_mask"]}

    def step() -> int:
        for _ in range(10):
            state["mask"] = env.step(state["mask"].argmax(1))[0]["action_mask"]
        return 640

    return rate(step)


def verifiers() -> float:
    """Completions per CPU-second of `vf-eval`, its start taken off; the server is another process."""
    import multiprocessing
    import resource
    import subprocess
    import tempfile
    from pathlib import Path

    from treegym.integrations.verifiers_package import write_package

    folder = Path(tempfile.mkdtemp())
    write_package(folder / "some_sums", "bundled:test=400")
    queue, end = multiprocessing.Queue(), multiprocessing.Event()
    server = multiprocessing.Process(target=_serve, args=(queue, end))
    server.start()
    url = queue.get()

    def spent(prompts: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        asked = [
            *(
                "some_sums",
                "-n",
                str(prompts),
                "-m",
                "tiny-primary",
                "--client.base-url",
                url,
                "--no-push",
                "--no-rich",
            ),
            *("--client.api-key-var", "NONE", "--env.agent.runtime.type", "subprocess", "--sampling.max-tokens", "24"),
            *("-o", str(folder / f"out{prompts}")),
        ]
        subprocess.run(
            [Path(sys.executable).parent / "vf-eval", *asked], check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(folder / "some_sums")},
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    spent(1)
    found = 398 / (spent(400) - spent(2))
    end.set()
    server.join()
    return found


def _serve(queue: Any, end: Any) -> None:
    from treegym.models.loading import load_model
    from treegym.models.serving.server import running_server

    with running_server(load_model("tiny-primary", device="cpu")) as served:
        queue.put(served.url)
        end.wait()


def completions() -> float:
    """Completions per CPU-second of the bundled primary in this process: what a door's server has to do at least."""
    from treegym.envs.token_tree.prompts import load_prompts
    from treegym.iterate.evaluate import answer_prompts
    from treegym.models.loading import load_model

    model, prompts = load_model("tiny-primary", device="cpu"), load_prompts("bundled:test=200")
    return rate(lambda: len(answer_prompts(model, prompts, max_tokens=24)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def openenv() -> float:
    import uvicorn
    from openenv.core.generic_client import GenericEnvClient

    from treegym.integrations.openenv import app

    port = _free_port()
    server = uvicorn.Server(uvicorn.Config(app(split="train"), host="127.0.0.1", port=port, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    with GenericEnvClient(base_url=f"http://127.0.0.1:{port}").sync() as client:
        state = {"mask": client.reset(seed=0).observation["action_mask"]}

        def step() -> int:
            for _ in range(20):
                result = client.step({"action": int(np.argmax(state["mask"]))})
                state["mask"] = (client.reset() if result.done else result).observation["action_mask"]
            return 20

        found = rate(step)
    server.should_exit = True
    return found


def openenv_sessions() -> float:
    """Steps per CPU-second of a server process alone, which 64 sessions of a client without ceremony keep busy."""
    port = _free_port()
    words = ["--factory", "treegym.integrations.openenv:app", "--port", str(port), "--log-level", "error"]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", *words])
    try:
        steps, spent, wall = asyncio.run(_many_sessions(f"ws://127.0.0.1:{port}/ws", server.pid))
    finally:
        server.terminate()
        server.wait()
    print(json.dumps({"sessions": SESSIONS, "steps": steps, "per_second_of_wall_clock": round(steps / wall)}))
    return steps / spent


async def _many_sessions(url: str, server: int) -> tuple[int, float, float]:
    """Returns how many steps were taken, what they cost the server in CPU seconds, and how long they took."""
    from websockets.asyncio.client import connect

    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.1)
    begun = {"cpu": 0.0, "wall": 0.0, "end": float("inf")}

    async def walk(seed: int, ready: asyncio.Barrier) -> int:
        async with connect(url) as socket_:
            told, count = {"type": "reset", "data": {"seed": seed}}, 0
            for again in (False, True):  # a warm-up, then what counts
                await ready.wait()
                if again and seed == 0:
                    begun.update(cpu=_cpu_of(server), wall=time.perf_counter(), end=time.perf_counter() + SECONDS)
                await ready.wait()
                end = begun["end"] if again else time.perf_counter() + 0.5
                while time.perf_counter() < end:
                    await socket_.send(json.dumps(told))
                    answer = json.loads(await socket_.recv())["data"]
                    count += again and told["type"] == "step"
                    mask = answer["observation"]["action_mask"]
                    told = {"type": "step", "data": {"action": mask.index(1)}}
                    if answer["done"]:
                        told = {"type": "reset", "data": {}}
            await socket_.send(json.dumps({"type": "close"}))
            await socket_.wait_closed()
            return count

    ready = asyncio.Barrier(SESSIONS)
    counts = await asyncio.gather(*(walk(seed, ready) for seed in range(SESSIONS)))
    return sum(counts), _cpu_of(server) - begun["cpu"], time.perf_counter() - begun["wall"]


def _cpu_of(process: int) -> float:
    """Returns the CPU seconds that a process has spent."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def reward_of_texts() -> float:
    from treegym.integrations.formats import rows
    from treegym.integrations.scoring import TextReward

    given, score = rows("prime-rl", "bundled:train=64"), TextReward({"verifier": 1.0})
    texts, answers = [f"={row['answer']}." for row in given], [row["answer"] for row in given]
    prompts, kinds = [row["question"] for row in given], [row["task"] for row in given]
    return rate(lambda: len(score(prompts, texts, answers, kinds)))


def minari() -> float:
    import tempfile

    os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    from treegym.integrations.minari import export, walks_of

    walks, env = walks_of("greedy_prior", split="train"), gym.make("TokenTree-v0", split="train")
    counter = iter(range(10**6))
    return rate(lambda: int(export(f"treegym/x{next(counter)}-v0", walks, env, algorithm="greedy").total_steps))


DOORS: dict[str, tuple[str, Callable[[], float]]] = {
    "native batch of 64": ("gymnasium", native),
    "gymnasium, one env": ("gymnasium", gymnasium_single),
    "torchrl": ("torchrl", torchrl),
    "tianshou": ("tianshou", tianshou),
    "pufferlib": ("pufferlib", puffer),
    "stable-baselines3": ("stable_baselines3", sb3),
    "completions in this process": ("transformers", completions),
    "verifiers, without the server": ("verifiers", verifiers),
    "openenv, one session, client and server": ("openenv", openenv),
    "openenv, many sessions, the server alone": ("openenv", openenv_sessions),
    "minari export": ("minari", minari),
    "reward of texts (TRL, verl, ...)": ("treegym", reward_of_texts),
}

if __name__ == "__main__":
    only = sys.argv[2:]
    for name, (library, measure) in DOORS.items():
        if only and not any(name.startswith(word) for word in only):
            continue
        if importlib.util.find_spec(library) is not None:
            print(json.dumps({"door": name, "per_cpu_second": round(measure())}), flush=True)
