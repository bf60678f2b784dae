"""Puts what can be shared on a hub: the files, `treegym.json` and a card, in one commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import treegym
from treegym.errors import BackendError, ConfigError
from treegym.hub import FORMAT, MANIFEST, REPOSITORIES, Absent, HubName, api, explained, sha256_of
from treegym.sharing.cards import card
from treegym.sharing.kinds import Kind, content_of, kind_of

__all__ = ["Parcel", "pack", "push"]


@dataclass(frozen=True)
class Parcel:
    """What will be on the hub."""

    kind: Kind
    files: Mapping[str, Path]
    left_out: list[str]
    manifest: dict[str, Any]
    card: str

    @property
    def size(self) -> int:
        return sum(entry["size"] for entry in self.manifest["files"].values())


def pack(path: Path, name: HubName, *, licence: str | None = None) -> Parcel:
    """Checks what lies at `path` and describes it; nothing is sent."""
    kind = kind_of(path)
    about = json.loads(json.dumps(kind.examine(path), default=str))
    files, left_out = content_of(path)
    if not files:
        raise ConfigError(f"{path} holds no file that is shared; left out were {', '.join(left_out)[:200]}")
    listed: dict[str, Any] = {
        file: {"size": place.stat().st_size, "sha256": sha256_of(place)} for file, place in files.items()
    }
    manifest = {
        "format": FORMAT,
        "kind": kind.name,
        "version": treegym.__version__,
        "files": listed,
        "about": about,
    }
    size = sum(entry["size"] for entry in listed.values())
    text = card(kind, about, repo=name.repo, version=treegym.__version__, licence=licence, size=size)
    return Parcel(kind, files, left_out, manifest, text)


def push(parcel: Parcel, name: HubName, *, private: bool = False, message: str | None = None) -> str:
    """Sends a parcel in one commit, over an older one of the same name; returns the commit.

    Files of an earlier parcel that this one does not have are removed in the same commit.
    """
    client = api()
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo_type = REPOSITORIES[parcel.kind.name]
    try:
        with explained(name):
            client.create_repo(name.repo, repo_type=repo_type, private=private, exist_ok=True)
            there = set(client.list_repo_files(name.repo, repo_type=repo_type, revision=name.revision))
            if there - {".gitattributes", "README.md"} and MANIFEST not in there:
                raise ConfigError(f"{name} holds files that are not of TreeGym; choose a repository of its own")
            ours = {MANIFEST: json.dumps(parcel.manifest, indent=1).encode(), "README.md": parcel.card.encode()}
            sent: dict[str, Any] = {**{file: str(place) for file, place in parcel.files.items()}, **ours}
            operations: list[Any] = [
                CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in sent.items()
            ]
            gone = there - set(parcel.files) - set(ours) - {".gitattributes"}
            operations += [CommitOperationDelete(path_in_repo=file) for file in sorted(gone)]
            done = client.create_commit(
                name.repo,
                operations,
                commit_message=message or f"A {parcel.kind.noun}, by TreeGym {treegym.__version__}",
                repo_type=repo_type,
                revision=name.revision,
            )
    except Absent as error:
        raise BackendError(f"{error}; pushing needs a token that may write there") from error
    return str(done.oid)
