"""Search speed: ours against the best of mctx's settings and LightZero's C++ tree, cell by cell; and on closed trees.

Every contestant plans with the same small network (`search_network`), the same discount and constants, without noise.
A peer's time is CPU time of its own process, taken in turn with ours; mctx's best setting is chosen per cell first
(two devices are two threads, so they cannot take less CPU time than one), and a peer that takes more than twice the
other's time is timed once.
"Ours" is `treegym.search.search` on a simulator with a compiled model; "protocol" is the same call on the same network
behind the plain NumPy protocol. Root visits are compared with mctx's in every cell before anything is timed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # one thread, before NumPy starts its own

import numpy as np  # noqa: E402
from common import cpu_seconds, emit, interleaved, median_ratio, parse, peer_absent, table  # noqa: E402
from search_c import c_search  # noqa: E402
from search_evaluators import plain_cells  # noqa: E402
from search_network import CompiledNetwork, random_roots, random_weights  # noqa: E402

from treegym.search import search, search_closed  # noqa: E402

DISCOUNT = 0.997
PEERS = Path(__file__).parents[1] / ".venvs" / "peers" / "bin" / "python"
HOW = "make peers (or see benchmarks/peers/README.md)"


class Peer:
    """A peer's worker process."""

    def __init__(self, name: str) -> None:
        """Starts the worker with the peers' interpreter."""
        self.name = name
        worker = Path(__file__).parent / "peers" / "worker.py"
        self.process = subprocess.Popen(
            [str(PEERS), str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, **cell: Any) -> dict[str, Any]:
        """Returns what one search took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"peer": self.name, **cell}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"absent": "the worker ended"}
        if "absent" in answer:
            peer_absent(f"{self.name} ({answer['absent']})", HOW)
        return answer

    def close(self) -> None:
        """Ends the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def compare(peers: dict[str, Peer], cell: dict[str, Any], rounds: int, limit: float = float("inf")) -> dict[str, Any]:
    """Returns a row: simulations/s of everyone in one cell, visit equality and the ratio.

    After `limit` seconds three rounds are enough.
    """
    batch, actions, simulations = cell["batch"], cell["actions"], cell["simulations"]
    weights = random_weights(actions)
    fused, plain = CompiledNetwork(weights), CompiledNetwork(weights, compiled=False)
    options = {
        "method": cell["method"],
        "num_simulations": simulations,
        "discount": DISCOUNT,
        "gumbel_scale": 0.0,
    }
    starts = {world: world.roots(batch) for world in (fused, plain)}

    def ours(world: CompiledNetwork) -> Any:
        return search(world, starts[world], **options)

    settings = ["batched"] + (["map"] if batch > 1 else []) + (["chunked"] if batch > 8 else [])
    seen = {setting: peers["mctx"].run(setting=setting, visits=True, **cell) for setting in settings}
    equal = float((np.asarray(seen["batched"]["visits"]) == ours(fused).visits).all(1).mean())
    best = min(settings, key=lambda setting: seen[setting]["seconds"])
    ours(plain)
    # repeated, so that caches are warm for everyone; ours oftener, so that all are timed for about as long
    repeat, often = (max(1, total // (batch * simulations)) for total in (20_000, 100_000))
    seconds: dict[str, Callable[[], float]] = {
        "ours": lambda: cpu_seconds(lambda: [ours(fused) for _ in range(often)]) / often,
        "protocol": lambda: cpu_seconds(lambda: [ours(plain) for _ in range(repeat)]) / repeat,
        "mctx": lambda: float(peers["mctx"].run(setting=best, repeat=repeat, **cell)["seconds"]),
        "lightzero": lambda: float(peers["lightzero"].run(setting="c++", repeat=repeat, **cell)["seconds"]),
    }
    peers["lightzero"].run(setting="c++", **cell)  # warm
    times = {name: [clock()] for name, clock in seconds.items()}
    ahead = min(times["mctx"][0], times["lightzero"][0])
    for name in ("mctx", "lightzero"):
        if times[name][0] > 2 * ahead:  # no rival in this cell: once is enough
            del seconds[name]
    start = time.monotonic()
    for done in range(rounds):
        if done >= 3 and time.monotonic() - start > limit:
            break
        for name, clock in seconds.items():
            times[name].append(clock())
    total = batch * simulations
    median = {name: statistics.median(values[1:] or values) for name, values in times.items()}
    rival = min(("mctx", "lightzero"), key=lambda name: median[name])
    return {
        **cell,
        **{f"{name}_ksims": total / taken / 1e3 for name, taken in median.items()},
        "mctx_setting": best,
        "best_peer": rival,
        "ratio": median_ratio(times[rival][1:], times["ours"][1:]),
        "ratio_protocol": median_ratio(times[rival][1:], times["protocol"][1:]),
        "visits_equal_mctx": equal,
        "rounds": len(times["ours"]) - 1,
    }


def closed_tree(roots: int, branching: int, depth: int) -> dict[str, Any]:
    """Returns a full random tree as flat arrays."""
    rng = np.random.default_rng(0)
    sizes = [roots * branching**d for d in range(depth + 1)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total = int(starts[-1])
    first, count = np.full(total, -1, np.int32), np.zeros(total, np.uint16)
    for d in range(depth):
        first[starts[d] : starts[d + 1]] = starts[d + 1] + branching * np.arange(sizes[d])
        count[starts[d] : starts[d + 1]] = branching
    terminal = rng.random(total) < 0.05
    terminal[starts[-2] :], terminal[:roots] = True, False

    def table_of() -> np.ndarray:
        return rng.normal(size=total).astype(np.float32)

    return {
        "first_child": first,
        "child_count": count,
        "terminal": terminal,
        "reward": table_of() * np.float32(0.3),
        "prior_logits": table_of(),
        "value": table_of(),
    }


def closed_figures(quick: bool) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measures whole searches on closed trees: speed, two threads, against C, and growth with simulations."""
    rounds = 7 if quick else 21
    world = closed_tree(256, 16, 2)
    starts = np.tile(np.arange(256), 4)

    def ours(simulations: int = 128, threads: int = 1, method: str = "puct") -> Any:
        return search_closed(**world, roots=starts, method=method, num_simulations=simulations, num_threads=threads)

    figures, cells = {}, []
    for method in ("puct", "gumbel", "uct"):
        times = interleaved({method: lambda method=method: ours(method=method)}, rounds=rounds, clock=cpu_seconds)  # type: ignore[misc]
        rate = len(starts) * 128 / statistics.median(times[method])
        cells.append({"what": f"closed tree, 16 children, 128 simulations, {method}", "sims_per_s": rate})
        if method == "puct":
            figures["closed_sims_per_s"] = rate
    in_c = c_search(world, starts, 128, 1.0)
    if in_c is not None:
        same = bool((in_c() == ours().visits).all())
        contestants: dict[str, Callable[[], object]] = {"ours": ours, "c": in_c}
        times = interleaved(contestants, rounds=rounds, clock=cpu_seconds)
        figures["over_c"] = median_ratio(times["ours"], times["c"])
        rate = len(starts) * 128 / statistics.median(times["c"])
        cells.append({"what": "the same in C -O3", "sims_per_s": rate, "visits_equal": same})
    wall = interleaved({"one": ours, "two": lambda: ours(threads=2)}, rounds=rounds)
    figures["two_core_speedup"] = median_ratio(wall["one"], wall["two"])
    deep = closed_tree(4, 8, 6)
    rates = {}
    for simulations in (128, 12_800):

        def run(simulations: int = simulations) -> Any:
            return search_closed(**deep, roots=np.arange(4), method="puct", num_simulations=simulations)

        times = interleaved({"run": run}, rounds=rounds, clock=cpu_seconds)
        idle = interleaved({"run": lambda: search_closed(**deep, roots=np.arange(4), method="puct", num_simulations=1)},
                           rounds=rounds, clock=cpu_seconds)  # fmt: skip
        rates[simulations] = (statistics.median(times["run"]) - statistics.median(idle["run"])) / (4 * simulations)
    figures["cost_growth_128_12800"] = rates[12_800] / rates[128]
    return figures, cells


def memory_figures() -> dict[str, float]:
    """Returns bytes per child slot and per node."""
    from treegym.search.tree import allocate, bytes_used

    slot, node = bytes_used(allocate(1, 2, 2))
    return {"bytes_per_slot": float(slot), "bytes_per_node": float(node)}


def large_session(quick: bool) -> dict[str, float]:
    """Returns what a session of many simulations takes: bytes per node (8 of them its state), and its pace.

    One root, 8 actions, 64 leaves per call, judged by tables; the pace at 1,000,000 simulations (100,000 in a smoke
    run) over that at 10,000, the best of three turns each.
    """
    from treegym.search import Evaluation, Options, Session, Transition

    rng = np.random.default_rng(0)
    logits, value = rng.normal(size=(4096, 8)).astype(np.float32), rng.normal(size=4096).astype(np.float32)

    class Tables:
        num_actions = 8

        def expand(self, states: np.ndarray) -> Any:
            return Evaluation(logits[states % 4096], value[states % 4096], np.ones((len(states), 8), np.bool_))

        def step(self, states: np.ndarray, actions: np.ndarray) -> Any:
            after = (states * 8 + actions + 1) * 2654435761 % (1 << 40)
            return Transition(after, np.zeros(len(states), np.float32), np.zeros(len(states), np.bool_))

    def run(simulations: int) -> tuple[Any, float]:
        session = Session(
            Tables(), np.array([1]), method="puct", num_simulations=simulations, options=Options(leaves=64)
        )
        return session, simulations / cpu_seconds(session.run)

    many = 100_000 if quick else 1_000_000
    run(1000)
    rates: dict[int, list[float]] = {10_000: [], many: []}
    for _ in range(3):
        for simulations in rates:
            rates[simulations].append(run(simulations)[1])
    before = _resident()
    kept = run(many)
    figures = {"bytes_per_node_1e6": (_resident() - before) / many}
    assert kept[0].calls > 1  # held until its memory was read
    return figures | {"throughput_1e6_over_1e4": max(rates[many]) / max(rates[10_000])}


def _resident() -> int:
    """Returns the memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def model_overhead(
    quick: bool, *, width: int = 384, layers: int = 6, tokens: int = 512, least: int = 10_000_000, batch: int = 8
) -> float:
    """Returns the share of time that search takes beside a language model of `least` parameters as evaluator."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    length, actions = 24, 16
    layer = torch.nn.TransformerEncoderLayer(width, width // 64, 4 * width, batch_first=True, dropout=0.0)
    body = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()
    embed, head = torch.nn.Embedding(tokens, width), torch.nn.Linear(width, actions + 1)
    assert sum(p.numel() for m in (body, embed, head) for p in m.parameters()) >= least
    inside = 0.0

    class World:
        num_actions = actions

        def expand(self, states: np.ndarray) -> Any:
            from treegym.search import Evaluation

            nonlocal inside
            start = time.process_time()
            with torch.inference_mode():
                out = head(body(embed(torch.from_numpy(states)))[:, -1]).numpy()
            inside += time.process_time() - start
            return Evaluation(out[:, :actions], np.tanh(out[:, actions]), np.ones((len(states), actions), np.bool_))

        def step(self, states: np.ndarray, chosen: np.ndarray) -> Any:
            from treegym.search import Transition

            after = np.roll(states, -1, axis=1)
            after[:, -1] = chosen
            return Transition(after, np.zeros(len(states), np.float32), np.zeros(len(states), np.bool_))

    world, shares = World(), []
    states = np.random.default_rng(0).integers(0, tokens, (batch, length))
    for _ in range(2 if quick else 6):
        inside = 0.0
        total = cpu_seconds(lambda: search(world, states, method="gumbel", num_simulations=16, leaves=1))
        shares.append((total - inside) / total)
    return statistics.median(shares[1:])


def tensor_cells(quick: bool) -> list[dict[str, Any]]:
    """Measures trees kept as tensors beside the network: on a GPU where there is one, else on the CPU, and says where.

    Wall-clock time, since what a GPU does takes no time of the processor.
    """
    import torch

    from treegym.search import Evaluation, Transition

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = [torch.from_numpy(part).to(device) for part in random_weights(8)]
    w, v, r, value, u, p = weights

    class Network:
        num_actions = 8

        def expand(self, states: Any) -> Any:
            return Evaluation(
                states @ p, (states @ value) / (1 + (states @ value).abs()), torch.ones_like(states[:, :8]) > 0
            )

        def step(self, states: Any, actions: Any) -> Any:
            hidden = (states @ w + u[actions]).relu()
            after = hidden @ v
            return Transition(after / (1 + after.abs()), hidden @ r, torch.zeros_like(after[:, 0]) > 0)

    cells = []
    for batch in (64, 256):
        roots = torch.from_numpy(random_roots(batch)).to(device)
        for method in ("puct", "gumbel"):

            def run(roots: Any = roots, method: str = method) -> Any:
                return search(
                    Network(), roots, method=method, num_simulations=32, discount=DISCOUNT, backend="torch"
                )  # its result is on the CPU: nothing of it is still under way

            run()
            times = interleaved({method: run}, rounds=2 if quick else 7)[method]
            name = torch.cuda.get_device_name() if device == "cuda" else "the CPU (no GPU at hand)"
            what = f"trees as tensors on {name}, batch {batch}, 8 actions, 32 simulations, {method}"
            cells.append({"what": what, "sims_per_s": batch * 32 / statistics.median(times)})
    return cells


def main() -> None:
    """Runs the benchmark."""
    arguments = parse(__doc__ or "")
    figures, cells = closed_figures(arguments.quick)
    cells += tensor_cells(arguments.quick)
    figures |= memory_figures() | large_session(arguments.quick)
    figures["model_overhead"] = model_overhead(arguments.quick)
    figures["torch_share_outside_828k"] = model_overhead(
        arguments.quick, width=128, layers=4, tokens=256, least=828_000, batch=1
    )
    print(table(cells), "\n")
    if not PEERS.exists():
        print(json.dumps(figures))
        peer_absent("the peers' environment", HOW)
    grid = [(1, 8, 32), (8, 32, 32), (64, 8, 32)] if arguments.quick else [
        (batch, actions, simulations)
        for batch in (1, 8, 64, 256)
        for actions in (8, 32)
        for simulations in (32, 128, 512)
    ]  # fmt: skip
    if hasattr(os, "sched_setaffinity"):  # left two cores, XLA splits large batches and takes twice the CPU time
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    peers = {name: Peer(name) for name in ("mctx", "lightzero")}
    found, plain = plain_cells(peers, arguments.quick)
    figures |= found
    cells += plain
    print(table(plain), "\n", flush=True)
    for peer in peers.values():
        peer.close()
    rows = []
    for batch, actions, simulations in grid:
        for method in ("puct", "gumbel"):
            cell = {"method": method, "batch": batch, "actions": actions, "simulations": simulations}
            peers = {name: Peer(name) for name in ("mctx", "lightzero")}
            rows.append(compare(peers, cell, 3 if arguments.quick else 10, limit=20.0))
            print(table(rows[-1:]), file=sys.stderr, flush=True)
            for peer in peers.values():
                peer.close()
    print(table(rows))
    for batch in sorted({row["batch"] for row in rows}, reverse=True):
        figures[f"worst_ratio_b{batch}"] = min(row["ratio"] for row in rows if row["batch"] == batch)
    figures["visits_equal_mctx"] = statistics.mean(row["visits_equal_mctx"] for row in rows)
    print(table([{"figure": name, "value": value} for name, value in figures.items()]))
    emit("search_speed", figures, [*cells, *rows])


if __name__ == "__main__":
    main()
