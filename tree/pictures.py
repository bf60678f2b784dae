"""Pictures in prompts: plain PNG files of bounded size, named in a prompt by what they hold.

A picture's name is a hash of its bytes. A prompt holds the name where the picture stands, and a model that sees writes
the name as tokens beyond every vocabulary: which picture a token belongs to can be read off the token alone, so trees,
caches and policies pass pictures on as they pass on any tokens.

Plain means: the chunks that an image needs and no others, no interlacing, and exactly as many pixels as it claims.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator

from treegym.errors import ConfigError, DataError

__all__ = [
    "FIRST_PICTURE_TOKEN",
    "LAST_TOKEN",
    "PARTS",
    "PICTURE_BYTES",
    "SIDE",
    "has_picture",
    "is_plain_png",
    "named_pictures",
    "part_and_picture",
    "picture_called",
    "picture_name",
    "picture_tokens",
    "remember_picture",
    "tokens_of_other_pictures",
]

PICTURE_BYTES = 2**20  # of one picture's file
SIDE = 1024  # pixels
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PLAIN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a colour type
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # bits of a channel
BITS = 26  # of a picture's number
PARTS = 16  # tokens that a picture takes at most
FIRST_PICTURE_TOKEN = 2**30
LAST_TOKEN = 2**31 - 1  # of pictures, and the largest id that an int32 holds
_NAME = re.compile(r"<picture ([0-9a-f]{7})>")
_seen: dict[int, bytes] = {}  # by number: the pictures of all prompts that this process has met


def _number(png: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(png, digest_size=4).digest(), "big") >> (32 - BITS)


def picture_name(png: bytes) -> str:
    """Returns what stands for a picture in a prompt: ``<picture 0a1b2c3>``."""
    return f"<picture {_number(png):07x}>"


def named_pictures(text: str) -> Iterator[tuple[str, int | None]]:
    """Yields a text in parts: what stands before each name with the number of its picture, the rest with None."""
    start = 0
    for match in _NAME.finditer(text):
        number = int(match[1], 16)
        if number < 2**BITS:
            yield text[start : match.start()], number
            start = match.end()
    yield text[start:], None


def remember_picture(png: bytes, *, where: str) -> int:
    """Returns the number of a plain PNG, which `picture_called` finds from now on; DataError for any other bytes."""
    number = _number(png)
    known = _seen.get(number)
    if known is None:
        _check_plain(png, where)
        _seen[number] = png
    elif known != png:
        raise DataError(
            f"{where}: two pictures are called {picture_name(png)}, a rare accident; change one of them by a pixel"
        )
    return number


def picture_called(number: int) -> bytes:
    """Returns the PNG of a number; ConfigError where no prompt with it was read in this process."""
    if number not in _seen:
        raise ConfigError(
            f"<picture {number:07x}> is named, but no prompt with that picture was read; open the tree or the prompts "
            "that hold it first"
        )
    return _seen[number]


def has_picture(text: str) -> bool:
    """Whether a text names a picture that this process has met, rather than something that looks like a name."""
    return any(number in _seen for _, number in named_pictures(text))


def picture_tokens(number: int, parts: int) -> list[int]:
    """Returns the tokens of a picture that a model reads in so many parts."""
    if not 1 <= parts <= PARTS:
        raise ConfigError(f"a picture came in {parts} parts; 1 to {PARTS} were expected")
    first = FIRST_PICTURE_TOKEN + number * PARTS
    return list(range(first, first + parts))


def part_and_picture(token: int) -> tuple[int, int]:
    """Returns which part of which picture a token stands for."""
    number, part = divmod(token - FIRST_PICTURE_TOKEN, PARTS)
    return part, number


def tokens_of_other_pictures(tokens: tuple[int, ...], png: bytes) -> list[int]:
    """Returns the tokens that stand for a part of another picture than this (of none, if there is no picture)."""
    number = _number(png) if png else -1
    return [t for t in tokens if t >= FIRST_PICTURE_TOKEN and (t - FIRST_PICTURE_TOKEN) // PARTS != number]


def is_plain_png(png: bytes) -> bool:
    """Whether bytes are a PNG file as trees hold it."""
    try:
        _check_plain(png, "")
    except DataError:
        return False
    return True


def _check_plain(png: bytes, where: str) -> None:
    """Raises DataError unless bytes are a plain PNG; nothing larger than it may be is unpacked on the way."""
    if len(png) > PICTURE_BYTES:
        raise DataError(
            f"{where}: a picture of {len(png):,} bytes; at most {PICTURE_BYTES:,} are allowed, make it smaller"
        )
    chunks = list(_chunks(png, where))
    names = [name for name, _ in chunks]
    if names[:1] != [b"IHDR"] or names[-1:] != [b"IEND"] or names.count(b"IHDR") + names.count(b"IEND") != 2:
        raise _damaged(where, "its first or last part is missing")
    if b"PLTE" in names and b"IDAT" in names and names.index(b"PLTE") > names.index(b"IDAT"):
        raise _damaged(where, "its palette comes after its pixels")
    width, height, row = _size(chunks[0][1], where)
    if chunks[0][1][9] == 3 and b"PLTE" not in names:
        raise _damaged(where, "its palette is missing")
    expected = height * (1 + row)
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(b"".join(body for name, body in chunks if name == b"IDAT"), expected + 1)
    except zlib.error as error:
        raise _damaged(where, f"its pixels cannot be unpacked ({error})") from error
    if len(raw) > expected or unpacker.unconsumed_tail:
        raise _damaged(where, f"it unpacks to more than the {width} x {height} pixels that it claims")
    if len(raw) < expected or not unpacker.eof:
        raise _damaged(where, f"it holds fewer than the {width} x {height} pixels that it claims")
    if max(raw[:: 1 + row]) > 4:
        raise _damaged(where, "a row of pixels is coded in a way that PNG does not know")


def _chunks(png: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    if not png.startswith(SIGNATURE):
        raise DataError(f"{where}: not a PNG picture; save it as PNG")
    at = len(SIGNATURE)
    while at < len(png):
        if at + 12 > len(png):
            raise _damaged(where, "it is cut off")
        (length,), name = struct.unpack_from(">I", png, at), png[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(png):
            raise _damaged(where, "it is cut off")
        if zlib.crc32(png[at + 4 : end - 4]) != struct.unpack_from(">I", png, end - 4)[0]:
            raise _damaged(where, "a checksum is wrong")
        if name not in PLAIN:
            raise DataError(
                f"{where}: the picture has a part {name!r} beside its pixels; name its file in a prompt file, where it "
                "is made plain"
            )
        yield name, png[at + 8 : end - 4]
        at = end


def _size(header: bytes, where: str) -> tuple[int, int, int]:
    """Returns width, height and bytes of a row."""
    if len(header) != 13:
        raise _damaged(where, "its header is no header")
    width, height, depth, colour, packing, filtering, interlaced = struct.unpack(">IIBBBBB", header)
    if not (1 <= width <= SIDE and 1 <= height <= SIDE):
        raise DataError(f"{where}: a picture of {width} x {height} pixels; 1 to {SIDE} a side are allowed")
    if depth not in DEPTHS.get(colour, ()) or packing or filtering or interlaced > 1:
        raise _damaged(where, "its header names a form that PNG does not have")
    if interlaced:
        raise DataError(f"{where}: an interlaced picture; save it without interlacing")
    return width, height, (width * depth * CHANNELS[colour] + 7) // 8


def _damaged(where: str, how: str) -> DataError:
    return DataError(f"{where}: a damaged picture: {how}; save it anew")
