"""What is chosen where vLLM or CUDA are not at hand, and the sentence that says what is missing."""

from __future__ import annotations

import importlib.util

import pytest

from treegym.errors import ConfigError, MissingDependency
from treegym.models.loading import choose_attention
from treegym.models.vllm_model import VllmModel, engine_options


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


def test_attention_by_device_and_precision():
    has_flash = importlib.util.find_spec("flash_attn") is not None
    assert choose_attention("auto", device="cpu", dtype="float32") == "sdpa"
    assert choose_attention("auto", device="cuda", dtype="float32") == "sdpa"
    assert choose_attention("auto", device="cuda", dtype="bfloat16") == ("flash_attention_2" if has_flash else "sdpa")
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        choose_attention("flash_attention_2", device="cpu", dtype="float32")
