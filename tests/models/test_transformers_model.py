"""The transformers back end against transformers itself, and its answers to unusable directories."""

import json

import numpy as np
import pytest
import torch

from treegym.errors import ConfigError, DataError, MissingDependency
from treegym.models.base import LanguageModel
from treegym.models.loading import choose_attention, load_model
from treegym.models.tokens.char_tokenizer import CharTokenizer

CONTEXTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9, 10]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma3"])
def test_next_logprobs_equal_the_library_row_by_row(family, make_model) -> None:
    model = make_model(family, batch_tokens=10)
    assert isinstance(model, LanguageModel)
    ours = model.next_logprobs(CONTEXTS)
    for row, context in enumerate(CONTEXTS):
        with torch.inference_mode():
            logits = model.model(input_ids=torch.tensor([context])).logits[0, -1]
        np.testing.assert_allclose(ours[row], torch.log_softmax(logits, -1).numpy(), atol=1e-4)
    ids, values = model.top_logprobs(CONTEXTS, 3)
    np.testing.assert_allclose(values, -np.sort(-ours, axis=1)[:, :3], atol=1e-5)
    assert ids[0, 0] == ours[0].argmax()


def test_score_equals_the_chain(make_model) -> None:
    model = make_model("qwen3")
    continuations = [[4, 5], [], [6, 1, 7]]
    scores = model.score(CONTEXTS, continuations)
    assert [len(s) for s in scores] == [2, 0, 3]
    for context, continuation, score in zip(CONTEXTS, continuations, scores, strict=True):
        for position, token in enumerate(continuation):
            expected = model.next_logprobs([[*context, *continuation[:position]]])[0, token]
            assert score[position] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_greedy_generation_equals_stepwise_argmax(family, make_model) -> None:
    model = make_model(family, window=4, batch_tokens=40)
    for context, made in zip(CONTEXTS, model.generate(CONTEXTS, max_new_tokens=9), strict=True):
        expected: list[int] = []
        while len(expected) < 9 and (not expected or expected[-1] != model.tokenizer.eos_id):
            expected.append(int(model.next_logprobs([[*context, *expected]])[0].argmax()))
        assert made == expected


def test_stop_ids_end_a_row_and_sampling_is_seeded(make_model) -> None:
    model = make_model("llama")
    first = model.generate(CONTEXTS, max_new_tokens=6)
    stop = first[0][2]
    stopped = model.generate(CONTEXTS, max_new_tokens=6, stop_ids=[stop])
    assert stopped[0] == first[0][: first[0].index(stop) + 1]
    sampled = [model.generate(CONTEXTS, max_new_tokens=6, temperature=2.0, seed=s) for s in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_an_empty_context_is_refused(make_model) -> None:
    with pytest.raises(ConfigError, match="context is empty"):
        make_model("llama").next_logprobs([[]])


def test_save_load_and_fingerprint(make_model, tmp_path) -> None:
    model = make_model("llama", seed=4)
    model.model.save_pretrained(tmp_path / "mine")
    CharTokenizer().save(tmp_path / "mine" / "tokenizer.json")
    loaded = load_model(str(tmp_path / "mine"), device="cpu")
    assert loaded.fingerprint() == model.fingerprint() != make_model("llama", seed=5).fingerprint()
    assert loaded.describe()["attention"] == "sdpa"
    assert loaded.describe()["dtype"] == "float32"
    np.testing.assert_allclose(loaded.next_logprobs(CONTEXTS), model.next_logprobs(CONTEXTS), atol=1e-5)
    half = load_model(str(tmp_path / "mine"), device="cpu", dtype="bfloat16", attention="eager")
    assert half.describe()["dtype"] == "bfloat16"
    assert half.describe()["attention"] == "eager"


def test_unusable_directories_say_why(tmp_path) -> None:
    with pytest.raises(DataError, match="no such model directory"):
        load_model(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no config\.json"):
        load_model(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="no weights"):
        load_model(str(tmp_path / "empty"))
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(DataError, match="pickled weights only"):
        load_model(str(tmp_path / "empty"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="this is a file"):
        load_model(str(tmp_path / "file"))


def test_attention_is_chosen_and_checked() -> None:
    assert choose_attention("auto", device="cpu", dtype="float32") == "sdpa"
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        choose_attention("flash_attention_2", device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="must be one of"):
        choose_attention("fast", device="cpu", dtype="float32")
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        assert choose_attention("auto", device="cuda", dtype="bfloat16") == "sdpa"
        with pytest.raises(MissingDependency, match=r"treegym\[flash\]"):
            choose_attention("flash_attention_2", device="cuda", dtype="bfloat16")
    else:
        assert choose_attention("auto", device="cuda", dtype="bfloat16") == "flash_attention_2"


def test_bad_options_say_what_was_expected(make_model, tmp_path) -> None:
    make_model("llama").model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="dtype is 'int3'"):
        load_model(str(tmp_path), dtype="int3")
    with pytest.raises(ConfigError, match="device is 'abacus'"):
        load_model(str(tmp_path), device="abacus")


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma3"])
def test_contexts_that_share_beginnings_are_read_once_with_the_same_result(family, make_model) -> None:
    model = make_model(family, window=4, batch_tokens=400)
    stems = [[2, 3, 4, 5, 6, 7, 8, 9], [2, 3, 4, 11, 12, 13, 14], [9, 8, 7, 6, 5, 4, 3]]
    contexts = [[*stem, token] for token in range(2, 14) for stem in stems]
    before = model.forward_tokens
    model.generate(contexts, max_new_tokens=1)
    assert model.forward_tokens - before < sum(map(len, contexts)) / 2  # beginnings were read once indeed
    before = model.forward_tokens
    model.next_logprobs(contexts)
    assert model.forward_tokens - before < sum(map(len, contexts)) / 2
    shared = model.next_logprobs(contexts)
    together = model.generate(contexts, max_new_tokens=7)
    model.share_beginnings = False
    np.testing.assert_allclose(shared, model.next_logprobs(contexts), atol=1e-4)
    assert together == [model.generate([context], max_new_tokens=7)[0] for context in contexts]


def test_code_that_comes_with_a_model_is_not_run(tmp_path) -> None:
    """A directory whose model is Python code of its own: refused, and the code leaves no trace."""
    trace = tmp_path / "was run"
    directory = tmp_path / "model"
    directory.mkdir()
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "own.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Config: ...\nclass Model: ...\n")
    (directory / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    CharTokenizer().save(directory / "tokenizer.json")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(str(directory), device="cpu")
    assert not trace.exists()


def test_a_hub_name_that_is_not_in_the_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DataError, match="nobody/nothing-at-all"):
        load_model("nobody/nothing-at-all", local_files_only=True)
