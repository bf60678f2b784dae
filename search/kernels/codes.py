"""What the numbers mean that kernels branch on. A kernel is compiled for its rule, so that the others are not in it."""

from __future__ import annotations

__all__ = [
    "BACKUP_MAX",
    "BACKUP_MEAN",
    "BACKUP_SOFT",
    "DRAWS_OF_MOVES",
    "DRAWS_OF_NOISE",
    "DRAWS_OF_RULES",
    "FIRST_FIXED",
    "FIRST_MIN",
    "FIRST_PARENT",
    "HALVING_OVER",
    "INSTEAD",
    "MANY",
    "MODE_PLAIN",
    "MODE_RAW",
    "MODE_SORTED",
    "NOTHING_WRONG",
    "NO_LEGAL_MOVE",
    "NO_PRIOR",
    "RAISED",
    "RULE_GUMBEL",
    "RULE_PUCT",
    "RULE_SIMILARITY",
    "RULE_SOFT",
    "RULE_UCT",
    "UNUSABLE_LOGIT",
    "UNUSABLE_NUMBER",
]

# Which child to look at next (`settings.rule`).
RULE_PUCT, RULE_GUMBEL, RULE_UCT, RULE_SIMILARITY, RULE_SOFT = range(5)

# What an unvisited child is taken to be worth (`settings.first_play`).
FIRST_MIN, FIRST_PARENT, FIRST_FIXED = range(3)

# How a node's value follows from its children (`settings.backup`).
BACKUP_MEAN, BACKUP_SOFT, BACKUP_MAX = range(3)

# How a row of logits becomes slots, bit by bit: ordered by falling logit, and left as they are.
MODE_PLAIN, MODE_SORTED, MODE_RAW = 0, 1, 2

# Of the new visits that sequential halving considers next at a root: there are none.
HALVING_OVER = -1
MANY = 2**30  # more than there are simulations

# An entry of a path below this bit is the slot that was walked; above it, one more than the solved slot that the rule
# chose and that is counted in its place, 0 where the rule chose what was walked.
INSTEAD = 16

# What is wrong with a row that an evaluator gave; `treegym.search.checks.PROBLEMS` says it in words.
NOTHING_WRONG, NO_LEGAL_MOVE, UNUSABLE_LOGIT, NO_PRIOR, UNUSABLE_NUMBER, RAISED = range(6)

# Where each use begins in a root's stream of random numbers, far from the others. Gumbel noise takes the first ones.
DRAWS_OF_RULES, DRAWS_OF_NOISE, DRAWS_OF_MOVES = 1 << 20, 1 << 32, 1 << 40
