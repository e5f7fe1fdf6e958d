"""Nearest neighbours on the sky: a k-d tree of unit vectors."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ztfluigi.model.wcs import separation_arcsec


class SkyIndex:
    """Positions (n,) [deg], indexed once and asked often."""

    def __init__(self, ra, dec):
        self.ra, self.dec = np.asarray(ra, float), np.asarray(dec, float)
        self._tree = cKDTree(_unit(self.ra, self.dec)) if len(self.ra) else None

    def nearest(self, ra, dec, k: int, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(index (n, k), -1 beyond the radius; distance (n, k) [arcsec]; number inside (n,)) of the neighbours nearest in angle."""
        ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
        n = len(ra)
        if not n or self._tree is None:
            return np.full((n, k), -1), np.full((n, k), np.inf), np.zeros(n, int)
        chord = 2.0 * np.sin(np.radians(radius_arcsec / 3600.0) / 2.0)
        points = _unit(ra, dec)
        _, index = self._tree.query(points, k=list(range(1, k + 1)), distance_upper_bound=np.nextafter(chord, 1.0))
        there = index < len(self.ra)
        safe = np.where(there, index, 0)
        distance = separation_arcsec(ra[:, None], dec[:, None], self.ra[safe], self.dec[safe])
        count = np.asarray(self._tree.query_ball_point(points, chord, return_length=True), int)
        return np.where(there, index, -1), np.where(there, distance, np.inf), count


def _unit(ra, dec) -> np.ndarray:
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
