"""Growing by sampling: chains and forks of every model, merged into sprouts that count the draws of each edge.

The laws of all draws are kept: `fill_samples` writes every drawn edge's log-probability under the law it came from.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from treegym.envs.token_tree.clusters import answer_clusters
from treegym.envs.token_tree.grow.forks import fork_places
from treegym.envs.token_tree.grow.sample_settings import SampleSettings
from treegym.envs.token_tree.grow.settings import Voice
from treegym.envs.token_tree.grow.sprout import ROOT, Sprout
from treegym.models.base import Generates, Scores, TokenIds, needed
from treegym.models.local.decoding import log_softmax, row_generators
from treegym.models.tree_scores import allowed_tokens, score_trees
from treegym.tree.flags import END, STOPPED
from treegym.tree.token_tree import TokenTree

__all__ = ["SampledSprout", "fill_samples", "law_of", "sample_sprouts"]


class SampledSprout(Sprout):
    """A sprout that counts its draws, by sampler and node."""

    def __init__(self, *, eos_id: int, max_tokens: int, allowed: np.ndarray) -> None:
        super().__init__(eos_id=eos_id, max_tokens=max_tokens, allowed=allowed)
        self.drawn: defaultdict[int, Counter[int]] = defaultdict(Counter)  # sampler -> node -> draws
        self._over = self.closed_by

    def note(self, sampler: int, node: int, text: Sequence[int], *, bits: int) -> list[int]:
        """Adds a text that was drawn from `node` on, up to its end or the limit, and returns its nodes.

        A special token that writes nothing ends a text as EOS does.
        """
        path: list[int] = []
        for token in text[: self.room(node)]:
            end = token in self._over
            said = self.eos_id if end else int(token)
            known = self._children[node].get(said)
            node = known if known is not None and self.proposers[known] & bits else self.add(node, said, bits=bits)
            path.append(node)
            if end:
                break
        self.drawn[sampler].update(path)
        return path


def sample_sprouts(prompts: Sequence[str], voices: Sequence[Voice], settings: SampleSettings) -> list[SampledSprout]:
    """Returns the sprout of every prompt with all models' chains, and in the mode "forks" the texts said anew.

    What is drawn depends on these prompts and the settings alone, so a shard is the same whenever it is grown.
    """
    primary = voices[0].model
    allowed = allowed_tokens(primary)
    sprouts = [
        SampledSprout(eos_id=primary.tokenizer.eos_id, max_tokens=settings.max_tokens, allowed=allowed) for _ in prompts
    ]
    key = zlib.crc32("\0".join(prompts).encode())
    per_voice = len(settings.samplers("", ""))
    for number, voice in enumerate(voices):
        first, bits = number * per_voice, 1 << number
        starts = [voice.begin(prompt) for prompt in prompts]
        texts = _draw(voice.model, [s for s in starts for _ in range(settings.samples)], settings, (key, number, 0))
        trunks = [
            [[sprout.note(first, ROOT, text, bits=bits)] for text in texts[p * settings.samples :][: settings.samples]]
            for p, sprout in enumerate(sprouts)
        ]
        for turn in range(settings.rounds if settings.mode == "forks" else 0):
            seed = np.random.default_rng([settings.seed, key, number, turn])
            places = fork_places(sprouts, trunks, starts, voice, settings, seed)
            jobs = [(p, trunk, node) for p, trunk, node in places for _ in range(settings.completions)]
            contexts = [[*starts[p], *sprouts[p].path(node)] for p, _, node in jobs]
            texts = _draw(voice.model, contexts, settings, (key, number, turn + 1))
            for (p, trunk, node), text in zip(jobs, texts, strict=True):
                trunks[p][trunk].append(sprouts[p].note(first + 1, node, text, bits=bits))
    return sprouts


def _draw(
    model: Generates, contexts: Sequence[TokenIds], settings: SampleSettings, key: tuple[int, int, int]
) -> list[list[int]]:
    """Returns one text per context, by the back end's own sampling; of a truncated law, token by token."""
    if not contexts:
        return []
    seed = int(np.random.SeedSequence([settings.seed, *key]).generate_state(1)[0])
    if not settings.truncated:
        room = settings.max_tokens
        return model.generate(contexts, max_new_tokens=room, temperature=settings.temperature, seed=seed)
    generators = row_generators(seed, len(contexts))
    texts: list[list[int]] = [[] for _ in contexts]
    alive = list(range(len(contexts)))
    for _ in range(settings.max_tokens):
        reading = [(*contexts[row], *texts[row]) for row in alive]
        distinct = {context: place for place, context in enumerate(dict.fromkeys(reading))}
        logprobs = needed(model, Scores).next_logprobs(list(distinct))
        laws = np.exp(law_of(logprobs, settings).astype(np.float64)).cumsum(axis=-1)
        for row, context in zip(alive, reading, strict=True):
            law = laws[distinct[context]]
            texts[row].append(int(np.searchsorted(law, generators[row].random() * law[-1], side="right")))
        alive = [row for row in alive if texts[row][-1] != model.tokenizer.eos_id]
        if not alive:
            break
    return texts


def law_of(logprobs: np.ndarray, settings: SampleSettings) -> np.ndarray:
    """Returns the log-probabilities that are drawn from ``[..., V] float32``: temperature, then top-k, then top-p."""
    law = logprobs if settings.temperature == 1.0 else log_softmax(logprobs / settings.temperature)
    if not settings.truncated:
        return law
    order = np.argsort(-law, axis=-1, kind="stable")
    ranked = np.exp(np.take_along_axis(law, order, axis=-1).astype(np.float64))
    if 0 < settings.top_k < law.shape[-1]:
        ranked[..., settings.top_k :] = 0.0
    ranked /= ranked.sum(axis=-1, keepdims=True)
    before = ranked.cumsum(axis=-1) - ranked  # the likeliest token always stays
    ranked[before >= settings.top_p] = 0.0
    kept = np.zeros_like(ranked)
    np.put_along_axis(kept, order, ranked, axis=-1)
    with np.errstate(divide="ignore"):
        return np.log(kept / kept.sum(axis=-1, keepdims=True)).astype(np.float32)


def fill_samples(
    tree: TokenTree, sprouts: Sequence[SampledSprout], voices: Sequence[Voice], settings: SampleSettings
) -> None:
    """Fills what sampling adds to a laid-out tree: counts, laws, stops at the limit and clusters of answers."""
    tree.header["samplers"] = [
        sampler.to_dict() for voice in voices for sampler in settings.samplers(voice.name, voice.model.fingerprint())
    ]
    per_voice = len(settings.samplers("", ""))
    sampled, sampled_logp, prior = tree.sampled, tree.sampled_logp, tree.prior
    for root, sprout in enumerate(sprouts):
        place = np.empty(sprout.size, np.int64)  # where each node of the sprout is in the tree: level by level
        place[sprout.level_order()] = int(tree.root_node[root]) + 1 + np.arange(sprout.size)
        drawn = {sampler: np.array(list(times.items()), np.int64) for sampler, times in sprout.drawn.items()}
        for sampler, times in drawn.items():  # [n, 2] node, draws
            sampled[place[times[:, 0]], sampler] = times[:, 1]
        for number, voice in enumerate(voices):
            own = number == 0 and settings.plain  # the primary's column holds it already
            said = prior[place] if own else drawn_logprobs(voice, sprout, tree.roots[root].prompt, settings)
            for sampler in range(number * per_voice, (number + 1) * per_voice):
                if sampler in drawn:
                    nodes = drawn[sampler][:, 0]
                    sampled_logp[place[nodes], sampler] = said[nodes]
    cut = (tree.child_count == 0) & (tree.parent >= 0) & ((tree.flags & END) == 0)
    tree.flags[cut] |= STOPPED
    tree.answer[:] = answer_clusters(tree)


def drawn_logprobs(voice: Voice, sprout: Sprout, prompt: str, settings: SampleSettings) -> np.ndarray:
    """Returns the log-probability of every node of a sprout under the law that a model draws from ``[n] float32``."""
    asked = sprout.branches(voice.begin(prompt))
    best = 0 if settings.plain else voice.model.tokenizer.vocab_size
    [scores] = score_trees(voice.model, [asked], best=best)
    if settings.plain:
        return np.minimum(scores.logp, np.float32(0.0))
    whole = np.full((asked.size + 1, best), -np.inf, np.float32)
    rows, ranks = np.nonzero(scores.best_ids >= 0)
    whole[rows, scores.best_ids[rows, ranks]] = scores.best_logp[rows, ranks]
    return np.minimum(law_of(whole, settings)[asked.parents + 1, asked.tokens], np.float32(0.0))
