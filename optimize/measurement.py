"""What a measurement is told and what it finds; light, so that reading results needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Interval", "MeasureSettings", "Measurement", "OutputVerdict"]


@dataclass(frozen=True)
class MeasureSettings:
    """How long to measure: until the interval of the speed ratio is tight, between these bounds."""

    min_pairs: int = 10
    max_pairs: int = 80
    max_seconds: float = 2.0
    half_width: float = 0.015  # stop when log-ratio's 95 % interval is within plus or minus this
    slice_seconds: float = 0.001  # a timed slice runs as many calls (on as many inputs) as this needs
    clock: str = "auto"  # "cpu": CPU time; "wall"; "auto": wall, on one CPU thread both, the worse where they differ
    seed: int = 0


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OutputVerdict:
    """What became of one output of a module."""

    name: str  # its path in the output; empty for an output that is one tensor
    error: float  # over the output's own spread (see `compare`); of whole numbers, the share that differs
    kept: float  # accuracy: 1 - error, or the share of equal choices where that is less; whole numbers: 0 or 1
    low: float  # lower end of its 95 % interval
    first: float | None = None  # share of rows with the same first choice, where the output looks like scores
    five: float | None = None  # share of equal choices among the first five
    note: str = ""  # why the output cannot be right


@dataclass(frozen=True)
class Measurement:
    """A candidate against the original; ratios above 1 are better than it."""

    speed: Interval  # time of the original over time of the candidate, by the clock that tells
    memory: Interval  # bytes (all tensors held, peak allocation) of the original over the candidate's
    accuracy: Interval  # of the worst output, or the share of the original's task score that is kept; in [0, 1]
    output_error: float  # of the worst output
    milliseconds: tuple[float, float]  # median time of a call: original, candidate
    bytes: tuple[int, int]
    pairs: int
    outputs: tuple[OutputVerdict, ...] = ()  # the worst first
    wall: Interval | None = None  # speed by the clock on the wall
    cpu: Interval | None = None  # speed by CPU time, threads and children included
    process_bytes: dict[str, tuple[int, int]] | None = None  # growth of the process by "load" and "run": both sides
    build_seconds: float = 0.0  # from the original to the first output: applying strategies, compiling, exporting

    @property
    def worst(self) -> str:
        """The name of the worst output, and why it cannot be right, if that is known; empty for a single tensor."""
        if not self.outputs:
            return ""
        worst = self.outputs[0]
        return ": ".join(part for part in (worst.name, worst.note) if part)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measurement:
        clocks = {name: None if data.get(name) is None else Interval(**data[name]) for name in ("wall", "cpu")}
        grown = data.get("process_bytes")
        return cls(
            speed=Interval(**data["speed"]),
            memory=Interval(**data["memory"]),
            accuracy=Interval(**data["accuracy"]),
            output_error=float(data["output_error"]),
            milliseconds=(data["milliseconds"][0], data["milliseconds"][1]),
            bytes=(data["bytes"][0], data["bytes"][1]),
            pairs=int(data["pairs"]),
            outputs=tuple(OutputVerdict(**one) for one in data.get("outputs", ())),
            process_bytes=None if grown is None else {name: (sides[0], sides[1]) for name, sides in grown.items()},
            build_seconds=float(data.get("build_seconds", 0.0)),
            **clocks,
        )
