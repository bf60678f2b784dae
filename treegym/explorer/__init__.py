"""The tree explorer: a page that shows a token tree, served on this machine only or exported as one HTML file."""

from __future__ import annotations

from treegym.explorer.page import export_page
from treegym.explorer.server import ExplorerServer
from treegym.explorer.view import TreeView

__all__ = ["ExplorerServer", "TreeView", "export_page"]
