"""OpenVINO: the module's ONNX graph, in float32 or bf16, and with static int8 layers (`treegym.optimize.quantise`).

OpenVINO reads ONNX itself, recurrent layers as one operation each; its converter from PyTorch unrolls those. Its tool
for int8 (nncf) rounds every layer; with ranges fitted here and layers chosen by their measured errors the same kernels
stay within limits that it breaks.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import torch
from torch import nn

from treegym.errors import MissingDependency, require
from treegym.optimize.engines import Files, Run
from treegym.optimize.quantise import error_of, fine_tune, quantised
from treegym.optimize.strategies import onnx_runtime
from treegym.optimize.strategies.base import Arguments, Cast

__all__ = ["BF16", "Int8", "Mixed", "Strategy", "Tuned"]


class Strategy(onnx_runtime.Strategy):
    """Runs the module in OpenVINO, float32."""

    precision = "f32"
    needs = ("onnx", "onnxscript", "openvino")
    extra = "openvino"

    def missing(self) -> str:
        # OpenVINO reports every import over the network; without this package it does not
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        return super().missing()

    def start(self, files: Files, threads: int) -> Run:
        if reason := self.missing():
            raise MissingDependency(reason)
        openvino = require("openvino", extra="openvino", purpose="running a module in OpenVINO")
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
        }  # fmt: skip
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(files[onnx_runtime.MODEL]), "CPU", settings)
        request = compiled.create_infer_request()
        outputs = range(len(compiled.outputs))

        def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
            found = request.infer(arrays, share_inputs=True)
            return [found[i] for i in outputs]

        return run


class BF16(Strategy):
    """Computes in bf16 what OpenVINO has bf16 kernels for."""

    precision = "bf16"


class Int8(Strategy):
    """Every layer in int8."""

    program = "int8"

    def prepared(self, module: nn.Module, sample: Arguments) -> nn.Module:
        return quantised(module, sample, self.given, every=True)


class Mixed(BF16):
    """Each layer in int8 or bf16, by the error that it makes alone; everything between them in bf16."""

    program = "mixed"

    def prepared(self, module: nn.Module, sample: Arguments) -> nn.Module:
        bf16 = min(self.bf16_error(module, sample), self.given.limit / 2)  # PyTorch's sums lose more than OpenVINO's
        return quantised(module, sample, self.given, every=False, already=bf16)

    def bf16_error(self, module: nn.Module, sample: Arguments) -> float:
        """Returns the error of the module in bf16, by PyTorch; 0 where that has no such kernels."""
        try:
            return error_of(
                module, Cast(copy.deepcopy(module).bfloat16(), torch.bfloat16, torch.float32), sample, self.given
            )
        except RuntimeError:
            return 0.0


class Tuned(BF16):
    """Every layer in int8, trained for a few hundred steps to give the module's outputs."""

    program = "tuned"
    steps = 300

    def prepared(self, module: nn.Module, sample: Arguments) -> nn.Module:
        made = quantised(module, sample, self.given, every=True)
        fine_tune(module, made, sample, self.given, steps=self.steps)
        return made
