"""What rewards cost: six tabulated terms while stepping, and a thousand judge calls against a server with latency.

Figures:
    six_terms_overhead: CPU time of a step of TokenTree-v0 on the bundled tree with six terms, over that with the
        verifier alone; the median over batch sizes, each of which is in the table.
    judge_over_ideal: time of the judge calls over calls x latency / concurrency.
    bare_over_ideal: the same for a client that writes prepared bytes and reads nothing out of the answers: what this
        machine and the server take away, whatever the client does.
    function_calls_per_node: calls of a plain Python term over distinct nodes it was asked about, in repeated episodes.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import common
import gymnasium as gym
import numpy as np

import treegym  # noqa: F401 - registers the environments
from treegym.rewards.judge.prompt import Case
from treegym.rewards.judge.term import Judge

SIX = {
    "verifier": 1.0,
    "length": -0.01,
    "shortest_path": 0.2,
    "judge": 0.1,
    "similarity": 0.05,
    "loglikelihood": 0.01,
}
LATENCY, CONCURRENCY = 0.02, 32  # seconds; requests under way


def main() -> None:
    """Runs both measurements and prints table and figures."""
    args = common.parse(__doc__ or "")
    overheads, cells = _six_terms(rounds=7 if args.quick else 31, steps=200 if args.quick else 500)
    judged, bare = _judge(calls=640 if args.quick else 1000, rounds=3 if args.quick else 7)
    figures = {
        "six_terms_overhead": statistics.median(overheads),
        "judge_over_ideal": statistics.median(judged),
        "bare_over_ideal": statistics.median(bare),
        "function_calls_per_node": _function_calls(),
    }
    for what, ratios in (("judge calls over ideal", judged), ("bare calls over ideal", bare)):
        cells += [{"what": what, "lanes": CONCURRENCY, "ratio": ratio} for ratio in ratios]
    print(common.table(cells))
    print(common.table([{"figure": name, "value": value} for name, value in figures.items()]))
    common.emit("rewards", figures, cells)


def _six_terms(*, rounds: int, steps: int) -> tuple[list[float], list[dict[str, Any]]]:
    """Returns the overhead at each batch size, as a median of interleaved rounds."""
    overheads, cells = [], []
    for lanes in (1, 64, 1024, 4096):
        walks = {}
        for name, reward in (("verifier", {"verifier": 1.0}), ("six", SIX)):
            walks[name] = _walk(lanes, reward, steps if lanes < 1024 else steps // 5)
        times = common.interleaved(walks, rounds=rounds, clock=common.cpu_seconds)
        ratio = common.median_ratio(times["six"], times["verifier"])
        overheads.append(ratio)
        cells.append({"what": "step time, six terms over one", "lanes": lanes, "ratio": ratio})
    return overheads, cells


def _walk(lanes: int, reward: dict[str, float], steps: int) -> Callable[[], None]:
    """Returns a function that takes so many steps with random legal actions."""
    settings: dict[str, Any] = {"split": "all", "reward": reward}
    rng = np.random.default_rng(0)
    if lanes == 1:
        env = gym.make("TokenTree-v0", **settings)
        env.reset(seed=0)
        draws = rng.random(steps)

        def single() -> None:
            observation, _ = env.reset(seed=0)
            for draw in draws:
                legal = int(observation["action_mask"].sum())
                observation, _, terminated, truncated, _ = env.step(int(draw * legal))
                if terminated or truncated:
                    observation, _ = env.reset()

        return single
    envs = gym.make_vec("TokenTree-v0", num_envs=lanes, **settings)
    envs.reset(seed=0)
    batches = rng.random((steps, lanes))

    def batched() -> None:
        observation, _ = envs.reset(seed=0)
        for draw in batches:
            legal = observation["action_mask"].sum(axis=1)
            observation, *_ = envs.step((draw * legal).astype(np.int64))

    return batched


def _function_calls() -> float:
    """Returns calls of a plain function over distinct nodes, in an environment that walks the same prompts again."""
    from treegym.envs.token_tree.world import TreeWorld

    calls: list[int] = []

    def mine(path: Any) -> float:
        calls.append(path.node)
        return 0.0

    world = TreeWorld(None, split="all", reward={"verifier": 1.0, "mine": mine})
    rng = np.random.default_rng(0)
    for _ in range(50):
        world.prepare_nodes(rng.integers(0, world.tree.size, 200))
    return len(calls) / len(set(calls))


def _judge(*, calls: int, rounds: int) -> tuple[list[float], list[float]]:
    """Returns the ratio of each round's time to the ideal one, for the judge and for the bare client, in turn."""
    context = multiprocessing.get_context("spawn")
    ports: Any = context.Queue()
    server = context.Process(target=_serve, args=(ports,), daemon=True)
    server.start()
    try:
        port = ports.get(timeout=60)
        judge = Judge(url=f"http://127.0.0.1:{port}/v1", cache=False, concurrency=CONCURRENCY)
        ideal = calls * LATENCY / CONCURRENCY
        ratios, bare = [], []
        for number in range(rounds + 1):
            cases = [Case("2+2=", f"{number} {i}") for i in range(calls)]
            start = time.perf_counter()
            scores, reasons = judge.judge(cases)
            ratios.append((time.perf_counter() - start) / ideal)
            if reasons or set(scores) != {0.7}:
                raise SystemExit(f"the judge failed: {next(iter(reasons.values()), scores[:3])}")
            bare.append(asyncio.run(_bare(port, calls)) / ideal)
        judge.close()
        return ratios[1:], bare[1:]  # the first round opens the judge's connections
    finally:
        server.terminate()
        server.join()


async def _bare(port: int, calls: int) -> float:
    """Returns the seconds in which the same number of prepared requests is answered."""
    body = b'{"messages": [{"content": "\\"tag\\": \\"00000000\\""}]}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    left = calls
    done = asyncio.get_running_loop().create_future()

    class Client(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def ask(self) -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                self.transport.write(request)
            elif left == -CONCURRENCY and not done.done():
                done.set_result(None)

        def data_received(self, data: bytes) -> None:
            self.ask()

    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(CONCURRENCY)]
    start = time.perf_counter()
    for client in clients:
        client.ask()
    await done
    taken = time.perf_counter() - start
    for client in clients:
        client.transport.abort()
    return taken


def _serve(ports: Any) -> None:
    """A server in a process of its own that answers each request after the latency."""
    loop = asyncio.new_event_loop()
    tag = re.compile(rb'\\"tag\\": \\"([0-9a-f]{8})')
    length = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.buffer = transport, b""

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            while (head := self.buffer.find(b"\r\n\r\n")) >= 0:
                found = length.search(self.buffer, 0, head + 2)
                end = head + 4 + (int(found[1]) if found else 0)
                if len(self.buffer) < end:
                    return
                request, self.buffer = self.buffer[:end], self.buffer[end:]
                if request.startswith(b"GET"):
                    self.answer({"data": [{"id": "judge"}]})
                    continue
                asked = tag.search(request)
                reply = json.dumps({"tag": asked[1].decode() if asked else "", "score": 7})
                loop.call_later(LATENCY, self.answer, {"choices": [{"message": {"content": reply}}]})

        def answer(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)

    server = loop.run_until_complete(loop.create_server(Connection, "127.0.0.1", 0))
    ports.put(server.sockets[0].getsockname()[1])
    loop.run_forever()


if __name__ == "__main__":
    main()
