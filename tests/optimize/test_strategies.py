"""Strategies on small modules: exact rewrites give the same outputs, others come close; the original is untouched."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from treegym.errors import ConfigError
from treegym.optimize import zoo
from treegym.optimize.candidates import Candidate, apply, combinations, parse
from treegym.optimize.graph import close
from treegym.optimize.memory import footprint, peak_allocation
from treegym.optimize.strategies import STRATEGIES, compatible, expand, load, ordered
from treegym.optimize.strategies.base import NotApplicable

EXACT = ("fold_batch_norm", "attention_fusion", "merge_projections", "fuse_activation", "workspaces", "inplace",
         "channels_last", "inference_mode")  # fmt: skip
MODULES = [name for name in zoo.ZOO if name != "language_model"]


@pytest.mark.parametrize("name", MODULES)
def test_exact_strategies_keep_the_output(name: str) -> None:
    module, x = zoo.build(name, 0), zoo.inputs(name, 0, 1)
    state = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        expected = module(*x)
    tried = 0
    for strategy in EXACT:
        try:
            optimised = apply(module, Candidate((strategy,)), zoo.inputs(name, 0, 0))
        except NotApplicable:
            continue
        tried += 1
        with torch.no_grad():
            for _ in range(2):  # buffers that are kept must not change the second answer
                assert close(expected, optimised(*[t.clone() for t in x])), strategy
    assert tried
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_attention_fusion_finds_many_hands() -> None:
    for name in ("encoder", "decoder", "encoder_decoder", "llama", "latent_attention", "moe", "two_tower"):
        optimised = apply(zoo.build(name, 0), parse("attention_fusion"), zoo.inputs(name, 0, 0))
        code = "".join(getattr(part, "code", "") for part in optimised.modules())
        assert "scaled_dot_product_attention" in code, name


class Additive(nn.Module):
    """Attention with an additive mask that is scaled after it is added: not what the kernel computes."""

    def __init__(self, *, scale_last: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("mask", torch.randn(5, 5))
        self.scale_last = scale_last

    def forward(self, x: Tensor) -> Tensor:
        scores, root = self.q(x) @ self.k(x).transpose(-2, -1), math.sqrt(8)
        scores = (scores + self.mask) / root if self.scale_last else scores / root + self.mask
        return torch.softmax(scores, dim=-1) @ self.v(x)


def test_attention_fusion_leaves_what_it_cannot_express() -> None:
    x = (torch.randn(2, 5, 8),)
    apply(Additive(scale_last=False), parse("attention_fusion"), x)
    with pytest.raises(NotApplicable):
        apply(Additive(scale_last=True), parse("attention_fusion"), x)


def test_merge_projections_merges_q_k_v() -> None:
    module, x = Additive(scale_last=False), (torch.randn(2, 5, 8),)
    optimised = apply(module, parse("merge_projections"), x)
    layers = [layer for layer in optimised.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [24]


def test_low_rank_keeps_a_rank_two_layer() -> None:
    layer = nn.Linear(32, 32)
    layer.weight.data = torch.randn(32, 2) @ torch.randn(2, 32)
    module, x = nn.Sequential(layer, nn.ReLU()), (torch.randn(4, 32),)
    optimised = apply(module, parse("low_rank"), x)
    assert footprint(optimised) < footprint(module) / 4
    with torch.no_grad():
        assert close(module(*x), optimised(*x), 0.2)


def test_structured_pruning_drops_a_quarter() -> None:
    module, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), (torch.randn(4, 8),)
    optimised = apply(module, parse("prune_structured"), x)
    sizes = [layer.out_features for layer in optimised.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [24, 4]
    assert module[0].out_features == 32


def test_unstructured_pruning_zeroes_a_fifth() -> None:
    module = nn.Sequential(nn.Linear(10, 10))
    optimised = apply(module, parse("prune_unstructured"), (torch.randn(2, 10),))
    assert int((optimised[0].weight == 0).sum()) == 20


def test_quantised_modules_are_smaller() -> None:
    module, x = zoo.build("mlp", 0), zoo.inputs("mlp", 0, 0)
    whole = footprint(module)
    for name, at_most, error in (
        ("int8_dynamic", 0.35, 0.05), ("int8_weights", 0.35, 0.05), ("bf16", 0.51, 0.05), ("bf16_linear", 0.51, 0.05),
        ("int4_weights", 0.35, 0.25), ("int8_weights+bf16", 0.30, 0.05), ("int8_weights+fp16", 0.30, 0.05),
        ("int4_weights+bf16", 0.30, 0.25), ("int4_weights+fp16", 0.30, 0.25),
    ):  # fmt: skip
        optimised = apply(module, parse(name), x)
        assert footprint(optimised) <= at_most * whole, name
        with torch.no_grad():
            assert close(module(*x), optimised(*x), error), name


def test_few_rows_take_the_other_kernel() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 48))
    optimised = apply(module, parse("int8_weights+bf16"), (torch.randn(2, 64),))
    with torch.no_grad():
        x = torch.randn(20, 64)
        assert close(optimised(x)[:2], optimised(x[:2]), 0.02)  # 20 rows unpack the weights first, 2 as they multiply
        assert close(module(x), optimised(x), 0.02)


def test_inplace_never_writes_into_the_input() -> None:
    module, x = nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.ReLU()), torch.randn(3, 4)
    optimised = apply(module, parse("inplace"), (x,))
    kept = x.clone()
    with torch.no_grad():
        optimised(x)
    assert torch.equal(x, kept)


def test_peak_allocation_sees_intermediate_results() -> None:
    module, x = nn.Sequential(nn.Linear(64, 1024, bias=False), nn.ReLU(), nn.Linear(1024, 4)), (torch.randn(32, 64),)
    with torch.no_grad():
        plain = peak_allocation(module, x)
        inplace = peak_allocation(apply(module, parse("inplace"), x), x)
    assert plain >= 2 * 32 * 1024 * 4  # the product and the activation live at once
    assert inplace < plain


def test_conflicts_and_order() -> None:
    assert not compatible(("bf16", "fp16"))
    assert not compatible(("fuse_activation", "int8_dynamic"))
    assert not compatible(("bf16", "bf16"))
    assert ordered(("bf16", "attention_fusion")) == ("attention_fusion", "bf16")
    assert all(compatible(candidate.strategies) for candidate in combinations(STRATEGIES, 2))
    assert parse("bf16+attention_fusion").name == "attention_fusion+bf16"
    with pytest.raises(ConfigError, match="exclude"):
        parse("bf16+fp16")
    with pytest.raises(ConfigError, match="Did you mean 'quantization'"):
        expand(["quantisation"])
    assert {"bf16", "int8_dynamic"} <= set(expand(["quantization"]))


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_loads_and_says_what_it_is(name: str) -> None:
    assert load(name).name == name
    assert STRATEGIES[name].summary


def test_zoo_is_seeded() -> None:
    first, second = zoo.build("cnn", 0).state_dict(), zoo.build("cnn", 0).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(zoo.inputs("cnn", 0, 1)[0], zoo.inputs("cnn", 0, 2)[0])
    with pytest.raises(ConfigError, match="Did you mean 'encoder'"):
        zoo.build("encoderr", 0)


@pytest.mark.slow
def test_compile_gives_the_same_output() -> None:
    module, x = zoo.build("mlp", 0), zoo.inputs("mlp", 0, 0)
    optimised = apply(module, parse("compile"), x)
    with torch.no_grad():
        assert close(module(*x), optimised(*x))
