"""Ways to damage a file, each following from a generator: bytes, JSON values, lines, arrays and their headers."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

JUNK: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**70, 1e300, -1e300, 0.5, "", "x", "\x1b[2J", "9" * 300, [], {}, [[]], [None],
    {"": {}}, [2**64], ["x"] * 50, [-1, 0.5, "x"],
]  # fmt: skip


def bytes_of(raw: bytes, rng: np.random.Generator) -> bytes:
    """Returns bytes with a few of them flipped, cut off, repeated or replaced."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(max(len(data), 1)))
        kind = int(rng.integers(5))
        if kind == 0 and data:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = data[place : place + int(rng.integers(1, 64))]
        elif kind == 3:
            data[place : place + 8] = rng.bytes(8)
        else:
            del data[place : place + int(rng.integers(1, 32))]
    return bytes(data)


def json_value(value: Any, rng: np.random.Generator) -> Any:
    """Returns a JSON value with junk in one place, or with a place missing or twice."""
    value = copy.deepcopy(value)
    ways: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in list(inner) if isinstance(inner, dict) else range(len(inner))[:50]:
            ways.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    if not isinstance(value, dict | list):
        return JUNK[int(rng.integers(len(JUNK)))]
    walk(value)
    for _ in range(int(rng.integers(1, 3)) if ways else 0):
        inner, key = ways[int(rng.integers(len(ways)))]
        if rng.random() < 0.15 and isinstance(inner, dict):
            inner.pop(key, None)
        elif isinstance(inner, dict) or key < len(inner):
            inner[key] = copy.deepcopy(JUNK[int(rng.integers(len(JUNK)))])
    return value


def json_file(path: Path, rng: np.random.Generator) -> None:
    raw = path.read_bytes()
    whole = rng.random() < 0.3
    path.write_bytes(bytes_of(raw, rng) if whole else json.dumps(json_value(json.loads(raw), rng)).encode())


def lines_file(path: Path, rng: np.random.Generator) -> None:
    packed = path.suffix == ".gz"
    raw = path.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(bytes_of(raw, rng))
        return
    lines = (gzip.decompress(raw) if packed else raw).splitlines()
    place = int(rng.integers(len(lines)))
    lines[place] = json.dumps(json_value(json.loads(lines[place]), rng)).encode()
    text = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(text) if packed else text)


def one_array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns an array of another shape or type, or with values it should not have."""
    kind = int(rng.integers(6))
    array = np.array(array)
    if kind == 0:
        return array.reshape(-1)[: int(rng.integers(array.size + 1))]
    if kind == 1:
        return np.resize(array, (*array.shape, 2)) if array.size else np.zeros(3, array.dtype)
    if kind == 2:
        with np.errstate(all="ignore"):
            return array.astype([np.float32, np.int64, np.uint8, np.int8, np.float64][int(rng.integers(5))])
    flat = array.reshape(-1)
    if flat.size:
        value = [np.nan, np.inf, -1, 0, 127, 2**31 - 1, 2**15][int(rng.integers(7))]
        with np.errstate(all="ignore"):
            where = rng.integers(flat.size, size=int(rng.integers(1, 4)))
            flat[where] = np.asarray(value).astype(array.dtype) if array.dtype.kind != "b" else True
    return array


def arrays_of(raw: bytes, rng: np.random.Generator, folder: Path) -> bytes:
    """Returns an array file with one array or one entry of its header damaged."""
    from treegym.files import arrays_in, write_arrays

    length = int.from_bytes(raw[:8], "little")
    choice = rng.random()
    if choice < 0.2:
        return bytes_of(raw, rng)
    if choice < 0.5:
        header = json.dumps(json_value(json.loads(raw[8 : 8 + length]), rng)).encode()
        return len(header).to_bytes(8, "little") + header + raw[8 + length :]
    arrays, metadata = arrays_in(np.frombuffer(raw, np.uint8), where="the good one", values=2**22)
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    write_arrays(folder / "part", {**arrays, name: one_array(arrays[name], rng)}, metadata)
    return (folder / "part").read_bytes()


def arrays_file(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(arrays_of(path.read_bytes(), rng, path.parent))


def checkpoint_file(path: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.15:
        path.write_bytes(bytes_of(path.read_bytes(), rng))
        return
    with zipfile.ZipFile(path) as archive:
        data, arrays = archive.read("data.json"), archive.read("arrays.safetensors")
    if rng.random() < 0.5:
        data = json.dumps(json_value(json.loads(data), rng)).encode()
    else:
        arrays = arrays_of(arrays, rng, path.parent)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.json", data)
        archive.writestr("arrays.safetensors", arrays)


def sealed_lines(path: Path, rng: np.random.Generator) -> None:
    """Damages a line of a journal and gives it the checksum of what it is now."""
    if rng.random() < 0.3:
        path.write_bytes(bytes_of(path.read_bytes(), rng))
        return
    lines = path.read_bytes().splitlines()
    place = int(rng.integers(len(lines)))
    text = json.dumps(json_value(json.loads(lines[place].partition(b" ")[2]), rng))
    lines[place] = f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()} {text}".encode()
    path.write_bytes(b"\n".join(lines) + b"\n")


def metadata_file(path: Path, rng: np.random.Generator) -> None:
    """Damages the JSON that is a text in the metadata of an array file, or the file as any other."""
    if rng.random() < 0.6:
        arrays_file(path, rng)
        return
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    key = sorted(header["__metadata__"])[0]
    header["__metadata__"][key] = json.dumps(json_value(json.loads(header["__metadata__"][key]), rng))
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def any_file(path: Path, rng: np.random.Generator) -> None:
    """Damages one file of a folder, in the way of its kind."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    file = files[int(rng.integers(len(files)))]
    kinds = {".json": json_file, ".gz": lines_file, ".jsonl": lines_file}
    kinds |= {".safetensors": arrays_file, ".tree": arrays_file}
    kinds.get(file.suffix, text_file)(file, rng)


def text_file(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(bytes_of(path.read_bytes(), rng))
