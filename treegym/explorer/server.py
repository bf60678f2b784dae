"""A read-only server for the explorer: this machine only, and only who knows the token in the address."""

from __future__ import annotations

import hmac
import json
import secrets
import sys
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from treegym.errors import TreeGymError
from treegym.explorer.page import server_page
from treegym.explorer.view import TreeView

__all__ = ["ExplorerServer"]

HOST = "127.0.0.1"


class ExplorerServer(ThreadingHTTPServer):
    """Serves one tree.

    Args:
        view: what to show.
        port: 0 takes a free one.
    """

    daemon_threads = True
    request_queue_size = 512  # a browser opens several connections at once, and so may several tabs

    def __init__(self, view: TreeView, *, port: int = 0) -> None:
        self.view = view
        self.token = secrets.token_urlsafe(18)
        self.block = lru_cache(maxsize=16)(view.block)
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (BrokenPipeError, ConnectionResetError)):  # a closed tab is no error
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ExplorerServer
    protocol_version = "HTTP/1.1"
    server_version = "treegym"
    disable_nagle_algorithm = True  # or each answer on a kept connection waits 40 ms for an acknowledgement
    wbufsize = -1  # head and body go out together
    timeout = 30.0  # seconds; an idle connection holds a thread no longer
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        # A page elsewhere can point a name of its own at this machine; the Host header gives that away.
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
        token, _, rest = self.path.lstrip("/").partition("/")
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        if host not in (HOST, "localhost") or not known:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain", body=body)
            return
        view = self.server.view
        if rest == "":
            self._send(HTTPStatus.OK, server_page(view).encode(), "text/html; charset=utf-8", body=body)
        elif rest == "meta":
            self._send(HTTPStatus.OK, json.dumps(view.meta()).encode(), "application/json", body=body)
        elif rest.startswith("root/") and rest[5:].isascii() and rest[5:].isdigit() and len(rest) < 16:
            try:
                block = self.server.block(int(rest[5:]))
            except TreeGymError as error:
                self._send(HTTPStatus.NOT_FOUND, f"{error}\n".encode(), "text/plain", body=body)
                return
            self._send(HTTPStatus.OK, block, "application/octet-stream", body=body)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain", body=body)

    def _send(self, status: HTTPStatus, content: bytes, kind: str, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Stays silent: requests carry the token."""
