"""Limiting magnitudes (MAGLIM, fact sheet science.md 1)."""

from __future__ import annotations

import numpy as np
from numba import njit

from ztfluigi.model.maskbits import UNUSABLE

LIMIT_CELL = 64
"""Side of the cells of local limits [pix]."""


def limiting_magnitude(psfcat: np.ndarray, magzp: float, *, fewest: int = 5) -> float:
    """Five-sigma limit [mag]: median calibrated magnitude of the clean sources with 4.5 <= S/N <= 5.5; NaN with fewer than `fewest`.

    psfcat : `dtype_of(PSFCAT)`; sources with unusable mask bits are left out. magzp : zero point [mag].
    """
    clean = (psfcat["snr"] >= 4.5) & (psfcat["snr"] <= 5.5) & ((psfcat["flags"].astype(np.int64) & UNUSABLE) == 0)
    if np.count_nonzero(clean) < fewest:
        return float("nan")
    return float(np.median(psfcat["mag"][clean].astype(float)) + magzp)


def theoretical_limit(rms: float, psf: np.ndarray, gain: float, magzp: float, *, snr: float = 5.0) -> float:
    """Magnitude of a point source that an ideal PSF fit measures at `snr`.

    rms : background noise [DN/pix]. psf : unit-flux stamp (n, n). gain : [electron/DN]; the source's own photon noise counts. The flux
    F solves F^2 sum(P^2 / (rms^2 + F P / gain)) = snr^2. Raises ValueError for rms or gain that are not positive.
    """
    if not (rms > 0 and gain > 0):
        raise ValueError(f"rms {rms} and gain {gain} must be positive")
    psf = np.clip(np.asarray(psf, float), 0.0, None)
    flux = snr * rms / np.sqrt(np.sum(psf**2))
    for _ in range(50):
        flux = snr / np.sqrt(np.sum(psf**2 / (rms**2 + flux * psf / gain)))
    return float(magzp - 2.5 * np.log10(flux))


def local_limits(data: np.ndarray, bad: np.ndarray, psf_weight, magzp: float, *, cell: int = LIMIT_CELL, snr: float = 5.0) -> np.ndarray:
    """Magnitude that a PSF fit measures at `snr` in each cell of a difference image: float32 (rows, cols), NaN where masked.

    data : (ny, nx) [DN], level zero, noise independent between pixels. bad : bool (ny, nx). psf_weight : (x, y) arrays [pix] -> sum of the
    squares of the unit-sum PSF there. magzp : [mag]. A cell of which more than half is bad has no limit. The noise is 1.4826 times the
    median absolute value, so that sources in a cell do not count.
    """
    ny, nx = data.shape
    spread = np.empty((max(1, round(ny / cell)), max(1, round(nx / cell))), np.float32)
    _cell_spread(data, bad, spread)
    rows, cols = spread.shape
    y, x = np.mgrid[0:rows, 0:cols]
    norm = np.sqrt(psf_weight((x + 0.5) * nx / cols, (y + 0.5) * ny / rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (magzp - 2.5 * np.log10(snr * spread / norm)).astype(np.float32)


@njit(cache=True, nogil=True)
def _cell_spread(data, bad, cells):
    """Robust spread about zero of one good pixel in four of each cell; NaN where more than half of these are bad."""
    ny, nx = data.shape
    rows, cols = cells.shape
    values = np.empty((ny // rows + 2) * (nx // cols // 4 + 2), np.float32)
    for r in range(rows):
        for c in range(cols):
            n, seen = 0, 0
            for y in range(r * ny // rows, (r + 1) * ny // rows):
                for x in range(c * nx // cols + (y & 3), (c + 1) * nx // cols, 4):
                    seen += 1
                    if not bad[y, x] and np.isfinite(data[y, x]):
                        values[n] = abs(data[y, x])
                        n += 1
            cells[r, c] = np.float32(1.4826) * np.median(values[:n]) if 2 * n >= seen and n > 0 else np.nan
