"""Limiting magnitudes (MAGLIM, fact sheet science.md 1)."""

from __future__ import annotations

import numpy as np

from ztfluigi.model.maskbits import UNUSABLE


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
