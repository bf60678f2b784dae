"""A tokenizer that writes the pictures a text names as the tokens that stand for their parts."""

from __future__ import annotations

from typing import Any

from treegym.models.base import TokenIds
from treegym.models.tokens.tokenizers import HuggingFaceTokenizer
from treegym.tree.pictures import FIRST_PICTURE_TOKEN, named_pictures, picture_called, picture_tokens

__all__ = ["SeeingTokenizer"]


class SeeingTokenizer(HuggingFaceTokenizer):
    """A Hugging Face tokenizer of a model that sees; pictures are no part of its vocabulary and are never written.

    Args:
        tokenizer: the language model's, a fast one.
        parts: how many tokens a picture takes.
    """

    sees = True

    def __init__(self, tokenizer: Any, *, parts: int) -> None:
        super().__init__(tokenizer)
        self.parts = parts

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for before, number in named_pictures(text):
            ids += super().encode(before) if before else []
            if number is not None:
                picture_called(number)  # says so where nobody can see it
                ids += picture_tokens(number, self.parts)
        return ids

    def decode(self, ids: TokenIds) -> str:
        return super().decode([token for token in ids if token < FIRST_PICTURE_TOKEN])
