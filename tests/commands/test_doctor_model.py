"""`treegym doctor MODEL`: what a model's files say, on a bundled model; missing ones are named."""

import json

import pytest

from treegym.__main__ import main
from treegym.commands.doctor_model import model_as_text

FOUND = {
    "model": "m", "directory": "/d", "origin": None, "architecture": "Llama", "weights_stored": "bfloat16",
    "weights_bytes": 10**9, "device": "cpu", "dtype": "float32", "memory_bytes": 2 * 10**9, "memory_free_bytes": 10**9,
    "context": 128, "vocabulary": 262_144, "logits_row_bytes": 2**20, "begins_with": ["<bos>"], "ends_with": ["<eos>"],
    "chat_template": False, "system_role": False, "added_tokens": 9, "generation": {"temperature": 0.6},
}  # fmt: skip


def test_a_bundled_model_in_json(capsys) -> None:
    assert main(["doctor", "tiny-primary", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["vocabulary"] == 24
    assert found["dtype"] == "float32"
    assert found["weights_stored"] == "float16"
    assert found["chat_template"] is False


def test_what_the_files_imply() -> None:
    text = model_as_text(FOUND)
    assert "base model" in text
    assert "begins with <bos>" in text
    assert "1.0 MB" in text
    assert "2.0 GB are needed and 1.0 GB are free" in text
    assert "shown, not used" in text
    assert "asked in chat form" in model_as_text({**FOUND, "chat_template": True})


def test_a_name_that_is_nowhere(capsys) -> None:
    assert main(["doctor", "tiny-primry"]) == 1
    assert "Did you mean 'tiny-primary'?" in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.parametrize(("name", "begins", "chats"), [("smollm2", [], True), ("gemma3-270m", ["<bos>"], False)])
def test_pretrained_models(name, begins, chats, capsys) -> None:
    assert main(["doctor", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["begins_with"] == begins
    assert found["chat_template"] is chats
    assert found["weights_stored"] == "bfloat16"
