"""The shards of a growth on a cluster: workers open the models, keep them, and grow one shard after another.

A worker holds every model of the growth, so it is given room for all of them; models too large for one node are served
(`treegym serve`, vLLM) and named by their address. Shards come back as columns and are written by the command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from treegym.commands.grow_models import form_of, open_models, use_threads
from treegym.envs.token_tree.grow.basis import ContextBasis
from treegym.envs.token_tree.grow.closing import PRIMARY
from treegym.envs.token_tree.grow.growing import Elsewhere, grow_shard
from treegym.envs.token_tree.grow.sample_settings import SampleSettings
from treegym.envs.token_tree.grow.settings import GrowSettings, Verifier
from treegym.envs.token_tree.grow.states import ContextStates
from treegym.envs.token_tree.grow.voices import make_voices
from treegym.errors import BackendError, DataError
from treegym.scale.cluster import connected, room_of
from treegym.scale.crew import work
from treegym.tree.storage import TreeParts
from treegym.tree.token_tree import Root, TokenTree

__all__ = ["grower", "on_cluster"]


def on_cluster(args: argparse.Namespace, verify: Verifier, *, bundled: bool) -> Elsewhere:
    """Returns what grows shards on the cluster that the options of `treegym grow` name."""
    room_of(args)  # what is wrong with the options is said before anything is grown
    options = {name: value for name, value in vars(args).items() if not callable(value)}

    def elsewhere(
        missing: Mapping[int, Sequence[Root]],
        settings: GrowSettings | SampleSettings,
        basis: ContextBasis,
        models: Mapping[str, Any],
    ) -> Iterator[tuple[int, TokenTree]]:
        numbers, shards = list(missing), [list(shard) for shard in missing.values()]
        setup = {
            "args": options, "bundled": bundled, "verify": verify, "settings": settings, "models": dict(models),
            "basis": basis.to_arrays(),
        }  # fmt: skip
        if not numbers:
            return
        with connected(args.ray) as ray:
            crew = {"room": room_of(args), "workers": args.workers, "patience": args.patience}
            for answer in work(ray, "treegym.commands.grow_cluster:grower", setup, shards, **crew):
                number = numbers[answer.job]
                if answer.failure:
                    raise BackendError(
                        f"shard {number} could not be grown: {answer.failure}; the finished ones are kept: give the "
                        "same command again when this is mended"
                    )
                yield number, TokenTree(**answer.value)

    return elsewhere


def grower(setup: Mapping[str, Any]) -> Callable[[Sequence[Root]], TreeParts]:
    """Returns what a worker does: the prompts of a shard become its tree. The models are opened here, once."""
    args = argparse.Namespace(**setup["args"])
    use_threads(args.threads)
    primary, teachers, judge, embedder = open_models(args, bundled=setup["bundled"])
    for wanted, model in zip(
        [setup["models"]["primary"], *setup["models"]["teacher_models"]], [primary, *teachers], strict=True
    ):
        if model.fingerprint() != wanted["fingerprint"]:
            raise DataError(
                f"{model.name} is another model here than where the growth began; bring the same files here"
            )
    voices = make_voices(primary, teachers, chat=not args.no_chat, form=form_of(args))
    states = ContextStates(voices[PRIMARY], embedder)
    basis = ContextBasis.from_arrays(setup["basis"])

    def grow(shard: Sequence[Root]) -> TreeParts:
        tree = grow_shard(
            shard, voices, setup["settings"], basis=basis, states=states, verify=setup["verify"], judge=judge
        )
        arrays = {name: tree.column(name) for name in tree.column_names}
        return {
            "arrays": arrays, "header": tree.header, "root_node": tree.root_node, "roots": list(tree.roots),
            "size": tree.size,
        }  # fmt: skip

    return grow
