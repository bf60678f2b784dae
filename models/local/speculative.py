"""Speculative decoding: a small draft model proposes, the target checks all proposals in one pass.

A proposal x that the draft gave probability q(x) is accepted with probability min(1, p(x) / q(x)), where p is the
target's; after the first rejection a token is drawn from the normalised excess max(0, p - q), and after k acceptances
one from p itself. The result is distributed exactly as the target's own samples (https://arxiv.org/abs/2211.17192,
theorem 1); at temperature 0 it is the target's greedy continuation. How many tokens k to propose is adapted to the
acceptance rate a seen so far: with a draft that costs c of the target's time, k maximises the expected tokens per cost

    (1 - a^(k+1)) / ((1 - a) (k c + 1)).

Letters: B rows, k proposals, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch

from treegym.errors import ConfigError
from treegym.models.base import Sampling, SamplingSettings, TokenIds, check_contexts
from treegym.models.local.decoding import row_generators
from treegym.models.local.row_cache import RowCache
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tree_scores import Branches, TreeScores

__all__ = ["SpeculationReport", "SpeculativeModel", "accepted_prefix", "best_length"]


@dataclass(frozen=True)
class SpeculationReport:
    """How well the draft guessed."""

    tested: int  # proposals up to and with the first rejection of each pass; those after it were never judged
    accepted: int
    target_passes: int
    tokens: int

    @property
    def acceptance_rate(self) -> float:
        return self.accepted / self.tested if self.tested else 0.0


def best_length(acceptance: float, cost: float, longest: int) -> int:
    """Returns the number of proposals that maximises the expected tokens per cost; see the module's docstring."""
    a = min(max(acceptance, 0.0), 0.999)
    return max(range(1, longest + 1), key=lambda k: (1 - a ** (k + 1)) / ((1 - a) * (k * cost + 1)))


def accepted_prefix(
    proposals: np.ndarray, draft: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> tuple[int, int]:
    """Returns how many proposals are accepted, and the token that follows them.

    Args:
        proposals: ``[k]`` the draft's tokens.
        draft: ``[k, V]`` the draft's probabilities they were drawn from.
        target: ``[k + 1, V]`` the target's probabilities at the same places and after the last.
        rng: the row's generator.
    """
    for place, token in enumerate(proposals):
        p, q = target[place], draft[place]
        if rng.random() * q[token] < p[token]:
            continue
        excess = np.maximum(p - q, 0.0)
        total = excess.sum()
        return place, _drawn(excess if total > 0 else p, rng)
    return len(proposals), _drawn(target[len(proposals)], rng)


def _drawn(weights: np.ndarray, rng: np.random.Generator) -> int:
    cumulative = weights.cumsum()
    return int(min(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"), len(weights) - 1))


class SpeculativeModel:
    """Fits `LanguageModel`: the target, generating with the help of a draft. Everything else is the target's."""

    def __init__(
        self,
        draft: TransformersModel,
        target: TransformersModel,
        *,
        proposals: int = 4,
        longest: int = 8,
        adapt: bool = True,
        rows: int = 64,
    ) -> None:
        """`proposals` tokens are proposed at first, `longest` at most; `rows` contexts are decoded at a time."""
        if draft.tokenizer.fingerprint() != target.tokenizer.fingerprint():
            raise ConfigError(f"{draft.name!r} cannot draft for {target.name!r}: their vocabularies differ")
        if not 1 <= proposals <= longest or rows < 1:
            raise ConfigError(
                f"proposals must be between 1 and longest ({longest}) and rows at least 1, not {proposals}"
            )
        self.name, self.tokenizer = target.name, target.tokenizer
        self.draft, self.target = draft, target
        self._proposals, self._longest, self._adapt, self._rows = proposals, longest, adapt, rows
        layers = [model.config.num_hidden_layers for model in (draft, target)]
        sizes = [sum(p.numel() for p in model.model.parameters()) for model in (draft, target)]
        self._cost = max(layers[0] / layers[1] * 0.5, sizes[0] / sizes[1])  # of one draft step, a target pass being 1
        self.report = SpeculationReport(0, 0, 0, 0)

    @property
    def context_length(self) -> int | None:
        lengths = [model.context_length for model in (self.draft, self.target)]
        return min((length for length in lengths if length is not None), default=None)

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        return self.target.next_logprobs(contexts)

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.target.top_logprobs(contexts, k)

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        return self.target.score(contexts, continuations)

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        return self.target.embed(contexts)

    def score_trees(
        self, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
    ) -> list[TreeScores]:
        return self.target.score_trees(trees, best=best, worst=worst, hidden=hidden)

    def fingerprint(self) -> str:
        return self.target.fingerprint()

    @torch.inference_mode()
    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        """Returns a continuation for each context; a row also ends where a model has no further position."""
        check_contexts(contexts, name=self.name, limit=self.context_length)
        asked = Sampling(**settings)
        generators = row_generators(asked.seed, len(contexts))
        made: list[list[int]] = []
        for start in range(0, len(contexts), self._rows):
            chosen = contexts[start : start + self._rows]
            run = _Run(self, chosen, generators[start : start + self._rows], asked)
            made += run.finished()
        return made

    def _count(self, tested: int, accepted: int, tokens: int) -> None:
        old = self.report
        self.report = SpeculationReport(
            old.tested + tested, old.accepted + accepted, old.target_passes + 1, old.tokens + tokens
        )

    def _length(self) -> int:
        if not self._adapt or self.report.tested < 16:
            return self._proposals
        return best_length(self.report.acceptance_rate, self._cost, self._longest)


class _Run:
    """One batch of contexts, decoded to the end."""

    def __init__(
        self,
        owner: SpeculativeModel,
        contexts: Sequence[TokenIds],
        generators: list[np.random.Generator],
        asked: Sampling,
    ) -> None:
        self.owner, self.temperature, self.limit = owner, asked.temperature, asked.max_new_tokens
        self.stops, self.generators = asked.stops(owner.tokenizer), generators
        room = owner.context_length
        self.limits = [self.limit if room is None else min(self.limit, room + 1 - len(context)) for context in contexts]
        self.made: list[list[int]] = [[] for _ in contexts]
        self.active = list(range(len(contexts)))
        self.caches = [RowCache.empty(model, len(contexts)) for model in (owner.draft, owner.target)]
        self.unread = [[[int(i) for i in context] for context in contexts] for _ in self.caches]  # tokens not cached

    def finished(self) -> list[list[int]]:
        while self.active and self.limit > 0:
            self._round()
        return self.made

    def _round(self) -> None:
        """Proposes, checks, and keeps what was accepted plus one token of the target's own."""
        owner = self.owner
        count = owner._length()
        proposals, draft = self._propose(count)
        target = self._check(proposals)
        going, tested_all, accepted_all, kept_all = [], 0, 0, 0
        dropped = [torch.zeros(len(self.active), dtype=torch.long) for _ in self.caches]
        for place, row in enumerate(self.active):
            accepted, follows = self._verdict(place, row, proposals[place], draft[place], target[place])
            new = [*proposals[place][:accepted], follows]
            accepted_all += accepted
            tested_all += min(accepted + 1, count)
            done = self._extend(row, new)
            kept_all += len(new)
            for which in range(len(self.caches)):
                read = count - 1 if which == 0 else count  # the draft has not read its own last proposal
                keep = min(accepted, read)
                dropped[which][place] = read - keep
                self.unread[which][place] = new[keep:]
            if not done:
                going.append(place)
        owner._count(tested_all, accepted_all, kept_all)
        for cache, rejected in zip(self.caches, dropped, strict=True):
            cache.take_back(rejected.to(cache.model.device))
        if len(going) < len(self.active):
            self.active = [self.active[place] for place in going]
            for which, cache in enumerate(self.caches):
                self.unread[which] = [self.unread[which][place] for place in going]
                if going:
                    cache.keep(torch.tensor(going, device=cache.model.device))
                    cache.trim()

    def _extend(self, row: int, new: Sequence[int]) -> bool:
        """Adds tokens to a row's result up to its stop or the limit, and tells whether the row is done."""
        for token in new:
            self.made[row].append(int(token))
            if token in self.stops or len(self.made[row]) >= self.limits[row]:
                return True
        return False

    def _propose(self, count: int) -> tuple[list[list[int]], list[np.ndarray]]:
        """Returns, for each row, `count` tokens of the draft and the probabilities they were drawn from ``[k, V]``."""
        model, cache = self.owner.draft, self.caches[0]
        state = self._read(0, [[] for _ in self.active])[:, -1]
        proposals: list[list[int]] = [[] for _ in self.active]
        drawn_from: list[list[np.ndarray]] = [[] for _ in self.active]
        for step in range(count):
            logits = model.logits(state)
            if self.temperature <= 0.0:
                tokens = logits.argmax(dim=-1).tolist()
            else:
                probabilities = self._probabilities(logits)
                tokens = [_drawn(probabilities[p], self.generators[row]) for p, row in enumerate(self.active)]
                for place, distribution in enumerate(probabilities):
                    drawn_from[place].append(distribution)
            for place, token in enumerate(tokens):
                proposals[place].append(token)
            if step + 1 < count:
                ids = torch.tensor(tokens, device=model.device)[:, None]
                state = cache.append(ids)[:, -1]
        return proposals, [np.array(rows) for rows in drawn_from]

    def _check(self, proposals: list[list[int]]) -> list[np.ndarray]:
        """Returns, for each row, the target's greedy tokens ``[k + 1]`` or its probabilities ``[k + 1, V]``."""
        states = self._read(1, proposals)  # [B, k + 1, D]
        logits = self.owner.target.logits(states)
        if self.temperature <= 0.0:
            return list(logits.argmax(dim=-1).cpu().numpy())
        return list(self._probabilities(logits))

    def _probabilities(self, logits: torch.Tensor) -> np.ndarray:
        return torch.softmax(logits.double() / self.temperature, dim=-1).cpu().numpy()

    def _verdict(
        self, place: int, row: int, proposals: list[int], draft: np.ndarray, target: np.ndarray
    ) -> tuple[int, int]:
        if self.temperature > 0.0:
            return accepted_prefix(np.array(proposals), draft, target, self.generators[row])
        agreed = 0
        while agreed < len(proposals) and proposals[agreed] == target[agreed]:
            agreed += 1
        return agreed, int(target[agreed])

    def _read(self, which: int, more: list[list[int]]) -> torch.Tensor:
        """Appends each row's unread tokens, then `more`, to a cache; returns the states from the last unread one on.

        Unread tokens are of different lengths, so they are read first, and what follows them, of equal lengths, after.
        """
        cache = self.caches[which]
        device = cache.model.device
        rows = self.unread[which]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows], device=device)
        ends = torch.tensor([len(row) for row in rows], device=device)
        if more[0] and bool((ends == longest).all()):  # one pass for both
            joined = torch.cat([ids, torch.tensor(more, device=device)], dim=1)
            return cache.append(joined)[:, longest - 1 :]
        states = cache.append(ids, ends)
        last = states[torch.arange(len(rows), device=device), ends - 1][:, None]
        if not more[0]:
            return last
        following = torch.tensor(more, device=device)
        return torch.cat([last, cache.append(following)], dim=1)
