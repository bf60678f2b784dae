"""Cells of backends.py that run a server of their own: `treegym serve`, and growth through vLLM's."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from backends_decoding import made
from common import interleaved, median_ratio

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.models import tasks
from treegym.models.loading import DATA, load_model
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.local.wider_heads import with_wider_heads
from treegym.models.remote import RemoteModel
from treegym.tree.token_tree import Root, TokenTree

HERE = Path(__file__).resolve().parent
VLLM = Path(os.environ.get("TREEGYM_VLLM_VENV", HERE.parent / ".venvs" / "vllm")).resolve()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, timeout_s: float, **variables: str) -> Iterator[None]:
    """Runs a server until the block ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    if running.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        raise SystemExit(f"the server did not start:\n{log.read()[-3000:].decode()}") from None
                    time.sleep(0.3)
            yield
        finally:
            try:
                os.killpg(running.pid, signal.SIGTERM)
                running.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                running.kill()
                running.wait()


# ---------------------------------------------------------------- treegym serve


def save(model: TransformersModel, directory: Path) -> Path:
    model.model.save_pretrained(directory)
    model.tokenizer.save(directory / "tokenizer.json")  # type: ignore[attr-defined]
    return directory


def step_seconds(root: str) -> float:
    """Returns the seconds the server's model has worked so far."""
    text = urllib.request.urlopen(f"{root}/metrics", timeout=5).read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("treegym_step_seconds_sum")))


async def throughput(url: str, prompts: list[list[int]], tokens: int, concurrency: int) -> float:
    """Returns requests a second."""
    gate = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:

        async def one(prompt: list[int]) -> None:
            body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stop_token_ids": []}
            async with gate:
                (await client.post(f"{url}/completions", json=body)).raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*(one(prompt) for prompt in prompts))
        return len(prompts) / (time.perf_counter() - started)


def latencies_over_model(root: str, port: int, prompts: list[list[int]]) -> np.ndarray:
    """Returns seconds that single requests took over what the model itself took for them, by a lean client."""
    over = []
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for prompt in prompts:
        body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0})
        before, started = step_seconds(root), time.perf_counter()
        client.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = client.getresponse()
        content = response.read()
        took = time.perf_counter() - started
        assert response.status == 200, content
        over.append(took - (step_seconds(root) - before))
    client.close()
    return np.array(over)


def serve_cell(quick: bool, max_wait_ms: float = 5.0) -> dict[str, Any]:
    model = made(8, 384)
    tokens = 4 if quick else 16
    rng = np.random.default_rng(2)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        directory = save(model, Path(folder) / "model")
        command = [sys.executable, "-m", "treegym", "serve", str(directory), "--port", str(port), "--offline"]
        command += ["--device", "cpu", "--max-batch-size", "32", "--max-wait-ms", str(max_wait_ms)]
        with process(command, port, 120.0, PYTHONPATH=str(HERE.parent)):
            root = f"http://127.0.0.1:{port}"

            def prompts(count: int) -> list[list[int]]:
                return rng.integers(2, 24, size=(count, 16)).tolist()

            def rate(count: int, concurrency: int) -> float:
                return asyncio.run(throughput(f"{root}/v1", prompts(count), tokens, concurrency))

            rate(4, 4)
            rounds = 1 if quick else 5
            pairs = [(rate(8 if quick else 16, 1), rate(32 if quick else 128, 32)) for _ in range(rounds)]
            over = latencies_over_model(root, port, prompts(10 if quick else 200))
    return {
        "serve": model.name,
        "one_at_a_time_per_s": statistics.median(a for a, _ in pairs),
        "concurrency_32_per_s": statistics.median(b for _, b in pairs),
        "speedup": statistics.median(b / a for a, b in pairs),
        "max_wait_ms": max_wait_ms,
        "p50_over_model_ms": float(np.quantile(over, 0.5) * 1e3),
        "p99_over_model_ms": float(np.quantile(over, 0.99) * 1e3),
    }


# ---------------------------------------------------------------- growth through vLLM


def same_tree(one: TokenTree, other: TokenTree) -> bool:
    return one.size == other.size and bool((one.token == other.token).all() and (one.parent == other.parent).all())


def vllm_times(
    quick: bool,
    home: TransformersModel,
    prompts: list[Root],
    settings: GrowSettings,
    url: str,
    folder: Path,
    trees: dict[str, TokenTree],
) -> dict[str, list[float]]:
    """Measures growth through a running server; the trees grown last are left in `trees`."""
    shared: dict[str, Any] = {"tokenizer": home.tokenizer, "embedder": home, "name": home.name}
    batched = RemoteModel(url, **shared)
    single = RemoteModel(url, prompts_per_request=1, concurrency=1, **shared)
    for model in (batched, single):
        model.fingerprint()

    def run(name: str, model: Any) -> None:
        out = folder / f"{name}.tree"
        trees[name] = grow(prompts, primary=model, teachers=[], out=out, settings=settings, overwrite=True)

    contestants = {"batched": lambda: run("batched", batched), "single": lambda: run("single", single)}
    return interleaved(
        {**contestants, "home": lambda: run("home", home)},
        rounds=1 if quick else 3,
    )


def vllm_cell(quick: bool) -> dict[str, Any]:
    home = load_model("tiny-primary", device="cpu")
    settings = GrowSettings(right=8, wrong=8, max_nodes=60 if quick else 150)
    prompts = [Root(p.prompt, p.answer, kind=p.kind) for p in tasks.problems("forge", 2 if quick else 4, seed=0)]
    port = free_port()
    trees: dict[str, TokenTree] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory = with_wider_heads(DATA / "tiny-primary", Path(folder) / "tiny-primary")
        command = [str(HERE.parent / "scripts" / "serve_vllm_cpu.sh"), str(directory), str(port)]
        command += ["--skip-tokenizer-init", "--served-model-name", "tiny-primary", "--max-num-seqs", "128"]
        command.append("--enforce-eager")  # compiling takes minutes, and both contestants ask the same server
        with process(command, port, 600.0, VLLM_VENV=str(VLLM)):
            times = vllm_times(quick, home, prompts, settings, f"http://127.0.0.1:{port}/v1", Path(folder), trees)
    return {
        "vllm_growth": home.name,
        "nodes": trees["home"].size,
        "single_s": statistics.median(times["single"]),
        "batched_s": statistics.median(times["batched"]),
        "home_s": statistics.median(times["home"]),
        "speedup": median_ratio(times["single"], times["batched"]),
        "same_tree": same_tree(trees["home"], trees["batched"]) and same_tree(trees["home"], trees["single"]),
    }
