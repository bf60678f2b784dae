"""Pictures in prompts: what is a plain PNG, what a file of a tree keeps of it, and what is refused."""

from __future__ import annotations

import copy
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from treegym.errors import ConfigError, DataError
from treegym.models.vision.shapes import png_of
from treegym.tree import pictures
from treegym.tree.editing import merge, select_roots, subtree
from treegym.tree.pictures import (
    FIRST_PICTURE_TOKEN,
    LAST_TOKEN,
    PICTURE_BYTES,
    has_picture,
    is_plain_png,
    named_pictures,
    part_and_picture,
    picture_called,
    picture_name,
    picture_tokens,
    remember_picture,
)
from treegym.tree.token_tree import Root, TokenTree

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, raw: bytes, *, colour: int = 2, between: bytes = b"", interlaced: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced))
    return SIGNATURE + header + between + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def shown(seed: int) -> bytes:
    return png_of(np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8))


def pictured(image: bytes, parts: int = 4) -> TokenTree:
    """One prompt with a picture, one without; each with the answers "a" and end."""
    tree = TokenTree.empty(tokens=["a", ""], eos_id=1)
    number = remember_picture(image, where="test")
    tree.add_root(Root(f"{picture_name(image)} what?", "a", tokens=(*picture_tokens(number, parts), 0), image=image))
    tree.add_root(Root("no picture", "a", tokens=(0,)))
    tree.add_children([0, 1], [2, 2], [0, 1, 0, 1])
    tree.add_children([2, 4], [1, 1], [1, 1])
    return tree


def test_a_tree_keeps_its_pictures(tmp_path: Path) -> None:
    image, file = shown(1), tmp_path / "a.tree"
    tree = pictured(image)
    tree.validate()
    tree.save(file)
    again = TokenTree.open(file)
    again.validate()
    assert [root.image for root in again.roots] == [image, b""]
    assert list(again.roots) == list(tree.roots)
    assert b'"version":"2"' in file.read_bytes()


def test_a_tree_without_pictures_is_written_as_before(tmp_path: Path, hand_made: TokenTree) -> None:
    hand_made.save(tmp_path / "a.tree")
    raw = (tmp_path / "a.tree").read_bytes()
    assert b'"version":"1"' in raw
    assert b"image" not in raw


def test_pictures_go_along_when_trees_are_cut_and_merged() -> None:
    image, other = shown(1), shown(2)
    assert merge([pictured(image), pictured(other)]).roots[2].image == other
    assert select_roots(pictured(image), [0]).roots[0].image == image
    below = subtree(pictured(image), 2)
    below.validate()
    assert below.roots[0].image == image


def test_names_and_tokens_stand_for_each_other() -> None:
    image = shown(3)
    number = remember_picture(image, where="test")
    assert picture_called(number) == image
    name = f"<picture {number:07x}>"
    assert picture_name(image) == name
    assert list(named_pictures(f"see {name}: what?")) == [("see ", number), (": what?", None)]
    # 16 tokens to a picture, counted from 2**30; the largest number of 26 bits ends at the largest int32
    assert picture_tokens(number, 3) == [2**30 + 16 * number + part for part in range(3)]
    assert part_and_picture(2**30 + 16 * 5 + 7) == (7, 5)
    assert FIRST_PICTURE_TOKEN + 16 * (2**26 - 1) + 15 == LAST_TOKEN == 2**31 - 1
    assert has_picture(name)
    assert not has_picture("<picture 0000000> <picture zz>")
    assert list(named_pictures("<picture fffffff>")) == [("<picture fffffff>", None)]  # 28 bits: no picture's name


ROW = b"\0" + bytes(6)  # a row of two pixels


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"hello", "not a PNG"),
        (png(2, 2, ROW * 2)[:-4], "cut off"),
        (png(2, 2, ROW * 2).replace(b"IHDR\0\0\0\x02", b"IHDR\0\0\0\x03"), "checksum"),
        (png(2, 2, ROW), "fewer than the 2 x 2 pixels"),
        (png(2, 2, ROW * 3), "more than the 2 x 2 pixels"),
        (png(2, 2, ROW * 1_000_000), "more than the 2 x 2 pixels"),  # seven megabytes in seven thousand bytes
        (png(5000, 1, b""), "5000 x 1 pixels; 1 to 1024"),
        (png(2**31 - 1, 2**31 - 1, b""), "1 to 1024"),
        (png(0, 1, b""), "1 to 1024"),
        (png(2, 1, b"\x09" + bytes(6)), "coded in a way"),
        (png(2, 2, ROW * 2, interlaced=1), "interlaced"),
        (png(2, 2, ROW * 2, colour=5), "a form that PNG does not have"),
        (png(2, 2, (b"\0" + bytes(2)) * 2, colour=3), "palette is missing"),
        (png(2, 2, ROW * 2, between=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(9)))), "a part b'zTXt' beside"),
        (SIGNATURE + chunk(b"IEND", b""), "first or last part"),
        (bytes(PICTURE_BYTES + 1), "at most 1,048,576"),
    ],
)
def test_what_is_no_plain_picture_is_refused_in_a_sentence(raw: bytes, words: str) -> None:
    assert not is_plain_png(raw)
    with pytest.raises(DataError, match=words):
        remember_picture(raw, where="the picture of a prompt")


def test_a_picture_that_the_prompt_does_not_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not name it"):
        Root("what?", image=shown(1))


def test_a_copy_brings_its_picture_along(monkeypatch: pytest.MonkeyPatch) -> None:
    image = shown(7)
    root = Root(picture_name(image), image=image)
    monkeypatch.setattr(pictures, "_seen", {})  # as in another process
    assert copy.copy(root) == root
    assert has_picture(root.prompt)


def test_a_name_without_a_picture_is_told() -> None:
    with pytest.raises(ConfigError, match="open the tree or the prompts that hold it first"):
        picture_called(12345)


def test_a_prompt_may_hold_tokens_of_its_own_picture_only() -> None:
    tree = pictured(shown(1))
    other = picture_tokens(remember_picture(shown(2), where="test"), 4)
    tree.roots[0] = replace(tree.roots[0], tokens=tuple(other))  # type: ignore[index] # it is a list
    with pytest.raises(DataError, match="root 0: its prompt has a token of a picture it does not hold"):
        tree.validate()


@pytest.mark.parametrize("damage", ["!!!", "aGVsbG8=", 5, "A" * 2_000_000])
def test_a_damaged_picture_in_a_file_is_told(tmp_path: Path, damage: object) -> None:
    import json

    from treegym.files import read_arrays, write_arrays

    file = tmp_path / "a.tree"
    pictured(shown(1)).save(file)
    arrays, metadata = read_arrays(file, mmap=False)
    table = json.loads(arrays["roots"].tobytes())
    table[0]["image"] = damage
    write_arrays(file, {**arrays, "roots": np.frombuffer(json.dumps(table).encode(), np.uint8)}, metadata)
    with pytest.raises(DataError, match="its table of roots is damaged"):
        TokenTree.open(file).validate()
