"""Two towers: what they compare, how they are loaded, and the contrastive loss by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from treegym.errors import DataError
from treegym.models.loading import VISION
from treegym.models.vision.forging import contrast, forge_vision
from treegym.models.vision.shapes import draw, png_of, scenes
from treegym.models.vision.towers import load_towers
from treegym.rewards.base import Request
from treegym.rewards.terms.image_text import ImageText
from treegym.tree.synthetic import synthetic_tree


def test_contrast_by_hand() -> None:
    """Two pictures, their captions and one wrong one, scale 1.

    Picture 1 agrees by 1 with its caption, by 0 with the others: -log(e / (e + 2)). Picture 2 agrees by 1 with its own
    and with the wrong one: -log(e / (2 e + 1)). The captions find their pictures among two, each by 1 against 0:
    -log(e / (e + 1)). The loss is half the sum of the two means.
    """
    pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    e = math.e
    first = (-math.log(e / (e + 2)) - math.log(e / (2 * e + 1))) / 2
    second = -math.log(e / (e + 1))
    assert float(contrast(pictures, texts, torch.tensor(1.0))) == pytest.approx((first + second) / 2, abs=1e-6)


def test_a_caption_is_nearer_than_another_scenes() -> None:
    rng = np.random.default_rng(0)
    shown = [scenes("test")[i] for i in rng.choice(len(scenes("test")), 40, replace=False)]
    pictures = [png_of(draw(scene, rng)) for scene in shown]
    towers = load_towers("tiny-clip")
    right = towers.cosines(pictures, [scene.caption for scene in shown])
    other = towers.cosines(pictures, [scene.caption for scene in [*shown[1:], shown[0]]])
    assert (right > other).mean() >= 0.95
    assert towers.cosines(pictures[:1] * 2, [shown[0].caption] * 2).tolist() == pytest.approx([right[0]] * 2, abs=1e-6)


def test_prompts_without_pictures_are_told() -> None:
    tree = synthetic_tree(roots=1, depth=2, branching=2, seed=0)
    nodes = np.array([1])
    with pytest.raises(DataError, match=r"compares texts with pictures, and the prompt .* has none"):
        ImageText().values(tree, Request(nodes, np.ones(1, bool), np.zeros(1, bool)))


def test_what_is_no_pair_of_towers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a model of kind 'llama'; two towers"):
        load_towers("tiny-primary")
    with pytest.raises(DataError, match="no such model"):
        load_towers("tiny-clap")
    shutil.copytree(VISION / "tiny-clip", tmp_path / "bad")
    file = tmp_path / "bad" / "config.json"
    told = json.loads(file.read_text())
    told["vision_config"]["num_hidden_layers"] = 10**6
    file.write_text(json.dumps(told))
    with pytest.raises(DataError, match="bad"):
        load_towers(str(tmp_path / "bad"))


@pytest.mark.slow
def test_the_forge_makes_both_and_keeps_what_is_finished(tmp_path: Path) -> None:
    cards = forge_vision(tmp_path, seed=3, is_quick=True)
    assert [card["name"] for card in cards] == ["tiny-clip", "tiny-captioner"]
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.safetensors")}
    assert len(before) == 2
    assert forge_vision(tmp_path, seed=3, is_quick=True) == cards
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.safetensors")} == before
    again = forge_vision(tmp_path / "again", seed=3, is_quick=True)
    assert again == cards
    for file, raw in before.items():
        assert (tmp_path / "again" / file.relative_to(tmp_path)).read_bytes() == raw
