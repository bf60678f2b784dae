"""What growing on many GPUs takes: a small discrete-event model of workers, a driver and failures, and what it says.

The model knows what `treegym.scale.crew` does: workers are started one after another, open their models, take one shard
at a time; the driver receives and writes shards one after another; a worker that fails loses its shard and is
replaced. `benchmarks/scale.py` checks it against real runs. The rates below that were not measured are marked so.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from common import emit, parse, table

__all__ = ["Cluster", "makespan"]

PROMPTS, SHARD = 1_000_000, 32
TOKENS = 5 * 4_000  # per prompt: five 8B models score and write about 4,000 tokens each (not measured)
RATE = 5_000.0  # tokens per second that one GPU gets through, reading and writing mixed (not measured)
OPENING = 180.0  # seconds until five 8B models are loaded (not measured)
FAILURES = 0.002  # of a worker per hour (not measured)
PRICE = 3.0  # dollars per GPU and hour (not measured)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a run is made of; all times in seconds."""

    workers: int
    hiring: float = 0.02  # the driver's time to start one worker
    opening: float = 0.0  # until a worker is ready
    driving: float = 0.004  # the driver's time for the result of one job
    spread: float = 0.0  # standard deviation of a job's time, as a part of it
    failures: float = 0.0  # of a worker per second


def makespan(jobs: int, seconds: float, cluster: Cluster, *, seed: int = 0) -> float:
    """Returns how long so many jobs of so many seconds each take."""
    rng = random.Random(seed)
    ready = [(cluster.hiring * (number + 1) + cluster.opening, number) for number in range(cluster.workers)]
    heapq.heapify(ready)
    waiting, free, end = jobs, 0.0, 0.0  # `free`: when the driver has written what it received so far
    under_way: list[tuple[float, int, bool]] = []
    while waiting or under_way:
        if ready and waiting and (not under_way or ready[0][0] <= under_way[0][0]):
            now, worker = heapq.heappop(ready)
            length = max(0.0, rng.gauss(1.0, cluster.spread)) * seconds
            failure = rng.expovariate(cluster.failures) if cluster.failures else float("inf")
            waiting -= 1
            heapq.heappush(under_way, (now + min(length, failure), worker, failure < length))
            continue
        now, worker, failed = heapq.heappop(under_way)
        if failed:
            waiting += 1
            heapq.heappush(ready, (now + cluster.hiring + cluster.opening, worker))
            continue
        free = max(free, now) + cluster.driving
        end = max(end, free)
        heapq.heappush(ready, (free, worker))  # it is handed its next job when the driver comes to it
    return end


def main() -> None:
    args = parse(__doc__)
    shards, seconds = PROMPTS // SHARD, SHARD * TOKENS / RATE
    cells, figures = [], {}
    for gpus in (1, 10, 100, 1_000) if not args.quick else (100, 1_000):
        cluster = Cluster(workers=gpus, opening=OPENING, spread=0.2, failures=FAILURES / 3600)
        hours = makespan(shards, seconds, cluster) / 3600
        ideal = shards * seconds / gpus / 3600
        figures[f"efficiency_{gpus}"] = ideal / hours
        cells.append(
            {"GPUs": gpus, "hours": hours, "efficiency": ideal / hours, "dollars": hours * gpus * PRICE,
             "shards per s": shards / hours / 3600}
        )  # fmt: skip
    print(table(cells))
    emit("scale_model", figures, cells)


if __name__ == "__main__":
    main()
