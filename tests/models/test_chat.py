"""Chat templates: the question in the model's own form, and the answer in plain tokens."""

from __future__ import annotations

from typing import Any

import pytest

from treegym.errors import ConfigError
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.tokens.chat import FEWEST_STEPS, chat_beginning, has_chat_template, plain_beginning
from treegym.models.tokens.retokenize import in_vocabulary_of

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


@pytest.fixture
def chatting(byte_bpe: Any) -> Any:
    """A model whose tokenizer has a chat template; the template is taken off again afterwards."""
    byte_bpe.hf.chat_template = TEMPLATE
    yield FakeLanguageModel(name="chatty", tokenizer=byte_bpe, seed=1)
    byte_bpe.hf.chat_template = None


def test_the_question_is_asked_for_the_fewest_steps(chatting: FakeLanguageModel) -> None:
    assert has_chat_template(chatting)
    ids = chat_beginning(chatting)("2+2=")
    assert chatting.tokenizer.decode(ids) == f"<system>{FEWEST_STEPS}\n<user>2+2=\n<assistant>"
    bare = chat_beginning(chatting, system=None, examples=[("1+1=", "2")])("2+2=")
    assert chatting.tokenizer.decode(bare) == "<user>1+1=\n<assistant>2\n<user>2+2=\n<assistant>"


def test_a_template_without_system_role_gets_the_request_in_the_question(chatting: FakeLanguageModel) -> None:
    chatting.tokenizer.hf.chat_template = NO_SYSTEM
    ids = chat_beginning(chatting, system="Be brief.")("2+2=")
    assert chatting.tokenizer.decode(ids) == "<user>Be brief.\n\n2+2=\n<assistant>"


def test_without_a_template_the_prompt_stands_bare(character: Any) -> None:
    model = FakeLanguageModel(tokenizer=character)
    assert not has_chat_template(model)
    assert plain_beginning(model)("12") == tuple(character.encode("12"))
    with pytest.raises(ConfigError, match="has no chat template"):
        chat_beginning(model)


def test_a_chatting_teacher_of_another_vocabulary(chatting: FakeLanguageModel, character: Any) -> None:
    """Behind the boundary the teacher reads its chat; the primary's vocabulary never has to write the template."""
    from treegym.envs.token_tree.grow.voices import make_voices

    primary = FakeLanguageModel(tokenizer=character)
    [_, voice] = make_voices(primary, [chatting])
    ids = voice.begin("12 ")
    assert character.decode(ids) == "12 "
    path = character.encode("3")
    inside = voice.model.teacher_context([*ids, *path])  # type: ignore[attr-defined]
    assert inside is not None
    assert chatting.tokenizer.decode(inside[0]) == f"<system>{FEWEST_STEPS}\n<user>12 \n<assistant>3"
    [plain] = make_voices(primary, [chatting], chat=False)[1:]
    assert plain.begin("12 ") == ids
    assert in_vocabulary_of(chatting, character).teacher_context(ids)[0] == chatting.tokenizer.encode("12 ")  # type: ignore[attr-defined]
