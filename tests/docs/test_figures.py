"""Every measured figure in README.md and docs/*.md can be traced: its section names a command or script, and a date.

What counts as measured: a table in which a third of the cells are decimal numbers, and prose that gives a time, a
ratio of speeds or an interval. What follows from a definition (a default of 0.99, a limit "after 30 s") looks unlike.
A section that gives such a figure says where it is from, in its own text, in that of a heading above it or in one
below, or a row of docs/figures.md says it for the section.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# the log dates its entries by heading and names the pages with the commands; a script writes the page of benchmarks
OTHERWISE = ("log.md", "benchmarks.md", "figures.md")
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in OTHERWISE)]

NUMBER = r"\d[\d,]*(?:\.\d+)?"
UNIT = r"(?:CPU[ -]seconds?|CPU (?:hours|minutes)|ms|microseconds|us|s(?= |,|\.|;|\)|$))"
MEASURED = re.compile(
    rf"(?<!after )(?<!within )\b{NUMBER} {UNIT}(?: |,|\.|;|\)|$)"
    rf"|\d\.\d+x\b|{NUMBER} times (?:as|the|faster)|\[-?\d\.\d+, -?\d\.\d+\]|\d\.\d+ \(\d\.\d+ to \d\.\d+\)",
    re.MULTILINE,
)
DECIMAL = re.compile(r"^\W*-?\d*\.\d+\b")
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
COMMAND = re.compile(
    r"`[^`]*(?:(?:benchmarks|examples|tests|scripts)/\w[\w/]*\.py|treegym [a-z]|make [a-z])[^`]*`|^\$ \S", re.MULTILINE
)
SCRIPT = re.compile(r"`(?:[^`]* )?((?:benchmarks|examples|tests|scripts)/[\w/]+\.py)\b")


def _sections(text: str) -> Iterator[tuple[list[str], str]]:
    """Yields the headings above a text, its own last, and the text up to the next heading."""
    above: list[tuple[int, str]] = [(0, "the page")]
    lines: list[str] = []
    fenced = False
    for line in [*text.splitlines(), "# end"]:
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) (.+)", line)
        if heading is None:
            lines.append(line)
            continue
        yield [name for _, name in above], "\n".join(lines)
        lines = []
        above = [(level, name) for level, name in above if level < len(heading[1])] + [(len(heading[1]), heading[2])]


def _measures(text: str) -> str | None:
    """Returns the first measured figure of a text."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = plain.splitlines()
    below = [*lines, ""][1:]  # a heading stands above a line of dashes
    rows = [a for a, b in zip(lines, below, strict=True) if a.startswith("|") and "| ---" not in a[:6] + b[:6]]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")]
    decimal = [cell for cell in cells if DECIMAL.match(cell)]
    if decimal and len(decimal) * 3 >= len(cells):
        return f"| {decimal[0]} |"
    prose = re.sub(r"`[^`]*`", "", plain)
    found = MEASURED.search(prose)
    return found[0] if found else None


def _table(text: str) -> dict[str, set[str]]:
    """Returns page -> the sections for which docs/figures.md names a command and a date."""
    found: dict[str, set[str]] = {}
    for row in text.splitlines():
        link = re.match(r"\| \[(.+)\]\(([\w.]+)\) \|", row)
        if link and DATE.search(row) and COMMAND.search(row):
            found.setdefault(link[2], set()).add(link[1])
    return found


TABLE = _table((ROOT / "docs" / "figures.md").read_text(encoding="utf-8"))


def untraced(text: str, elsewhere: AbstractSet[str] = frozenset()) -> list[str]:
    """Returns the sections that give a measured figure without a date or without a command."""
    sections = list(_sections(text))
    wrong = []
    for names, own in sections:
        figure = _measures(own)
        if figure is None or names[-1] in elsewhere:
            continue
        near = [other for path, other in sections if path == names[: len(path)] or path[: len(names)] == names]
        lacking = [what for what, seek in (("date", DATE), ("command", COMMAND)) if not any(map(seek.search, near))]
        if lacking:
            wrong.append(f"{names[-1]}: {figure.strip()} has no {' and no '.join(lacking)}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_section_with_a_measured_figure_says_where_it_is_from(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    rows = TABLE.get(page.name, set())
    assert untraced(text, rows) == []
    assert rows - {names[-1] for names, _ in _sections(text)} == set()  # rows for sections that are gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_scripts_that_are_named_are_there(page: Path) -> None:
    named = set(SCRIPT.findall(page.read_text(encoding="utf-8")))
    assert [script for script in sorted(named) if not (ROOT / script).is_file()] == []


def test_a_figure_out_of_nowhere_is_found() -> None:
    source = "`benchmarks/growth.py`, 2026-12-01"
    bare = "# Page\n## Speed\nIt takes 13 s.\n"
    assert untraced(bare) == ["Speed: 13 s. has no date and no command"]
    assert untraced(bare, {"Speed"}) == []
    assert untraced(bare.replace("13 s", "13 s (2026-12-01)")) == ["Speed: 13 s has no command"]
    assert untraced(f"# Page\n{source}\n## Speed\nIt takes 13 s.\n") == []
    assert untraced(f"# Page\n## Other\n{source}\n## Speed\n| a | b |\n| --- | --- |\n| x | 0.5 |\n| y | 0.7 |\n") != []
    assert untraced("# Page\n## Settings\nThe default is 0.99, and it ends after 30 s.\n") == []
    row = "| [Speed](b.md) | `make docs` | 2026-12-01 |\n| [Size](a.md) | `make docs` | long ago |"
    assert _table(row) == {"b.md": {"Speed"}}
