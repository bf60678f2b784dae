"""Every Python block of README.md and docs/*.md runs, from the top of its page to the bottom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.exists()]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def _blocks() -> list[tuple[str, list[str]]]:
    return [
        (str(page.relative_to(ROOT)), found)
        for page in PAGES
        if (found := BLOCK.findall(page.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize(("page", "blocks"), _blocks(), ids=[page for page, _ in _blocks()])
def test_blocks_run(page: str, blocks: list[str], tmp_path: Path) -> None:
    # One process and one namespace a page: a block may go on where an earlier one stopped, as a reader would.
    script = tmp_path / "blocks.py"
    lines = [
        "import traceback, sys",
        "blocks = " + repr(blocks),
        "names = {'__name__': '__main__'}",
        "for number, block in enumerate(blocks if __name__ == '__main__' else [], 1):",  # not in processes it starts
    ]
    lines += [
        "    try:",
        "        exec(compile(block, f'block {number}', 'exec'), names)",
        "    except BaseException:",
        "        traceback.print_exc()",
        "        sys.exit(f'block {number} failed:\\n{block}')",
    ]
    script.write_text("\n".join(lines), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, f"{page}: {result.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


def test_commands_in_the_documentation_exist() -> None:
    from treegym.__main__ import COMMANDS

    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for command in re.findall(r"^\$ treegym (\S+)", block, re.MULTILINE):
                assert command in COMMANDS or command.startswith("-"), f"{page.name}: treegym {command}"
