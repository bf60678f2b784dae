"""The walks in a Minari data set's files, read as a stranger's.

`minari.load_dataset` makes the environment that a file names where the file gives no spaces, which may be any code, and
believes the numbers that it finds. Only three arrays of an episode are needed, so they are read here, from the HDF5
file itself: nothing is made, no link leads to another file, and every size is compared with the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import DataError, TreeGymError, require
from treegym.untrusted import open_regular, read_json

__all__ = ["read_file"]

RATIO = 1_100  # deflate packs a thousand bytes into one at best
CHUNK = 2**24  # bytes that one packed piece may unpack to
PACKED = (None, "gzip", "lzf")


def read_file(folder: Path, numbers: Iterable[int] | None = None) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Returns root, actions ``[T] int64`` and rewards ``[T] float64`` of a data set's episodes, all or some of them."""
    h5py = require("h5py", extra="minari", purpose="a Minari data set")
    about = read_json(folder / "metadata.json")
    if not isinstance(about, dict) or about.get("data_format") != "hdf5":
        form = about.get("data_format") if isinstance(about, dict) else about
        raise DataError(f"{folder}: its data are {str(form)[:40]!r}, not hdf5, in which walks are written and read")
    path = folder / "main_data.hdf5"
    with open_regular(path) as plain:
        left = [RATIO * plain.seek(0, 2)]
    try:
        with h5py.File(path, "r") as file:
            chosen = range(len(file)) if numbers is None else numbers
            return [_walk(h5py, file, int(number), left) for number in chosen]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, TreeGymError):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: the data set is damaged: {said[:200]}") from error


def _walk(h5py: Any, file: Any, number: int, left: list[int]) -> tuple[int, np.ndarray, np.ndarray]:
    roots, actions, rewards = (
        _array(h5py, file, (f"episode_{number}", *names), kinds, left)
        for names, kinds in ((("infos", "root"), "iu"), (("actions",), "iu"), (("rewards",), "fiu"))
    )
    if not len(roots) or rewards.shape != actions.shape:
        raise DataError(f"episode {number} of the data set holds no walk: its actions and rewards differ in number")
    if not np.isfinite(rewards).all() or (roots != roots[0]).any():
        raise DataError(f"episode {number} of the data set holds no walk: rewards without end, or several roots")
    return int(roots[0]), actions.astype(np.int64), rewards.astype(np.float64)


def _array(h5py: Any, file: Any, names: tuple[str, ...], kinds: str, left: list[int]) -> np.ndarray:
    """Returns an array ``[n]`` of an episode, once its type, its size and where it lies were looked at.

    Args:
        h5py: the library.
        file: the open file.
        names: the groups that lead to it, and its own name.
        kinds: the types of number that it may have.
        left: how many bytes may still be read, all arrays together.
    """
    episode, name = names[0].replace("_", " "), names[-1]
    place = file
    for inner in names:
        if not isinstance(place, h5py.Group) or inner not in place:
            raise DataError(f"the data set was not written by TreeGym: {episode} holds no walk, without its {name}")
        if not isinstance(place.get(inner, getlink=True), h5py.HardLink):
            raise DataError(f"{episode}: its {name} would be read from elsewhere than the data set; links are refused")
        place = place[inner]
    if not isinstance(place, h5py.Dataset) or place.dtype.kind not in kinds or len(place.shape or ()) != 1:
        raise DataError(f"{episode} of the data set holds no walk: its {name} are not numbers in a row")
    size, piece = place.size * place.dtype.itemsize, (place.chunks or (0,))[0] * place.dtype.itemsize
    if place.external or place.is_virtual:
        raise DataError(f"{episode}: its {name} would be read from elsewhere than the data set; links are refused")
    left[0] -= size
    if size > RATIO * place.id.get_storage_size() or left[0] < 0 or piece > CHUNK or place.compression not in PACKED:
        raise DataError(f"{episode}: its {name} would take {size} bytes, which is more than the file can hold")
    return np.asarray(place[:])
