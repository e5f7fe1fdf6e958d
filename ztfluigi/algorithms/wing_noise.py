"""How far the subtracted wings of bright stars can be trusted: what is left of them, ring by ring, against the noise."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Width of a ring [pix].
_STEP = 1.5
#: Median of a chi-square with one degree of freedom.
_MEDIAN_CHI2 = 0.4549
#: Excess, in variances of the noise, from which wings are doubted: faint neighbours make a little everywhere in a crowded field.
_TROUBLE = 3.0


@njit(cache=True, nogil=True)
def wing_excess(residual, variance, slope, floor, x, y, inner, outer, excess):
    """Variance per pixel [DN^2] beyond `variance` in the rings round each star, written into `excess` (ny, nx) where it is larger.

    residual : float32 (ny, nx) [DN], all models taken out; variance, slope, floor : as `psf_photometry.Noise`. x, y : zero-based
    centres; inner, outer (N,) : radii [pix] of the first and last ring. The scatter of a ring is its median squared residual over the
    variance of the model, so that a few real neighbours do not count; an excess that chance can make is not one.
    """
    ny, nx = residual.shape
    for s in range(len(x)):
        cx, cy, reach = int(np.floor(x[s] + 0.5)), int(np.floor(y[s] + 0.5)), int(outer[s]) + 1
        rings = int((outer[s] - inner[s]) / _STEP) + 1
        ratio = np.empty((rings, 14 * (reach + 2)))
        count = np.zeros(rings, np.int64)
        share = np.zeros(rings)
        for step in range(2):
            for i in range(max(0, cy - reach), min(ny, cy + reach + 1)):
                for j in range(max(0, cx - reach), min(nx, cx + reach + 1)):
                    v = variance[i, j]
                    k = int(np.floor((np.hypot(i - y[s], j - x[s]) - inner[s]) / _STEP))
                    if k < 0 or k >= rings or v >= 1e30:
                        continue
                    r = residual[i, j]
                    model = max(v - slope * r, floor)
                    if step == 1:
                        excess[i, j] = max(excess[i, j], share[k] * model)
                    elif count[k] < ratio.shape[1]:
                        ratio[k, count[k]] = r * r / model
                        count[k] += 1
            if step == 0:
                for k in range(rings):
                    if count[k] >= 8:
                        share[k] = max(np.median(ratio[k, :count[k]]) / _MEDIAN_CHI2 - 1.0, 0.0)
                        if share[k] < max(_TROUBLE, 5.0 / np.sqrt(count[k])):
                            share[k] = 0.0
