"""The voices of a growth: every model made to speak the primary's vocabulary, and each one's own way to begin."""

from __future__ import annotations

from collections.abc import Sequence

from treegym.envs.token_tree.grow_settings import Voice
from treegym.envs.token_tree.tree import Root
from treegym.errors import ConfigError, DataError
from treegym.models.base import LanguageModel
from treegym.models.retokenize import Retokenized, in_vocabulary_of
from treegym.models.tokenizers import prefix_ids

__all__ = ["check_prompts", "make_voices"]


def make_voices(primary: LanguageModel, teachers: Sequence[LanguageModel]) -> list[Voice]:
    """Returns the voices, the primary first."""
    names = [model.name for model in teachers]
    if len(set(names)) != len(names):
        raise ConfigError(f"two teachers carry the same name: {', '.join(names)}; give them different ones")
    return [_voice(primary), *(_voice(in_vocabulary_of(model, primary.tokenizer)) for model in teachers)]


def _voice(model: LanguageModel) -> Voice:
    begin = prefix_ids(model.tokenizer)
    return Voice(model, lambda prompt: (*begin, *model.tokenizer.encode(prompt)))


def check_prompts(voices: Sequence[Voice], prompts: Sequence[Root]) -> None:
    """Raises DataError when a model's vocabulary cannot express a prompt, before anything is grown."""
    for number, voice in enumerate(voices):
        who = f"teacher {voice.name!r}" if number else f"the primary {voice.name!r}"
        for root in prompts:
            try:
                ids = voice.begin(root.prompt)
                if isinstance(voice.model, Retokenized):
                    voice.model.inner.tokenizer.encode(root.prompt)
            except DataError as error:
                raise DataError(f"{who} cannot express the prompt {root.prompt[:80]!r}: {error}") from error
            if not ids:
                raise DataError(f"{who} needs at least one token to begin with, but the prompt is {root.prompt!r}")
