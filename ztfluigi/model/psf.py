"""The point-spread function as data: an oversampled effective PSF whose pixels vary as a polynomial over the quadrant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates


@dataclass(frozen=True)
class PsfModel:
    """Effective PSF (pixel response included).

    tables : float64 (terms, m, m), m odd; term k multiplies the k-th monomial of `monomials`. Sample (i, j) is the fraction of a
        point source's flux in a pixel whose centre lies (j - c)/oversample, (i - c)/oversample pixels from the source, c = (m-1)/2.
    degree : order of the polynomial in (x, y), each scaled to -1..1 over the quadrant.
    shape : (ny, nx) of the quadrant.
    error : relative error e of the model as seen on its stars: the residual variance beyond noise is e^2 flux^2 peak psf.
    """

    tables: np.ndarray
    degree: int
    shape: tuple[int, int]
    oversample: int
    error: float = 0.0

    @property
    def half_size(self) -> int:
        """Half width [pix] inside which the tables are defined."""
        return (self.tables.shape[1] // 2) // self.oversample

    def monomials(self, x, y) -> np.ndarray:
        """Values (terms, ...) of the position polynomial at zero-based pixels: 1, u, v, u^2, uv, v^2, ..."""
        u = 2.0 * np.asarray(x, float) / (self.shape[1] - 1) - 1.0
        v = 2.0 * np.asarray(y, float) / (self.shape[0] - 1) - 1.0
        return np.array([u ** (n - k) * v**k for n in range(self.degree + 1) for k in range(n + 1)])

    def table(self, x: float, y: float) -> np.ndarray:
        """The oversampled table (m, m) at one place."""
        return np.tensordot(self.monomials(x, y), self.tables, axes=1)

    def render(self, x: float, y: float, size: int = 25, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        """Pixel image (size, size), size odd, of the unit-flux PSF at (x, y), its centre (dx, dy) pixels from the central pixel.

        The sum is the flux inside the stamp; it is not renormalised.
        """
        table = self.table(x, y)
        centre = table.shape[0] // 2
        offsets = np.arange(size) - size // 2
        rows = (offsets - dy) * self.oversample + centre
        cols = (offsets - dx) * self.oversample + centre
        grid = np.meshgrid(rows, cols, indexing="ij")
        return map_coordinates(table, grid, order=3, mode="constant", cval=0.0)

    def profile_area(self, level: float, x: float, y: float) -> float:
        """Area [pix^2] in which the local PSF exceeds `level` of its peak, from 64 rays with linear interpolation."""
        table = self.table(x, y)
        centre = table.shape[0] // 2
        angles = 2.0 * np.pi * np.arange(64) / 64
        radii = np.arange(0.0, centre, 0.25)
        rays = map_coordinates(table, [centre + radii * np.sin(angles)[:, None], centre + radii * np.cos(angles)[:, None]], order=3)
        below = rays < level * rays[:, :1]
        edge = np.where(below.any(axis=1), np.argmax(below, axis=1), len(radii) - 1)
        rows = np.arange(64)
        high, low = rays[rows, edge - 1], rays[rows, edge]
        radius = radii[edge - 1] + 0.25 * np.clip((high - level * rays[:, 0]) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
        return float(np.pi * np.mean(radius**2) / self.oversample**2)

    def fwhm(self, x: float | None = None, y: float | None = None) -> float:
        """FWHM [pix] of the effective PSF (pixel response included) at a place, the centre of the quadrant by default: diameter of
        the circle with the area of the half-peak contour."""
        x = (self.shape[1] - 1) / 2 if x is None else x
        y = (self.shape[0] - 1) / 2 if y is None else y
        return float(2.0 * np.sqrt(self.profile_area(0.5, x, y) / np.pi))

    def moments(self, x: float | None = None, y: float | None = None) -> tuple[float, float, float]:
        """Gaussian-weighted second moments (xx, yy, xy) [pix^2] of the local PSF, the weight of its own FWHM taken out."""
        x = (self.shape[1] - 1) / 2 if x is None else x
        y = (self.shape[0] - 1) / 2 if y is None else y
        table = self.table(x, y)
        offset = (np.arange(table.shape[0]) - table.shape[0] // 2) / self.oversample
        sigma = self.fwhm(x, y) / 2.3548
        weighted = table * np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / sigma**2)
        weighted /= weighted.sum()
        xx, yy = np.sum(weighted * offset**2), np.sum(weighted * offset[:, None] ** 2)
        xy = np.sum(weighted * offset * offset[:, None])
        inverse = np.linalg.inv([[xx, xy], [xy, yy]]) - np.eye(2) / sigma**2
        true = np.linalg.inv(inverse)
        return float(true[0, 0]), float(true[1, 1]), float(true[0, 1])

    def ellipticity(self, x: float | None = None, y: float | None = None) -> float:
        """1 - b/a of the local PSF from its Gaussian-weighted moments."""
        xx, yy, xy = self.moments(x, y)
        root = np.hypot((xx - yy) / 2, xy)
        return float(1.0 - np.sqrt(((xx + yy) / 2 - root) / ((xx + yy) / 2 + root)))

    @classmethod
    def gaussian(cls, fwhm_pix: float, shape: tuple[int, int], *, half_size: int = 13, oversample: int = 4) -> PsfModel:
        """A constant, pixel-integrated Gaussian, for tests and first guesses."""
        from scipy.special import erf

        sigma = fwhm_pix / 2.3548
        offset = np.arange(-half_size * oversample, half_size * oversample + 1) / oversample
        edge = np.sqrt(2.0) * sigma
        profile = 0.5 * (erf((offset + 0.5) / edge) - erf((offset - 0.5) / edge))
        return cls(np.outer(profile, profile)[None], 0, shape, oversample)
