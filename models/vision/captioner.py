"""A language model that sees: parts of a picture, projected, are read where its tokens stand.

As in LLaVA (Liu et al. 2023, https://arxiv.org/abs/2304.08485): a frozen vision tower, a projection of two layers, and
a language model, here a Llama. A picture's parts are the states of its patches, averaged to `parts_side` a side.
What a token of a picture stands for can be read off the token (`treegym.tree.pictures`), so everything that reads
token ids (trees of them, caches, policies) reads pictures without knowing it.

Letters: B texts, T tokens, D hidden size, V the vision tower's hidden size, P parts of a picture, U distinct tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from treegym.errors import ConfigError
from treegym.models.vision.pixels import Preparation
from treegym.tree.pictures import FIRST_PICTURE_TOKEN, PARTS, part_and_picture, picture_called

__all__ = ["MODEL_TYPE", "Captioner", "CaptionerConfig", "PictureEmbedding"]

MODEL_TYPE = "treegym_captioner"
KEPT = 4096  # pictures whose states are kept, those read last


class CaptionerConfig(LlamaConfig):
    """A Llama's configuration with that of the vision tower, how pictures are prepared, and in how many parts."""

    model_type = MODEL_TYPE
    vision: dict | None = None
    preparation: dict | None = None
    parts_side: int = 4

    @property
    def parts(self) -> int:
        """How many tokens a picture takes."""
        return self.parts_side**2


class PictureEmbedding(nn.Module):
    """Turns tokens into vectors: those of the vocabulary by a table, those of pictures by looking."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        try:
            tower, prepared = CLIPVisionConfig(**(config.vision or {})), Preparation(**(config.preparation or {}))
            prepared.check()
            side = int(config.parts_side)
            if not 1 <= side**2 <= PARTS:
                raise ValueError(f"{side} parts a side")
            if prepared.side != tower.image_size:
                raise ValueError(f"pictures of {prepared.side} pixels for a tower of {tower.image_size}")
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the configuration does not describe a model that sees: {error}") from error
        self.prepared, self.side = prepared, side
        self.text = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.tower = CLIPVisionModel(tower)
        self.project = nn.Sequential(
            nn.Linear(tower.hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        self._seen: OrderedDict[int, torch.Tensor] = OrderedDict()

    @property
    def weight(self) -> torch.Tensor:
        """The table of the vocabulary ``[tokens, D]``; pictures have no rows."""
        return self.text.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns vectors ``[B, T, D]`` of tokens ``[B, T]``."""
        pictured = ids >= FIRST_PICTURE_TOKEN
        vectors = self.text(ids.masked_fill(pictured, 0))
        if not bool(pictured.any()):
            return vectors
        tokens, place = torch.unique(ids[pictured], return_inverse=True)
        states = torch.stack([self._part(*part_and_picture(token)) for token in tokens.tolist()])  # [U, V]
        projected = self.project(states.to(self.project[0].weight.dtype)).to(vectors.dtype)
        return vectors.index_put((pictured,), projected[place])

    def _part(self, part: int, number: int) -> torch.Tensor:
        if part >= self.side**2:
            raise ConfigError(f"part {part} of a picture is asked for; this model reads {self.side**2}")
        if number in self._seen:
            self._seen.move_to_end(number)
        else:
            with torch.inference_mode(False):  # what is kept may be learned with later
                self._seen[number] = self.look(torch.from_numpy(self.prepared([picture_called(number)])))[0]
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)
        return self._seen[number][part].to(self.weight.device)

    @torch.no_grad()
    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the states of the parts of prepared pictures ``[B, P, V]``; the tower is frozen."""
        weight = self.tower.get_input_embeddings().weight
        patches = self.tower(pixels.to(weight.device, weight.dtype)).last_hidden_state[:, 1:]  # without the summary
        grid = patches.unflatten(1, (round(patches.shape[1] ** 0.5), -1)).permute(0, 3, 1, 2)  # [B, V, h, w]
        return nn.functional.adaptive_avg_pool2d(grid.float(), self.side).flatten(2).transpose(1, 2)


class Captioner(LlamaForCausalLM):
    """A Llama whose prompts may hold pictures."""

    config_class = CaptionerConfig

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__(config)
        self.model.embed_tokens = PictureEmbedding(config)
        self.post_init()

    @property
    def sight(self) -> PictureEmbedding:
        """The embedding: the part that looks."""
        embedding: Any = self.model.embed_tokens
        return embedding


AutoConfig.register(MODEL_TYPE, CaptionerConfig, exist_ok=True)
AutoModelForCausalLM.register(CaptionerConfig, Captioner, exist_ok=True)
