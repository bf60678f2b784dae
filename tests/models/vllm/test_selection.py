"""What is chosen where vLLM or CUDA are not at hand, and the sentence that says what is missing."""

from __future__ import annotations

import importlib.machinery
import importlib.util

import numpy as np
import pytest
import torch

from treegym.errors import BackendError, ConfigError, MissingDependency
from treegym.models.loading import choose_attention, choose_device, choose_dtype, load_model
from treegym.models.local.kv_cache import TreeCache
from treegym.models.local.vllm_model import VllmModel, engine_options
from treegym.models.tree_scores import Branches


def test_the_engine_tells_all_log_probabilities_and_caches_prefixes():
    options = engine_options()
    assert options["max_logprobs"] == -1
    assert options["enable_prefix_caching"]
    assert not options["enforce_eager"]  # CUDA graphs and compilation stay on
    assert options["dtype"] == "auto"  # bfloat16 on CUDA
    assert options["generation_config"] == "vllm"
    assert "max_model_len" not in options


def test_what_was_asked_for_is_passed_on():
    options = engine_options(dtype="bfloat16", max_length=64, cache_bytes=2**20, eager=True)
    assert (options["dtype"], options["max_model_len"]) == ("bfloat16", 64)
    assert (options["kv_cache_memory_bytes"], options["enforce_eager"]) == (2**20, True)
    with pytest.raises(ConfigError, match="dtype is 'int3'"):
        engine_options(dtype="int3")


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_there_is_an_install_command():
    with pytest.raises(MissingDependency, match=r'pip install "treegym\[vllm\]"'):
        VllmModel("tiny-primary")


@pytest.fixture(params=[True, False], ids=["flash-attn", "no flash-attn"])
def flash(request, monkeypatch):
    """Whether flash-attn seems to be installed; only its being there decides, it is not imported."""
    found = importlib.util.find_spec
    spec = importlib.machinery.ModuleSpec("flash_attn", None) if request.param else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: spec if name == "flash_attn" else found(name, *a))
    return request.param


@pytest.mark.parametrize(
    ("device", "dtype", "fits"),
    [
        ("cpu", "float32", False),
        ("cpu", "bfloat16", False),
        ("cuda", "float32", False),
        ("cuda", "bfloat16", True),
        ("cuda:1", "float16", True),
    ],
)
def test_attention_by_device_and_precision(flash, device, dtype, fits):
    assert choose_attention("auto", device=device, dtype=dtype) == ("flash_attention_2" if flash and fits else "sdpa")
    assert choose_attention("eager", device=device, dtype=dtype) == "eager"
    if not fits:
        with pytest.raises(ConfigError, match="needs a CUDA device and bfloat16 or float16"):
            choose_attention("flash_attention_2", device=device, dtype=dtype)


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed here")
def test_flash_attention_that_is_asked_for_and_missing_has_an_install_command():
    with pytest.raises(MissingDependency, match=r'pip install "treegym\[flash\]"'):
        choose_attention("flash_attention_2", device="cuda", dtype="bfloat16")


def test_precision_by_device():
    assert choose_dtype("auto", device="cpu") == "float32"
    assert choose_dtype("auto", device="cuda:1") == "bfloat16"
    assert choose_dtype("float16", device="cpu") == "float16"
    with pytest.raises(ConfigError, match="dtype is 'int3'"):
        choose_dtype("int3", device="cpu")


def test_device_by_what_is_there(monkeypatch):
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device(None) == expected
        assert choose_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="sees no CUDA device here"):
        choose_device("cuda:0")
    with pytest.raises(ConfigError, match="expected cpu, cuda or cuda:N"):
        choose_device("gpu")


def test_attention_without_tree_masks_scores_path_by_path():
    """What flash-attention brings about: the same scores without masks, and a sentence where masks are needed."""
    model = load_model("tiny-llama", device="cpu")
    tree = Branches(tuple(model.tokenizer.encode("12+3=")), np.array([3, 4, 5], np.int32), np.array([-1, 0, 0]))
    [by_masks] = model.score_trees([tree], best=3)
    model.supports_tree_attention = False
    [by_paths] = model.score_trees([tree], best=3)
    np.testing.assert_allclose(by_paths.logp, by_masks.logp, atol=1e-4)
    np.testing.assert_array_equal(by_paths.best_ids, by_masks.best_ids)
    with pytest.raises(BackendError, match="takes no tree masks; load it with sdpa"):
        TreeCache(model)
