"""A hub on this machine: the few endpoints that pushing and pulling use, and faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["HubServer"]

LARGE = 200_000  # bytes from which a file is sent the way of large files


@dataclass
class Repository:
    """Commits, each with all its files; a branch or tag names a commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


class HubServer:
    """Serves until closed. What was asked is in `requests`; what shall go wrong in `cut`, `failing` and `spoiled`."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.cut: dict[str, int] = {}  # file -> bytes after which the connection ends, once
        self.failing: dict[str, int] = {}  # part of a path -> status
        self.spoiled: set[str] = set()  # files of which a byte is changed on the way
        self.token = "secret"
        self.closed = False
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closed = True
        self._server.shutdown()
        self._server.server_close()

    def only(self, repo_type: str, name: str) -> Repository:
        return self.repositories[repo_type, name]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def do_PUT(self) -> None:
        self._answer(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, body: bytes) -> None:
        if self.hub.closed:  # connections that are kept open end, too
            self.close_connection = True
            return None
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        for part, status in self.hub.failing.items():
            if part in path:
                return self._send(status, b'{"error": "as was asked for"}')
        writes = self.command in ("POST", "PUT") and not re.search("validate-yaml|paths-info", path)
        if writes and self.headers.get("Authorization") != f"Bearer {self.hub.token}" and self.command != "PUT":
            return self._send(401, b'{"error": "who are you?"}')
        for pattern, act in _ROUTES:
            if found := re.fullmatch(pattern, path):
                return act(self, body, **{key: value or "" for key, value in found.groupdict().items()})
        return self._send(404, b'{"error": "no such endpoint"}')

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), Content_Type="application/json")

    def _repository(self, kind: str, repo: str) -> Repository | None:
        found = self.hub.repositories.get(((kind or "models").rstrip("/").removesuffix("s"), repo))
        if found is None:
            self._send(404, b"", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        return found

    # ---------------------------------------------------------------- endpoints

    def create(self, body: bytes) -> None:
        told = json.loads(body)
        name = f"{told['organization']}/{told['name']}" if told.get("organization") else told["name"]
        kind = told.get("type", "model")
        if (kind, name) in self.hub.repositories:
            return self._send(409, json.dumps({"error": "exists", "url": f"{self.hub.url}/{name}"}).encode())
        self.hub.repositories[kind, name] = Repository()
        self.hub.repositories[kind, name].commit("main", {".gitattributes": b"*.tree filter=lfs"})
        prefix = "" if kind == "model" else f"{kind}s/"
        return self._json({"url": f"{self.hub.url}/{prefix}{name}"})

    def yaml(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def info(self, body: bytes, kind: str, repo: str, revision: str = "main") -> None:
        found = self._repository(kind, repo)
        if found is None:
            return
        sha = found.at(revision or "main")
        if sha is None:
            return self._send(404, b"", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        files = [{"rfilename": name} for name in found.commits[sha]]
        self._json(
            {"id": repo, "sha": sha, "siblings": files, "private": False, "tags": [], "downloads": 0, "likes": 0}
        )

    def _files(self, kind: str, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a commit; None after it was said that there is no such repository or revision."""
        found = self._repository(kind, repo)
        if found is None:
            return None
        sha = found.at(revision)
        if sha is None:
            self._send(404, b"", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            return None
        return found.commits[sha]

    def tree(self, body: bytes, kind: str, repo: str, revision: str, path: str) -> None:
        files = self._files(kind, repo, revision)
        if files is None:
            return
        within = {name: content for name, content in files.items() if not path or name.startswith(f"{path}/")}
        if not within:
            return self._send(404, b"", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        folders = {"/".join(name.split("/")[:end]) for name in within for end in range(1, name.count("/") + 1)}
        inside = sorted(folder for folder in folders if not path or folder.startswith(f"{path}/"))
        self._json([{"type": "directory", "path": f, "oid": ""} for f in inside] + [_entry(*f) for f in within.items()])

    def paths(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        files = self._files(kind, repo, revision)
        if files is not None:
            asked = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode())["paths"]
            self._json([_entry(name, files[name]) for name in asked if name in files])

    def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        if self._repository(kind, repo) is None:
            return
        files = json.loads(body)["files"]
        modes = [{"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular", "shouldIgnore": False}
                 for f in files]  # fmt: skip
        self._json({"files": modes})

    def batch(self, body: bytes, kind: str, repo: str) -> None:
        objects = [
            {"oid": o["oid"], "size": o["size"], "authenticated": True,
             "actions": {"upload": {"href": f"{self.hub.url}/upload/{o['oid']}", "header": {}}}}
            for o in json.loads(body)["objects"]
        ]  # fmt: skip
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        self.hub.large[oid] = body
        self._send(200 if hashlib.sha256(body).hexdigest() == oid else 400, b"")

    def commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        found = self._repository(kind, repo)
        if found is None:
            return
        files = dict(found.commits[found.at(revision) or ""])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = found.commit(revision, files)
        self._json({"commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "pullRequestUrl": None})

    def resolve(self, body: bytes, kind: str, repo: str, revision: str, file: str) -> None:
        found = self._repository(kind, repo)
        if found is None:
            return
        sha = found.at(revision)
        if sha is None:
            return self._send(404, b"", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        content = found.commits[sha].get(file)
        if content is None:
            return self._send(
                404, b"", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=sha
            )
        etag = f'"{_oid(content)}"'
        if file in self.hub.spoiled:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(re.sub(r"bytes=(\d+)-.*", r"\1", self.headers.get("Range") or "bytes=0-"))
        self.send_response(206 if start else 200)
        for name, value in (("Content-Length", len(content) - start), ("ETag", etag), ("X-Repo-Commit", sha)):
            self.send_header(name, str(value))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            stop = self.hub.cut.pop(file, None)
            self.wfile.write(content[start:stop])
            if stop is not None:
                self.close_connection = True


def _oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}


_KIND, _REPO = r"(?P<kind>models|datasets)", r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = [
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.yaml),
    (rf"/api/{_KIND}/{_REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    (rf"/api/{_KIND}/{_REPO}/commit/(?P<revision>.+)", _Handler.commit),
    (rf"/api/{_KIND}/{_REPO}/tree/(?P<revision>[^/]+)/?(?P<path>.*)", _Handler.tree),
    (rf"/api/{_KIND}/{_REPO}/paths-info/(?P<revision>[^/]+)", _Handler.paths),
    (rf"/api/{_KIND}/{_REPO}/revision/(?P<revision>.+)", _Handler.info),
    (rf"/api/{_KIND}/{_REPO}", _Handler.info),
    (rf"/(?P<kind>datasets/)?{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"/upload/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (rf"/(?P<kind>datasets/)?{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.resolve),
]
