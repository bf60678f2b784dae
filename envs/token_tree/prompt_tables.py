"""Prompts in tables: CSV and Parquet files, and data sets of a hub, each with its columns named.

questions.csv                                      columns prompt and answer, or names that mean the same
questions.parquet#question=q,answer=a              columns named outright; kind= and split= may be, too
hf:openai/gsm8k#question=question,answer=answer,config=main,part=train
                                                   a data set of a hub; @REVISION after the name pins it
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from treegym import hub
from treegym.errors import BackendError, ConfigError, DataError, TreeGymError, require, suggest
from treegym.untrusted import LINE_LIMIT, open_regular

__all__ = ["is_table", "read_table"]

PROMPT_FIELDS = ("prompt", "question", "problem", "instruction")
ANSWER_FIELDS = ("answer", "solution", "target", "output")
MOST_COLUMNS = 1000
SUFFIXES = (".csv", ".parquet")
_KEYS = {"prompt": "prompt", "question": "prompt", "answer": "answer", "kind": "kind", "split": "split"}
_SOURCE_KEYS = ("config", "part")  # of data sets on a hub
Row = tuple[str, Any, Any, Any]  # prompt, answer, split, kind


def is_table(source: str) -> bool:
    """Whether a source is one of these."""
    return hub.is_hub_name(source) or Path(source.partition("#")[0]).suffix in SUFFIXES


def read_table(source: str) -> Iterator[tuple[str, Row]]:
    """Yields prompt, answer, split and kind of every row, after its place for messages."""
    place, _, rest = source.partition("#")
    given = _given(rest, source)
    if hub.is_hub_name(place):
        parts = _hub_parts(place, given)
    elif any(key in given for key in _SOURCE_KEYS):
        raise ConfigError(f"{source}: {' and '.join(_SOURCE_KEYS)} are of data sets on a hub; a file has neither")
    else:
        read = _csv_rows if Path(place).suffix == ".csv" else _parquet_rows
        parts = [(None, *read(Path(place)))]
    for split, names, rows in parts:
        chosen = {
            "prompt": _column(place, names, given.get("prompt"), PROMPT_FIELDS),
            "answer": _column(place, names, given.get("answer"), ANSWER_FIELDS),
        }
        for key in ("split", "kind"):
            if key in given or key in names:
                chosen[key] = _column(place, names, given.get(key), (key,))
        for number, row in enumerate(rows, 1):
            where = f"{place}, row {number}"
            if row.get(chosen["prompt"]) in (None, ""):
                raise DataError(f"{where}: its column {chosen['prompt']!r} is empty, and a prompt was expected")
            found = {key: row.get(name) for key, name in chosen.items()}
            yield where, (str(found["prompt"]), found["answer"], found.get("split", split), found.get("kind", ""))


def _given(text: str, source: str) -> dict[str, str]:
    """Returns the columns named after the #."""
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, name = part.partition("=")
        key = key.strip()
        if not equals or key not in (*_KEYS, *_SOURCE_KEYS):
            hint = suggest(key, (*_KEYS, *_SOURCE_KEYS))
            raise ConfigError(f"{source}: expected columns as question=NAME,answer=NAME, got {part!r}.{hint}")
        found[_KEYS.get(key, key)] = name.strip()
    return found


def _column(place: str, names: Sequence[str], wanted: str | None, usual: Iterable[str]) -> str:
    for name in usual if wanted is None else (wanted,):
        if name in names:
            return name
    what = f"{wanted!r}" if wanted is not None else " or ".join(usual)
    raise DataError(f"{place}: no column is called {what}; it has {', '.join(names)[:200]}")


def _csv_rows(path: Path) -> tuple[list[str], Iterator[Mapping[str, Any]]]:
    with open_regular(path) as file:  # what cannot be opened is told before anything is read
        file.read(1)

    def rows() -> Iterator[Mapping[str, Any]]:
        csv.field_size_limit(LINE_LIMIT)
        try:
            with path.open(encoding="utf-8-sig", newline="") as text:
                yield from csv.DictReader(text)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a CSV table in UTF-8: {error}") from error

    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            names = next(csv.reader(text), [])
            if len(names) > MOST_COLUMNS:  # each row is told by the names of all
                raise DataError(f"{path}: has {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV table in UTF-8: {error}") from error
    return names, rows()


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[Mapping[str, Any]]]:
    pyarrow = require("pyarrow", extra="parquet", purpose="reading a Parquet file")
    parquet = require("pyarrow.parquet", extra="parquet", purpose="reading a Parquet file")
    with open_regular(path):
        pass
    try:
        file = parquet.ParquetFile(str(path))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error

    def rows() -> Iterator[Mapping[str, Any]]:
        try:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: the file is damaged: {str(error).splitlines()[0]}") from error

    return list(file.schema_arrow.names), rows()


def _hub_parts(place: str, given: Mapping[str, str]) -> list[tuple[str | None, list[str], Any]]:
    """Returns the parts of a data set (train, test, ...); what is in the local cache needs no network."""
    datasets = require("datasets", extra="prompts", purpose="a data set of a hub")
    name = hub.parse(place)
    try:
        loaded = datasets.load_dataset(name.repo, given.get("config"), revision=name.revision)
    except TreeGymError:
        raise
    except ConnectionError as error:
        raise BackendError(f"{place}: the hub cannot be reached, and the cache does not hold the data set") from error
    except (OSError, ValueError, RuntimeError) as error:  # an unknown name, revision or config among them
        raise DataError(f"{place}: the data set cannot be loaded: {hub.first_line(error)}") from error
    except Exception as error:
        if hub.of_transport(error):
            raise BackendError(f"{place}: the hub could not be asked: {hub.first_line(error)}") from error
        if not isinstance(error, datasets.exceptions.DatasetsError):
            raise
        cause = error.__cause__ or error  # "an error occurred" says less than what it was
        raise DataError(f"{place}: the data set cannot be loaded: {hub.first_line(cause)}") from error
    part = given.get("part")
    if part is not None and part not in loaded:
        raise DataError(f"{place} has no part {part!r}.{suggest(part, loaded)}")
    chosen = loaded if part is None else {part: loaded[part]}
    return [(split, list(data.column_names), data) for split, data in chosen.items()]
