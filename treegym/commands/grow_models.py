"""The models that `treegym grow` names: opened here, and on the nodes of a cluster in the same way."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from treegym.commands import grow_samples
from treegym.commands.prompting import prompt_format
from treegym.errors import ConfigError

if TYPE_CHECKING:
    from treegym.models.base import Generates, LanguageModel
    from treegym.models.embeddings import Embedder
    from treegym.models.tokens.prompt_format import PromptFormat
    from treegym.rewards.judge.local import ModelJudge

__all__ = ["Models", "form_of", "open_models", "use_threads"]


class Models(NamedTuple):
    """Who takes part in a growth."""

    primary: LanguageModel
    teachers: list[Generates]
    judge: ModelJudge | None
    embedder: Embedder | None


def open_models(args: argparse.Namespace, *, bundled: bool) -> Models:
    """Returns the models that the options name; bundled prompts have a judge of their own."""
    from treegym.models.family.bundled import BUNDLED_TEACHERS

    primary = cast("LanguageModel", _load(args.primary, args))  # `grow` says what it lacks
    # who is sampled from is asked for by name, and the bundled teachers see nothing
    alone = args.mode in grow_samples.MODES or getattr(primary.tokenizer, "sees", False)
    usual = () if alone else BUNDLED_TEACHERS
    teachers = [_load(name, args, primary) for name in (args.teacher or usual)]
    if args.draft is not None:
        draft = _load(args.draft, args)
        primary, *teachers = [_drafted(model, draft) for model in (primary, *teachers)]
    return Models(primary, teachers, _judge(args, bundled=bundled), _embedder(args.embedder))


def form_of(args: argparse.Namespace) -> PromptFormat | None:
    """Returns how prompts are put, None where no flag says so: then --no-chat decides."""
    from treegym.models.tokens.prompt_format import PromptFormat

    form = prompt_format(args)
    if form == PromptFormat():
        return None
    if args.no_chat and form.form != "auto":
        raise ConfigError(f"--no-chat and --format {args.prompt_form} say two things; leave one of them out")
    return replace(form, form="few-shot" if form.examples else "raw") if args.no_chat else form


def _judge(args: argparse.Namespace, *, bundled: bool) -> ModelJudge | None:
    name = args.judge or ("tiny-judge" if bundled else "none")
    if name == "none":
        return None
    from treegym.models.base import Scores, needed
    from treegym.rewards.judge.local import ModelJudge

    return ModelJudge(needed(_load(name, args), Scores), template=args.judge_template)


def _embedder(name: str | None) -> Embedder | None:
    if name is None:
        return None
    from treegym.models.embeddings import load_embedder

    return load_embedder(name)


def _load(name: str, args: argparse.Namespace, primary: LanguageModel | None = None) -> Generates:
    from treegym.models.backends import open_model

    return open_model(
        name,
        primary=primary,
        device=args.device,
        dtype=args.dtype,
        attention=args.attention,
        local_files_only=args.local_files_only,
    )


def _drafted(model: Any, draft: Generates) -> Any:
    """Returns the model generating with the help of the draft, where both run here and share a vocabulary."""
    from treegym.models.local.speculative import SpeculativeModel
    from treegym.models.local.transformers_model import TransformersModel

    here = isinstance(model, TransformersModel) and isinstance(draft, TransformersModel)
    if not here or model.tokenizer.fingerprint() != draft.tokenizer.fingerprint():
        return model
    assert isinstance(draft, TransformersModel)
    return SpeculativeModel(draft, model)


def use_threads(threads: int | None) -> None:
    """Lets models in this process use so many threads; None leaves it as it is."""
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads is {threads}; it must be at least 1")
        import torch

        torch.set_num_threads(threads)
