"""Pictures as files and as numbers: any PNG or JPEG made plain once, plain PNGs decoded and prepared for a model."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import DataError, require
from treegym.tree.pictures import PICTURE_BYTES, SIDE, is_plain_png
from treegym.untrusted import read_bytes, read_json

__all__ = ["FILE_BYTES", "PIXELS", "Preparation", "pixels_of", "plain_picture"]

FILE_BYTES = 2**24  # of a picture as it is brought here
PIXELS = 2**24  # of one, before it is made smaller; unpacked it takes four times as many bytes
FORMATS = ("PNG", "JPEG")
BICUBIC = 3  # as `resample` in preprocessor_config.json


def plain_picture(path: str | os.PathLike[str]) -> bytes:
    """Returns the picture in a file as a plain PNG; one that is too large for a tree is made smaller.

    The size that the file claims is checked before anything is unpacked.
    """
    raw = read_bytes(path, limit=FILE_BYTES)
    if is_plain_png(raw):
        return raw
    image = _opened(raw, os.fspath(path))
    image.thumbnail((SIDE, SIDE))
    while True:
        out = io.BytesIO()
        image.save(out, "PNG", optimize=True)
        if len(out.getvalue()) <= PICTURE_BYTES:
            return out.getvalue()
        image.thumbnail((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


def pixels_of(png: bytes, *, where: str = "a picture") -> np.ndarray:
    """Returns the pixels of a picture ``[H, W, 3] uint8``, on white where it is transparent."""
    return np.asarray(_opened(png, where))


def _opened(raw: bytes, where: str) -> Any:
    """Returns a decoded picture, red, green and blue, without anything else that its file held."""
    require("PIL", extra="images", purpose="reading a picture")
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked below, more strictly than it would be warned of
            image: Any = Image.open(io.BytesIO(raw), formats=FORMATS)
        if image.width * image.height > PIXELS:
            raise DataError(
                f"{where}: a picture of {image.width:,} x {image.height:,} pixels, more than the {PIXELS:,} that are "
                "unpacked here; make it smaller"
            )
        image = image.convert("RGBA")
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{where}: far more pixels than the {PIXELS:,} that are unpacked here; make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{where}: not a sound PNG or JPEG picture (it does not begin as one); save it anew") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: not a sound PNG or JPEG picture ({error}); save it anew") from error
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


@dataclass(frozen=True)
class Preparation:
    """How pixels become a model's input: the shorter side, the square cut out of the middle, and the scale."""

    side: int  # of the square
    shorter: int  # side that a picture is first brought to
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = BICUBIC

    @classmethod
    def read(cls, directory: Path) -> Preparation:
        """Returns what ``preprocessor_config.json`` says, in the forms that CLIP's have had."""
        told = read_json(directory / "preprocessor_config.json")
        try:
            size, crop = told["size"], told.get("crop_size", told["size"])
            side = crop if isinstance(crop, int) else crop["height"]
            shorter = size if isinstance(size, int) else size.get("shortest_edge", size.get("height"))
            mean, std = tuple(told["image_mean"]), tuple(told["image_std"])
            made = cls(side, shorter, mean, std, told.get("resample", BICUBIC))
            made.check()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"{directory / 'preprocessor_config.json'}: does not say how pictures are prepared ({error!r}); put "
                "the file there that came with the model"
            ) from error
        return made

    def check(self) -> None:
        """Raises ValueError for sizes and scales that no model has."""
        sizes = all(type(side) is int and 1 <= side <= SIDE for side in (self.side, self.shorter))
        scales = (*self.mean, *self.std)
        if not sizes or self.side > self.shorter or len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"sizes {self.side} and {self.shorter}, {len(self.mean)} means")
        if not all(isinstance(x, float | int) and abs(x) < 1e3 for x in scales) or min(self.std) <= 0:
            raise ValueError(f"scales {scales}")
        if self.resample not in range(6):
            raise ValueError(f"resample {self.resample!r}")

    def __call__(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Returns PNGs as a model reads them ``[B, 3, side, side] float32``."""
        return self.scaled(np.stack([self._square(pixels_of(png)) for png in pictures]))

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """Returns squares of pixels ``[B, side, side, 3] uint8`` as a model reads them."""
        values = (pixels.astype(np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def _square(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        if (height, width) == (self.side, self.side) and self.shorter == self.side:
            return pixels
        from PIL import Image

        ratio = self.shorter / min(height, width)
        longest = 8 * SIDE  # of a very long and narrow picture, only the middle is kept anyway
        across, down = (min(longest, max(self.side, round(n * ratio))) for n in (width, height))
        image = Image.fromarray(pixels).resize((across, down), self.resample)
        left, top = (across - self.side) // 2, (down - self.side) // 2
        return np.asarray(image.crop((left, top, left + self.side, top + self.side)))
