"""Bright stars of a reference carried to another grid by their PSF: interpolation of undersampled cores would leave ripples."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import spline_filter

from ztfluigi.algorithms.image_match import smoothed_reference
from ztfluigi.model.psf import PsfModel


class BrightStars:
    """Stars whose PSF model leaves the reference before it is resampled and comes back on the science grid as resampling would have left it.

    What the model does not hold stays in the image and is resampled with it, so the result differs from plain resampling only by the error
    of the interpolation on the model.
    """

    def __init__(self, psf: PsfModel, x, y, flux, tile: np.ndarray, tiles: int):
        """x, y : zero-based reference pixels; flux [DN]; tile : which of `tiles` tables serves each star."""
        self.psf, self.x, self.y, self.flux, self.tile = psf, np.asarray(x, float), np.asarray(y, float), np.asarray(flux, float), tile
        self.tables = np.zeros((tiles, *psf.tables.shape[1:]))
        for k in np.unique(tile):
            self.tables[k] = psf.table(float(self.x[tile == k].mean()), float(self.y[tile == k].mean()))

    def taken_from(self, data: np.ndarray) -> np.ndarray:
        """A copy of the reference (float32) without the stars."""
        out = data.copy()
        jacobians = np.broadcast_to(np.eye(2), (len(self.tables), 2, 2)).copy()
        splines = np.array([spline_filter(t, 3, mode="mirror") for t in self.tables])
        _add(out, self.x, self.y, -self.flux, self.tile, splines, jacobians, self.psf.oversample)
        return out

    def put_on(self, out: np.ndarray, x, y, samples: list, order: int) -> None:
        """Add the stars at zero-based science pixels (x, y) to `out`. samples : per tile (x, y, jacobian) as `smoothed_reference` takes."""
        splines, jacobians = np.zeros_like(self.tables), np.zeros((len(self.tables), 2, 2))
        for k in np.unique(self.tile):
            rx, ry, jacobians[k] = samples[k]
            table = smoothed_reference(self.tables[k], self.psf.oversample, rx, ry, order)
            splines[k] = spline_filter(table * abs(np.linalg.det(jacobians[k])), 3, mode="mirror")
        _add(out, np.asarray(x, float), np.asarray(y, float), self.flux, self.tile, splines, jacobians, self.psf.oversample)


@njit(cache=True, nogil=True)
def _add(out, x, y, flux, tile, splines, jacobians, oversample):
    """Add flux times a PSF, cubic spline coefficients `splines` in steps of 1/oversample of jacobian x (pixel - star)."""
    m = splines.shape[1]
    centre = m // 2
    reach = centre // oversample - 1
    wy, wx = np.zeros(4), np.zeros(4)
    for k in range(len(x)):
        table, jac = splines[tile[k]], jacobians[tile[k]] * oversample
        ix, iy = int(np.rint(x[k])), int(np.rint(y[k]))
        for row in range(max(0, iy - reach), min(out.shape[0], iy + reach + 1)):
            for col in range(max(0, ix - reach), min(out.shape[1], ix + reach + 1)):
                dx, dy = col - x[k], row - y[k]
                u = jac[0, 0] * dx + jac[0, 1] * dy + centre
                v = jac[1, 0] * dx + jac[1, 1] * dy + centre
                iu, iv = int(np.floor(u)), int(np.floor(v))
                if iu < 1 or iv < 1 or iu > m - 3 or iv > m - 3:
                    continue
                _cubic(u - iu, wx)
                _cubic(v - iv, wy)
                value = 0.0
                for b in range(4):
                    line = 0.0
                    for a in range(4):
                        line += wx[a] * table[iv - 1 + b, iu - 1 + a]
                    value += wy[b] * line
                out[row, col] += flux[k] * value


@njit(cache=True, nogil=True, inline="always")
def _cubic(t, w):
    """Cubic B-spline weights of the four nodes about a phase 0..1."""
    w[0] = (1.0 - t) ** 3 / 6.0
    w[1] = (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0
    w[2] = (1.0 + 3.0 * t + 3.0 * t * t - 3.0 * t * t * t) / 6.0
    w[3] = t * t * t / 6.0
