"""The voices of a growth: every model made to speak the primary's vocabulary, and each one's own way to begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from treegym.envs.token_tree.grow.settings import GrowSettings, Voice
from treegym.errors import BackendError, ConfigError, DataError
from treegym.models.base import (
    Generates,
    LanguageModel,
    Scores,
    Speaker,
    able,
    context_length,
    scores_prompts,
    told_logprobs,
)
from treegym.models.tokens.chat import plain_beginning
from treegym.models.tokens.ends import ending_at
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.models.tokens.retokenize import Retokenized, in_vocabulary_of
from treegym.tree.token_tree import Root

__all__ = ["check_prompts", "growth_mode", "make_voices", "room_for_answers", "servable"]


def make_voices(
    primary: LanguageModel,
    teachers: Sequence[Generates],
    *,
    chat: bool = True,
    form: PromptFormat | None = None,
    forms: Mapping[str, PromptFormat] | None = None,
    before: Callable[[str], str] | None = None,
) -> list[Voice]:
    """Returns the voices, the primary first.

    Args:
        primary: the policy being trained.
        teachers: the other models.
        chat: whether models with a chat template are asked, with the request for the fewest steps; otherwise every
            model goes on with the bare prompt.
        form: how prompts are put to all models, and where answers are over; goes before `chat`.
        forms: how prompts are put to some models, by their names; goes before `form`.
        before: what teachers, and they alone, read before a prompt.
    """
    names = [model.name for model in teachers]
    if len(set(names)) != len(names):
        raise ConfigError(f"two teachers carry the same name: {', '.join(names)}; give them different ones")
    form = form or PromptFormat(form="auto" if chat else "raw")
    own = forms or {}
    first = _voice(primary, primary, own.get(primary.name, form))
    return [first, *(_voice(model, primary, own.get(model.name, form), before) for model in teachers)]


def _voice(
    model: Generates, primary: LanguageModel, form: PromptFormat, before: Callable[[str], str] | None = None
) -> Voice:
    ending: Generates = ending_at(model, form.stops)
    spoken = in_vocabulary_of(ending, primary.tokenizer)
    asked = form.begin(model, before=before)
    if not isinstance(spoken, Retokenized):
        return Voice(spoken, asked)
    foreign, plain = spoken, plain_beginning(spoken)
    if before is None and form.form_for(model) == "raw" and form.text("") == "":
        return Voice(foreign, plain)  # the bare prompt is read as one text with what follows it

    def begin(prompt: str) -> tuple[int, ...]:
        """Returns the prompt in the primary's tokens; the model behind the boundary reads its own form instead."""
        ids = plain(prompt)
        foreign.open_with(ids, asked(prompt))
        return ids

    return Voice(foreign, begin)


def check_prompts(voices: Sequence[Voice], prompts: Sequence[Root], *, max_tokens: int) -> None:
    """Raises DataError when a model cannot express a prompt, or has no room for its answer; nothing is grown yet."""
    for number, voice in enumerate(voices):
        who = f"teacher {voice.name!r}" if number else f"the primary {voice.name!r}"
        for root in prompts:
            if root.image and isinstance(voice.model, Retokenized):
                raise DataError(
                    f"{who} has another vocabulary than the primary, so it cannot be shown the picture in "
                    f"{root.prompt[:60]!r}; let teachers of pictures share the primary's tokenizer"
                )
            try:
                ids = voice.begin(root.prompt)
                left = _room_left(voice, root.prompt)
            except DataError as error:
                raise DataError(f"{who} cannot express the prompt {root.prompt[:80]!r}: {error}") from error
            if not ids:
                raise DataError(f"{who} needs at least one token to begin with, but the prompt is {root.prompt!r}")
            if left is not None and left < max_tokens:
                raise DataError(
                    f"{who} has no room for an answer of {max_tokens} tokens after {root.prompt[:80]!r}, which leaves "
                    f"{max(left, 0)}; allow shorter answers (max_tokens), {_fewer(root)}or leave the prompt out"
                )


def _fewer(root: Root) -> str:
    return "show fewer or shorter passages, " if root.extra.get("passages") else ""


def _room_left(voice: Voice, prompt: str) -> int | None:
    """Returns how many of the primary's tokens fit into the model's context after a prompt, None if it does not say."""
    if isinstance(voice.model, Retokenized):
        length = context_length(voice.model.inner)
        voice.model.inner.tokenizer.encode(prompt)  # says so where it cannot be expressed
        read = voice.model.teacher_context(voice.begin(prompt))
        return None if length is None or read is None else int((length - len(read[0])) / voice.model.stretch)
    length = context_length(voice.model)
    return None if length is None else length - len(voice.begin(prompt))


def room_for_answers(voices: Sequence[Voice], prompts: Sequence[Root], *, most: int) -> int:
    """Returns how long answers may be: `most` tokens, or what the models' contexts leave after the longest prompt."""
    check_prompts(voices, prompts, max_tokens=1)
    left = [_room_left(voice, root.prompt) for voice in voices for root in prompts]
    return min([most, *(room for room in left if room is not None)])


def servable(voices: Sequence[Voice], settings: GrowSettings) -> tuple[GrowSettings, list[str]]:
    """Returns settings in a mode that all models can serve, and what to tell whoever wanted another one.

    Single tokens are proposed by their log-probabilities, and unlikely ones can only be found among all of them; a
    server that tells fewer makes the growth one of whole answers. A teacher that is known to give words only takes part
    in ``mixed`` by its answers. The primary has to score every path, so it cannot do without any.
    """
    primary = voices[0].model
    told = told_logprobs(primary)
    if told < primary.tokenizer.vocab_size and not scores_prompts(primary):
        raise BackendError(
            f"the primary {primary.name!r} gives {told} log-probabilities per position and scores no texts, so it "
            "cannot close a tree; serve it with more (vLLM: --max-logprobs -1), or let it be a teacher"
        )
    notices: list[str] = []
    for voice in voices:
        foreign = isinstance(voice.model, Retokenized)
        model = voice.model.inner if isinstance(voice.model, Retokenized) else voice.model
        if settings.mode == "mixed" and not able(model, Scores):
            continue
        proposals = model.tokenizer.vocab_size if foreign or settings.worst else settings.best
        mode, notice = growth_mode(model, settings.mode, proposals=proposals)
        if notice is not None:
            notices.append(notice)
            settings = replace(settings, mode=mode)
    return settings, notices


def growth_mode(model: Speaker, wanted: str, *, proposals: int) -> tuple[str, str | None]:
    """Returns the growth mode a model can serve, and the notice to show when it is not the one wanted.

    ``step`` and ``mixed`` need `proposals` log-probabilities per position; a served model that gives fewer can still
    write whole answers. Models that are not served have all of them.
    """
    available, needed = told_logprobs(model), min(proposals, model.tokenizer.vocab_size)
    if wanted == "answers" or available >= needed:
        return wanted, None
    told = f"only {available} log-probabilities" if available else "no log-probabilities"
    return "answers", (
        f"{model.name} gives {told} per position, growth mode {wanted!r} needs {needed}: growing 'answers' instead"
    )
