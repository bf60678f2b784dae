"""TRL's own trainer over our prompts, rewards and walks."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import treegym.models
from treegym.errors import ConfigError, DataError

pytest.importorskip("datasets")
from treegym.integrations import trl as door

MODEL = str(Path(treegym.models.__file__).parent / "data" / "tiny-primary")


def test_a_reward_scores_as_the_suite_does() -> None:
    prompts = door.prompt_dataset("bundled:train=6")
    score = door.reward({"verifier": 1.0, "length": -0.01})
    texts = [f"={answer}." for answer in prompts["answer"][:3]] + ["nonsense", "x", "9"]
    tokens = [[5] * len(text) for text in texts]
    found = score(prompts=prompts["prompt"], completions=texts, answer=prompts["answer"], kind=prompts["kind"],
                  completion_ids=tokens, trainer_state=None)  # fmt: skip
    # worked out: a right answer is 1, and every token costs 0.01
    for value, answer, text in zip(found[:3], prompts["answer"], texts, strict=False):
        assert value == pytest.approx(1.0 - 0.01 * len(text)), answer
    assert found[3] == pytest.approx(-0.01 * len("nonsense"))


def test_conversations_are_read_and_coroutines_give_the_same() -> None:
    chat = door.prompt_dataset("bundled:train=4", chat=True)
    plain = door.prompt_dataset("bundled:train=4")
    texts = [f"={answer}." for answer in plain["answer"]]
    told = [[{"role": "assistant", "content": text}] for text in texts]
    columns = {"answer": plain["answer"], "kind": plain["kind"]}
    assert door.reward()(prompts=chat["prompt"], completions=told, **columns) == [1.0] * 4
    wait = door.async_reward()
    assert asyncio.run(wait(prompts=plain["prompt"], completions=texts, **columns)) == [1.0] * 4
    assert asyncio.iscoroutinefunction(wait)


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no column 'solution'.*its columns: answer"):
        door.reward(answer="solution")(prompts=["1+1="], completions=["2"], answer=["2"])
    with pytest.raises(DataError, match="no prompts of split 'test'"):
        door.prompt_dataset("bundled:train=3", split="test")


def test_walks_stay_in_the_tree_and_their_probabilities_are_the_models() -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32").eval()
    rollouts = door.TreeRollouts(max_tokens=24, seed=1)
    trainer: Any = SimpleNamespace(model=model, accelerator=SimpleNamespace(unwrap_model=lambda inner: inner))
    prompts = door.tree_dataset(split="train")["prompt"][:5]
    out = rollouts([*prompts, prompts[0]], trainer)
    tree = rollouts.tree
    for prompt, start, tokens, logprobs, verdict in zip(
        [*prompts, prompts[0]], out["prompt_ids"], out["completion_ids"], out["logprobs"], out["verdict"], strict=True
    ):
        node = int(tree.root_node[tree.prompts.index(prompt)])
        for token in tokens:
            children = tree.children(node)
            node = int(children[list(tree.token[children]).index(token)])
        assert tree.child_count[node] == 0
        assert verdict == tree.verdict[node] or (math.isnan(verdict) and np.isnan(tree.verdict[node]))
        with torch.no_grad():
            logits = model(torch.tensor([[*start, *tokens]])).logits[0]
        expected = torch.log_softmax(logits[len(start) - 1 : -1], -1)[range(len(tokens)), tokens]
        np.testing.assert_allclose(logprobs, expected.numpy(), atol=1e-4)
    with pytest.raises(ConfigError, match="no prompt 'unknown'"):
        rollouts(["unknown"], trainer)


@pytest.mark.parametrize("walks", [False, True], ids=["free text", "walks"])
def test_grpo_trains_with_them(walks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl")
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    settings = trl.GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=16, num_generations=4, max_completion_length=24,
        max_steps=2, learning_rate=1e-3, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, seed=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32")
    before = model.get_input_embeddings().weight.detach().clone()
    data = door.tree_dataset() if walks else door.prompt_dataset("bundled:train=50")
    more = {"rollout_func": door.TreeRollouts(max_tokens=24)} if walks else {}
    trainer = trl.GRPOTrainer(
        model=model, args=settings, train_dataset=data, processing_class=door.tokenizer(MODEL),
        reward_funcs=door.tree_reward if walks else door.reward(), **more,
    )  # fmt: skip
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 2
    assert all(0.0 <= entry["reward"] <= 1.0 for entry in logged)
    assert not bool((model.get_input_embeddings().weight.detach() == before).all())
