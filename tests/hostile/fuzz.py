"""Damages files of every format and reads them: each is refused in a sentence of ours, or can be used.

    python tests/hostile/fuzz.py --seed 0 --count 200        one line of JSON; exit code 1 if anything did not hold

What is damaged is known: bytes are flipped, cut, repeated; values in JSON are replaced by junk of every kind; arrays
get other shapes, types and values. Every format is tried in this process, which may take 1 GiB more than it holds when
it begins, and ten seconds of work for a file. A mutation follows from the seed, the format and its number alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import numpy as np
from corpus import corpus
from formats import Format, formats

ROOM, SECONDS = 2**30, 10
MEMORY = Path("/dev/shm")  # where it has room: the disk is not what is tried here, and waits for every file
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it draws a table of each damaged model
BLOCK = 20  # mutations of one format in a row


def _place() -> Path | None:
    """Returns where files are written, None for the usual place: containers have 64 MB of /dev/shm."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM else None


class TooSlow(BaseException):
    """A file took longer than it may."""


@dataclass
class Tally:
    """What became of a format's mutations."""

    tried: int = 0
    refused: int = 0
    held: int = 0  # read and used
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    most_mib: int = 0  # by which one of them raised the most that the process ever held


def held_at_most() -> int:
    """Returns the most memory that this process ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Clock:
    """Ends what takes ten seconds: of its own, since on a busy machine others take theirs; or a minute of anybody's."""

    begun = worked = 0.0

    @classmethod
    def start(cls) -> None:
        cls.begun, cls.worked = time.monotonic(), time.process_time()
        signal.alarm(SECONDS)

    @classmethod
    def rings(cls, _: int, frame: FrameType | None) -> None:
        inner = frame
        while frame is not None:
            if "/numba/core/" in frame.f_code.co_filename:  # a kernel is being compiled, which is not the file's doing
                signal.alarm(SECONDS)
                return
            frame = frame.f_back
        if time.process_time() - cls.worked < SECONDS and time.monotonic() - cls.begun < 6 * SECONDS:
            signal.alarm(1)
            return
        raise TooSlow(f"in {inner.f_code.co_name}" if inner else "")


def try_one(form: Format, path: Path, tally: Tally, what: str) -> None:
    """Reads a damaged file, and notes what came of it."""
    from treegym.errors import TreeGymError

    tally.tried += 1
    begun, before = time.monotonic(), held_at_most()
    Clock.start()
    faulthandler.dump_traceback_later(40 * SECONDS, exit=True)  # compiled code hears no alarm
    try:
        form.use(path)
        tally.held += 1
    except TreeGymError as error:
        tally.refused += 1
        if len(str(error)) > 500 or not str(error):
            tally.failed.append(f"{what}: a message of {len(str(error))} characters")
    except TooSlow as error:
        tally.failed.append(f"{what}: took more than {SECONDS} s {error}")
    except Exception as error:  # noqa: BLE001 (this is what is looked for)
        tally.failed.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
    tally.slowest_s = max(tally.slowest_s, time.monotonic() - begun)
    tally.most_mib = max(tally.most_mib, held_at_most() - before)


def chosen(args: argparse.Namespace, known: dict[str, Format]) -> list[str]:
    """Returns the names of the formats to damage."""
    part, parts = map(int, args.part.split("/"))
    names = [name for name in known if not args.format or name in args.format]
    return names[part - 1 :: parts]


def mutations(args: argparse.Namespace, known: dict[str, Format], folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yields the format, the name and the path of each mutation, whichever format has taken the least time so far."""
    begun = time.monotonic()
    spent = dict.fromkeys(chosen(args, known), 0.0)
    numbers = dict.fromkeys(spent, args.first)
    places = {name: place for place, name in enumerate(known)}
    while numbers and (args.minutes is None or time.monotonic() - begun < 60 * args.minutes):
        name = min(numbers, key=lambda name: spent[name])
        form, start = known[name], time.process_time()
        for _ in range(min(BLOCK, args.first + args.count - numbers[name])):
            path = folder / f"bad{form.suffix}"
            form.put(path)
            form.damage(path, np.random.default_rng([args.seed, places[name], numbers[name]]))
            yield name, f"{name} {args.seed} {numbers[name]}", path
            numbers[name] += 1
        spent[name] += time.process_time() - start
        if numbers[name] >= args.first + args.count:
            del numbers[name]


def worst(known: dict[str, Format], folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yields the same of the cases in `corpus`."""
    for name, what, content in corpus(known, folder):
        path = folder / f"bad{known[name].suffix}"
        replace(known[name], good=content).put(path)
        yield name, f"{name}, {what}", path


def main() -> int:
    """Runs the mutations and prints the tallies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="mutations of each format")
    parser.add_argument("--minutes", type=float, help="stop after so many; formats share them evenly")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--format", action="append", help="only this format")
    parser.add_argument("--part", default="1/1", help="2/3: the second of three processes that share the formats")
    parser.add_argument("--corpus", action="store_true", help="the worst cases instead, each of which must be refused")
    parser.add_argument("--now", default=os.devnull, help="a file that names the mutation under way, should all end")
    args = parser.parse_args()

    signal.signal(signal.SIGALRM, Clock.rings)
    with tempfile.TemporaryDirectory(dir=_place()) as scratch, open(args.now, "w") as now:
        folder = Path(scratch)
        known = formats(folder)
        for form in known.values():  # a sound file holds, and brings into memory what reading needs
            path = folder / f"sound{form.suffix}"
            form.put(path)
            form.use(path)
        tallies = {name: Tally() for name in chosen(args, known)}
        cases = worst(known, folder) if args.corpus else mutations(args, known, folder)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, held + ROOM))
        before = held_at_most()
        for name, what, path in cases:
            now.seek(0)
            now.write(f"{what}\n")
            now.flush()
            try_one(known[name], path, tallies[name], what)
            if args.corpus and tallies[name].held:
                tallies[name].failed.append(f"{what}: was not refused")
                tallies[name].held = 0
        grown = held_at_most() - before
    print(json.dumps({"formats": {name: vars(tally) for name, tally in tallies.items()}, "grown_mib": grown}))
    return 1 if any(tally.failed for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
