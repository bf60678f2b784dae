"""What the server counts, in the text form that Prometheus reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treegym.models.serving.jobs import Job

__all__ = ["Metrics"]

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)
LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass
class Histogram:
    """Counts of values up to each bound, their sum and number."""

    bounds: tuple[float, ...]
    counts: Counter[float] = field(default_factory=Counter)
    total: float = 0.0
    number: int = 0

    def add(self, value: float) -> None:
        """Counts a value."""
        self.counts[next((bound for bound in self.bounds if value <= bound), float("inf"))] += 1
        self.total += value
        self.number += 1

    def lines(self, name: str) -> list[str]:
        """Returns the exposition lines, cumulative as the format wants them."""
        lines, below = [], 0
        for bound in self.bounds:
            below += self.counts[bound]
            lines.append(f'{name}_bucket{{le="{bound:g}"}} {below}')
        return [
            *lines,
            f'{name}_bucket{{le="+Inf"}} {self.number}',
            f"{name}_sum {self.total:.6f}",
            f"{name}_count {self.number}",
        ]


@dataclass
class Metrics:
    """Totals since the start; written by the batcher's thread and the web server's, read by anyone."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # (route, status)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    rejected: int = 0  # requests refused because the queue was full
    cancelled: int = 0  # sequences whose client went away
    failed: int = 0  # sequences on which the model failed
    batch_size: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS))
    step_seconds: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    sequence_seconds: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))

    def step(self, batch: int, seconds: float) -> None:
        """Counts one call of the model."""
        self.batch_size.add(batch)
        self.step_seconds.add(seconds)

    def finish(self, job: Job, seconds: float) -> None:
        """Counts a finished sequence."""
        self.prompt_tokens += len(job.prompt)
        self.generated_tokens += len(job.generated)
        self.sequence_seconds.add(seconds)

    def text(self, running: int, waiting: int) -> str:
        """Returns the exposition text."""
        plain = {
            "prompt_tokens_total": (self.prompt_tokens, "counter", "Prompt tokens of finished sequences."),
            "generated_tokens_total": (self.generated_tokens, "counter", "Tokens generated."),
            "rejected_total": (self.rejected, "counter", "Requests refused because the queue was full."),
            "cancelled_total": (self.cancelled, "counter", "Sequences whose client went away."),
            "failed_total": (self.failed, "counter", "Sequences on which the model failed."),
            "running": (running, "gauge", "Sequences in the running batch."),
            "waiting": (waiting, "gauge", "Sequences in the queue."),
        }
        lines = []
        for name, (value, kind, told) in plain.items():
            lines += [f"# HELP treegym_{name} {told}", f"# TYPE treegym_{name} {kind}", f"treegym_{name} {value}"]
        lines += ["# HELP treegym_requests_total Requests answered.", "# TYPE treegym_requests_total counter"]
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'treegym_requests_total{{route="{route}",status="{status}"}} {count}')
        histograms = {
            "batch_size": (self.batch_size, "Sequences in one call of the model."),
            "step_seconds": (self.step_seconds, "Seconds of one call of the model."),
            "sequence_seconds": (self.sequence_seconds, "Seconds from a sequence's arrival to its end."),
        }
        for name, (histogram, told) in histograms.items():
            lines += [f"# HELP treegym_{name} {told}", f"# TYPE treegym_{name} histogram"]
            lines += histogram.lines(f"treegym_{name}")
        return "\n".join(lines) + "\n"
