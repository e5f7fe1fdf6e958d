"""What differencing leaves at bright stars, learnt from them: noise of the score that grows with their flux."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Rings of one pixel about a star, the outermost of this radius.
REACH = 14
#: The brightest stars that are measured, and the fewest that say something.
MOST, FEWEST = 400, 8
#: Share of the stars, those with the least residuals, whose mean counts in each ring: variables are no residuals.
KEPT_SHARE = 0.7
#: Added variance below which a star is left alone, in variances of the score.
LEAST = 0.05


def add_residual_noise(score: np.ndarray, factor: np.ndarray, usable: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray,
                       clean: np.ndarray) -> np.ndarray:
    """Lower `factor` (score over its noise, in place) about static stars by the residuals that their like are seen to leave.

    score, factor : float32 (ny, nx), as from `proper_difference`. x, y : zero-based pixels of the stars. flux [DN]; clean : whether a
    star may be measured. The variance of the score beyond its noise is taken as flux^2 e^2(r); e^2, the mean over stars of
    (score^2 - 1 / factor^2) / flux^2 in rings, is returned (REACH + 1, zeros where too few stars say anything).
    """
    order = np.flatnonzero(clean)
    order = order[np.argsort(-flux[order], kind="stable")][:MOST]
    profile = np.zeros(REACH + 1)
    if len(order) >= FEWEST:
        rings = _excess(score, factor, usable, x[order], y[order], flux[order].astype(float), REACH)
        for r in range(REACH + 1):
            values = np.sort(rings[np.isfinite(rings[:, r]), r])
            if len(values) >= FEWEST:
                profile[r] = max(0.0, values[:max(FEWEST, int(KEPT_SHARE * len(values)))].mean())
        _widen(factor, x, y, flux.astype(float), profile, LEAST)
    return profile


@njit(cache=True, nogil=True)
def _excess(score, factor, usable, x, y, flux, reach):
    """Mean of (score^2 - noise^2) / flux^2 in each ring of each star; NaN where less than half of a ring is usable."""
    out = np.empty((len(x), reach + 1))
    total, count, area = np.zeros(reach + 1), np.zeros(reach + 1), np.zeros(reach + 1)
    for k in range(len(x)):
        total[:], count[:], area[:] = 0.0, 0.0, 0.0
        ix, iy = int(np.rint(x[k])), int(np.rint(y[k]))
        for j in range(iy - reach, iy + reach + 1):
            for i in range(ix - reach, ix + reach + 1):
                ring = int(np.sqrt((j - y[k]) ** 2 + (i - x[k]) ** 2) + 0.5)
                if ring <= reach:
                    area[ring] += 1
                    if 0 <= j < score.shape[0] and 0 <= i < score.shape[1] and usable[j, i]:
                        total[ring] += score[j, i] ** 2 - 1.0 / factor[j, i] ** 2
                        count[ring] += 1
        for ring in range(reach + 1):
            out[k, ring] = total[ring] / count[ring] / flux[k] ** 2 if count[ring] > 0.5 * area[ring] else np.nan
    return out


@njit(cache=True, nogil=True)
def _widen(factor, x, y, flux, profile, least):
    reach = len(profile) - 1
    for k in range(len(x)):
        if flux[k] ** 2 * profile.max() < least:
            continue
        ix, iy = int(np.rint(x[k])), int(np.rint(y[k]))
        for j in range(max(0, iy - reach), min(factor.shape[0], iy + reach + 1)):
            for i in range(max(0, ix - reach), min(factor.shape[1], ix + reach + 1)):
                distance = np.sqrt((j - y[k]) ** 2 + (i - x[k]) ** 2)
                ring = int(distance)
                if ring < reach:
                    share = distance - ring
                    extra = flux[k] ** 2 * ((1.0 - share) * profile[ring] + share * profile[ring + 1])
                    factor[j, i] = 1.0 / np.sqrt(1.0 / factor[j, i] ** 2 + extra)
