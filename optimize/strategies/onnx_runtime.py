"""ONNX Runtime: the module as an ONNX graph, in float32, with dynamic int8 products, or with static int8 layers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from treegym.errors import require
from treegym.optimize.engines import BackEnd, Files, Run, exported
from treegym.optimize.quantise import quantised
from treegym.optimize.strategies.base import Arguments, NotApplicable, tensors_of

__all__ = ["MODEL", "Dynamic", "Static", "Strategy", "onnx_graph"]

MODEL = "model.onnx"  # the file of a program


class Strategy(BackEnd):
    """Runs the module in ONNX Runtime, float32."""

    needs = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    program = "float"

    def build(self, module: nn.Module, sample: Arguments) -> Files:
        graph = onnx_graph(exported(self.prepared(module, sample), sample, self.given))
        taken, wanted = len(graph.graph.input), len(tensors_of(sample))
        if taken != wanted:
            raise NotApplicable(f"the ONNX graph takes {taken} of {wanted} inputs")
        return {MODEL: self.changed(graph).SerializeToString()}

    def prepared(self, module: nn.Module, sample: Arguments) -> nn.Module:
        """Returns the module that is exported."""
        return module

    def changed(self, graph: Any) -> Any:
        """Returns the graph that is run."""
        return graph

    def start(self, files: Files, threads: int) -> Run:
        runtime = require("onnxruntime", extra="onnx", purpose="running a module in ONNX Runtime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        session = runtime.InferenceSession(files[MODEL], options, providers=["CPUExecutionProvider"])
        session._model_bytes = None  # it would keep the program a second time, to start anew with other providers
        names = [one.name for one in session.get_inputs()]

        def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
            found: list[np.ndarray] = session.run(None, dict(zip(names, arrays, strict=True)))
            return found

        return run


class Dynamic(Strategy):
    """Products in int8, their inputs quantised at every call."""

    program = "dynamic"

    def changed(self, graph: Any) -> Any:
        onnx = require("onnx", extra="onnx", purpose="quantising an ONNX graph")
        quantization = require("onnxruntime.quantization", extra="onnx", purpose="quantising an ONNX graph")
        with tempfile.TemporaryDirectory() as name:  # the tool works on files
            before, after = Path(name) / "before.onnx", Path(name) / "after.onnx"
            before.write_bytes(graph.SerializeToString())
            quantization.quantize_dynamic(before, after, per_channel=True)
            return onnx.load(str(after))


class Static(Strategy):
    """Layers in int8 as far as the limit on the error has room, inputs rounded to ranges seen on given inputs."""

    program = "static"

    def prepared(self, module: nn.Module, sample: Arguments) -> nn.Module:
        return quantised(module, sample, self.given, every=False)


def onnx_graph(program: torch.export.ExportedProgram) -> Any:
    """Returns an exported module as an ONNX model; raises NotApplicable where the converter has no counterpart."""
    require("onnx", extra="onnx", purpose="making an ONNX graph")
    require("onnxscript", extra="onnx", purpose="making an ONNX graph")
    try:
        made = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:  # the converter's own classes, which are not public
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise NotApplicable(f"the module cannot be made an ONNX graph ({reason[0][:200]})") from error
    if made is None:
        raise NotApplicable("the module cannot be made an ONNX graph")
    graph = made.model_proto
    for node in (*graph.graph.node, *(node for one in graph.functions for node in one.node)):
        del node.metadata_props[:]  # where in the user's source it comes from
    return graph
