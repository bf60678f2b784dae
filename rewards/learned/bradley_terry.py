"""A learned reward model: a linear head on any `transformers` model, trained on preference pairs.

Letters: B pairs, D hidden size, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treegym.errors import ConfigError, DataError, LossIsNaN
from treegym.files import atomic_write, read_arrays, write_arrays
from treegym.models.loading import bundled_names, load_model
from treegym.models.tokens.char_tokenizer import CharTokenizer
from treegym.rewards.learned.preference import Pair
from treegym.untrusted import read_json

__all__ = ["RewardModel", "bradley_terry_loss"]

KIND = "treegym reward model"


def bradley_terry_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Returns mean_i -log sigmoid(r(chosen_i) - r(rejected_i)), the negative log-likelihood of the preferences.

    Bradley and Terry 1952; for language models Christiano et al., arXiv 1706.03741.
    """
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()


class RewardModel:
    """Scores answers: r = w . h + b, h the last hidden state after prompt, answer and end token (or suffix).

    Attributes:
        suffix: text read after the answer instead of the end token, such as the ``"?"`` that a judge was taught.
        base: the language model (`TransformersModel`) whose hidden states are read.
        head: the linear layer [D -> 1].
        mean: mean score of the training answers, and
        spread: their standard deviation; scores are centred and scaled by them.
    """

    def __init__(self, base: Any, *, tuned: bool = False, suffix: str | None = None, seed: int = 0) -> None:
        self.base, self.tuned, self.suffix = base, tuned, suffix
        generator = torch.Generator().manual_seed(seed)
        width = int(base.config.hidden_size)
        self.head = torch.nn.Linear(width, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(1, width, generator=generator) / width**0.5)
            self.head.bias.zero_()
        self.head.to(base.device)
        self.mean, self.spread = 0.0, 1.0
        self.facts: dict[str, Any] = {}  # what training found out, kept in the file

    def contexts(self, prompts: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
        """Returns the token ids that are read for each answer."""
        tokenizer = self.base.tokenizer
        last = "" if self.suffix is None else self.suffix
        end = [tokenizer.eos_id] if self.suffix is None else []
        return [[*tokenizer.encode(p + a + last), *end] for p, a in zip(prompts, answers, strict=True)]

    def hidden(self, contexts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Returns the last hidden state of each context ``[B, D]``, with gradients."""
        longest = max(len(context) for context in contexts)
        # Padding on the right repeats the last token: a causal model never lets a token see what follows it.
        ids = torch.tensor([[*c, *[c[-1]] * (longest - len(c))] for c in contexts], device=self.base.device)  # [B, T]
        states = self.base.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(context) - 1 for context in contexts], device=self.base.device)
        return states[torch.arange(len(contexts), device=self.base.device), last].float()

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Returns the centred, scaled score of each answer, ``[B] float64``."""
        found = (self._raw(prompts, answers) - self.mean) / self.spread
        if not np.isfinite(found).all():
            raise DataError(
                f"the reward model on {self.base.name!r} scores {found[~np.isfinite(found)][0]}, which is no finite "
                "number: its weights are damaged; train it again"
            )
        return found

    @torch.no_grad()
    def _raw(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        if not prompts:
            return np.zeros(0)
        features = torch.from_numpy(self.base.embed(self.contexts(prompts, answers)).astype(np.float32))
        return self.head(features.to(self.head.weight.device))[:, 0].double().cpu().numpy()

    def accuracy(self, pairs: Sequence[Pair]) -> float:
        """Returns the share of pairs whose chosen answer scores higher (a tie counts half)."""
        prompts = [pair.prompt for pair in pairs]
        gap = self.scores(prompts, [p.chosen for p in pairs]) - self.scores(prompts, [p.rejected for p in pairs])
        return float(np.mean((gap > 0) + 0.5 * (gap == 0)))

    def calibrate(self, pairs: Sequence[Pair]) -> None:
        """Centres and scales by the scores of these pairs' answers."""
        prompts = [pair.prompt for pair in pairs] * 2
        raw = self._raw(prompts, [p.chosen for p in pairs] + [p.rejected for p in pairs])
        mean, spread = float(raw.mean()), float(raw.std()) or 1.0
        if not np.isfinite([mean, spread]).all():
            raise LossIsNaN("the reward model's scores are not numbers; begin anew, with a smaller learning rate")
        self.mean, self.spread = mean, spread

    def save(self, folder: str | Path) -> None:
        """Writes the model: the head, what it stands on, and the tuned language model where there is one."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if self.tuned:
            self.base.model.save_pretrained(path / "backbone", safe_serialization=True)
            tokenizer = self.base.tokenizer
            if isinstance(tokenizer, CharTokenizer):
                tokenizer.save(path / "backbone" / "tokenizer.json")
            else:
                tokenizer.hf.save_pretrained(path / "backbone")
        head = {name: tensor.detach().cpu().numpy() for name, tensor in self.head.state_dict().items()}
        write_arrays(path / "head.safetensors", head)
        about = {
            "kind": KIND,
            "version": 1,
            "base": "backbone" if self.tuned else _origin(self.base),
            "fingerprint": self.base.fingerprint(),
            "suffix": self.suffix,
            "mean": self.mean,
            "spread": self.spread,
            "facts": self.facts,
        }
        atomic_write(path / "reward_model.json", json.dumps(about, indent=1) + "\n")  # last: it makes the rest valid

    @classmethod
    def load(cls, folder: str | Path) -> RewardModel:
        """Reads a model written by `save`. A language model of a hub that it names must be on this machine."""
        path = Path(folder)
        about = _about(path)
        tuned = about["base"] == "backbone"
        base = load_model(str(path / "backbone") if tuned else about["base"], local_files_only=True)
        if base.fingerprint() != about["fingerprint"]:
            raise DataError(
                f"{path}: its head was trained on another {about['base']!r} than is here now; train it again"
            )
        model = cls(base, tuned=tuned, suffix=about["suffix"])
        arrays, _ = read_arrays(path / "head.safetensors", mmap=False)
        wanted = {name: tuple(tensor.shape) for name, tensor in model.head.state_dict().items()}
        fits = {name: array.shape for name, array in arrays.items()} == wanted
        if not fits or not all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays.values()):
            raise DataError(f"{path}: its head does not fit the language model; the folder is damaged")
        model.head.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
        model.mean, model.spread, model.facts = about["mean"], about["spread"], about["facts"]
        return model


def _origin(base: Any) -> str:
    """Returns the name under which `load_model` finds this language model again."""
    if base.name in bundled_names():
        return str(base.name)
    where = str(base.model.name_or_path)
    return str(Path(where).resolve()) if Path(where).is_dir() else where


def _about(path: Path) -> dict[str, Any]:
    file = path / "reward_model.json"
    try:
        about = read_json(file)
    except DataError as error:
        if file.exists():
            raise
        raise ConfigError(f"{path}: no reward model there ({error}); make one with `treegym train-reward`") from error
    if not isinstance(about, dict) or about.get("kind") != KIND or about.get("version") != 1:
        raise DataError(f"{file}: not a reward model of this version")
    numbers = [about.get("mean"), about.get("spread")]
    if not isinstance(about.get("suffix", 0), str | None):
        raise DataError(f"{file}: its fields are damaged")
    whole = isinstance(about.get("base"), str) and isinstance(about.get("facts"), dict) and "fingerprint" in about
    if not whole or not all(isinstance(n, float) and np.isfinite(n) for n in numbers) or not about["spread"] > 0:
        raise DataError(f"{file}: its fields are damaged")
    return about
