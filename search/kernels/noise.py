"""Dirichlet noise for the root, from counter-based random numbers."""

from __future__ import annotations

import numpy as np

from treegym.search.kernels.codes import DRAWS_OF_NOISE
from treegym.search.kernels.numeric import kernel, normal, uniform

__all__ = ["gamma_draws"]

_DRAWS_EACH = 1 << 12


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
            draw = DRAWS_OF_NOISE + k * _DRAWS_EACH
            gamma = d
            for _ in range(_DRAWS_EACH // 4):  # each try succeeds with probability above 0.95
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
