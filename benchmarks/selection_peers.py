"""`treegym optimize` against tools used by hand: torch.compile, ONNX Runtime, OpenVINO, bf16, dynamic int8.

On modules of a dozen kinds (`selection_kinds.py`), one thread, CPU time, within an error of 1 %: the fastest peer that
keeps the limit, and what `treegym optimize` delivers, are measured against each other, call by call in turn. Costs are
CPU seconds from the module to the measured result; ours tries everything, a peer is charged for itself alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import emit, table
from selection_kinds import KINDS
from torch import Tensor, nn

from treegym.optimization import create_hybrid_optimization_core
from treegym.optimize import worker
from treegym.optimize.measure import measure, warm_up_process
from treegym.optimize.measurement import MeasureSettings
from treegym.optimize.strategies import load

LIMIT = 0.01
PEERS = ("torch.compile", "bf16", "int8 dynamic", "onnxruntime", "openvino", "openvino bf16")


class ByHand(nn.Module):
    """What a function makes of tensors, in the structure of the module's output."""

    def __init__(self, run: Callable[..., list[Tensor]], output: Any) -> None:
        super().__init__()
        self.run, self.names = run, list(output) if isinstance(output, dict) else None

    def forward(self, *args: Tensor) -> Any:
        found = self.run(*args)
        return found[0] if self.names is None else dict(zip(self.names, found, strict=True))


def peer(name: str, module: nn.Module, x: tuple[Tensor, ...]) -> nn.Module:
    """Returns what a tool makes of a module, as its documentation has it."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        output = module(*x)
    if name == "torch.compile":
        return torch.compile(module)  # type: ignore[return-value]
    if name == "bf16":
        module = module.bfloat16()

        def run(*args: Tensor) -> list[Tensor]:
            out = module(*(one.bfloat16() if one.is_floating_point() else one for one in args))
            return [one.float() for one in (out.values() if isinstance(out, dict) else [out])]

        return ByHand(run, output)
    if name == "int8 dynamic":
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear, nn.LSTM, nn.GRU}, dtype=torch.qint8)
    if name == "onnxruntime":
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            torch.onnx.export(module, x, dynamo=True, verbose=False).save(f"{folder}/model.onnx")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
        inputs = [one.name for one in session.get_inputs()]
        return ByHand(
            lambda *args: [
                torch.from_numpy(one)
                for one in session.run(None, {key: arg.numpy() for key, arg in zip(inputs, args, strict=True)})
            ],
            output,
        )
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_PRECISION_HINT"] = "bf16" if name.endswith("bf16") else "f32"
    compiled = openvino.compile_model(openvino.convert_model(module, example_input=x), "CPU", settings)
    return ByHand(lambda *args: [torch.from_numpy(one) for one in compiled([a.numpy() for a in args]).values()], output)


def spent() -> float:
    """Returns the CPU seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def best_peer(module: nn.Module, inputs: Callable[[int], Any], settings: MeasureSettings) -> dict[str, Any]:
    """Returns the fastest peer within the limit, its speed over the original and its cost."""
    found: dict[str, Any] = {"peer": "the original", "speed": 1.0, "seconds": 0.0}
    for name in PEERS:
        start = spent()

        def work(name: str = name) -> dict[str, Any]:
            return measure(module, peer(name, module, inputs(0)), inputs, settings).as_dict()

        outcome = worker.run(work, worker.Limits(300.0))
        if outcome.result is None:
            print(f"  {name}: {outcome.reason}", flush=True)
            continue
        speed, kept = outcome.result["speed"]["value"], outcome.result["accuracy"]["low"]
        seconds = spent() - start
        print(f"  {name}: {speed:.2f}x, keeps {kept:.4f}, {seconds:.1f} s", flush=True)
        if 1.0 - kept <= LIMIT and speed > found["speed"]:
            found = {"peer": name, "speed": speed, "seconds": seconds}
    return found


def contest(kind: str, *, quick: bool) -> dict[str, Any]:
    """Compares on one kind of module."""
    torch.manual_seed(0)
    build, inputs = KINDS[kind]
    module = build().eval().requires_grad_(False)
    settings = MeasureSettings(max_seconds=0.3 if quick else 1.0)
    rival = best_peer(module, inputs, settings)
    start = spent()
    core = create_hybrid_optimization_core(
        {
            "objective_weights": {"speed": 1.0}, "max_accuracy_drop": LIMIT, "enable_adaptive_hybrid": False,
            "seconds_per_candidate": settings.max_seconds, "max_iterations": 3 if quick else 8, "timeout": 300.0,
            "processes": 1,
        }
    )  # fmt: skip
    ours, result = core.hybrid_optimize_module(module, inputs)
    seconds = spent() - start

    def work() -> dict[str, Any]:
        other = module if rival["peer"] == "the original" else peer(rival["peer"], module, inputs(0))
        return measure(other, ours, inputs, settings).as_dict()["speed"]

    outcome = worker.run(work, worker.Limits(300.0))
    if outcome.result is None:
        raise RuntimeError(f"{kind}: the two could not be measured against each other: {outcome.reason}")
    row = {
        "kind": kind, "peer": rival["peer"], "peer_speed": rival["speed"], "ours": result["selected_strategy"],
        "our_speed": result["performance_metrics"]["speed_improvement"]["value"], "ratio": outcome.result["value"],
        "low": outcome.result["low"], "high": outcome.result["high"], "peer_seconds": rival["seconds"],
        "our_seconds": seconds, "error": result["performance_metrics"]["output_error"],
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two kinds, rough figures")
    parser.add_argument("--kinds", nargs="*", metavar="KIND", help=f"these only: {', '.join(KINDS)}")
    parser.add_argument(
        "--out", type=Path, help="write each kind's row here as it comes; kinds that are there are kept"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    warm_up_process()
    load("openvino").missing()  # imports it without its telemetry, whose threads would count as helpers
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out and args.out.exists() else []
    for kind in args.kinds or (["mlp", "conv_net"] if args.quick else list(KINDS)):
        if kind in {row["kind"] for row in rows}:
            continue
        print(kind, flush=True)
        rows.append(contest(kind, quick=args.quick))
        if args.out:
            args.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ratios = [row["ratio"] for row in rows]
    print(table(rows))
    emit(
        "selection_peers",
        {
            "ours_over_best_peer": math.exp(statistics.fmean(math.log(one) for one in ratios)),
            "ours_over_best_peer_lowest": min(ratios),
            "more_seconds_than_the_peer": max(row["our_seconds"] - row["peer_seconds"] for row in rows),
        },
        rows,
    )


if __name__ == "__main__":
    main()
