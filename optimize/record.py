"""Remakes the recorded table: ``python -m treegym.optimize.record``.

Every zoo module in every size is measured with every strategy that applies and with ensembles of the best ones;
`torch.compile`, which takes seconds, alone and on top of the best ensemble. The table is written module by module; a
run that was stopped goes on where it was. Measured on one thread, in child processes, with CPU time: the machine may be
busy with other things.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treegym.files import atomic_write
from treegym.optimize import zoo
from treegym.optimize.candidates import ORIGINAL, Candidate, apply, combinations
from treegym.optimize.fitness import fitness, scores, weights_of
from treegym.optimize.hardware import processor
from treegym.optimize.strategies import STRATEGIES, compatible, ordered
from treegym.registry import resolve

__all__ = ["BUNDLED", "FORMAT", "add_part", "main", "record_module", "said_of", "to_record"]

BUNDLED = Path(__file__).parent / "data" / "selection.json"
FORMAT = 1
LATTICE = 5  # ensembles are made of this many of a module's best strategies
NUMBER_FORMATS = 2  # of these, at most this many change number formats (most of them exclude each other)
LARGEST = 4  # strategies in an ensemble
COMPILE = "compile"


def record_module(
    name: str, size: int, *, known: Sequence[dict[str, Any]] = (), compiled: bool = True, seconds: float = 0.5
) -> dict[str, Any]:
    """Measures one zoo module, but for the records that are `known`, and returns its part of the table."""
    import torch

    from treegym.optimize import worker
    from treegym.optimize.features import describe
    from treegym.optimize.measure import measure, warm_up_process
    from treegym.optimize.measurement import MeasureSettings

    torch.set_num_threads(1)
    warm_up_process()
    module = zoo.build(name, size)
    sample = zoo.inputs(name, size, 0)
    settings = MeasureSettings(max_seconds=seconds, max_pairs=60, clock="cpu")
    already = {tuple(record["strategies"]): record for record in known}

    def measured(candidate: Candidate) -> dict[str, Any]:
        if candidate.strategies in already:
            return already[candidate.strategies]

        def work() -> dict[str, Any]:
            optimised = apply(module, candidate, sample)
            return measure(module, optimised, lambda seed: zoo.inputs(name, size, seed), settings).as_dict()

        outcome = worker.run(work, worker.Limits(seconds=300.0 if COMPILE in candidate.strategies else 120.0))
        return {"strategies": list(candidate.strategies), "measurement": outcome.result, "reason": outcome.reason}

    pool = [strategy for strategy in STRATEGIES if strategy != COMPILE]
    records = [measured(candidate) for candidate in [ORIGINAL, *combinations(pool, 1)]]
    best = [chosen[0] for chosen in _ranked([record for record in records if len(record["strategies"]) == 1])]
    records += [
        measured(candidate) for candidate in combinations(_varied(best), LARGEST) if len(candidate.strategies) > 1
    ]
    if compiled:
        under = next(chosen for chosen in _ranked(records) if chosen and compatible([*chosen, COMPILE]))
        records += [measured(Candidate((COMPILE,))), measured(Candidate(ordered([*under, COMPILE])))]
    return {
        "name": name, "size": size, "kind": zoo.ZOO[name].kind, "split": zoo.split_of(name, size),
        "features": describe(module, sample),
        "records": records + [record for record in known if record not in records],
    }  # fmt: skip


def _ranked(records: list[dict[str, Any]]) -> list[list[str]]:
    """Returns the strategies of every record that was measured, the fittest first."""
    ranked = []
    for record in records:
        m = record["measurement"]
        if m is not None:
            values = scores(m["speed"]["value"], m["memory"]["value"], m["accuracy"]["value"])
            ranked.append((float(fitness(values, weights_of(None))), record["strategies"]))
    return [strategies for _, strategies in sorted(ranked, reverse=True)]


def _varied(names: list[str]) -> list[str]:
    """Returns the first few strategies, not too many of them number formats: ensembles are made of them."""
    chosen: list[str] = []
    for name in names:
        formats = sum(STRATEGIES[other].family == "quantization" for other in chosen)
        if STRATEGIES[name].family != "quantization" or formats < NUMBER_FORMATS:
            chosen.append(name)
    return chosen[:LATTICE]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m treegym.optimize.record", description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED, help="the table (default: the one in the package)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these zoo modules only")
    parser.add_argument("--again", action="store_true", help="measure modules anew that the table already has")
    parser.add_argument("--more", action="store_true", help="measure what modules of the table lack")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for one candidate (default: %(default)s)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="on the nodes of a Ray cluster: a table for each kind of machine"
    )
    args = parser.parse_args(argv)
    if args.ray is not None:
        on_cluster: int = resolve("treegym.scale.recording:record", "what records on a cluster")(args)
        return on_cluster
    table: dict[str, Any] = {"format": FORMAT, "modules": []}
    if args.out.exists():
        table = json.loads(args.out.read_text())
    table["machine"] = {"processor": processor(), "system": platform.system()}
    for job in to_record(table, args.only, again=args.again, more=args.more):
        start = time.perf_counter()
        part = record_module(**job, compiled=not args.no_compile, seconds=args.seconds)
        add_part(table, part, args.out)
        print(f"{said_of(part)}, {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 0


def to_record(table: dict[str, Any], only: Sequence[str] | None, *, again: bool, more: bool) -> list[dict[str, Any]]:
    """Returns what `record_module` has to be given for every module that is to be measured."""
    jobs = []
    for size in zoo.SIZES:
        for name in only or zoo.ZOO:
            mine = [part for part in table["modules"] if (part["name"], part["size"]) == (name, size)]
            known = [record for part in mine for record in part["records"]]
            if not known or again or more:
                jobs.append({"name": name, "size": size, "known": [] if again else known})
    return jobs


def add_part(table: dict[str, Any], part: dict[str, Any], out: Path) -> None:
    """Puts what was measured on a module into the table, and writes that."""
    key = (part["name"], part["size"])
    table["modules"] = [old for old in table["modules"] if (old["name"], old["size"]) != key] + [part]
    table["modules"].sort(key=lambda one: (list(zoo.ZOO).index(one["name"]), one["size"]))
    atomic_write(out, _text(table))


def said_of(part: dict[str, Any]) -> str:
    """Returns how many candidates of a module could be measured."""
    good = sum(record["measurement"] is not None for record in part["records"])
    return f"{part['name']} {part['size']}: {good} of {len(part['records'])} candidates"


def _text(table: dict[str, Any]) -> str:
    """Returns the table as JSON, one record a line, numbers to five digits."""
    head = {name: value for name, value in table.items() if name != "modules"}
    parts = []
    for module in table["modules"]:
        top = json.dumps({name: _short(value) for name, value in module.items() if name != "records"})
        rows = ",\n".join(json.dumps(_short(record), separators=(",", ":")) for record in module["records"])
        parts.append(f'{top[:-1]}, "records": [\n{rows}]}}')
    return f'{json.dumps(head)[:-1]}, "modules": [\n' + ",\n".join(parts) + "]}\n"


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    sys.exit(main())
