"""Forced photometry on difference images: the flux of a point source at a given place, seen there or not (paper 4.1; fp_hists)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from ztfluigi.algorithms.features import SKY_RING, shifted
from ztfluigi.algorithms.resample import kernel_table
from ztfluigi.model.alert_schema import FORCED_FAILED

HALF = SKY_RING[1]
"""Half the side of the stamps that `measure` takes [pix]."""
OFF_IMAGE, MASKED, PARTLY_MASKED, FEW_SKY, UNREADABLE, CLEAN = "61", "55", "56", "54", "255", "0"
"""procstatus: the place is not on the image; more than half the source's light falls on pixels without value (both: no flux); some of it
does; fewer than FEWEST_SKY pixels to take the noise from; the image could not be read (no flux); no warning."""
FEWEST_SKY = 100
UNSEEN = 0.5


@dataclass(frozen=True)
class Forced:
    """Fluxes at n places of one image. flux, sigma : float64 (n,) [DN], FORCED_FAILED where there is none; status : procstatus (n,)."""

    flux: np.ndarray
    sigma: np.ndarray
    status: list[str]

    @classmethod
    def failed(cls, n: int, status: str) -> Forced:
        """No flux anywhere, for one reason."""
        return cls(np.full(n, FORCED_FAILED), np.full(n, FORCED_FAILED), [status] * n)

    def limit(self, magzp: float, snr: float = 5.0) -> list[float | None]:
        """Upper limits [mag] at the places; None where there is no flux."""
        return [magzp - 2.5 * np.log10(snr * sigma) if sigma > 0 else None for sigma in self.sigma.tolist()]


def measure(difference: Sequence[np.ndarray | None], science: Sequence[np.ndarray | None], psfs: np.ndarray, offset: np.ndarray, *, gain: float,
            radius: float = 4.5) -> Forced:
    """Fit the PSF at fixed places of one difference image, pixels weighted alike as in `features.fit_psf`, so that no flux biases its own fit.

    Parameters
    ----------
    difference, science : for each place a stamp (2 HALF + 1, 2 HALF + 1) [DN] about its nearest pixel, NaN beyond the edge and where a
        pixel is not to be used; None where the place is not on the image.
    psfs : (n, k, k), sum 1. offset : (n, 2), x and y [pix] from the central pixel. gain : [electron/DN] of science. radius : of the fit [pix].

    The noise of a pixel is that of the difference in the ring SKY_RING (robust), and the photon noise of what the science image holds
    above its own ring: the host and the source.
    """
    made = Forced.failed(len(difference), OFF_IMAGE)
    there = [k for k, stamp in enumerate(difference) if stamp is not None]
    if not there:
        return made
    stamps, light = (np.stack([images[k] for k in there]).astype(np.float64) for images in (difference, science))
    spread, level, pixels = _ring(stamps, light)
    photons = np.maximum(np.nan_to_num(light - level[:, None, None]), 0.0) / gain
    flux, sigma, lost = _fit(stamps, spread[:, None, None] ** 2 + photons, np.asarray(psfs, float)[there], np.asarray(offset, float)[there],
                             radius, kernel_table(4))
    for k, *values in zip(there, flux.tolist(), sigma.tolist(), lost.tolist(), pixels.tolist(), strict=True):
        made.status[k], seen = _status(*values)
        if seen:
            made.flux[k], made.sigma[k] = values[:2]
    return made


def _status(flux: float, sigma: float, lost: float, pixels: int) -> tuple[str, bool]:
    """(procstatus, whether there is a flux)."""
    if lost > UNSEEN or not np.isfinite(flux) or not sigma > 0:
        return MASKED, False
    codes = [FEW_SKY] * (pixels < FEWEST_SKY) + [PARTLY_MASKED] * (lost > 0)
    return ",".join(codes) or CLEAN, True


def _ring(stamps: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(robust spread of the difference, level of the science image, number of pixels) in the ring about each place."""
    rows, cols = np.mgrid[-HALF:HALF + 1, -HALF:HALF + 1]
    ring = (rows**2 + cols**2 > SKY_RING[0] ** 2) & (rows**2 + cols**2 < SKY_RING[1] ** 2)
    inner, outer = stamps[:, ring], light[:, ring]
    good = np.isfinite(inner) & np.isfinite(outer)
    spread, level = np.zeros(len(stamps)), np.zeros(len(stamps))
    for k, use in enumerate(good):
        if use.any():
            spread[k] = 1.4826 * np.median(np.abs(inner[k, use] - np.median(inner[k, use])))
            level[k] = np.median(outer[k, use])
    return spread, level, good.sum(axis=1)


@njit(cache=True, nogil=True)
def _fit(stamps, variance, psfs, offset, radius, table):
    """(flux, sigma, fraction of the squared PSF that falls on pixels without value) of each stamp; NaN flux where none is left."""
    n, half, reach = len(stamps), stamps.shape[1] // 2, int(np.ceil(radius))
    flux, sigma, lost = np.full(n, np.nan), np.zeros(n), np.ones(n)
    model = np.empty((2 * reach + 1, 2 * reach + 1))
    for k in range(n):
        shifted(psfs[k], offset[k, 0], offset[k, 1], table, model)
        all_pp, pp, pd, noise = 0.0, 0.0, 0.0, 0.0
        for j in range(-reach, reach + 1):
            for i in range(-reach, reach + 1):
                if j * j + i * i <= radius * radius:
                    weight = model[j + reach, i + reach] ** 2
                    all_pp += weight
                    value = stamps[k, half + j, half + i]
                    if np.isfinite(value):
                        pp += weight
                        pd += model[j + reach, i + reach] * value
                        noise += weight * variance[k, half + j, half + i]
        if pp > 0:
            flux[k], sigma[k], lost[k] = pd / pp, np.sqrt(noise) / pp, 1.0 - pp / all_pp
    return flux, sigma, lost
