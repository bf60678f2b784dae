"""The tree of a round: grown anew over fresh prompts, or the last round's with its columns computed anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from treegym.envs.token_tree.grow.sample_settings import SampleSettings
from treegym.envs.token_tree.grow.settings import GrowSettings
from treegym.iterate.settings import IterateSettings
from treegym.models.tokens.prompt_format import PromptFormat

__all__ = ["tree_of_round"]

GROWN_NODES = 100  # a prompt's nodes: enough for an answer of each teacher and what branches off between them


def tree_of_round(settings: IterateSettings, model: Any, folder: Path, kept: Path, seed: int) -> Any:
    """Returns the round's tree, in the primary's vocabulary, and writes it to ``folder/tree.tree``.

    Args:
        settings: of the run.
        model: the primary as it is now.
        folder: of the round.
        kept: the tree of the round before, with its child weights; need not exist.
        seed: of the round: it decides which prompts are picked.
    """
    from treegym.envs.token_tree.grow.refresh import refresh
    from treegym.tree.opening import load_tree
    from treegym.tree.token_tree import TokenTree

    if settings.grows:
        return _grown(settings, model, folder, seed)
    own = folder / "tree.tree"
    if not kept.is_file():
        load_tree(settings.tree).save(own)  # what is loaded by name is everybody's; this one is changed
    tree = TokenTree.open(kept if kept.is_file() else own)
    refresh(tree, model)  # refuses a model of another vocabulary
    tree.save(own)
    return tree


def _grown(settings: IterateSettings, model: Any, folder: Path, seed: int) -> Any:
    from treegym.envs.token_tree.grow.growing import grow
    from treegym.iterate.evaluate import prompts_of_round
    from treegym.models import load_model
    from treegym.models.family.bundled import BUNDLED_TEACHERS

    prompts = prompts_of_round(settings, seed)
    usual = () if settings.growth == "samples" else BUNDLED_TEACHERS  # who is sampled from is asked for by name
    growing = folder / "growing"
    tree = grow(
        prompts.roots,
        primary=model,
        teachers=[load_model(name) for name in settings.teachers or usual],
        out=folder / "tree.tree",
        settings=_how(settings, seed),
        form=None if settings.form == PromptFormat() else settings.form,
        verify=prompts.verify,
        work=growing,
        source=prompts.source,
        progress=True,
    )  # fmt: skip
    shutil.rmtree(growing, ignore_errors=True)
    return tree


def _how(settings: IterateSettings, seed: int) -> GrowSettings | SampleSettings:
    if settings.growth == "samples":
        return SampleSettings(samples=settings.samples, max_tokens=settings.max_tokens, seed=seed)
    nodes = max(GROWN_NODES, 6 * settings.max_tokens)
    return GrowSettings(mode=settings.growth, max_tokens=settings.max_tokens, max_nodes=nodes, seed=seed)
