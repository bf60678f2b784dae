"""The explorer's page: one template, with the data fetched from the local server or carried inside the file."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Sequence
from importlib import resources

from treegym.errors import ConfigError
from treegym.explorer.view import TreeView

__all__ = ["export_page", "server_page"]

# No request goes anywhere; pictures come inside the data.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
EXPORT_LIMIT = 400_000  # nodes an exported file carries: some 10 MB


def _template(name: str) -> str:
    return (resources.files("treegym.explorer") / "templates" / name).read_text(encoding="utf-8")


def _page(view: TreeView, *, data: str, policy: str) -> str:
    scripts = ("store.js", "overview.js", "outline.js", "explorer.js")
    parts = {
        "POLICY": policy,
        "TITLE": html.escape(view.title),
        "STYLE": _template("explorer.css"),
        "DATA": data,
        "SCRIPT": "\n".join(_template(name) for name in scripts),
    }
    # One pass, so that nothing a tree holds can be taken for a mark of the template.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], _template("explorer.html"))


def server_page(view: TreeView) -> str:
    """Returns the page that asks the server it came from for data."""
    return _page(view, data="", policy=f"{_POLICY}; connect-src 'self'")


def export_page(view: TreeView, *, roots: Sequence[int] | None = None) -> str:
    """Returns one HTML file with everything in it: no server, no network.

    Args:
        view: what to show.
        roots: which prompts to carry; by default the first ones, as many as fit into `EXPORT_LIMIT` nodes.
    """
    meta = view.meta()
    wanted = list(range(len(meta["roots"]))) if roots is None else list(roots)
    blocks: dict[int, bytes] = {}
    total = 0
    for root in wanted:
        block = view.block(root)
        header = json.loads(block[4 : 4 + int.from_bytes(block[:4], "little")])
        size = header["columns"]["node"]["shape"][0]
        if blocks and total + size > EXPORT_LIMIT:
            if roots is not None:
                raise ConfigError(
                    f"{len(wanted)} roots have more than {EXPORT_LIMIT:,} nodes; export fewer, or leave out "
                    "--export to explore all of them through the local server"
                )
            break
        blocks[root] = block
        total += size
    meta["carried"] = list(blocks)
    parts = [f'<script type="application/json" id="meta">{_inert(json.dumps(meta))}</script>']
    for root, block in blocks.items():
        text = base64.b64encode(gzip.compress(block, 6, mtime=0)).decode()
        parts.append(f'<script type="application/octet-stream" id="root-{root}">{text}</script>')
    return _page(view, data="\n".join(parts), policy=_POLICY)


def _inert(text: str) -> str:
    """Returns JSON that cannot end the script element it stands in, whatever the prompts hold."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
