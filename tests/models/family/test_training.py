"""Tests of training: the optimiser, resuming without a trace, and what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from treegym.errors import ConfigError, DataError
from treegym.models.family.cards import CARD, is_finished
from treegym.models.family.optimiser import Optimiser, orthogonalised
from treegym.models.family.specs import FAMILY, PRIMARY, ModelSpec, quick
from treegym.models.family.training import forge_model, learning_rate


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def tiny(spec: ModelSpec, steps: int = 6) -> ModelSpec:
    return replace(quick(spec), steps=steps, batch=8)


def test_orthogonalised_pushes_singular_values_towards_one() -> None:
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.allclose(orthogonalised(matrix.T), orthogonalised(matrix).T, atol=1e-5)


def test_first_adam_step_has_the_size_of_the_rate() -> None:
    # With zero moments m = (1-b1) g and v = (1-b2) g^2; corrected, m / sqrt(v) is the gradient's sign.
    layer = torch.nn.LayerNorm(3)
    optimiser = Optimiser(layer)
    layer.weight.grad = torch.tensor([0.1, -0.2, 0.0])
    layer.bias.grad = torch.tensor([0.3, 0.0, -0.01])
    optimiser.step(0.01)
    assert torch.allclose(layer.weight.detach(), torch.tensor([0.99, 1.01, 1.0]), atol=1e-5)
    assert torch.allclose(layer.bias.detach(), torch.tensor([-0.01, 0.0, 0.01]), atol=1e-5)
    assert layer.weight.grad is None


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(PRIMARY, step) for step in range(PRIMARY.steps)]
    assert rates[0] < rates[50] < rates[99]
    assert rates[99] > rates[PRIMARY.steps // 2] > rates[-1] > 0


@pytest.mark.parametrize("spec", FAMILY, ids=lambda spec: spec.name)
def test_every_role_and_architecture_is_trained_and_written(spec: ModelSpec, tmp_path: Path) -> None:
    losses: list[float] = []
    small = tiny(spec)
    card = forge_model(small, tmp_path, seed=3, progress=lambda step, loss: losses.append(loss))
    assert len(losses) == small.steps
    assert all(loss < 5 for loss in losses)  # about log(24) = 3.2 to begin with
    assert 0 <= card["validation"]["accuracy"] <= 1
    files = {path.name for path in (tmp_path / spec.name).iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", CARD}
    assert is_finished(tmp_path, small, seed=3)


def test_training_learns(tmp_path: Path) -> None:
    """A hundred steps teach even a tiny model what an answer looks like."""
    losses: list[float] = []
    forge_model(tiny(PRIMARY, steps=100), tmp_path, seed=0, progress=lambda step, loss: losses.append(loss))
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def test_an_interrupted_run_leaves_no_trace_in_the_result(tmp_path: Path) -> None:
    spec = tiny(PRIMARY, steps=110)  # a checkpoint and a snapshot after 100 steps

    def stop_at(limit: int) -> object:
        def progress(step: int, loss: float) -> None:
            if step == limit:
                raise KeyboardInterrupt

        return progress

    forge_model(spec, tmp_path / "whole", seed=1)
    for limit in (40, 105):
        with pytest.raises(KeyboardInterrupt):
            forge_model(spec, tmp_path / "parts", seed=1, progress=stop_at(limit))  # type: ignore[arg-type]
        assert not is_finished(tmp_path / "parts", spec, seed=1)
    steps: list[int] = []
    forge_model(spec, tmp_path / "parts", seed=1, progress=lambda step, loss: steps.append(step))
    assert steps == list(range(101, 111))
    for whole in (tmp_path / "whole" / spec.name).iterdir():
        assert whole.read_bytes() == (tmp_path / "parts" / spec.name / whole.name).read_bytes(), whole.name


def test_a_model_of_another_recipe_is_not_taken_for_this_one(tmp_path: Path) -> None:
    spec = tiny(PRIMARY)
    forge_model(spec, tmp_path, seed=0)
    with pytest.raises(ConfigError, match="another seed or recipe"):
        is_finished(tmp_path, spec, seed=1)
    (tmp_path / spec.name / CARD).write_text("{")
    with pytest.raises(DataError, match="not a model card"):
        is_finished(tmp_path, spec, seed=0)
