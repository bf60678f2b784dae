"""One training process: takes model names on standard input, one per line, and reports in JSON lines.

It ends when its input does or when nobody reads its reports any more, so killing the parent ends it too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["main"]

REPORT_EVERY = 0.5  # seconds


def main() -> int:
    """Trains what it is told to until its input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()

    import torch

    from treegym.errors import StorageError
    from treegym.files import told_by
    from treegym.models.family.specs import FAMILY, quick
    from treegym.models.family.training import forge_model

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    specs = {spec.name: quick(spec) if args.quick else spec for spec in FAMILY}
    for line in sys.stdin:
        name = line.strip()
        last = time.monotonic()

        def progress(step: int, loss: float, name: str = name) -> None:
            nonlocal last
            if time.monotonic() - last >= REPORT_EVERY:
                last = time.monotonic()
                _report({"name": name, "step": step, "loss": loss})

        try:
            with told_by(args.out):
                card = forge_model(specs[name], args.out, seed=args.seed, progress=progress)
            _report({"name": name, "card": card})
        except BrokenPipeError:
            return 1
        except StorageError as error:
            _report({"name": name, "error": str(error)})
        except OSError as error:
            _report({"name": name, "error": f"{args.out} could not be written: {error.strerror or error}"})
    return 0


def _report(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
