"""What a measurement is told and what it finds; light, so that reading results needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Interval", "MeasureSettings", "Measurement"]


@dataclass(frozen=True)
class MeasureSettings:
    """How long to measure: until the interval of the speed ratio is tight, between these bounds."""

    min_pairs: int = 10
    max_pairs: int = 80
    max_seconds: float = 2.0
    half_width: float = 0.015  # stop when log-ratio's 95 % interval is within plus or minus this
    slice_seconds: float = 0.001  # a timed slice runs as many calls (on as many inputs) as this needs
    clock: str = "auto"  # "cpu": CPU time of the process; "wall"; "auto": cpu where one thread on a CPU works
    seed: int = 0


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """A candidate against the original; ratios above 1 are better than it."""

    speed: Interval  # time of the original over time of the candidate
    memory: Interval  # bytes (parameters, buffers, peak allocation) of the original over the candidate's
    accuracy: Interval  # 1 minus output error, or the share of the original's task score that is kept; in [0, 1]
    output_error: float  # relative error of the outputs
    milliseconds: tuple[float, float]  # median time of a call: original, candidate
    bytes: tuple[int, int]
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measurement:
        return cls(
            speed=Interval(**data["speed"]),
            memory=Interval(**data["memory"]),
            accuracy=Interval(**data["accuracy"]),
            output_error=float(data["output_error"]),
            milliseconds=(data["milliseconds"][0], data["milliseconds"][1]),
            bytes=(data["bytes"][0], data["bytes"][1]),
            pairs=int(data["pairs"]),
        )
