"""Growing the sprouts of a shard of prompts: the trie of answers, then siblings along it in waves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treegym.envs.token_tree.grow.closing import PRIMARY, Candidate, accept, close
from treegym.envs.token_tree.grow.proposals import Proposal, proposals_at
from treegym.envs.token_tree.grow.settings import GrowSettings, Voice
from treegym.envs.token_tree.grow.sprout import Sprout
from treegym.envs.token_tree.grow.stepwise import grow_stepwise
from treegym.models.tree_scores import Reading, allowed_tokens, rank_trees, read_trees

__all__ = ["grow_sprouts"]

Begins = Sequence[Sequence[tuple[int, ...]]]  # [voice][prompt] token ids


def grow_sprouts(prompts: Sequence[str], voices: Sequence[Voice], settings: GrowSettings) -> list[Sprout]:
    """Returns a sprout per prompt, every path of which ends. Voice 0 is the primary."""
    primary = voices[PRIMARY].model
    allowed = allowed_tokens(primary)
    sprouts = [
        Sprout(eos_id=primary.tokenizer.eos_id, max_tokens=settings.max_tokens, allowed=allowed) for _ in prompts
    ]
    begins = [[voice.begin(prompt) for prompt in prompts] for voice in voices]
    speakers = voices[:1] if settings.mode == "step" else voices
    frontier: list[tuple[int, int]] = []
    for number, voice in enumerate(speakers):
        answers = voice.model.generate(begins[number], max_new_tokens=settings.max_tokens)
        for plot, (sprout, answer) in enumerate(zip(sprouts, answers, strict=True)):
            spoken = sprout.spoken(answer, room=settings.max_tokens)
            last = sprout.add_answer(spoken, bits=1 << number, max_children=settings.max_children)
            if last is not None and not sprout.is_end(last):
                frontier.append((plot, last))
    close(sprouts, frontier, voices[PRIMARY], begins[PRIMARY])
    if settings.mode == "mixed":
        _add_siblings(sprouts, voices, begins, settings)
    elif settings.mode == "step":
        grow_stepwise(sprouts, voices, begins, settings)
    return sprouts


def _add_siblings(sprouts: Sequence[Sprout], voices: Sequence[Voice], begins: Begins, settings: GrowSettings) -> None:
    """Adds right and wrong siblings along the answers until the node budget or the proposals are used up."""
    primary, begin = voices[PRIMARY], begins[PRIMARY]
    trees = [sprout.branches(start) for sprout, start in zip(sprouts, begin, strict=True)]
    reading = read_trees(primary.model, trees)
    offers = _offers_along(sprouts, voices, begins, settings, reading)
    for candidates in _waves(sprouts, offers):
        if not accept(sprouts, candidates, primary, begin, settings.max_nodes, reading=reading):
            return


def _offers_along(
    sprouts: Sequence[Sprout],
    voices: Sequence[Voice],
    begins: Begins,
    settings: GrowSettings,
    reading: Reading | None,
) -> list[dict[int, list[Proposal]]]:
    """Returns, for each prompt, the proposals at every context of its sprout; the primary's may be read already."""
    scores = [
        reading.scores(best=settings.best, worst=settings.worst)
        if number == PRIMARY and reading is not None
        else rank_trees(
            voice.model,
            [sprout.branches(begin) for sprout, begin in zip(sprouts, begins[number], strict=True)],
            best=settings.best,
            worst=settings.worst,
        )
        for number, voice in enumerate(voices)
    ]
    plots: list[dict[int, list[Proposal]]] = []
    for plot, sprout in enumerate(sprouts):
        proposals: dict[int, list[Proposal]] = {}
        for node in sprout.contexts():
            opinions = [(voice[plot].best_ids[node + 1], voice[plot].worst_ids[node + 1]) for voice in scores]
            proposals[node] = proposals_at(opinions, sprout.children(node), depth=sprout.depth(node), settings=settings)
            sprout.credit(node, proposals[node])
        plots.append(proposals)
    return plots


def _waves(sprouts: Sequence[Sprout], offers: Sequence[dict[int, list[Proposal]]]) -> Iterator[list[Candidate]]:
    """Yields waves of candidates: in each, the next new sibling of every context of every prompt."""
    waiting = [
        {node: [p for p in proposals if p[0] not in sprout.children(node)] for node, proposals in plot.items()}
        for sprout, plot in zip(sprouts, offers, strict=True)
    ]
    for rank in range(max((len(queue) for plot in waiting for queue in plot.values()), default=0)):
        yield [
            Candidate(number, node, *queue[rank])
            for number, plot in enumerate(waiting)
            for node, queue in plot.items()
            if rank < len(queue)
        ]
