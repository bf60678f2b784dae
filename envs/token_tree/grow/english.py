"""Growing the English tree: which models speak, how each is asked, and how much is grown."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.envs.token_tree.prompts import load_prompts
from treegym.files import cache_folder
from treegym.locks import held
from treegym.models.english.forms import PRIMARY, TAUGHT_FORM, TEACHERS, Speaker
from treegym.models.english.kinds import TAUGHT
from treegym.models.english.questions import fitted_on
from treegym.models.loading import load_model
from treegym.models.local.transformers_model import TransformersModel
from treegym.tree.token_tree import TokenTree

__all__ = ["SETTINGS", "grow_english", "taught_model"]

SETTINGS = GrowSettings(max_tokens=20, max_children=8, right=12, wrong=4, max_nodes=64, shard=24)

Report = Callable[[str], None]


def grow_english(
    out: str | os.PathLike[str],
    *,
    limit: int | None = None,
    settings: GrowSettings = SETTINGS,
    work: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> TokenTree:
    """Grows the English tree with pretrained models (`make real`), or goes on where a growth stopped.

    Args:
        out: the file to write.
        limit: only so many of its questions, the first ones.
        settings: how much is grown.
        work: where shards are kept until the tree is finished.
        overwrite: replace an existing file.
        report: told what is being done.
    """
    prompts = load_prompts("english", limit=limit)
    speakers = (PRIMARY, *TEACHERS)
    models: dict[str, TransformersModel] = {}
    for speaker in speakers:
        if speaker.model not in models:
            path = str(taught_model(speaker.model, report)) if speaker.model in TAUGHT else speaker.model
            models[speaker.model] = load_model(path, device="cpu")
    primary, *teachers = (_named(models[speaker.model], speaker) for speaker in speakers)
    report(f"growing {len(prompts.roots)} questions")
    return grow(
        prompts.roots,
        primary=primary,
        teachers=teachers,
        out=out,
        settings=settings,
        verify=prompts.verify,
        forms={speaker.name: speaker.form for speaker in speakers},
        fitted_on=fitted_on(),
        work=work,
        overwrite=overwrite,
        source=prompts.source,
        progress=True,
    )


def taught_model(name: str, report: Report = lambda _: None) -> Path:
    """Returns the directory of a teacher that is trained here, trained first where it is not in the cache."""
    from treegym.models.english.teacher import RECIPE, train_teacher

    recipe = [RECIPE, TAUGHT[name], TAUGHT_FORM.to_dict()]
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "english" / f"{name}-{key}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name}.lock"), what=f"the training of the teacher of {name}"):
        if not (path / "config.json").is_file():
            train_teacher(
                path,
                base=PRIMARY.model,
                form=TAUGHT_FORM,
                kinds=TAUGHT[name],
                progress=lambda step, loss: report(f"training the teacher of {name}: step {step}, loss {loss:.3f}"),
            )
    return path


def _named(model: TransformersModel, speaker: Speaker) -> TransformersModel:
    """Returns a model under the name of a speaker, its weights shared."""
    view = copy.copy(model)
    view.name = speaker.name
    return view
