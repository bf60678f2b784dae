"""What can be wrong with a language model as a policy, said before anything is trained."""

from __future__ import annotations

from inspect import signature
from typing import Any

from gymnasium import spaces

from treegym.agents.masking import MASK
from treegym.agents.policies.lm_parts import Free
from treegym.errors import ConfigError, DataError, suggest

__all__ = ["check_arguments", "check_reference", "check_space", "check_tokens", "check_vocabulary", "free_text"]

HANDED = ("self", "observation_space", "action_space", "lr_schedule", "kwargs")  # not for users to give


def check_arguments(policy: type, given: dict[str, Any]) -> None:
    """Raises ConfigError where the policy's constructor does not know an argument, nor SB3's below it."""
    known = [
        name
        for kind in policy.__mro__
        if "__init__" in vars(kind)
        for name in signature(vars(kind)["__init__"]).parameters
    ]
    for name in given:
        if name not in known:
            own = [name for name in signature(vars(policy)["__init__"]).parameters if name not in HANDED]
            raise ConfigError(f"{policy.__name__} has no argument {name!r}.{suggest(name, own)}")


def check_space(space: spaces.Space) -> None:
    """Raises ConfigError unless observations are token ids."""
    if not isinstance(space, spaces.Dict) or not {"context", "children", MASK} <= set(space.spaces):
        raise ConfigError(
            'LMPolicy reads token ids: make the environment with view="tokens" (it needs the observation keys context, '
            "children and action_mask)"
        )


def check_vocabulary(space: spaces.Space, model: Any, name: str) -> None:
    """Raises ConfigError where children are tokens the model has no row for, DataError where it cannot generate."""
    assert isinstance(space, spaces.Dict)
    children = space["children"]
    assert isinstance(children, spaces.Box)
    if model.get_output_embeddings() is None:
        raise DataError(f"{name}: not a causal language model (it has no output embeddings), so it can choose no token")
    largest, rows = int(children.high.max()), model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise ConfigError(
            f"the tree's vocabulary has {largest + 1} tokens, but {name} knows {rows}; use the model the tree was "
            "grown for"
        )


def check_tokens(env: Any, tokenizer: Any, name: str) -> None:
    """Raises ConfigError where the environment's tokens are not the model's: equal ids would mean other text."""
    inner = getattr(env, "unwrapped", env)
    theirs = getattr(inner, "tokenizer", None)
    tree = getattr(inner, "tree", None)
    tokens = getattr(tree, "tokens", None)
    if tokens is None and theirs is not None:
        tokens = [piece.decode("latin-1") for piece in theirs.pieces()]
    if tokens is None:
        return
    ours, given = [piece.decode("latin-1") for piece in tokenizer.pieces()], list(tokens)
    if given != ours:
        place = next(
            (i for i, (a, b) in enumerate(zip(given, ours, strict=False)) if a != b), min(map(len, (given, ours)))
        )
        raise ConfigError(
            f"the tokenizer of {name} does not match the {'environment' if tree is None else 'tree'}: "
            f"token {place} is {_at(ours, place)} to the model and {_at(given, place)} there; use the model it was "
            "made for"
        )


def _at(tokens: list[str], place: int) -> str:
    return repr(tokens[place]) if place < len(tokens) else "missing"


def check_reference(tokenizer: Any, reference: Any, name: str) -> None:
    """Raises ConfigError where a reference model speaks of other tokens than the policy."""
    if reference.pieces() != tokenizer.pieces():
        raise ConfigError(
            f"the reference model {name} has another vocabulary ({reference.vocab_size} tokens) than the policy "
            f"({tokenizer.vocab_size}); a KL between them means nothing"
        )


FEW = 4096  # tokens of a vocabulary up to which rows of all of them are not a burden


def free_text(env: Any) -> Free | None:
    """Returns how texts of an environment are made if any token may follow, and rows of all tokens would be a burden.

    A small vocabulary with one end is walked as a tree is.
    """
    inner = getattr(env, "unwrapped", env)
    ends, barred = getattr(inner, "ends", None), getattr(inner, "barred", None)
    if ends is None or barred is None or (inner.tokenizer.vocab_size <= FEW and len(ends) == 1):
        return None
    return Free(tuple(ends), tuple(barred))
