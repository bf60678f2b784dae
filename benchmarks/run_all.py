"""Runs every benchmark and writes docs/benchmarks.md: what was measured, what it must reach, when and on what.

    python benchmarks/run_all.py                      all of them, in full (hours)
    python benchmarks/run_all.py --quick env_steps    some of them, roughly
    python benchmarks/run_all.py --read steps.txt     take over what full runs have printed elsewhere

A benchmark that fails, or whose peer is absent, is listed as such; figures of earlier runs of the others are kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import PEER_ABSENT

from treegym.files import atomic_write

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
STORE = HERE.parent / "docs" / "benchmarks.json"

# benchmark: {key: what it must reach}; a leading < means at most, .. a range, no entry: only reported
BARS: dict[str, dict[str, str]] = {
    "env_steps": {
        "steps_per_s_64": "1e6", "steps_per_s_1024": "4e6", "steps_per_s_4096": "4e6", "over_memcpy_1024": "<8",
        "over_memcpy_4096": "<4", "single_vs_trivial": "0.7",
    },
    "tree_scale": {
        "bytes_per_node": "<64", "open_ms_1e7": "<100", "open_rss_mb_1e7": "<100", "step_cost_growth_1e4_1e6": "<1.5",
        "backward_nodes_per_s": "2e7",
    },
    "scale": {
        "ray_overhead": "<1.10", "speedup_4_nodes": "3.7", "model_error": "<0.20", "open_ms_1e9": "<1000",
        "open_mb_1e9": "<200", "step_ratio_in_a_tree": "<1.3", "step_ratio_in_two_trees": "<1.3",
    },
    "scale_model": {},
    "growth": {"scoring_speedup": "5", "growing_speedup": "5", "cost_growth_100_2000": "<1.3"},
    "teachers": {
        "any_teacher_accuracy": "0.95", "primary_accuracy": "0.30..0.50", "best_single_teacher": "<0.60",
        "best_unlearned_baseline": "<0.70", "tree_reachable": "0.95",
    },
    "rewards": {"six_terms_overhead": "<1.10", "judge_over_ideal": "<1.5"},
    "search_speed": {
        "worst_ratio_b256": "5", "worst_ratio_b64": "5", "worst_ratio_b8": "2", "worst_ratio_b1": "1.2",
        "closed_sims_per_s": "6e6", "two_core_speedup": "1.7", "over_c": "<1.5", "cost_growth_128_12800": "<2",
        "bytes_per_slot": "<20", "bytes_per_node": "<32", "model_overhead": "<0.05",
        "bytes_per_node_1e6": "<200", "throughput_1e6_over_1e4": "0.5", "plain_b1_vs_lightzero": "1.2",
        "torch_b1_vs_mctx": "0.8", "mlp256_b64_vs_peer": "2.5", "torch_share_outside_828k": "<0.08",
    },
    "search_quality": {},
    "real_training": {"train_vs_trl": "2", "train_memory_vs_trl": "<0.5"},
    "train_speed": {"ppo_vs_maskable_ppo": "3", "ppo_vs_sb3_cartpole": "1.5"},
    "learning": {
        "gap_closed_alphazero": "0.75", "gap_closed_ppo": "0.6", "gap_closed_dapo": "0.6", "gap_closed_vapo": "0.6",
    },
    "elsewhere": {
        "connect_four_search_32": "0.95", "connect_four_search_512": "0.95", "cartpole_solved": "1",
        "cartpole_worst_gain": "0",
        "frozen_lake_8x8_worst_gain": "-0.02", "taxi_worst_gain": "0", "eight_puzzle_worst_gain": "0",
        "key_door_worst_gain": "0", "connect_four_worst_gain": "0",
    },
    "selection": {
        "evaluations_vs_random": "<0.5", "live_speedup": "1.5", "live_error": "<0.01", "rank_agreement": "0.9",
    },
    "lm_learning": {
        "gain_ppo": "2.0", "gain_dapo": "2.0", "gain_vapo": "2.0", "accuracy_distilled": "0.90",
        "forgetting_ewc": "<0.5", "forgetting_si": "<0.5",
    },
    "merging": {"gain_slerp_low": "0", "gain_task_arithmetic_low": "0", "gain_ties_low": "0", "gain_dare_low": "0"},
    "lm_train_speed": {
        "vs_trl_108k": "2", "vs_trl_800k": "2", "memory_vs_trl_108k": "<1", "memory_vs_trl_800k": "<1",
        "cost_per_token_256_over_16": "<2",
    },
    "tree_advantages": {},
    "tree_packing": {
        "packed_over_sequences_2": "1.4", "packed_over_sequences_4": "2.8", "packed_over_sequences_8": "5.6",
    },
    "compute": {"controller_gap_closed": "0.5", "steps_per_s_1024": "1e6"},
    "backends": {
        "vllm_growth_speedup": "5", "tree_cache_speedup": "3", "speculative_speedup": "1.5", "serve_speedup": "4",
        "speculative_acceptance": "0.60", "serve_p99_over_model_ms": "<5",
    },
}  # fmt: skip


def reached(value: float, bar: str) -> bool:
    """Returns whether a figure reaches its bar."""
    if bar.startswith("<"):
        return value <= float(bar[1:])
    if ".." in bar:
        low, high = (float(end) for end in bar.split(".."))
        return low <= value <= high
    return value >= float(bar)


def run(name: str, *, quick: bool) -> dict[str, Any]:
    """Runs one benchmark; returns its closing JSON object, or what went wrong."""
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode == PEER_ABSENT:
        return {"problem": "a peer to compare with is not installed; see `make peers`"}
    if done.returncode:
        return {"problem": f"ended with exit code {done.returncode}"}
    return closing_object(done.stdout, quick=quick)


def closing_object(printed: str, *, quick: bool) -> dict[str, Any]:
    """Returns the JSON object that a benchmark's output ends with, or what is wrong with it."""
    try:
        result: Any = json.loads(printed.strip().splitlines()[-1])
    except (ValueError, IndexError):
        result = None
    if not isinstance(result, dict) or not {"benchmark", "figures", "machine"} <= result.keys():
        return {"problem": "its last line is not the JSON object that a benchmark closes with"}
    return {**result, "quick": quick, "date": datetime.now(UTC).date().isoformat()}


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the page of all results."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make benchmarks` (`python benchmarks/run_all.py`). Each figure is a median, each ratio taken in",
        "one run. A quick run is rough and says so.",
    ]
    for name in BARS:
        result = results.get(name)
        lines += ["", f"## {name}", ""]
        if result is None:
            lines.append("Not run yet.")
            continue
        if "problem" in result:
            lines.append(f"Not measured: {result['problem']}.")
            continue
        machine = result["machine"]
        kind = "a quick run" if result["quick"] else "a full run"
        lines += [f"{kind.capitalize()} on {result['date']}, {machine['processor']}, {machine['cores']} cores.", ""]
        lines += ["| figure | measured | must reach | |", "| --- | --- | --- | --- |"]
        for key, value in sorted(result["figures"].items()):
            bar = BARS[name].get(key)
            verdict = "" if bar is None else ("reached" if reached(value, bar) else "**short**")
            wanted = "" if bar is None else ("at most " + bar[1:] if bar.startswith("<") else bar.replace("..", " to "))
            lines.append(f"| {key} | {value:,.4g} | {wanted} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="which benchmarks (default: all)")
    parser.add_argument("--quick", action="store_true", help="smoke runs; figures are rough and marked so")
    parser.add_argument("--read", nargs="+", type=Path, default=[], metavar="FILE", help="outputs of full runs")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BARS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BARS)}")
    results: dict[str, Any] = json.loads(STORE.read_text(encoding="utf-8")) if STORE.is_file() else {}
    failed = 0
    known = []
    for path in args.read:
        try:
            result = closing_object(path.read_text(encoding="utf-8"), quick=False)
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
        if "problem" in result:
            parser.error(f"{path} holds no benchmark's output: {result['problem']}")
        if str(result["benchmark"]) not in BARS:
            parser.error(f"{path}: there is no benchmark {result['benchmark']!r}; there are {', '.join(BARS)}")
        known.append((result["benchmark"], result))
    names = args.names or ([] if args.read else list(BARS))
    for name, result in (*known, *((name, run(name, quick=args.quick)) for name in names)):
        failed += "problem" in result
        if "problem" not in result or name not in results:
            results[name] = {key: value for key, value in result.items() if key not in ("cells", "benchmark")}
        if "problem" in result:
            print(f"{name}: {result['problem']}", file=sys.stderr)
        atomic_write(STORE, json.dumps(results, indent=1, sort_keys=True) + "\n")
        atomic_write(PAGE, page(results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
