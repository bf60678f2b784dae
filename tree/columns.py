"""The columns of a token tree: which arrays there are, their types and what an unset entry holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["COLUMNS", "CONTEXT_SIZE", "OPTIONAL", "Column", "column_shape", "unset_column"]

CONTEXT_SIZE = 24  # dimensions of the embedding of prompt and context, stored as int8


class Column(NamedTuple):
    dtype: np.dtype
    unset: float
    width: int | str = 1  # 1: [N]; a number: [N, number]; "teachers": [N, M]; "samplers": [N, S]


COLUMNS = {
    "token": Column(np.dtype(np.int32), -1),  # id in the primary's vocabulary; -1 at a root
    "parent": Column(np.dtype(np.int32), -1),  # -1 at a root
    "first_child": Column(np.dtype(np.int32), -1),  # -1 while not expanded
    "child_count": Column(np.dtype(np.uint16), 0),
    "depth": Column(np.dtype(np.uint16), 0),  # tokens below the root
    "flags": Column(np.dtype(np.uint16), 0),  # see flags.py
    "prior": Column(np.dtype(np.float32), 0.0),  # primary's log-probability of the token after its parent
    "teacher_logp": Column(np.dtype(np.float16), np.nan, "teachers"),  # NaN where a teacher has no opinion
    "proposers": Column(np.dtype(np.uint32), 0),  # bit 0 the primary, bit m + 1 teacher m
    "similarity": Column(np.dtype(np.float16), np.nan),  # cosine against the primary's own choice
    "verdict": Column(np.dtype(np.float32), np.nan),  # verifier's score of a terminal path
    "judge": Column(np.dtype(np.float32), np.nan),  # judge's score of a terminal path
    "context": Column(np.dtype(np.int8), 0, CONTEXT_SIZE),  # embedding of prompt and path so far
    "weight": Column(np.dtype(np.float32), np.nan),  # learned child weight; NaN stands for 1/n
    "sampled": Column(np.dtype(np.uint32), 0, "samplers"),  # how often each sampler drew the token after its parent
    "sampled_logp": Column(np.dtype(np.float32), np.nan, "samplers"),  # under the law it drew from; NaN: never drawn
    "answer": Column(np.dtype(np.int32), -1),  # which of its prompt's answers a terminal states; -1: no terminal
}
OPTIONAL = ("context", "weight", "sampled", "sampled_logp", "answer")  # kept only in trees that have them


def column_shape(name: str, nodes: int, teachers: int, samplers: int = 0) -> tuple[int, ...]:
    """Returns the shape of a column for so many nodes, teachers and samplers."""
    width = COLUMNS[name].width
    if width == 1:
        return (nodes,)
    return (nodes, {"teachers": teachers, "samplers": samplers}[width] if isinstance(width, str) else width)


def unset_column(name: str, nodes: int, teachers: int, samplers: int = 0) -> np.ndarray:
    """Returns a column in which nothing is set yet."""
    column = COLUMNS[name]
    return np.full(column_shape(name, nodes, teachers, samplers), column.unset, column.dtype)
