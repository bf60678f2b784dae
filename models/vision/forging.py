"""Trains the two small models that see, on drawn shapes and captions: two towers, then a captioner on one of them.

The towers learn by contrast (CLIP): a picture's caption against those of the batch and against wrong ones that differ
in one word. The captioner learns to write captions, its vision tower frozen, and stops where there is room to improve.

Letters: B pictures of a batch, T tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from treegym.errors import ConfigError
from treegym.files import atomic_write
from treegym.models.family.cards import CARD, read_card
from treegym.models.local.saving import whole_directory
from treegym.models.vision.captioner import Captioner, CaptionerConfig
from treegym.models.vision.pixels import Preparation
from treegym.models.vision.shapes import QUESTION, SIDE, Scene, captions, draw, scenes, wrong_captions
from treegym.tree.pictures import FIRST_PICTURE_TOKEN

__all__ = ["CAPTIONER", "TOWERS", "Captions", "contrast", "forge_vision"]

TOWERS, CAPTIONER = "tiny-clip", "tiny-captioner"
STEPS = {TOWERS: 1000, CAPTIONER: 3000}
QUICK = 6  # steps, to try the pipeline
BATCH, POOL = 32, 4000  # pictures of a step, and drawn in all
WRONG = ("form", "form", "colour", "order")  # wrong captions of each picture in a step
CHECK_EVERY = 100  # steps of the captioner
ROOM = (0.35, 0.5)  # exact captions on validation pictures that leave room to improve and something to start from
PREPARED = Preparation(SIDE, SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
WIDTH, POSITIONS = 64, 48
Report = Callable[[str, int, int], None]  # model, steps done, steps in all


class Captions:
    """Scenes of a split with pictures drawn of them."""

    def __init__(self, split: str, count: int, rng: np.random.Generator) -> None:
        chosen = scenes(split)
        self.scenes: list[Scene] = [chosen[i] for i in rng.integers(len(chosen), size=count)]
        self.pixels = torch.from_numpy(PREPARED.scaled(np.stack([draw(scene, rng) for scene in self.scenes])))


def caption_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE in which every word of the captions is a token; any text can be written in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{text}{QUESTION} {text}" for text in captions()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def forge_vision(
    out: Path, *, seed: int = 0, is_quick: bool = False, report: Report | None = None
) -> list[dict[str, Any]]:
    """Trains the towers and the captioner that `out` does not hold yet, and returns the cards of both.

    A model that was finished is kept; equal seeds give equal models.
    """
    out.mkdir(parents=True, exist_ok=True)
    return [
        _kept(out, TOWERS, seed, is_quick) or _forge_towers(out, seed, is_quick, report),
        _kept(out, CAPTIONER, seed, is_quick) or _forge_captioner(out, seed, is_quick, report),
    ]


def _kept(out: Path, name: str, seed: int, is_quick: bool) -> dict[str, Any] | None:
    if not (out / name / CARD).is_file():
        return None
    card = read_card(out / name)
    if card["recipe"] != _recipe(name, seed, is_quick):
        raise ConfigError(
            f"{out / name} holds a model trained from another seed or recipe; choose another --out, or remove it"
        )
    return card


def _recipe(name: str, seed: int, is_quick: bool) -> str:
    return f"{name} {QUICK if is_quick else STEPS[name]} {seed}"


def _steps(name: str, is_quick: bool, report: Report | None, optimiser: torch.optim.Optimizer) -> Iterator[int]:
    """Yields steps with the rate set: a warm-up, then half a cosine down to a fiftieth."""
    count = QUICK if is_quick else STEPS[name]
    rate = optimiser.param_groups[0]["lr"]
    for step in range(count):
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / count))
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 50) * falling
        yield step
        if report is not None:
            report(name, step + 1, count)


# ---------------------------------------------------------------- the towers


def _forge_towers(out: Path, seed: int, is_quick: bool, report: Report | None) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 0])
    tokenizer = caption_tokenizer()
    model = _new_towers(len(tokenizer), seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    practised = Captions("train", 4 * BATCH if is_quick else POOL, rng)
    for _ in _steps(TOWERS, is_quick, report, optimiser):
        chosen = rng.integers(len(practised.scenes), size=BATCH)
        shown = [practised.scenes[i] for i in chosen]
        wrong = [text for scene in shown for text in _wrong(scene, rng)]
        loss = contrast(
            _looked(model, practised.pixels[chosen]),
            _read(model, tokenizer, [*(scene.caption for scene in shown), *wrong]),
            model.logit_scale.exp(),
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
    model.eval()
    accuracy = _told_apart(model, tokenizer, Captions("validation", 400, np.random.default_rng([seed, 1])), rng)
    card = _card(TOWERS, "towers", model, seed, is_quick, accuracy)
    with whole_directory(out / TOWERS) as staging:
        model.half().save_pretrained(staging)
        _finish(staging, tokenizer, card)
        told = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
        scale = {"image_mean": list(PREPARED.mean), "image_std": list(PREPARED.std), "resample": PREPARED.resample}
        atomic_write(staging / "preprocessor_config.json", json.dumps({**told, **scale}, indent=1) + "\n")
    return card


def _wrong(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Returns wrong captions of the kinds that there are, forms more often: they are the hardest to see."""
    kinds = wrong_captions(scene)
    return [str(rng.choice(kinds[kind])) for kind in WRONG if kind in kinds]


def _new_towers(vocabulary: int, seed: int) -> Any:
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    text = {**shape, "num_hidden_layers": 2, "vocab_size": vocabulary, "max_position_embeddings": 24}
    ends = {"eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0}
    vision = {**shape, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(CLIPConfig(text_config={**text, **ends}, vision_config=vision, projection_dim=WIDTH)).train()


def contrast(pictures: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Returns the contrastive loss: each picture finds its text among all, each of the first B texts its picture.

    Rows of `texts` beyond the pictures' own are wrong for every picture (Radford et al. 2021, fig. 3, has none).
    """
    logits = scale * pictures @ texts.T  # [B, B + wrong]
    own = torch.arange(len(pictures))
    return (cross_entropy(logits, own) + cross_entropy(logits[:, : len(pictures)].T, own)) / 2


def _looked(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return normalize(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1)


def _read(model: Any, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    asked = tokenizer(list(texts), padding=True, return_tensors="pt")
    read = model.text_model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"])
    return normalize(model.text_projection(read.pooler_output), dim=-1)


@torch.no_grad()
def _told_apart(model: Any, tokenizer: Any, shown: Captions, rng: np.random.Generator) -> float:
    """Returns how often a caption is nearer to its picture than one that differs in one thing."""
    wrong = [
        str(rng.choice([text for found in wrong_captions(scene).values() for text in found])) for scene in shown.scenes
    ]
    pictures = _looked(model, shown.pixels)
    right = (pictures * _read(model, tokenizer, [scene.caption for scene in shown.scenes])).sum(1)
    return float((right > (pictures * _read(model, tokenizer, wrong)).sum(1)).float().mean())


# ---------------------------------------------------------------- the captioner


def _forge_captioner(out: Path, seed: int, is_quick: bool, report: Report | None) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 2])
    tokenizer = caption_tokenizer()
    model = _new_captioner(out / TOWERS, len(tokenizer), seed)
    model.sight.tower.requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.01)
    practised = Captions("train", 4 * BATCH if is_quick else POOL, rng)
    held_out = Captions("validation", 200, np.random.default_rng([seed, 3]))
    seen = torch.cat([model.sight.look(part) for part in practised.pixels.split(500)])  # the tower stays as it is
    accuracy = 0.0
    for step in _steps(CAPTIONER, is_quick, report, optimiser):
        chosen = rng.integers(len(practised.scenes), size=BATCH)
        loss = _caption_loss(model, tokenizer, seen[chosen], [practised.scenes[i] for i in chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % CHECK_EVERY == 0:
            accuracy = exact(model, tokenizer, model.sight.look(held_out.pixels), held_out.scenes)
            if accuracy >= ROOM[0]:
                break
    card = _card(CAPTIONER, "captioner", model, seed, is_quick, accuracy)
    with whole_directory(out / CAPTIONER) as staging:
        model.half().save_pretrained(staging)
        _finish(staging, tokenizer, card)
    return card


def _new_captioner(towers: Path, vocabulary: int, seed: int) -> Captioner:
    source = CLIPModel.from_pretrained(towers, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    vision = source.config.vision_config.to_dict()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    config = CaptionerConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=WIDTH * 5 // 2,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        initializer_range=0.04,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        vision={name: vision[name] for name in names},
        preparation={"side": SIDE, "shorter": SIDE, "mean": list(PREPARED.mean), "std": list(PREPARED.std)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Captioner(config)
    model.sight.tower.load_state_dict(source.vision_model.state_dict(), strict=True)
    return model


def _vectors(model: Captioner, seen: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Returns what is read of pictures whose parts were looked at, and of the tokens after them ``[B, P + T, D]``."""
    return torch.cat([model.sight.project(seen), model.sight.text(ids)], dim=1)


def _caption_loss(model: Captioner, tokenizer: Any, seen: torch.Tensor, shown: Sequence[Scene]) -> torch.Tensor:
    """Returns the mean cross-entropy of the captions' tokens and ends."""
    start = tokenizer.encode(QUESTION, add_special_tokens=False)
    texts = [[*start, *tokenizer.encode(f" {scene.caption}")] for scene in shown]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    labels = torch.tensor([[*[-100] * len(start), *t[len(start) :], *[-100] * (longest - len(t))] for t in texts])
    logits = model(inputs_embeds=_vectors(model, seen, ids), use_cache=False).logits[:, seen.shape[1] :]
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@torch.no_grad()
def exact(model: Captioner, tokenizer: Any, seen: torch.Tensor, shown: Sequence[Scene]) -> float:
    """Returns the share of pictures whose greedy caption is the right one to the letter."""
    ids = torch.tensor([tokenizer.encode(QUESTION, add_special_tokens=False)] * len(shown))
    for _ in range(12):
        logits = model(inputs_embeds=_vectors(model, seen, ids), use_cache=False).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    texts = [tokenizer.decode(row.tolist()).split("<eos>")[0] for row in ids]
    assert not (ids >= FIRST_PICTURE_TOKEN).any(), "a picture was written"
    return float(np.mean([t == f"{QUESTION} {scene.caption}" for t, scene in zip(texts, shown, strict=True)]))


def _finish(staging: Path, tokenizer: Any, card: dict[str, Any]) -> None:
    (staging / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save_pretrained(staging)
    atomic_write(staging / CARD, json.dumps(card, indent=1) + "\n")


def _card(name: str, role: str, model: Any, seed: int, is_quick: bool, accuracy: float) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "architecture": "clip" if role == "towers" else "clip and llama",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": seed,
        "recipe": _recipe(name, seed, is_quick),
        "steps": QUICK if is_quick else STEPS[name],
        "validation": {"accuracy": accuracy},
    }
