"""Files at URLs, any that fsspec knows (s3://, gs://, file://): written whole or not at all, read through a cache.

A file is fetched once for each version that the server has of it, as its size, ETag or time tell. A name may end in
``#sha256=...``: then the file must have that checksum, and once it is in the cache nobody is asked.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from treegym.errors import BackendError, ConfigError, DataError, MissingDependency, StorageError, TreeGymError, require
from treegym.files import atomic_path, atomic_write, cache_folder, told_by
from treegym.untrusted import read_json

__all__ = ["check_place", "fetched", "file_name", "is_url", "put", "size_of"]

BLOCK = 16 * 2**20  # bytes sent at a time
PARTS = 9000  # of a file at most: S3 takes 10,000
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")
_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2"}  # where the first part is made beforehand
_VERSION = ("size", "ETag", "etag", "mtime", "LastModified", "created", "updated", "last_modified")


def is_url(name: Any) -> bool:
    """Returns whether this names a file, or a folder, at a URL."""
    return isinstance(name, str) and _URL.match(name) is not None


def file_name(url: str) -> str:
    """Returns the last part of a URL."""
    name = PurePosixPath(_parted(url)[0].partition("://")[2]).name
    if not name or name in (".", ".."):
        raise ConfigError(f"{url} ends in no file name; give one such as s3://bucket/questions.tree")
    return name


def size_of(url: str) -> int | None:
    """Returns how many bytes there are, None where there is no such file; raises where nobody can tell."""
    store, path = _store(url)
    with _told(url, "asked for"):
        store.invalidate_cache()
        try:
            return int(store.info(path)["size"])
        except FileNotFoundError:
            return None


def check_place(url: str) -> None:
    """Raises where a file could not be written for lack of a bucket, a folder, a server or who we are."""
    store, path = _store(url)
    with _told(url, "asked for"):
        store.invalidate_cache()
        if _scheme(url) in _BUCKETS:
            bucket = path.lstrip("/").partition("/")[0]
            try:
                store.info(bucket)
            except FileNotFoundError:
                raise ConfigError(f"{url}: there is no bucket {bucket!r}; make it first, or name another") from None
        elif _is_local(store) and not Path(path).parent.is_dir():
            raise ConfigError(f"{Path(path).parent} is no directory; make it first")


def put(file: str | os.PathLike[str], url: str, *, kept: str = "") -> None:
    """Copies a file to a URL, where either all of it comes to stand or what stood there before remains.

    Args:
        file: what to copy.
        url: where to; what stands there is replaced.
        kept: what is kept, and what to do, should that fail.
    """
    store, path = _store(url)
    size = os.path.getsize(file)
    block = max(BLOCK, -(-size // PARTS))
    with open(file, "rb") as source, _told(url, "written", kept):
        if _is_local(store):
            with atomic_path(path) as temporary, open(temporary, "wb") as out:
                _copy(source, out, BLOCK)
            return
        _end_unfinished(store, path)
        with store.transaction:  # closed and complete at its end, or discarded
            out = store.open(path, "wb", block_size=block)
            try:
                _copy(source, out, block)
                out.close()
            except BaseException:
                if not isinstance(out, io.BytesIO):
                    out.closed = True  # or Python's clean-up would try to send the rest
                raise
        store.invalidate_cache()
        there = store.info(path)["size"]
        if there != size:
            raise StorageError(f"{url}: {there} bytes arrived of {size}; give the same command again")


def fetched(url: str) -> Path:
    """Returns the file at a URL, from the cache if it was fetched before."""
    place, pinned = _parted(url)
    folder = cache_folder() / "remote" / hashlib.sha256(place.encode()).hexdigest()[:32]
    if pinned and (found := _in_cache(folder, pinned)) is not None:
        return found
    store, path = _store(url)
    with _told(url, "read"):
        store.invalidate_cache()
        version, size = _version(store.info(path))
    file, note = folder / version / file_name(place), folder / version / "note.json"
    if not (file.is_file() and note.is_file() and file.stat().st_size == size):
        with told_by(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(folder).free:
            raise StorageError(
                f"{url} has {size:,} bytes, for which there is no room in {folder}; set TREEGYM_CACHE to another"
            )
        with atomic_path(file) as temporary, _told(url, "read"):
            store.get_file(path, str(temporary))
            store.invalidate_cache()
            if _version(store.info(path))[0] != version or temporary.stat().st_size != size:
                raise BackendError(f"{url} was changed while it was fetched; try again")
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        atomic_write(note, json.dumps({"url": place, "bytes": size, "sha256": digest}) + "\n")
    if pinned and (found := read_json(note).get("sha256")) != pinned:
        raise DataError(f"{url}: the file has the checksum {found}; it was changed, or the name is wrong")
    return file


def _in_cache(folder: Path, pinned: str) -> Path | None:
    for note in folder.glob("*/note.json"):
        told = read_json(note)
        files = [file for file in note.parent.iterdir() if file != note and not file.name.startswith(".")]
        if told.get("sha256") == pinned and len(files) == 1 and files[0].stat().st_size == told.get("bytes"):
            return files[0]
    return None


def _parted(url: str) -> tuple[str, str]:
    """Returns a URL without its checksum, and that."""
    place, _, pinned = url.partition("#sha256=")
    if "#sha256=" in url and not re.fullmatch(r"[0-9a-f]{64}", pinned):
        raise ConfigError(f"{url} ends in no checksum; expected #sha256= and 64 digits from 0 to f")
    return place, pinned


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _is_local(store: Any) -> bool:
    return "file" in (store.protocol if isinstance(store.protocol, tuple) else (store.protocol,))


def _store(url: str) -> tuple[Any, str]:
    """Returns the file system of a URL, and the path there."""
    fsspec = require("fsspec", extra="remote", purpose=f"a file at {_scheme(url)}://")
    try:
        store, path = fsspec.core.url_to_fs(_parted(url)[0])
    except ImportError as error:
        raise MissingDependency(
            f'{url} needs a package of its own: {error}; for S3 `pip install "treegym[remote]"`'
        ) from error
    except ValueError as error:
        raise ConfigError(f"{url} cannot be used: {error}; expected something like s3://bucket/name.tree") from error
    return store, str(path)


def _copy(source: BinaryIO, out: Any, block: int) -> None:
    while data := source.read(block):
        out.write(data)


def _end_unfinished(store: Any, path: str) -> None:
    """Ends what a killed process began to send to this very name: a server keeps, and bills, the parts of it."""
    if not hasattr(store, "list_multipart_uploads"):
        return
    bucket, _, key = path.partition("/")
    with suppress(PermissionError):  # who may write need not be allowed to look
        for begun in store.list_multipart_uploads(bucket):
            if begun["Key"] == key:
                store.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=begun["UploadId"])


def _version(info: dict[str, Any]) -> tuple[str, int]:
    """Returns a name of the version of a file, and its size."""
    told = repr([(name, str(info[name])) for name in _VERSION if info.get(name) is not None])
    if info.get("size") is None or info.get("type") == "directory":
        raise DataError(f"{info.get('name')} is no file, or its server does not say how large it is")
    return hashlib.sha256(told.encode()).hexdigest()[:32], int(info["size"])


@contextmanager
def _told(url: str, what: str, kept: str = "") -> Iterator[None]:
    """Makes one sentence of what a store raises: each has errors of its own, of which only the names are known here."""
    end = f"; {kept}" if kept else ""
    kind = StorageError if what == "written" else BackendError
    try:
        yield
    except TreeGymError as error:
        if not kept:
            raise
        raise kind(f"{error}{end}") from error
    except FileNotFoundError as error:
        raise DataError(f"{url} could not be {what}: there is no such file or bucket{end}") from error
    except Exception as error:
        name = type(error).__name__
        if type(error).__module__ == "builtins" and not isinstance(error, OSError | NotImplementedError):
            raise
        said = " ".join(str(error).split())[:200] or name
        if isinstance(error, PermissionError):
            why = f"the server does not let us: {said}"
        elif "Credential" in name or "Profile" in name or "Token" in name:
            why = f"there are no credentials ({said}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        elif isinstance(error, ConnectionError | TimeoutError) or "Connect" in name or "Timeout" in name:
            why = f"the server does not answer ({said})"
        else:
            why = said
        raise kind(f"{url} could not be {what}: {why}{end}") from error
