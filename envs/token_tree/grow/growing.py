"""Growing a token tree: a primary model and teachers populate it, the primary closes it, a verifier judges its ends.

The prompts are cut into shards. A shard is grown by itself, from its prompts alone, and written whole; the finished
shards are merged. So memory is bounded by a shard, and a growth that was killed goes on where it stopped and ends in
the same bytes.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from treegym.envs.token_tree.grow.basis import ContextBasis, fit_basis
from treegym.envs.token_tree.grow.closing import PRIMARY
from treegym.envs.token_tree.grow.columns import fill_ends, fill_primary, fill_teacher
from treegym.envs.token_tree.grow.laying import lay_out
from treegym.envs.token_tree.grow.retrieving import Retrieval
from treegym.envs.token_tree.grow.sample_settings import SampleSettings
from treegym.envs.token_tree.grow.sampling import fill_samples, sample_sprouts
from treegym.envs.token_tree.grow.settings import GrowSettings, Judge, Verifier, Voice
from treegym.envs.token_tree.grow.sprout import Sprout
from treegym.envs.token_tree.grow.states import ContextStates
from treegym.envs.token_tree.grow.target import Target
from treegym.envs.token_tree.grow.voices import check_prompts, make_voices, servable
from treegym.envs.token_tree.grow.waves import grow_sprouts
from treegym.envs.token_tree.grow.work import WorkDirectory, digest_of
from treegym.errors import ConfigError
from treegym.models.base import Generates, LanguageModel
from treegym.models.embeddings import Embedder
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.models.tree_scores import Known, Reading
from treegym.tree.token_tree import Root, TokenTree

__all__ = ["Elsewhere", "GrowSettings", "grow", "grow_shard"]

# Grows shards on other machines: the missing ones by number, how to grow, what describes contexts, and which models
# they must have (names and fingerprints); yields number and shard as they come, in any order.
Elsewhere = Callable[
    [Mapping[int, Sequence[Root]], GrowSettings | SampleSettings, ContextBasis, Mapping[str, Any]],
    Iterator[tuple[int, TokenTree]],
]
BASIS_PROMPTS = 256  # prompts on whose greedy answers the context basis is fitted


def grow(
    prompts: Sequence[Root],
    *,
    primary: LanguageModel,
    teachers: Sequence[Generates] = (),
    out: str | os.PathLike[str],
    settings: GrowSettings | SampleSettings | None = None,
    verify: Verifier | None = None,
    judge: Judge | None = None,
    embedder: Embedder | None = None,
    chat: bool = True,
    form: PromptFormat | None = None,
    forms: Mapping[str, PromptFormat] | None = None,
    fitted_on: Sequence[str] | None = None,
    retrieval: Retrieval | None = None,
    work: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    source: str = "",
    progress: bool = False,
    elsewhere: Elsewhere | None = None,
) -> TokenTree:
    """Grows a closed tree and writes it to a file; a growth that was interrupted goes on where it stopped.

    Args:
        prompts: the roots to be; ``tokens`` is filled in here.
        primary: the policy being trained. Its vocabulary is the tree's, and it closes every frontier.
        teachers: the models that propose; teachers of other vocabularies propose text.
        out: the `.tree` file to write, or a URL such as ``s3://bucket/name.tree``; what is unfinished stays here.
        settings: how to grow, or how to sample; with a server that tells too few log-probabilities to grow in the mode
            asked for, ``answers`` are grown.
        verify: scores a terminal's text against its root's reference; without it verdicts stay unset.
        judge: scores prompts and answers; without it the judge's column stays unset.
        embedder: describes contexts by their text; without it the primary's hidden states describe them.
        chat: ask models that have a chat template, instead of letting them go on with the bare prompt.
        form: how prompts are put to all models, and where answers are over; goes before `chat`.
        forms: how prompts are put to some models, by their names; goes before `form`.
        fitted_on: prompts on which the components that describe contexts are fitted, by default the first 256.
        retrieval: the passages that teachers read before the prompts; each root notes its own.
        work: where shards are kept until the tree is finished, by default ``OUT.growing``.
        overwrite: replace an existing `out`.
        source: where the prompts came from, for the file's header.
        progress: show a progress bar, if standard error is a terminal.
        elsewhere: grows the shards that are missing instead of this process, such as `treegym.commands.grow_cluster`.
    """
    settings = settings or GrowSettings()
    if not prompts:
        raise ConfigError("there are no prompts to grow from")
    target = Target(out, work, overwrite=overwrite)
    before = None
    if retrieval is not None:
        if not teachers:
            raise ConfigError("passages are for teachers, and there is none; name a teacher, or leave retrieval out")
        if elsewhere is not None:
            raise ConfigError("passages are read on this machine only; leave out either retrieval or the cluster")
        prompts, before = retrieval.noted(prompts), retrieval.before
    voices = make_voices(primary, teachers, chat=chat, form=form, forms=forms, before=before)
    check_prompts(voices, prompts, max_tokens=settings.max_tokens)
    notices: list[str] = []
    if isinstance(settings, GrowSettings):
        settings, notices = servable(voices, settings)
    models: dict[str, Any] = {
        "primary": {"name": primary.name, "fingerprint": primary.fingerprint()},
        "teacher_models": [{"name": t.name, "fingerprint": t.fingerprint()} for t in teachers],
    }
    identity = getattr(judge, "identity", None)
    asked = {"judge": identity if judge is None or identity is not None else "given", "verified": verify is not None}
    described = {"name": embedder.name, "fingerprint": embedder.fingerprint()} if embedder is not None else None
    asked |= {"embedder": described, "chat": chat}
    put: dict[str, Any] = {} if form is None else {"form": form.to_dict()}
    put |= {"forms": {name: own.to_dict() for name, own in forms.items()}} if forms else {}
    put |= {} if retrieval is None else {"retrieval": retrieval.to_dict()}
    put |= {"fitted_on": list(fitted_on)} if fitted_on else {}
    plan = {"settings": settings.to_dict(), "prompts": digest_of(prompts), **models, **asked, **put}
    store = WorkDirectory(target.work, plan)
    states = ContextStates(voices[PRIMARY], embedder)
    fitted = fitted_on or [root.prompt for root in prompts[:BASIS_PROMPTS]]
    basis = store.basis(lambda: fit_basis(states, fitted, max_tokens=settings.max_tokens))
    for notice in notices:
        warnings.warn(notice, stacklevel=2)
    shards = [prompts[start : start + settings.shard] for start in range(0, len(prompts), settings.shard)]
    missing = {number: shard for number, shard in enumerate(shards) if not store.has(number)}
    if elsewhere is not None:
        for number, grown in _shown(elsewhere(missing, settings, basis, models), progress, len(missing)):
            store.save_shard(number, grown)
        missing = {}
    for number, shard in _shown(missing.items(), progress, len(missing)):
        grown = grow_shard(shard, voices, settings, basis=basis, states=states, verify=verify, judge=judge)
        store.save_shard(number, grown)
    header = {
        "growth": settings.to_dict(),
        "seed": settings.seed,
        "source": source,
        "tokenizer": primary.tokenizer.fingerprint(),
        "context_basis": basis.to_header(),
        "embedder": described,
        "chat": chat,
        **put,
        **models,
    }
    tree = target.finished(store, lambda: store.merge(len(shards), header))
    store.remove()
    return tree


def grow_shard(
    prompts: Sequence[Root],
    voices: Sequence[Voice],
    settings: GrowSettings | SampleSettings,
    *,
    basis: ContextBasis | None = None,
    states: ContextStates | None = None,
    verify: Verifier | None = None,
    judge: Judge | None = None,
) -> TokenTree:
    """Returns a closed tree of a few prompts, all columns filled, in memory. Voice 0 is the primary."""
    texts = [root.prompt for root in prompts]
    readings: dict[int, Reading] = {}
    sampled = sample_sprouts(texts, voices, settings) if isinstance(settings, SampleSettings) else []
    sprouts: Sequence[Sprout] = (
        sampled if isinstance(settings, SampleSettings) else grow_sprouts(texts, voices, settings, readings)
    )
    tree = lay_out(sprouts, prompts, voices, context=basis is not None)
    roots = range(tree.num_roots)
    states = states or ContextStates(voices[PRIMARY])
    fill_primary(tree, states, basis, roots, known=_known(sprouts, readings.pop(PRIMARY, None)))
    for number, voice in enumerate(voices[1:], start=1):
        fill_teacher(tree, voice, number - 1, roots, known=_known(sprouts, readings.pop(number, None)))
    if isinstance(settings, SampleSettings):
        fill_samples(tree, sampled, voices, settings)
    fill_ends(tree, verify, judge)
    return tree


def _known(sprouts: Sequence[Sprout], reading: Reading | None) -> Known | None:
    """Returns what was read of the sprouts in the order in which `lay_out` puts their nodes."""
    if reading is None:
        return None
    orders = [sprout.level_order() for sprout in sprouts]
    return Known(
        reading, [np.where(order < seen.size, order, -1) for order, seen in zip(orders, reading.trees, strict=True)]
    )


def _shown(items: Iterable[Any], progress: bool, total: int) -> Iterable[Any]:
    if not (progress and sys.stderr.isatty()):
        return items
    from tqdm import tqdm

    return tqdm(items, desc="growing", unit="shard", total=total)
