"""The head of a GGUF file, written byte by byte here, and files that are damaged."""

import struct
from pathlib import Path

import pytest

from treegym.errors import DataError
from treegym.models.local.gguf_header import read_gguf_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


PAIRS = [
    pair("general.architecture", 8, text("llama")),
    pair("general.name", 8, text("Tiny")),
    pair("llama.context_length", 4, struct.pack("<I", 128)),
    pair("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 2)),
    pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("<end>")),
    pair("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 2) + struct.pack("<2f", 0.0, 1.0)),
    pair("tokenizer.ggml.add_bos_token", 7, b"\x01"),
]
# two tensors, [4, 6] and [5]: 29 weights
TENSORS = [
    text("w") + struct.pack("<I2QIQ", 2, 4, 6, 0, 0),
    text("b") + struct.pack("<IQIQ", 1, 5, 0, 96),
]
WHOLE = b"GGUF" + struct.pack("<IQQ", 3, len(TENSORS), len(PAIRS)) + b"".join(PAIRS) + b"".join(TENSORS)


def write(folder: Path, content: bytes) -> Path:
    (folder / "tiny.gguf").write_bytes(content)
    return folder / "tiny.gguf"


def test_metadata_and_the_number_of_weights(tmp_path) -> None:
    header = read_gguf_header(write(tmp_path, WHOLE))
    assert header.architecture == "llama"
    assert header.name == "Tiny"
    assert header.metadata["llama.context_length"] == 128
    assert header.metadata["tokenizer.ggml.tokens"] == 3  # of an array its length
    assert header.metadata["tokenizer.ggml.scores"] == 2
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert header.token("eos") == 2
    assert header.token("bos") is None
    assert header.parameters == 4 * 6 + 5


@pytest.mark.parametrize("size", range(0, len(WHOLE) - 1, 7))
def test_every_cut_is_refused_by_name(size, tmp_path) -> None:
    file = write(tmp_path, WHOLE[:size])
    with pytest.raises(DataError, match=r"tiny\.gguf: ") as caught:
        read_gguf_header(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + WHOLE[4:], "not a GGUF model"),
        (b"GGUF" + struct.pack("<I", 99) + WHOLE[8:], "version 99"),
        (WHOLE[:8] + struct.pack("<Q", 2**60) + WHOLE[16:], "tensors"),
        (WHOLE[:16] + struct.pack("<Q", 2**60) + WHOLE[24:], "metadata entries"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62) + b"x", "cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77), "kind 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("k", 9, struct.pack("<IQ", 8, 2**62)), "cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 2**31), "dimensions"),
    ],
)
def test_claims_that_cannot_be(content, words, tmp_path) -> None:
    with pytest.raises(DataError, match=words):
        read_gguf_header(write(tmp_path, content))
