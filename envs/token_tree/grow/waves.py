"""Growing the sprouts of a shard of prompts: the trie of answers, then siblings along it in waves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treegym.envs.token_tree.grow.closing import PRIMARY, Candidate, accept, close
from treegym.envs.token_tree.grow.proposals import Proposal, proposals_at
from treegym.envs.token_tree.grow.settings import GrowSettings, Voice, keeps_reading
from treegym.envs.token_tree.grow.sprout import Sprout
from treegym.envs.token_tree.grow.stepwise import grow_stepwise
from treegym.models.tree_scores import Branches, Reading, allowed_tokens, rank_trees, read_trees

__all__ = ["grow_sprouts"]

Begins = Sequence[Sequence[tuple[int, ...]]]  # [voice][prompt] token ids


Readings = dict[int, Reading]  # voice -> its sprouts as they stood when siblings were proposed


def grow_sprouts(
    prompts: Sequence[str], voices: Sequence[Voice], settings: GrowSettings, readings: Readings | None = None
) -> list[Sprout]:
    """Returns a sprout per prompt, every path of which ends. Voice 0 is the primary.

    What large models have read on the way is left in `readings`.
    """
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
        _add_siblings(sprouts, voices, begins, settings, {} if readings is None else readings)
    elif settings.mode == "step":
        grow_stepwise(sprouts, voices, begins, settings)
    return sprouts


def _add_siblings(
    sprouts: Sequence[Sprout], voices: Sequence[Voice], begins: Begins, settings: GrowSettings, readings: Readings
) -> None:
    """Adds right and wrong siblings along the answers until the node budget or the proposals are used up."""
    reading = read_trees(voices[PRIMARY].model, _branches(sprouts, begins[PRIMARY]))
    if reading is not None:
        readings[PRIMARY] = reading
    offers = _offers_along(sprouts, voices, begins, settings, readings)
    for candidates in _waves(sprouts, offers):
        if not accept(sprouts, candidates, voices[PRIMARY], begins[PRIMARY], settings.max_nodes, reading=reading):
            return


def _branches(sprouts: Sequence[Sprout], begin: Sequence[tuple[int, ...]]) -> list[Branches]:
    return [sprout.branches(start) for sprout, start in zip(sprouts, begin, strict=True)]


def _offers_along(
    sprouts: Sequence[Sprout],
    voices: Sequence[Voice],
    begins: Begins,
    settings: GrowSettings,
    readings: Readings,
) -> list[dict[int, list[Proposal]]]:
    """Returns, for each prompt, the proposals at every context of its sprout; the primary's may be read already."""
    scores = []
    for number, voice in enumerate(voices):
        if number not in readings and keeps_reading(voice.model):
            kept = read_trees(voice.model, _branches(sprouts, begins[number]))
            readings |= {} if kept is None else {number: kept}
        if number in readings:
            scores.append(readings[number].scores(best=settings.best, worst=settings.worst))
        else:
            trees = _branches(sprouts, begins[number])
            scores.append(rank_trees(voice.model, trees, best=settings.best, worst=settings.worst))
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
