"""`python -m treegym.optimize.record --ray`: the zoo measured on a cluster, a table for each kind of machine."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import BackendError, ConfigError
from treegym.optimize.hardware import Kind
from treegym.optimize.record import FORMAT, add_part, record_module, said_of, to_record
from treegym.scale.cluster import Room, connected
from treegym.scale.crew import hired
from treegym.scale.measuring import Kinds, prepare
from treegym.untrusted import read_json

__all__ = ["record", "recorder"]


def record(args: argparse.Namespace) -> int:
    """Measures what the tables lack, and writes each module's part as it comes."""
    with connected(args.ray) as ray:
        kinds = Kinds(ray, Room())
        found = kinds.all()
        for kind in found:
            out = args.out if len(found) == 1 else args.out.with_name(f"{args.out.stem}-{kind.slug}.json")
            table = _table(out, kind)
            jobs = to_record(table, args.only, again=args.again, more=args.more)
            told = {"kind": kind, "cores": 1, "compiled": not args.no_compile, "seconds": args.seconds}
            on = partial(_is_of, kinds, kind)
            with hired(ray, "treegym.scale.recording:recorder", told, on=on) as crew:
                for answer in crew.answers(jobs):
                    if answer.failure:
                        raise BackendError(f"{jobs[answer.job]['name']} could not be measured: {answer.failure}")
                    add_part(table, answer.value, out)
                    say(f"{said_of(answer.value)} on node {answer.node}", file=sys.stderr)
            say(f"{out}: {len(table['modules'])} modules on {kind}")
    return 0


def _is_of(kinds: Kinds, kind: Kind, node: str) -> bool:
    return kinds.of(node) == kind


def recorder(told: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns what a worker does: a module is measured with everything that applies."""
    prepare(told)
    return lambda job: record_module(**job, compiled=told["compiled"], seconds=told["seconds"])


def _table(out: Path, kind: Kind) -> dict[str, Any]:
    """Returns the table in a file, which must be of this kind, or an empty one."""
    machine = {"processor": kind.hardware, "system": platform.system(), "versions": list(kind.versions)}
    if not out.exists():
        return {"format": FORMAT, "machine": machine, "modules": []}
    table: dict[str, Any] = read_json(out)
    before = table.get("machine", {})
    if before.get("processor") != kind.hardware or before.get("versions", machine["versions"]) != machine["versions"]:
        raise ConfigError(
            f"{out} was measured on {json.dumps(before)}, and this is {kind}; times of two kinds are not put into one "
            "table: give another --out"
        )
    return {**table, "machine": machine}
