"""What others shared on a hub: names such as ``hf:user/name@revision``, and the files behind them, checked.

A shared repository holds `treegym.json`, which says what it is and the size and SHA-256 of every file. Nothing that is
fetched is executed; names, sizes and checksums are compared with what the hub and that file say before and after.
Files lie in the hub's own cache, so what was fetched once is there without a network.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from treegym.errors import BackendError, ConfigError, DataError, TreeGymError, require
from treegym.registry import refuse_hearsay
from treegym.untrusted import open_regular, read_json

__all__ = [
    "FORMAT",
    "MANIFEST",
    "REPOSITORIES",
    "Absent",
    "HubName",
    "Shared",
    "api",
    "explained",
    "fetch",
    "fetched",
    "first_line",
    "is_hub_name",
    "look_up",
    "of_transport",
    "parse",
    "sha256_of",
]

MANIFEST = "treegym.json"
FORMAT = 1
REPOSITORIES = {
    "tree": "dataset",
    "agent": "model",
    "bench": "dataset",
    "iterate": "dataset",
    "optimization": "dataset",
}
MANIFEST_LIMIT = 2**22  # bytes
FILES_LIMIT = 10_000
_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_REVISION = re.compile(r"[\w./-]{1,200}")
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubName:
    """A repository on a hub, at a branch, tag or commit."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Shared:
    """What a repository says it holds; nothing of it is fetched yet but that."""

    name: HubName
    repo_type: str
    commit: str
    kind: str
    files: Mapping[str, tuple[int, str]]  # path -> (bytes, SHA-256)
    about: Mapping[str, Any]

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.files.values())


def is_hub_name(thing: Any) -> bool:
    """Whether something is a name such as ``hf:user/name``."""
    return isinstance(thing, str) and thing.startswith("hf:")


def parse(text: str) -> HubName:
    """Returns the repository that ``user/name``, ``hf:user/name`` or ``hf:user/name@revision`` names."""
    repo, at, revision = text.removeprefix("hf:").partition("@")
    if not _NAME.fullmatch(repo) or ".." in repo or (at and not _REVISION.fullmatch(revision)):
        raise ConfigError(f"{text!r} names no repository; expected hf:USER/NAME or hf:USER/NAME@REVISION")
    return HubName(repo, revision or None)


def api() -> Any:
    """Returns the hub's client; HF_ENDPOINT says where, HF_TOKEN or a login who."""
    library = require("huggingface_hub", extra="hub", purpose="what lies on a hub")
    return library.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN"))


def look_up(name: HubName | str, *, kind: str | None = None) -> Shared:
    """Returns what a repository holds, pinned to one commit; DataError when it is not ours or of another kind."""
    refuse_hearsay(str(name), "the repository")
    name = parse(name) if isinstance(name, str) else name
    types = [REPOSITORIES[kind]] if kind else sorted(set(REPOSITORIES.values()))
    reasons: list[Absent] = []
    for repo_type in types:
        try:
            path = _download(name, repo_type, name.revision, MANIFEST, most=MANIFEST_LIMIT)
        except Absent as error:
            reasons.append(error)
            continue
        commit = path.parent.name  # the cache names the folder of a snapshot after its commit
        shared = _shared(name, repo_type, commit, read_json(path, limit=MANIFEST_LIMIT))
        if kind is not None and shared.kind != kind:
            raise DataError(f"{name} holds {_a(shared.kind)}, not {_a(kind)}")
        return shared
    found = [reason for reason in reasons if "no such repository" not in str(reason)]  # says more, where one was found
    raise DataError(str((found or reasons)[0])) from reasons[0]


def fetch(shared: Shared, names: Iterable[str] | None = None) -> dict[str, Path]:
    """Downloads files (all, unless some are named) and returns where each lies, with its size and checksum checked.

    A download that breaks off goes on where it stopped; files that are there already are not fetched again.
    """
    found = {}
    for file in shared.files if names is None else names:
        size, sha256 = shared.files[file]
        try:
            path = _download(shared.name, shared.repo_type, shared.commit, file, most=size)
        except Absent as error:
            raise DataError(str(error)) from error
        held = path.stat().st_size
        if held != size or sha256_of(path) != sha256:
            path.resolve().unlink()  # or it would be taken from the cache the next time
            raise DataError(
                f"{shared.name}: {file} is not what its {MANIFEST} says (size or SHA-256 differ); fetch again"
            )
        found[file] = path
    return found


def fetched(name: str, *, kind: str) -> Path:
    """Returns the one file of a shared tree or agent, as the hub's cache holds it."""
    shared = look_up(name, kind=kind)
    if len(shared.files) != 1:
        raise DataError(f"{name} holds {len(shared.files)} files, and {_a(kind)} is one; fetch it with `treegym pull`")
    return next(iter(fetch(shared).values()))


class Absent(Exception):
    """There is no such repository, revision or file."""


@contextmanager
def explained(name: HubName) -> Iterator[None]:
    """Turns what the hub's client raises into one sentence of ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise BackendError(f"{name} is gated: ask for access on its page, then log in or set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise Absent(f"{name}: there is no revision {name.revision or 'main'!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise Absent(f"{name}: there is no such repository, or it is private and needs HF_TOKEN") from error
    except errors.LocalEntryNotFoundError as error:
        why = f"refused ({first_line(error.__cause__)})" if isinstance(error.__cause__, errors.HfHubHTTPError) else ""
        why = why or "cannot be reached"
        raise BackendError(f"{name}: the hub {why}, and the cache does not hold it") from error
    except errors.EntryNotFoundError as error:
        raise Absent(f"{name} was not shared by TreeGym: it has no {MANIFEST}, or lacks a file of it") from error
    except errors.HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) == 401:
            raise BackendError(f"{name}: the hub does not know you; log in, or set HF_TOKEN to a token") from error
        raise BackendError(f"{name}: the hub refused: {first_line(error)}") from error
    except TreeGymError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:  # broken answers, broken connections
        raise BackendError(f"{name}: the hub could not be asked: {first_line(error)}") from error
    except Exception as error:
        if not of_transport(error):
            raise
        raise BackendError(f"{name}: the hub could not be asked: {first_line(error)}") from error


def of_transport(error: BaseException) -> bool:
    """Whether the client's own HTTP library raised it; which one that is differs between its versions."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it says nothing."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _download(name: HubName, repo_type: str, revision: str | None, file: str, *, most: int) -> Path:
    """Returns where a file of at most so many bytes lies; a larger one is not fetched."""
    wanted = {"repo_type": repo_type, "revision": revision, "cache_dir": os.environ.get("HF_HUB_CACHE")}
    with explained(name):
        try:
            size = _size_of(name, repo_type, revision, file)
            if size is not None and size > most:
                raise DataError(f"{name}: {file} has {size:,} bytes, and at most {most:,} were expected")
            found = api().hf_hub_download(name.repo, file, **wanted)
        except Exception as error:
            if not of_transport(error):
                raise
            found = api().hf_hub_download(name.repo, file, **wanted, local_files_only=True)
    return Path(found)


def _size_of(name: HubName, repo_type: str, revision: str | None, file: str) -> int | None:
    """Returns how large the hub says that a file is; None where it cannot be asked, as the cache may hold it."""
    from huggingface_hub import errors, hf_hub_url

    client = api()
    url = hf_hub_url(name.repo, file, repo_type=repo_type, revision=revision, endpoint=client.endpoint)
    try:
        told = client.get_hf_file_metadata(url=url)
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError):
        return None
    size: int | None = told.size
    return size


def _shared(name: HubName, repo_type: str, commit: str, told: Any) -> Shared:
    """Returns a checked manifest."""
    if not isinstance(told, dict) or told.get("format") != FORMAT or str(told.get("kind")) not in REPOSITORIES:
        found = str(told.get("format") if isinstance(told, dict) else told)[:40]
        raise DataError(f"{name}: its {MANIFEST} has format {found}; this version of TreeGym reads format {FORMAT}")
    files, about = told.get("files"), told.get("about", {})
    if not isinstance(files, dict) or not 1 <= len(files) <= FILES_LIMIT or not isinstance(about, dict):
        raise DataError(f"{name}: its {MANIFEST} lists no files, or too many; it is damaged")
    checked: dict[str, tuple[int, str]] = {}
    for file, entry in files.items():
        parts = PurePosixPath(file).parts
        size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        sound = parts and not file.startswith("/") and ".." not in parts and "\\" not in file and "\0" not in file
        if not sound or type(size) is not int or size < 0 or not _SHA.fullmatch(str(sha256)):
            raise DataError(f"{name}: its {MANIFEST} has a damaged entry for {file[:80]!r}")
        checked[file] = (size, str(sha256))
    return Shared(name, repo_type, commit, told["kind"], checked, about)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a regular file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
