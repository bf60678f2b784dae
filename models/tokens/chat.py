"""Instruct models: a prompt in the form of their chat template, asking for the fewest steps.

A voice that chats begins differently from the primary, but what it says after its own beginning are plain
continuations; so in a growth it only needs another way to begin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treegym.errors import ConfigError, DataError
from treegym.models.base import Speaker, TokenIds
from treegym.models.tokens.tokenizers import HuggingFaceTokenizer, prefix_ids

__all__ = ["FEWEST_STEPS", "chat_beginning", "has_chat_template", "knows_system", "plain_beginning"]

FEWEST_STEPS = "Answer in the fewest steps. Write only what is needed to reach the answer, then the answer, then stop."


def has_chat_template(model: Speaker) -> bool:
    """Whether the model's tokenizer comes with a chat template."""
    return isinstance(model.tokenizer, HuggingFaceTokenizer) and bool(model.tokenizer.hf.chat_template)


def plain_beginning(model: Speaker) -> Callable[[str], tuple[int, ...]]:
    """Returns the way to begin of a model that goes on with the bare prompt."""
    tokenizer = model.tokenizer
    begin = prefix_ids(tokenizer)
    return lambda prompt: (*begin, *tokenizer.encode(prompt))


def chat_beginning(
    model: Speaker, *, system: str | None = FEWEST_STEPS, examples: Sequence[tuple[str, str]] = ()
) -> Callable[[str], tuple[int, ...]]:
    """Returns the way to begin of a model that is asked: a prompt -> its ids up to where the answer starts.

    Args:
        model: a model with a chat template.
        system: the instruction; templates that know no system role get it before the first question.
        examples: earlier questions and answers to show the form wanted.
    """
    if not has_chat_template(model):
        raise ConfigError(f"{model.name!r} has no chat template; let it go on with the bare prompt instead")
    assert isinstance(model.tokenizer, HuggingFaceTokenizer)
    hf: Any = model.tokenizer.hf

    def render(prompt: str) -> TokenIds:
        turns = [message for question, answer in examples for message in _turn(question, answer)]
        messages = [*turns, {"role": "user", "content": prompt}]
        if system and knows_system(hf):
            messages = [{"role": "system", "content": system}, *messages]
        elif system:
            messages[0] = {"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}
        text = _rendered(hf, messages, model.name)
        return hf.encode(text, add_special_tokens=False)  # the template writes its special tokens itself

    return lambda prompt: tuple(int(i) for i in render(prompt))


def _rendered(hf: Any, messages: list[dict[str, str]], name: str) -> str:
    import jinja2

    try:
        return str(hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except (jinja2.TemplateError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{name!r}: its chat template fails: {' '.join(str(error).split())[:200]}; ask it in raw or few-shot form"
        ) from error


def _turn(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def knows_system(hf: Any) -> bool:
    """Whether the template writes a system message down, tried on a short conversation."""
    import jinja2

    probe = [{"role": "system", "content": "\u2603"}, {"role": "user", "content": "?"}]
    try:
        return "\u2603" in hf.apply_chat_template(probe, tokenize=False)
    except (jinja2.TemplateError, ValueError):
        return False
