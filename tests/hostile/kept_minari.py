"""A Minari data set of walks, damaged in its bytes, in what its metadata says, and in the arrays of its episodes."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from damage import JUNK, bytes_of, json_value, one_array

__all__ = ["kept_minari"]

WORLD = {"tree": "synthetic:roots=6,depth=3,branching=3,seed=0", "split": "all"}


def kept_minari(folder: Path) -> dict[str, Any]:
    """Makes a sound data set; nothing where Minari is not installed."""
    if importlib.util.find_spec("minari") is None or importlib.util.find_spec("h5py") is None:
        return {}
    import gymnasium as gym
    from formats import Format
    from kept import files_in

    from treegym.integrations import minari as door

    def read(path: Path) -> None:
        os.environ["MINARI_DATASETS_PATH"] = str(path.parent)
        walks = door.read(path.name)
        assert np.isfinite(walks.returns).all()

    os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")
    door.export("good-v0", door.walks_of("oracle", **WORLD), gym.make("TokenTree-v0", **WORLD), algorithm="oracle")
    return {"minari": Format(files_in(folder / "minari" / "good-v0"), "-v0", damaged, read)}


def damaged(path: Path, rng: np.random.Generator) -> None:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    chosen, way = files[int(rng.integers(len(files)))], rng.random()
    if way < 0.3:
        chosen.write_bytes(bytes_of(chosen.read_bytes(), rng))
    elif way < 0.4:
        chosen.unlink()
    elif chosen.suffix == ".json":
        chosen.write_text(json.dumps(json_value(json.loads(chosen.read_text()), rng)))
    else:
        _other_arrays(chosen, rng)


def _other_arrays(path: Path, rng: np.random.Generator) -> None:
    """Gives one array or attribute of an HDF5 file another shape, type or value, or takes it away."""
    import h5py

    with h5py.File(path, "r+") as file:
        found: list[Any] = []
        file.visititems(lambda _, item: found.append(item))
        item = found[int(rng.integers(len(found)))]
        if isinstance(item, h5py.Dataset) and rng.random() < 0.7:
            name, values = item.name, item[()]
            del file[name]
            if rng.random() < 0.8:
                file[name] = one_array(np.asarray(values), rng) if np.asarray(values).dtype.kind in "biuf" else "x"
        elif item.attrs and rng.random() < 0.7:
            key = sorted(item.attrs)[int(rng.integers(len(item.attrs)))]
            junk = JUNK[int(rng.integers(len(JUNK)))]
            item.attrs[key] = junk if isinstance(junk, bool | float | str) else json.dumps(junk)
        else:
            del file[item.name]
