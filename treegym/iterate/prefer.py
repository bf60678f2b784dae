"""A round of preferences: DPO, IPO or SimPO trains the primary on pairs of its own answers, or on siblings of a tree.

On free text the primary answers prompts, some thousand answers at a time; right ones are preferred to wrong ones, and
the next answers come from what was learned (online DPO, Guo et al. 2024, https://arxiv.org/abs/2402.04792). A tree is
walked once by its own probabilities, and passed over; so are the pairs of a file. The reference is the model that the
round began with.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from treegym.agents.continual.language import LanguageProblem
from treegym.agents.fast.masters import MasterAdamW
from treegym.agents.policies.lm_parts import Free
from treegym.agents.preference_settings import PreferenceSettings
from treegym.agents.preferences import Compared, preference_loss
from treegym.agents.schedules import as_schedule
from treegym.envs.token_tree.prompts import PromptSet
from treegym.errors import LossIsNaN
from treegym.iterate.curriculum import practised_prompts
from treegym.iterate.evaluate import answer_prompts, prompts_of_round
from treegym.iterate.experts import Played, play_by_prior
from treegym.iterate.imitate import check_weights
from treegym.iterate.pairs import Pair, answer_pairs, sibling_pairs, walk_pairs, written_pairs
from treegym.iterate.settings import IterateSettings
from treegym.models.tokens.ends import ending_at

__all__ = ["Preferrer", "prefer", "switches_of"]


def switches_of(settings: IterateSettings) -> PreferenceSettings:
    """Returns what a run's settings say about learning from preferences; on a tree, siblings are compared."""
    rate = {} if settings.learning_rate is None else {"learning_rate": settings.learning_rate}
    usual = {"pairs": "siblings" if settings.on_tree else "answers"}
    return PreferenceSettings.of(settings.algorithm, {**usual, **rate, **settings.options})


def prefer(
    settings: IterateSettings, model: Any, network: Any, world: Any, seed: int
) -> tuple[Played, Any, str | None]:
    """Trains the primary; returns the episodes, the network and, if nothing was learned, why.

    Args:
        settings: of the run.
        model: the primary, which answers.
        network: the same, as what learns.
        world: the round's tree, if it has one.
        seed: of the round.
    """
    switches = switches_of(settings)
    ending = ending_at(model, settings.form.stops)
    free = None if settings.on_tree else Free(ending.ends, ending.barred)
    learner = Preferrer(network, switches, free=free, seed=seed)
    played = Played()
    if switches.written:
        learner.learn(written_pairs(switches.pairs, model, settings.form))
    elif world is not None:
        walks = play_by_prior(world, np.repeat(world.pool, switches.samples), seed=seed)
        if switches.pairs == "siblings":
            pairs = sibling_pairs(world, world.pool)
        else:
            pairs = walk_pairs(world.tree, walks.roots, walks.paths, walks.correct, seed=seed)
        learner.learn(pairs)
        played = walks
    else:
        prompts = practised_prompts(
            prompts_of_round(settings, seed), model, settings.curriculum,
            max_tokens=settings.max_tokens, seed=seed, form=settings.form,
        )  # fmt: skip
        before = 0.0
        for pairs, spent in _answered(settings, switches, model, prompts, played, seed):
            after = min(1.0, spent / settings.steps)
            learner.learn(pairs, begin=before, end=after)
            before = after
    check_weights(network, f"a round of {settings.algorithm}")
    return played, network, None if learner.updates else _why_nothing(switches)


def _why_nothing(switches: PreferenceSettings) -> str:
    if switches.pairs == "siblings":
        return "no node had children of different value: nothing was learned in this round; other prompts may help"
    return (
        "no prompt had both right and wrong answers: nothing was learned in this round; easier or other prompts, "
        "more samples or more steps may help"
    )


def _answered(
    settings: IterateSettings, switches: PreferenceSettings, model: Any, prompts: PromptSet, played: Played, seed: int
) -> Iterator[tuple[list[Pair], int]]:
    """Yields the pairs of some answers at a time, and how many tokens were spent so far, until the round's are."""
    rng = np.random.default_rng(seed)
    begin = settings.form.begin(model)
    waiting: list[int] = []
    spent = answers = 0
    while spent < settings.steps:
        # no more answers than there are likely tokens left for
        most = (
            switches.n_episodes if not spent else min(switches.n_episodes, (settings.steps - spent) * answers // spent)
        )
        count = max(1, most // switches.samples)
        while len(waiting) < count:
            waiting += rng.permutation(len(prompts.roots)).tolist()
        chosen, waiting = waiting[:count], waiting[count:]
        asked = replace(prompts, roots=[prompts.roots[place] for place in chosen])
        found = answer_prompts(
            model, asked, max_tokens=settings.max_tokens, form=settings.form, samples=switches.samples,
            temperature=1.0, seed=int(rng.integers(2**31)),
        )  # fmt: skip
        pairs: list[Pair] = []
        for place, one in zip(chosen, found, strict=True):
            context = list(one.root.tokens) or list(begin(one.root.prompt))
            pairs += answer_pairs(context, one.ids, one.right, rng)
            for right in one.right:
                played.add(place, [], float(right), right)
            spent += sum(one.lengths)
            answers += len(one.lengths)
        yield pairs, spent


class Preferrer:
    """Learns pairs: a network, the reference it began as, and an optimizer.

    Args:
        network: a `transformers` model; what of it asks for gradients is learned, in place.
        switches: of the loss.
        free: how texts end, where they are free.
        seed: of the order of pairs.
    """

    def __init__(self, network: Any, switches: PreferenceSettings, *, free: Free | None = None, seed: int = 0) -> None:
        self.network, self.switches, self.free = network, switches, free
        self.updates = 0
        self.figures: dict[str, float] = {}  # of the last gradient step
        self._problem = LanguageProblem()
        self._learned = [weight for weight in network.parameters() if weight.requires_grad]
        self._optimizer = MasterAdamW(self._learned, lr=0.0, weight_decay=0.0)
        self._rate = as_schedule(switches.learning_rate, name="learning_rate")
        self._rng = np.random.default_rng(seed)
        frozen = {id(weight): weight for weight in network.parameters() if not weight.requires_grad}  # shared
        self._reference = None if switches.loss == "simpo" else copy.deepcopy(network, frozen).requires_grad_(False)

    def learn(self, pairs: Sequence[Pair], *, begin: float = 0.0, end: float = 1.0) -> None:
        """Passes over pairs as often as the switches say; without pairs nothing happens.

        Args:
            pairs: what to learn.
            begin: share of the round that is over when learning them begins, for the schedule of the learning rate.
            end: and when it ends.
        """
        size = self.switches.batch_size
        steps = self.switches.n_epochs * -(-len(pairs) // size)
        step = 0
        for _ in range(self.switches.n_epochs):
            order = self._rng.permutation(len(pairs))
            for first in range(0, len(order), size):
                for group in self._optimizer.param_groups:
                    group["lr"] = self._rate(1.0 - begin - (end - begin) * step / steps)
                self._step([pairs[place] for place in order[first : first + size]])
                step += 1

    def _step(self, batch: Sequence[Pair]) -> None:
        switches = self.switches
        compared = self.compare(batch)
        loss, self.figures = preference_loss(
            compared, switches.loss, beta=switches.beta, margin=switches.margin, nll_coef=switches.nll_coef
        )
        if not np.isfinite(self.figures["loss"]):
            raise LossIsNaN(
                f"the loss of step {self.updates + 1} is {self.figures['loss']}; a lower learning rate may help"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._learned, switches.max_grad_norm)
        self._optimizer.step()
        self.updates += 1

    def compare(self, batch: Sequence[Pair]) -> Compared:
        """Returns what network and reference say of pairs."""
        examples = [(pair.context, pair.chosen) for pair in batch] + [(pair.context, pair.rejected) for pair in batch]
        said = self._problem.answer_log_probs(self.network, examples, self.free)
        before = torch.zeros_like(said)
        if self._reference is not None:
            with torch.no_grad():
                before = self._problem.answer_log_probs(self._reference, examples, self.free)
        lengths = torch.tensor([float(len(answer)) for _, answer in examples])
        count = len(batch)
        return Compared(
            chosen=said[:count], rejected=said[count:],
            reference_chosen=before[:count], reference_rejected=before[count:],
            chosen_length=lengths[:count], rejected_length=lengths[count:],
            weight=torch.tensor([pair.weight for pair in batch]),
        )  # fmt: skip
