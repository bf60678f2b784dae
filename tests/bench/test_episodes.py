from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from treegym.bench.episodes import Episodes, read_episodes, write_episodes
from treegym.errors import DataError


@pytest.fixture
def episodes() -> Episodes:
    return Episodes(
        prompt=np.array([3, 5], np.int32),
        kind=np.array(["chain", "sört"]),
        ret=np.array([1.0, -0.25]),
        correct=np.array([True, False]),
        true=np.array([1.0, 0.0]),
        proxy=np.array([0.5, 0.75]),
        length=np.array([4, 9], np.int32),
        regret=np.array([0.0, np.nan]),
        end=np.array([17, -1]),
        failed=np.array([0, 2], np.int32),
    )


def test_what_is_written_is_read(tmp_path: Path, episodes: Episodes) -> None:
    digest = write_episodes(tmp_path / "e.jsonl.gz", {0: episodes, 4: episodes})
    read, again = read_episodes(tmp_path / "e.jsonl.gz")
    assert again == digest
    assert list(read) == [0, 4]
    for name in Episodes.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read[4], name), getattr(episodes, name))
    assert read[0].metric("return").tolist() == [1.0, -0.25]


def test_equal_episodes_give_equal_bytes(tmp_path: Path, episodes: Episodes) -> None:
    for name in ("a", "b"):
        write_episodes(tmp_path / name, {0: episodes})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b""), gzip.compress(b"{}\n"), gzip.compress(b'{"checkpoint": 0}\n'),
     gzip.compress(b'[1]\n'), gzip.compress(b"\xff\n")],
    ids=["empty", "no gzip", "no line", "no field", "no checkpoint's fields", "no object", "no text"],
)  # fmt: skip
def test_damaged_files_are_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "e.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(DataError, match="not a sound file of episodes"):
        read_episodes(file)


def test_every_truncation_is_noticed(tmp_path: Path, episodes: Episodes) -> None:
    file = tmp_path / "e.jsonl.gz"
    write_episodes(file, {0: episodes})
    whole = file.read_bytes()
    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            read_episodes(file)
