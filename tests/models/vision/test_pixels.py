"""Picture files of any kind made plain, and prepared as a model expects them."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from treegym.errors import DataError
from treegym.models.vision.pixels import Preparation, pixels_of, plain_picture
from treegym.models.vision.shapes import png_of
from treegym.tree.pictures import is_plain_png

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def saved(path: Path, image: object, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[attr-defined]
    return path


def test_a_plain_png_stays_as_it_is(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    png = png_of(pixels)
    (tmp_path / "a.png").write_bytes(png)
    assert plain_picture(tmp_path / "a.png") == png
    np.testing.assert_array_equal(pixels_of(png), pixels)


def test_other_files_are_made_plain(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (200, 10, 10))
    noted = io.BytesIO()
    image.save(noted, "PNG", exif=b"Exif\0\0secret")
    (tmp_path / "noted.png").write_bytes(noted.getvalue())
    for file in (saved(tmp_path / "a.jpg", image, quality=95), tmp_path / "noted.png"):
        plain = plain_picture(file)
        assert is_plain_png(plain)
        assert b"secret" not in plain
        assert pixels_of(plain).shape == (20, 40, 3)
        assert abs(pixels_of(plain).astype(int) - (200, 10, 10)).max() <= 3


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", Image.new("RGBA", (3, 2), (0, 0, 0, 0)))
    assert (pixels_of(plain_picture(file)) == 255).all()


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.jpg", Image.new("RGB", (3000, 1500), "blue"))
    assert pixels_of(plain_picture(file)).shape == (512, 1024, 3)


def test_damaged_files_and_bombs_are_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"nothing")
    with pytest.raises(DataError, match=r"a\.png: not a sound PNG or JPEG picture"):
        plain_picture(file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="it does not begin as one"):
        plain_picture(file)
    whole = saved(tmp_path / "b.jpg", Image.effect_noise((64, 64), 50)).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a sound"):
        plain_picture(file)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b""))
    bomb = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
    with pytest.raises(DataError, match=r"a\.png: far more pixels than the 16,777,216 that are unpacked here"):
        plain_picture(file)
    with pytest.raises(DataError, match="cannot be read"):
        plain_picture(tmp_path / "none.png")


def test_preparation_takes_the_middle_and_scales() -> None:
    """Of 8 x 4 pixels the shorter side stays 4, the middle four columns are taken; (255 / 255 - 0.5) / 0.5 = 1."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 255
    prepared = Preparation(4, 4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resample=0)
    values = prepared([png_of(pixels)])
    assert values.shape == (1, 3, 4, 4)
    assert (values == 1.0).all()


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"size": {"shortest_edge": 32}, "crop_size": 64, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
        {"size": 32, "image_mean": [0, 0], "image_std": [1, 1, 1]},
        {"size": 32, "image_mean": [0, 0, 0], "image_std": [1, 1, 0]},
        {"size": 10**9, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
    ],
)
def test_a_preparation_that_makes_no_sense_is_refused(tmp_path: Path, told: dict) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="does not say how pictures are prepared"):
        Preparation.read(tmp_path)


def test_forms_of_the_preparation(tmp_path: Path) -> None:
    scale = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    for told in (
        {"size": 32, "crop_size": 24, **scale},
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 24, "width": 24}, **scale},
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
        found = Preparation.read(tmp_path)
        assert (found.shorter, found.side) == (32, 24)
