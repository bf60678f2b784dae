"""What all kernels share: how they are compiled, an exponential that vectorises, and counter-based random numbers.

The random numbers are a function of (seed, root, draw), not of a generator's state, so that a batch of roots gives the
same trees however it is split (after SplitMix64, https://doi.org/10.1145/2714064.2660195).
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numba
import numpy as np

from treegym.search.kernels.codes import DRAWS_OF_NOISE

__all__ = [
    "EPSILON",
    "EXP_SERIES",
    "FAR",
    "FAST",
    "INLINED",
    "LARGEST",
    "LEAST",
    "LN2_HIGH",
    "LN2_LOW",
    "LOG2_E",
    "POSITIVE",
    "argmax",
    "exp32",
    "exp_series",
    "finite",
    "gamma_draws",
    "inlined",
    "kernel",
    "log_uniform",
    "mix",
    "normal",
    "position",
    "stamp",
    "strict",
    "uniform",
    "unusable",
]

# Infinities stay meaningful (a masked score is -inf); NaNs cannot come in, because inputs are checked.
FAST = {"nnan", "nsz", "arcp", "contract", "reassoc"}
# How a part of a kernel is compiled. No references are held (``_nrt=False``), see `kernel`.
INLINED = {"fastmath": FAST, "nogil": True, "error_model": "numpy", "forceinline": True, "_nrt": False}

# masked with it, an index is known not to be negative, and the compiler drops Python's wrap-around
POSITIVE = np.int64(0x7FFFFFFF)

FAR = np.float32(3.0e38)  # beyond every score; -FAR where a maximum begins
EPSILON = np.float32(1e-8)  # the least spread that Q is divided by
LEAST = np.float32(1.2e-38)  # of a probability: about the smallest normal float32, so that no mean divides by zero
LARGEST = np.float32(1e30)  # of a reward or value: sums over a search stay far from the end of float32
_LARGEST_BITS = LARGEST.view(np.int32)

LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(2.12194440e-4)  # ln 2 is the first less the second
EXP_SERIES = tuple(
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_DRAWS_PER_GAMMA = 1 << 12


def _sources() -> str:
    """Returns a fingerprint of all kernel sources: a kernel contains those it calls, in whatever file they stand."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in [*sorted(here.rglob("*.py")), here.parent / "tree.py", here.parent / "output.py"]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


_FINGERPRINT = _sources()


def kernel(function: Any) -> Any:
    """Compiles `function` for the processor, without the interpreter lock, cached on disk.

    Kernels are not annotated: numba derives the types of their arguments from each call, and named tuples carry names.

    Numba's cache looks at the age of the one file that a kernel is in; here it must also notice changes to what the
    kernel calls, so the fingerprint of all sources goes into its version. Kernels hold no references (``_nrt=False``):
    they cannot allocate, and counting references in the inner loops would cost several times the work itself.
    """
    compiled = numba.njit(fastmath=FAST, nogil=True, error_model="numpy", _nrt=False)(function)
    with contextlib.suppress(RuntimeError):  # a function typed at a prompt has no file that it could be cached beside
        compiled.enable_caching()
    stamp(compiled)
    return compiled


def stamp(compiled: Any) -> None:
    """Makes the disk cache of a compiled function depend on all kernel sources; one made of others is not read."""
    file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if file is not None:
        file._version = f"{file._version} {_FINGERPRINT}"


def inlined(function: Any) -> Any:
    """Compiles `function` as a part of the kernels that call it."""
    return numba.njit(**INLINED)(function)


def strict(function: Any) -> Any:
    """Compiles `function` as `inlined` does, but each operation as it is written.

    For what is done alike to all children of a node: what the compiler may reorder it does one way on vector units and
    another way for what is left over at a loop's end, which breaks ties between equal children.
    """
    return numba.njit(**{**INLINED, "fastmath": False})(function)


def exp_series(rest: Any) -> Any:
    """Returns (e**rest - 1 - rest) / rest**2 for rest from -ln(2) / 2 to ln(2) / 2, by a polynomial.

    Plain Python, for kernels to compile with what arithmetic they allow. It is written out: a loop over the terms would
    keep loops over it from vectors.
    """
    series = EXP_SERIES[0]
    series = series * rest + EXP_SERIES[1]
    series = series * rest + EXP_SERIES[2]
    series = series * rest + EXP_SERIES[3]
    series = series * rest + EXP_SERIES[4]
    return series * rest + EXP_SERIES[5]


_exp_series = strict(exp_series)


@strict
def exp32(x):
    """Returns e**x in float32 to about 2e-7, for x <= 88, so that loops over it use vector units; x must not be NaN."""
    x = max(x, np.float32(-87.0))
    whole = np.floor(x * LOG2_E + np.float32(0.5))
    rest = x - whole * LN2_HIGH + whole * LN2_LOW
    series = _exp_series(rest)
    series = series * rest * rest + rest + np.float32(1.0)
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23))
    return series * power.view(np.float32)


@inlined
def unusable(x):
    """Returns whether a float32 is NaN or +inf, by its bits: fast arithmetic assumes that there are no NaNs."""
    bits = np.float32(x).view(np.int32)
    return (bits & np.int32(0x7FFFFFFF)) > np.int32(0x7F800000) or bits == np.int32(0x7F800000)


@inlined
def finite(x):
    """Returns whether a float32 is a number within `LARGEST`, by its bits."""
    return (np.float32(x).view(np.int32) & np.int32(0x7FFFFFFF)) <= _LARGEST_BITS


@inlined
def position(scores, width, best):
    """Returns the first position of `best` in ``scores[:width]``."""
    for k in range(width):
        if scores[k] == best:
            return k
    return 0


@inlined
def argmax(scores, width):
    """Returns the first position of the largest of ``scores[:width]``."""
    best = scores[0]
    for k in range(width):
        best = max(best, scores[k])
    for k in range(width):
        if scores[k] == best:
            return k
    return 0


@kernel
def mix(seed, root, draw):
    """Returns 64 random bits that depend on nothing but the three numbers."""
    z = np.uint64(seed)
    for part in (np.uint64(root), np.uint64(draw)):
        z = z + _GOLDEN * (part + np.uint64(1))
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        z = z ^ (z >> np.uint64(31))
    return z


@kernel
def uniform(seed, root, draw):
    """Returns a number in the open interval (0, 1)."""
    return (np.float64(mix(seed, root, draw) >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@kernel
def log_uniform(seed, root, draw):
    """Returns the logarithm of a uniform number."""
    return np.log(uniform(seed, root, draw))


@kernel
def normal(seed, root, draw):
    """Returns a standard normal number (Box-Muller); takes the draws `draw` and `draw + 1`."""
    radius = np.sqrt(-2.0 * log_uniform(seed, root, draw))
    return radius * np.cos(2.0 * np.pi * uniform(seed, root, draw + 1))


@kernel
def gamma_draws(seed, roots, widths, alpha, out):
    """Fills `out` [B, W] float64 with Gamma(alpha, 1) draws; alpha <= 0 means 10.83 / width.

    Normalised to sum 1 they are Dirichlet(alpha). Marsaglia and Tsang 2000, https://doi.org/10.1145/358407.358414;
    for alpha < 1 the draw of alpha + 1 times U ** (1 / alpha).
    """
    for b in range(len(roots)):
        shape = alpha if alpha > 0.0 else 10.83 / max(widths[b], 1)
        lifted = shape if shape >= 1.0 else shape + 1.0
        d = lifted - 1.0 / 3.0
        c = 1.0 / np.sqrt(9.0 * d)
        for k in range(widths[b]):
            draw = DRAWS_OF_NOISE + k * _DRAWS_PER_GAMMA
            gamma = d
            for _ in range(_DRAWS_PER_GAMMA // 4):  # each try succeeds with probability above 0.95
                x = normal(seed, roots[b], draw)
                v = (1.0 + c * x) ** 3
                u = uniform(seed, roots[b], draw + 2)
                draw += 3
                if v > 0.0 and np.log(u) < 0.5 * x * x + d - d * v + d * np.log(v):
                    gamma = d * v
                    break
            if shape < 1.0:
                gamma *= uniform(seed, roots[b], draw) ** (1.0 / shape)
            out[b, k] = max(gamma, 1e-300)
