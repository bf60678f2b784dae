"""A model that sees: its embedding, its doors, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from treegym.agents import PPO
from treegym.envs.free_text import FreeTextVectorEnv
from treegym.envs.token_tree.grow.growing import grow
from treegym.envs.token_tree.grow.settings import GrowSettings
from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError
from treegym.iterate.evaluate import evaluate_model
from treegym.models import load_model
from treegym.models.loading import VISION
from treegym.models.local.saving import save_model
from treegym.models.tree_scores import Branches, score_trees_naively
from treegym.models.vision.shapes import QUESTION, Scene, captions, draw, png_of, scenes, wrong_captions
from treegym.tree.pictures import FIRST_PICTURE_TOKEN, picture_name, remember_picture
from treegym.tree.token_tree import TokenTree


def picture(seed: int = 0) -> bytes:
    return png_of(draw(scenes("test")[seed], np.random.default_rng(seed)))


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return load_model("tiny-captioner")


def asked(model, image: bytes) -> list[int]:
    remember_picture(image, where="test")
    return model.tokenizer.encode(picture_name(image) + QUESTION)


def test_a_picture_is_sixteen_tokens_and_no_text(model) -> None:
    ids = asked(model, picture())
    pictured = [token for token in ids if token >= FIRST_PICTURE_TOKEN]
    assert ids[:16] == pictured == list(range(pictured[0], pictured[0] + 16))
    assert model.tokenizer.decode(ids) == QUESTION


def test_what_is_said_depends_on_the_picture_alone(model) -> None:
    first, second = picture(0), picture(40)
    alone = [model.next_logprobs([asked(model, image)]) for image in (first, second)]
    together = model.next_logprobs([asked(model, image) for image in (first, second, first)])
    np.testing.assert_allclose(together, np.concatenate([*alone, alone[0]]), atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 0.5


def test_trees_of_contexts_with_pictures_read_as_paths_do(model) -> None:
    end = model.tokenizer.encode(" red circle")
    tokens, parents = np.array([end[0], end[1], end[0]], np.int32), np.array([-1, 0, 0], np.int32)
    trees = [Branches(tuple(asked(model, picture(seed))), tokens, parents) for seed in (1, 2)]
    for quick, slow in zip(
        model.score_trees(trees), score_trees_naively(model, trees, best=1, worst=0, hidden=False), strict=True
    ):
        np.testing.assert_allclose(quick.logp, slow.logp, atol=1e-4)


def test_the_tower_is_frozen_and_the_projection_learns(model) -> None:
    network = load_model("tiny-captioner").model.train()
    network.requires_grad_(True)
    with torch.inference_mode():
        ids = torch.tensor([asked(model, picture())])
        network(input_ids=ids)  # what is kept of a picture is kept for learning, too
    network(input_ids=torch.tensor(ids.tolist())).logits.sum().backward()
    sight = network.sight
    assert sight.project[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in sight.tower.parameters())


def test_a_captioner_is_saved_and_loaded(model, tmp_path: Path) -> None:
    save_model(model.model, model.tokenizer, tmp_path / "again")
    again = load_model(str(tmp_path / "again"))
    ids = asked(model, picture(3))
    assert again.tokenizer.encode(picture_name(picture(3)) + QUESTION) == ids
    np.testing.assert_allclose(again.next_logprobs([ids]), model.next_logprobs([ids]), atol=1e-5)


def test_a_tree_grown_by_a_captioner_is_opened_and_walked(model, tmp_path: Path) -> None:
    import gymnasium as gym

    prompts = load_prompts("captions:train=3,test=2")
    settings = GrowSettings(right=2, wrong=0, max_children=2, max_tokens=8, max_nodes=30)
    grow(prompts.roots, primary=model, out=tmp_path / "a.tree", settings=settings, verify=prompts.verify)
    tree = TokenTree.open(tmp_path / "a.tree")
    tree.validate()
    assert [root.image for root in tree.roots] == [root.image for root in prompts.roots]
    assert tree.roots[0].tokens[0] >= FIRST_PICTURE_TOKEN
    reward = {"image_text": 1.0}
    env = gym.make_vec("TokenTree-v0", num_envs=2, tree=tree, view="tokens", reward=reward, max_tokens=8)
    seen, _ = env.reset(seed=0)
    paid = np.zeros(2)
    for _ in range(8):
        assert env.observation_space.contains(seen)
        seen, gained, *_ = env.step(seen["action_mask"].argmax(1))
        paid += gained
    assert (paid != 0).all()
    assert (np.abs(paid) <= 2).all()  # two episodes at most, each paid a cosine


def test_free_text_after_pictures_is_learned_on(model) -> None:
    prompts = load_prompts("captions:train=6")
    longer = {"verify": lambda root, text: len(text) / 50.0, "max_tokens": 12}  # ends pay, and differ
    env = FreeTextVectorEnv(4, prompts=prompts.roots, tokenizer=model.tokenizer, **longer)
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    kwargs = {"model": "tiny-captioner"}
    agent = PPO("LMPolicy", env, policy_kwargs=kwargs, seed=0, device="cpu", n_episodes=8, n_epochs=1, batch_size=64)
    before = agent.policy.lm.sight.project[0].weight.detach().clone()
    agent.learn(80, log_interval=0)
    assert not torch.equal(agent.policy.lm.sight.project[0].weight, before)


def test_models_that_see_nothing_refuse_pictures(model, tmp_path: Path) -> None:
    prompts = load_prompts("captions:test=2")
    with pytest.raises(DataError, match="tiny-gpt2 sees no pictures"):
        evaluate_model(load_model("tiny-gpt2"), prompts)
    with pytest.raises(DataError, match="another vocabulary than the primary, so it cannot be shown the picture"):
        grow(prompts.roots, primary=model, teachers=[load_model("tiny-gpt2")], out=tmp_path / "a.tree")


def test_a_file_of_prompts_with_pictures(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(picture())
    lines = [
        {"prompt": "what?", "answer": "a", "image": "one.png"},
        {"prompt": "In <image> is what?", "answer": "b", "image": "one.png"},
        {"prompt": "none", "answer": "c"},
    ]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    name = picture_name(picture())
    roots = load_prompts(str(file)).roots
    assert [root.prompt for root in roots] == [f"{name}what?", f"In {name} is what?", "none"]
    assert [root.image for root in roots] == [picture(), picture(), b""]
    for bad in ("/etc/passwd", "../one.png", 5):
        file.write_text(json.dumps({**lines[0], "image": bad}))
        with pytest.raises(DataError, match=r"line 1: the image is .*beside the prompts"):
            load_prompts(str(file))
    file.write_text(json.dumps({**lines[0], "image": "none.png"}))
    with pytest.raises(DataError, match=r"none\.png: cannot be read"):
        load_prompts(str(file))


@pytest.mark.parametrize(
    "change",
    [
        {"preparation": {"side": 16, "shorter": 16, "mean": [0, 0, 0], "std": [1, 1, 1]}},
        {"parts_side": 5},
        {"preparation": None},
        {"vision": {"hidden_size": 10**7, "num_attention_heads": 1}},
    ],
)
def test_a_configuration_of_no_captioner_is_refused(tmp_path: Path, change: dict) -> None:
    shutil.copytree(VISION / "tiny-captioner", tmp_path / "bad")
    file = tmp_path / "bad" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=r"config\.json"):
        load_model(str(tmp_path / "bad"))


def test_a_part_that_the_model_does_not_read_is_refused(model) -> None:
    ids = asked(model, picture())
    sight = load_model("tiny-captioner").model.sight
    sight.side = 2
    with pytest.raises(ConfigError, match="part 4 of a picture is asked for; this model reads 4"):
        sight(torch.tensor([ids]))


def test_scenes_are_told_by_one_caption_each() -> None:
    every = captions()
    assert len(every) == len(set(every)) == 20 + 20 * 19 * 2  # single shapes, and ordered pairs in two relations
    assert not {s.caption for s in scenes("train")} & {s.caption for s in scenes("test")}
    scene = Scene(("red", "circle"), "above", ("red", "bar"))
    wrong = wrong_captions(scene)
    assert wrong["order"] == ["red circle left of red bar", "red bar above red circle"]
    assert "red bar above red bar" not in wrong["form"]  # two shapes that are alike are never drawn
    assert scene.caption not in [text for found in wrong.values() for text in found]


def test_the_first_shape_is_left_or_above() -> None:
    pixels = draw(
        replace(scenes("test")[0], first=("red", "circle"), second=("blue", "ring"), relation="left of"),
        np.random.default_rng(0),
    )
    red, blue = ((pixels == colour).all(axis=2) for colour in ((220, 40, 40), (50, 80, 220)))
    assert np.nonzero(red)[1].mean() < np.nonzero(blue)[1].mean() - 10
