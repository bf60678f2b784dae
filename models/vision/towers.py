"""Two towers, one for pictures and one for texts, that were taught to agree where a text describes a picture (CLIP).

Radford et al. 2021, https://arxiv.org/abs/2103.00020; the classes are those of `transformers`, and any CLIP model with
safetensors weights will do.

Letters: B pairs, E size of the shared space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treegym.errors import DataError, require
from treegym.models.loading import LOADING, resolve
from treegym.models.local.claims import check_claims
from treegym.models.vision.pixels import Preparation
from treegym.untrusted import read_json

__all__ = ["Towers", "load_towers"]

BATCH = 64  # pictures or texts looked at together
KEPT = 65_536  # vectors, those used last


class Towers:
    """Compares pictures with texts; what was looked at is remembered.

    Args:
        model: a `CLIPModel`.
        tokenizer: a tokenizer of `transformers`; it ends every text as the model was taught.
        prepared: how pictures are prepared.
        name: what errors call it.
    """

    def __init__(self, model: Any, tokenizer: Any, prepared: Preparation, *, name: str) -> None:
        self.model, self.tokenizer, self.prepared, self.name = model.eval(), tokenizer, prepared, name
        self._kept: OrderedDict[bytes | str, np.ndarray] = OrderedDict()

    def cosines(self, pictures: Sequence[bytes], texts: Sequence[str]) -> np.ndarray:
        """Returns the cosine of each picture to its text ``[B] float64``; higher where the text describes it."""
        left, right = self._vectors(pictures, self._look), self._vectors(texts, self._read)
        return np.clip((left * right).sum(axis=1, dtype=np.float64), -1.0, 1.0)

    def _vectors(self, things: Sequence[Any], make: Any) -> np.ndarray:
        """Returns a vector of length one for each picture or text ``[B, E]``."""
        found = {thing: self._kept[thing] for thing in dict.fromkeys(things) if thing in self._kept}
        missing = [thing for thing in dict.fromkeys(things) if thing not in found]
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            found |= dict(zip(part, make(part), strict=True))
        for thing in found:
            self._kept[thing] = found[thing]
            self._kept.move_to_end(thing)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return np.stack([found[thing] for thing in things])

    @torch.inference_mode()
    def _look(self, pictures: Sequence[bytes]) -> np.ndarray:
        pixels = torch.from_numpy(self.prepared(pictures))
        return _unit(self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output))

    @torch.inference_mode()
    def _read(self, texts: Sequence[str]) -> np.ndarray:
        most = self.model.config.text_config.max_position_embeddings
        asked = self.tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        read = self.model.text_model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"])
        return _unit(self.model.text_projection(read.pooler_output))


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).numpy()


def load_towers(name: str) -> Towers:
    """Returns the towers of a bundled name (``tiny-clip``), a directory, or a name on the hub.

    Weights are read from safetensors files only, on the CPU, and code that comes with a model is never run.
    """
    where, local = resolve(name)
    transformers = require("transformers", extra="models", purpose="comparing pictures with texts")
    directory = Path(where)
    if not local:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "merges.txt", "vocab.json"]
        try:
            directory = Path(snapshot_download(where, allow_patterns=wanted))
        except Exception as error:  # the library raises many kinds, network errors among them
            raise DataError(f"{name}: the model cannot be fetched: {str(error).splitlines()[0]}") from error
    told = read_json(directory / "config.json")
    if not isinstance(told, dict) or told.get("model_type") != "clip":
        kind = told.get("model_type") if isinstance(told, dict) else None
        raise DataError(f"{name}: a model of kind {kind!r}; two towers of kind 'clip' were expected, such as tiny-clip")
    prepared = Preparation.read(directory)
    try:
        config = transformers.CLIPConfig.from_pretrained(str(directory), local_files_only=True)
        check_claims(transformers, config, directory, make=transformers.CLIPModel)
        with LOADING:
            model, report = transformers.CLIPModel.from_pretrained(
                str(directory),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except DataError:
        raise
    except Exception as error:  # both libraries raise bare exceptions for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}: the two towers cannot be loaded: {reason}; save or download the model anew"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise DataError(f"{name}: its weights lack {missing[0]} (of {len(missing)} missing); the download is not whole")
    if prepared.side != model.config.vision_config.image_size:
        raise DataError(
            f"{name}: pictures are prepared at {prepared.side} pixels, and the model looks at "
            f"{model.config.vision_config.image_size}; put the preprocessor_config.json there that came with it"
        )
    return Towers(model, tokenizer, prepared, name=name)
