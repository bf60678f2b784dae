"""How far a module's outputs are from the original's: each output on its own; the worst one counts.

    error = rms(got - expected) / spread(expected)       spread: about the output's mean, so that no offset hides errors

And because what does not depend on the input is not information, the same error over what varies with the input (the
spread of each position about its own mean over all calls; of features or channels, where shapes differ between calls)
counts for a fifth: offsets per class or per feature may hide an error five times the limit, not more. An output that
looks like scores (two-dimensional, or named logits, scores or probabilities) must also agree in its first and its
first five choices, near ties left out. Whole numbers and flags must be equal. Numbers that are not finite must be the
same on both sides, as masked logits are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from treegym.optimize.measurement import OutputVerdict

__all__ = ["Comparison", "leaves", "output_error"]

TIE = 0.05  # of a row's spread: choices closer than this may come in either order
CHOICES = 5  # the first so many of an output that looks like scores
ROWS = 8  # from so many samples on, the mean of each position is known well enough to centre by it
VARYING = 5.0  # times the limit: how much of what varies with the input may be lost
CONSTANT = 1e-6  # of its size: an output that varies less is a constant, judged by its size
_NAMES = ("logit", "score", "prob")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors and numbers of an output by their path in it: mappings, sequences, dataclasses, objects."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, bool | int | float):
        yield path, torch.tensor(value)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from leaves(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", range(len(value)))
        for name, part in zip(names, value, strict=False):
            yield from leaves(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, nn.Module | type) or callable(value):
        return
    elif is_dataclass(value):
        for one in fields(value):
            yield from leaves(getattr(value, one.name), f"{path}.{one.name}" if path else one.name)
    elif hasattr(value, "__dict__"):
        for name, part in vars(value).items():
            yield from leaves(part, f"{path}.{name}" if path else name)


class Comparison:
    """Takes in the outputs of call after call, and says what became of each output."""

    def __init__(self) -> None:
        self._outputs: dict[str, _Output] = {}
        self.broken = ""  # why outputs cannot be compared at all

    def add(self, expected: list[tuple[str, Tensor]], got: list[tuple[str, Tensor]]) -> None:
        """Takes in one call's outputs, as `leaves` gives them."""
        names, found = [name for name, _ in expected], [name for name, _ in got]
        if names != found:
            missing = [name for name in names if name not in found] or found
            self.broken = f"the output has other parts than the original's ({missing[0] or 'the tensor'} first)"
            return
        for (name, ours), (_, theirs) in zip(expected, got, strict=True):
            self._outputs.setdefault(name, _Output(name, alone=len(names) == 1)).add(ours, theirs)

    def verdicts(self) -> list[OutputVerdict]:
        """Returns what became of every output, the worst first."""
        if self.broken:
            return [OutputVerdict("", 1.0, 0.0, 0.0, note=self.broken)]
        return sorted((output.verdict() for output in self._outputs.values()), key=lambda one: one.kept)


class _Output:
    """One output over all calls."""

    def __init__(self, name: str, *, alone: bool) -> None:
        self.name, self.alone = name, alone
        self.note = ""  # what rules the output out
        self.exact = True  # whole numbers: all equal so far
        self.different = self.count = 0
        self.errors: list[tuple[float, int]] = []  # per call: squared difference, numbers
        self.size = 0.0  # sum of squares
        self.agreed: list[tuple[float, float]] = []  # per call: share of equal first choices, of equal first five
        self._sums: dict[str, _Moments] = {}

    def add(self, expected: Tensor, got: Tensor) -> None:
        if expected.shape != got.shape or expected.dtype != got.dtype:
            self.note = f"{_form(got)} instead of {_form(expected)}"
            return
        if expected.is_complex():
            expected, got = torch.view_as_real(expected), torch.view_as_real(got)
        if not expected.is_floating_point():
            self.different += int((expected != got).sum())
            self.count += expected.numel()
            return
        a, b = expected.double(), got.double()
        finite = a.isfinite()
        if not finite.all():
            if not torch.equal(a[~finite].nan_to_num(nan=0.5), b[~finite].nan_to_num(nan=0.5)):
                self.note = "numbers that are not finite differ"
                return
            a, b = a.where(finite, torch.zeros(()).double()), b.where(finite, torch.zeros(()).double())
        if not b.isfinite().all():
            self.note = "numbers are not finite"
            return
        self.errors.append((float((a - b).square().sum()), a.numel()))
        self.size += float(a.square().sum())
        for way, rows in _centred_ways(a):
            self._sums.setdefault(way, _Moments()).add(rows)
        if self._is_scores(a):
            self.agreed.append(_agreement(a, b))

    def _is_scores(self, values: Tensor) -> bool:
        named = any(word in self.name.lower() for word in _NAMES)
        return values.dim() >= 2 and values.shape[-1] >= 2 and (named or (self.alone and values.dim() == 2))

    def verdict(self) -> OutputVerdict:
        if self.note:
            return OutputVerdict(self.name, 1.0, 0.0, 0.0, note=self.note)
        if not self.errors:
            wrong = self.different / max(1, self.count)
            note = f"{self.different} of {self.count} whole numbers differ" if self.different else ""
            return OutputVerdict(self.name, wrong, float(not self.different), float(not self.different), note=note)
        numbers = sum(count for _, count in self.errors)
        whole, varying = self._spreads()
        spread = min(whole, VARYING * varying)
        each = [math.sqrt(square / max(1, count)) / spread if square else 0.0 for square, count in self.errors]
        late = each[-max(1, len(each) // 3) :]
        pooled = math.sqrt(sum(square for square, _ in self.errors) / max(1, numbers)) / spread
        error = min(1.0, max(pooled, math.sqrt(statistics.fmean(e * e for e in late))))  # one that gets worse
        margin = 1.96 * statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 0.0
        first = statistics.fmean(one for one, _ in self.agreed) if self.agreed else None
        five = statistics.fmean(one for _, one in self.agreed) if self.agreed else None
        kept = min(1.0 - error, *(one for one in (first, five) if one is not None), 1.0)
        return OutputVerdict(self.name, error, kept, max(0.0, kept - margin), first, five)

    def _spreads(self) -> tuple[float, float]:
        """Returns the spread of all numbers, and of what varies with the input; of a constant, its size; never 0."""
        numbers = sum(count for _, count in self.errors)
        size = math.sqrt(self.size / max(1, numbers))
        usable = [moments for moments in self._sums.values() if moments.fits and moments.rows >= ROWS]
        found = [self._sums["all"].spread(), usable[0].spread() if usable else self._sums["all"].spread()]
        whole, varying = (spread if spread > CONSTANT * size else size or 1e-300 for spread in found)
        return whole, varying


class _Moments:
    """The mean and the spread of rows ``[n, F]`` that come call by call; sums are of differences to the first mean."""

    def __init__(self) -> None:
        self.rows, self.fits = 0, True
        self._shift: Tensor | None = None  # [F]

    def add(self, rows: Tensor) -> None:
        if self._shift is None:
            self._shift = rows.mean(0)
            self._sum, self._squares = torch.zeros_like(self._shift), torch.zeros_like(self._shift)
        if rows.shape[1:] != self._shift.shape:
            self.fits = False
            return
        moved = rows - self._shift
        self._sum += moved.sum(0)
        self._squares += moved.square().sum(0)
        self.rows += len(rows)

    def spread(self) -> float:
        """Returns the root of the mean variance of the columns."""
        count = max(1, self.rows)
        variance = (self._squares - self._sum.square() / count).clamp_min(0) / max(1, count - 1)
        return math.sqrt(float(variance.mean())) if variance.numel() else 0.0


def _centred_ways(a: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yields an output as rows ``[n, F]`` to be centred column by column, the finest way first."""
    if a.numel() == 0 or a.dim() < 2:
        yield "all", a.reshape(-1, 1)
        return
    yield "position", a.reshape(len(a), -1)
    feature = 1 if a.dim() >= 4 else -1
    yield "feature", a.movedim(feature, -1).reshape(-1, a.shape[feature])
    yield "all", a.reshape(-1, 1)


def _agreement(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Returns the share of rows whose first choice is the same, and the share of the first five; ties left out."""
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    tie = TIE * a.std(-1, correction=0, keepdim=True)
    shares = []
    for count in (1, min(CHOICES, a.shape[-1])):
        least = a.topk(count, dim=-1).values[:, -1:]
        chosen = a.gather(-1, b.topk(count, dim=-1).indices)
        shares.append(float((chosen >= least - tie).double().mean()))
    return shares[0], shares[1]


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def output_error(expected: Any, got: Any) -> float:
    """Returns the error of the worst output of a single call; 1 where the parts, shapes or number formats differ."""
    comparison = Comparison()
    comparison.add(list(leaves(expected)), list(leaves(got)))
    return max((verdict.error if verdict.kept else 1.0 for verdict in comparison.verdicts()), default=0.0)
