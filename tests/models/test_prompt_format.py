"""How prompts are put: raw, with examples, in chat form; BOS where the tokenizer says so; answers cut at stops."""

import json

import pytest

from treegym.errors import ConfigError, DataError
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.ends import cut_at_stop, ending_at
from treegym.models.tokens.prompt_format import PromptFormat, read_examples

from .conftest import tiny_network

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture
def model(byte_bpe):
    network = tiny_network("llama", seed=2, vocab=byte_bpe.vocab_size, width=32, window=None)
    return TransformersModel(network, byte_bpe, name="mine")


@pytest.fixture
def chatting(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer.hf, "chat_template", TEMPLATE)
    return model


def text_of(model, form: PromptFormat, prompt: str) -> str:
    return model.tokenizer.hf.decode(form.begin(model)(prompt))


def test_raw_and_few_shot(model) -> None:
    assert text_of(model, PromptFormat(), "2+2") == "2+2"
    form = PromptFormat(template="Q: {prompt}\nA:", examples=(("1+1", "2"),))
    assert form.form_for(model) == "few-shot"
    assert text_of(model, form, "2+2") == "Q: 1+1\nA: 2\n\nQ: 2+2\nA:"
    assert text_of(model, PromptFormat(form="raw", template="Q: {prompt}"), "2+2") == "Q: 2+2"


def test_chat_where_there_is_a_template(chatting) -> None:
    form = PromptFormat(system="Be brief.", examples=(("1+1", "2"),))
    assert form.form_for(chatting) == "chat"
    assert text_of(chatting, form, "2+2") == "<system>Be brief.<user>1+1<assistant>2<user>2+2<a>"
    assert text_of(chatting, PromptFormat(system=""), "2+2") == "<user>2+2<a>"
    assert text_of(chatting, PromptFormat(form="raw"), "2+2") == "2+2"


def test_bos_comes_first(model, monkeypatch) -> None:
    monkeypatch.setattr(model.tokenizer, "prefix_ids", (0,))
    assert PromptFormat().begin(model)("12")[0] == 0


def test_what_cannot_be_is_refused(model, chatting, monkeypatch) -> None:
    monkeypatch.setattr(model.tokenizer.hf, "chat_template", None)
    with pytest.raises(ConfigError, match="base model without a chat template"):
        PromptFormat(form="chat").begin(model)
    for wrong in ({"form": "story"}, {"template": "Q:"}, {"form": "few-shot"}, {"stops": ("",)}):
        with pytest.raises(ConfigError):
            PromptFormat(**wrong)
    monkeypatch.setattr(model.tokenizer.hf, "chat_template", "{{ raise_exception('no') }}")
    with pytest.raises(DataError, match="its chat template fails"):
        PromptFormat(form="chat").begin(model)("12")


def test_examples_of_a_file(tmp_path) -> None:
    file = tmp_path / "shots.jsonl"
    file.write_text(json.dumps({"prompt": "1+1", "answer": 2}) + "\n")
    assert read_examples(file) == (("1+1", "2"),)
    file.write_text('{"prompt": "1+1"}\n')
    with pytest.raises(DataError, match=r"shots\.jsonl"):
        read_examples(file)


def test_continuations_are_cut_at_stops(byte_bpe) -> None:
    eos = byte_bpe.eos_id
    ids = byte_bpe.encode("the first answer is 12")
    cut = cut_at_stop(byte_bpe, ids, ["swer", "12"])
    assert cut[-1] == eos
    assert byte_bpe.decode(cut[:-1]) == "the first an"
    assert cut_at_stop(byte_bpe, ids, ["zzz"]) == ids


def test_generation_ends_at_stops_of_any_make(model) -> None:
    context = model.tokenizer.encode("the second ")
    [plain] = model.generate([context], max_new_tokens=20)
    text = b"".join(model.tokenizer.pieces()[token] for token in plain)
    stop = next(text[i : i + 3].decode() for i in range(2, len(text)) if text[i : i + 3].isascii())
    [made] = ending_at(model, [stop]).generate([context], max_new_tokens=20)
    assert made[-1] == model.tokenizer.eos_id
    written = b"".join(model.tokenizer.pieces()[token] for token in made)
    assert stop.encode() not in written
    assert text.startswith(written)
    [other] = ending_at(_Plain(model), [stop]).generate([context], max_new_tokens=20)
    assert b"".join(model.tokenizer.pieces()[token] for token in other) == text[: text.find(stop.encode())]


class _Plain:
    """A back end without stops of its own."""

    def __init__(self, model) -> None:
        self.tokenizer, self.generate = model.tokenizer, model.generate
