"""Confusion: what the unresolved neighbours of a crowded field add to the flux errors (Condon 1974, ApJ 188, 279)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.signal import fftconvolve

from ztfluigi.model.psf import PsfModel

#: Side [pix] of the cells in which sources are counted, each with the cells round it.
_CELL = 192
#: Sources are counted from this signal-to-noise to `_SPAN` times as much light; fainter ones are thought to go on with the power law.
_LIMIT, _SPAN = 5.0, 4.0
#: Sources brighter than F number as F to the minus this: stars and galaxies at the depth of a survey image alike.
_SLOPE = 0.8


def add_confusion(psfcat: np.ndarray, psf: PsfModel) -> float:
    """Add the noise of unresolved neighbours to sigflux, and so to sigmag and snr, of a PSF catalogue in place; returns its median [DN].

    psfcat : `dtype_of(PSFCAT)` with errors of the pixel noise alone. Neighbours too faint to be found, n(F) per area and flux, shift a flux
    by a random F R(d), R the autocorrelation of the PSF at their distance; the sum has the variance of R^2 over the plane times that of F^2 n
    up to the limit of detection. n is counted among the sources just above the limit.
    """
    near_limit = (psfcat["snr"] >= _LIMIT) & (psfcat["snr"] < 2.0 * _LIMIT)
    if np.count_nonzero(near_limit) < 10:
        return 0.0
    limit = _LIMIT * float(np.median(psfcat["sigflux"][near_limit]))
    density = _density(psfcat, limit, psf.shape)
    stamp = psf.render((psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2)
    response = fftconvolve(stamp, stamp[::-1, ::-1]) / np.sum(stamp**2)
    confusion = limit * np.sqrt(np.sum(response**2) * _SLOPE / (2.0 - _SLOPE) * density)
    psfcat["sigflux"] = np.hypot(psfcat["sigflux"], confusion)
    psfcat["sigmag"], psfcat["snr"] = 2.5 / np.log(10.0) * psfcat["sigflux"] / psfcat["flux"], psfcat["flux"] / psfcat["sigflux"]
    return float(np.median(confusion))


def _density(psfcat: np.ndarray, limit: float, shape: tuple[int, int]) -> np.ndarray:
    """Sources brighter than `limit` [DN] per pixel round every source, from those up to `_SPAN` times as bright."""
    cells = [max(1, round(n / _CELL)) for n in shape]
    edges = [np.linspace(0.5, n + 0.5, c + 1) for n, c in zip(shape, cells, strict=True)]
    counted = psfcat[(psfcat["flux"] >= limit) & (psfcat["flux"] < _SPAN * limit)]
    number = np.histogram2d(counted["ypos"], counted["xpos"], edges)[0] * cells[0] * cells[1] / (shape[0] * shape[1])
    smooth = uniform_filter(number, 3, mode="nearest") / (1.0 - _SPAN**-_SLOPE)
    row, column = (np.clip(np.searchsorted(edge, psfcat[axis]) - 1, 0, len(edge) - 2) for edge, axis in zip(edges, ("ypos", "xpos"), strict=True))
    return smooth[row, column]
