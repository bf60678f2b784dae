"""A Llama with wider heads says exactly what it said."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.models.loading import DATA, load_model
from treegym.models.local.wider_heads import with_wider_heads


@pytest.mark.parametrize(("name", "width"), [("tiny-primary", 32), ("tiny-llama", 32), ("tiny-primary", 80)])
def test_the_model_is_the_same(tmp_path, name, width):
    own = load_model(name, device="cpu")
    wide = load_model(str(with_wider_heads(DATA / name, tmp_path / "wide", head_dim=width)), device="cpu")
    assert wide.config.head_dim == width
    contexts = np.random.default_rng(0).integers(2, 24, size=(6, 40)).tolist()
    np.testing.assert_allclose(wide.next_logprobs(contexts), own.next_logprobs(contexts), atol=1e-4)


@pytest.mark.parametrize(("name", "width"), [("tiny-gpt2", 32), ("tiny-primary", 8), ("tiny-primary", 33)])
def test_what_cannot_be_widened_is_a_sentence(tmp_path, name, width):
    with pytest.raises(ConfigError, match="widened"):
        with_wider_heads(DATA / name, tmp_path / "wide", head_dim=width)
