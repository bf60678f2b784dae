"""Dynamic int8 quantisation: weights int8 by channel, activations quantised at every call (CPU)."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from treegym.optimize.strategies.base import Arguments, HybridOptimizationStrategy, NotApplicable

__all__ = ["Strategy"]

_LAYERS = (nn.Linear, nn.LSTM, nn.GRU)


class Strategy(HybridOptimizationStrategy):
    """Quantises linear layers (a scale for every output channel) and LSTMs."""

    def apply(self, module: nn.Module, sample: Arguments) -> nn.Module:
        found = [layer for layer in module.modules() if type(layer) in _LAYERS]
        if not found or any(parameter.device.type != "cpu" for parameter in module.parameters()):
            raise NotApplicable("no linear or recurrent layer on a CPU")
        if any(parameter.dtype != torch.float32 for layer in found for parameter in layer.parameters()):
            raise NotApplicable("the layers' parameters are not float32")
        quantization = torch.ao.quantization
        plan = {nn.Linear: quantization.per_channel_dynamic_qconfig}
        for recurrent in (nn.LSTM, nn.GRU):
            plan[recurrent] = quantization.default_dynamic_qconfig
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation of the eager path, which is what works on every CPU
            return quantization.quantize_dynamic(module, plan, dtype=torch.qint8)
