"""Tiny random models of four families, and tokenizers trained on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.char_tokenizer import CharTokenizer

FAMILIES = ("llama", "gpt2", "qwen3", "gemma3")


def tiny_network(family: str, *, seed: int, vocab: int, width: int, window: int | None, layers: int = 2) -> Any:
    """Returns a random causal language model whose distributions are far from uniform."""
    import transformers as t

    shared: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "head_dim": width // 4,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    torch.manual_seed(seed)
    if family == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(**shared))
    elif family == "qwen3":
        model = t.Qwen3ForCausalLM(t.Qwen3Config(**shared))
    elif family == "gemma3":
        kinds = ["sliding_attention", "full_attention"] * layers
        config = t.Gemma3TextConfig(**shared, sliding_window=window or 64, layer_types=kinds[:layers])
        model = t.Gemma3ForCausalLM(config)
    else:
        config = t.GPT2Config(
            vocab_size=vocab, n_embd=width, n_layer=layers, n_head=4, n_positions=128,
            pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )  # fmt: skip
        model = t.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model.eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., TransformersModel]:
    """Makes tiny random models over the bundled characters."""

    def make(
        family: str = "llama",
        *,
        seed: int = 0,
        width: int = 32,
        window: int | None = None,
        layers: int = 2,
        batch_tokens: int = 4096,
    ) -> TransformersModel:
        torch.set_num_threads(1)
        tokenizer = CharTokenizer()
        network = tiny_network(family, seed=seed, vocab=tokenizer.vocab_size, width=width, window=window, layers=layers)
        return TransformersModel(network, tokenizer, name=f"{family}-{seed}", batch_tokens=batch_tokens)

    return make


TEXTS = [
    "the first answer is 12 and the second answer is 7.",
    "add 12 and 30, then multiply by 7: 294.",
    "größer als drei – naïve café, 3 × 4 = 12 €",
    "数は三十二です。答えは七。 🙂🙃 done!",
]


def _wrapped(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    from treegym.models.tokens.tokenizers import HuggingFaceTokenizer

    return HuggingFaceTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token=None)
    )


@pytest.fixture(scope="session")
def byte_bpe() -> Any:
    """A byte-level BPE trained on a few lines: most multi-byte characters are split across tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return _wrapped(tokenizer)


@pytest.fixture(scope="session")
def word_piece() -> Any:
    """A word-piece tokenizer: words split at spaces, continuations marked with ##."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from treegym.models.tokens.tokenizers import HuggingFaceTokenizer

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=["<pad>", "<eos>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return HuggingFaceTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    )


@pytest.fixture(scope="session")
def character() -> Any:
    """One token a character of the texts."""
    from treegym.models.local.fake import FakeTokenizer

    return FakeTokenizer("".join(sorted(set("".join(TEXTS)) | set("abcdefghijklmnopqrstuvwxyz0123456789 ."))))
