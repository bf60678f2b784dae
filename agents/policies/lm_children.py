r"""Children's scores from a language model's states: tokens, or runs of several tokens.

    score(k) = log p(w_1 | context) + log p(w_2 | context w_1) + ...

A child of one token needs no more than the state after the context, where its logit does as well (the softmax over
children is the same). What children of several tokens have behind their first is read in a pass of its own.

No row of the whole vocabulary is laid out (`treegym.agents.fast.vocabulary`).

Letters: N states, K children, W tokens of a child, L context length, D hidden size, R rows read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from treegym.agents.fast.vocabulary import Head, Said, read, token_log_probs

__all__ = ["child_scores"]

ROWS = 1024  # contexts with a child behind them that are read at a time

Hidden = Callable[[torch.Tensor], torch.Tensor]  # [R, L] -> [R, L, D]


def child_scores(
    states: torch.Tensor, children: torch.Tensor, contexts: torch.Tensor, *, hidden: Hidden, head: Head
) -> Said:
    """Returns the scores of children ``[N, K]`` as `picked`, and the `total` they are to be compared with.

    Scores of several tokens are log-probabilities: what all texts weigh together is 1, the total its logarithm.

    Args:
        states: after each context ``[N, D]``.
        children: ``[N, K]`` token ids, or ``[N, K, W]``; padded with -1.
        contexts: ``[N, L]``, padded with -1 on the right.
        hidden: reads contexts.
        head: what turns states into logits.
    """
    said = read(states, head, (children if children.dim() == 2 else children[:, :, 0]).clamp(min=0).long())
    if children.dim() == 2:
        return said
    scores = said.picked - said.total[:, None]
    long = (children >= 0).sum(-1) > 1
    state, child = long.nonzero(as_tuple=True)
    for first in range(0, len(state), ROWS):
        rows, slots = state[first : first + ROWS], child[first : first + ROWS]
        behind = _behind_first(children[rows, slots], contexts[rows], hidden, head)
        scores = scores.index_put((rows, slots), behind, accumulate=True)
    return said._replace(picked=scores, total=torch.zeros_like(said.total))


def _behind_first(tokens: torch.Tensor, contexts: torch.Tensor, hidden: Hidden, head: Head) -> torch.Tensor:
    """Returns the log-probability ``[R]`` of children ``[R, W]`` behind their first token."""
    length = (contexts >= 0).sum(1)
    extra = tokens.shape[1] - 1
    texts = torch.cat([contexts, contexts.new_full((len(contexts), extra), -1)], 1)
    row = torch.arange(len(texts), device=texts.device)[:, None]
    place = length[:, None] + torch.arange(extra, device=texts.device)  # [R, W - 1] of all tokens but the last
    texts[row, place] = tokens[:, :-1].to(texts.dtype)
    wanted = tokens[:, 1:] >= 0
    texts[row, place] = torch.where(wanted, texts[row, place], -1)  # a last token has nothing to foretell
    found = hidden(texts)[row.expand_as(place)[wanted], place[wanted]]
    log_probs, _ = token_log_probs(found, head, tokens[:, 1:][wanted].long(), entropy=False)
    total = log_probs.new_zeros(len(texts))
    return total.index_add(0, row.expand_as(place)[wanted], log_probs)
