"""What modules are said to be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from treegym.optimize import zoo
from treegym.optimize.features import describe, kind_of


@pytest.mark.parametrize("name", [name for name in zoo.ZOO if name != "language_model"])
def test_kinds_of_the_zoo(name: str) -> None:
    assert kind_of(zoo.build(name, 0)) == zoo.ZOO[name].kind


def test_description_by_hand() -> None:
    module = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
    found = describe(module, (torch.zeros(3, 4),))
    assert found["log_linear"] == pytest.approx(math.log(3))  # two linear layers
    assert found["log_parameters"] == pytest.approx(math.log10(1 + 48))
    assert found["log_flops"] == pytest.approx(math.log10(1 + 2 * 3 * 48))  # a multiply and an add, three rows
    assert found["widest_linear"] == pytest.approx(math.log2(9))
    assert found["linear_share"] == 1.0
    assert found["attention"] == 0.0
