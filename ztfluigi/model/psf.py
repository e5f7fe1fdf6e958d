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
    """

    tables: np.ndarray
    degree: int
    shape: tuple[int, int]
    oversample: int

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

    def fwhm(self, x: float | None = None, y: float | None = None) -> float:
        """FWHM [pix] of the azimuthal mean profile at a place (centre of the quadrant by default)."""
        x = (self.shape[1] - 1) / 2 if x is None else x
        y = (self.shape[0] - 1) / 2 if y is None else y
        table = self.table(x, y)
        centre = table.shape[0] // 2
        above = np.count_nonzero(table > table[centre, centre] / 2)
        return float(2.0 * np.sqrt(above / np.pi) / self.oversample)

    @classmethod
    def gaussian(cls, fwhm_pix: float, shape: tuple[int, int], *, half_size: int = 12, oversample: int = 4) -> PsfModel:
        """A constant, pixel-integrated Gaussian, for tests and first guesses."""
        from scipy.special import erf

        sigma = fwhm_pix / 2.3548
        offset = np.arange(-half_size * oversample, half_size * oversample + 1) / oversample
        edge = np.sqrt(2.0) * sigma
        profile = 0.5 * (erf((offset + 0.5) / edge) - erf((offset - 0.5) / edge))
        return cls(np.outer(profile, profile)[None], 0, shape, oversample)
