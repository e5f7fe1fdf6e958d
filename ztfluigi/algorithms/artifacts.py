"""Masks of what is not sky: saturation bleed, radiation hits, aircraft and satellite tracks, ghosts and halos (paper 3.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from ztfluigi.algorithms.cosmic_rays import mask_cosmic_rays  # noqa: F401  part of this module's interface
from ztfluigi.algorithms.tracks import mask_tracks  # noqa: F401  part of this module's interface
from ztfluigi.model.camera import Ghost
from ztfluigi.model.config.detector import ArtifactConfig
from ztfluigi.model.errors import BadInput
from ztfluigi.model.maskbits import Mask

SATURATED = int(Mask.SATURATED)
#: Longest bleed followed [pix].
LONGEST_BLEED = 400


def mask_saturation(data: np.ndarray, mask: np.ndarray, saturate: float, *,
                    config: ArtifactConfig = ArtifactConfig()) -> tuple[np.ndarray, int]:
    """Grow SATURATED over the charge that bleeds along columns (y) and over the nearest neighbours.

    From each end of a run of saturated pixels in a column the bleed is followed while the pixel exceeds both side columns (two pixels
    off) by `bleed_sigma` times the noise of its own counts and by 2 % of `saturate`; then every saturated pixel takes its eight
    neighbours along.

    Parameters
    ----------
    data : float32 (ny, nx) [DN], finite. mask : uint16 (ny, nx) with SATURATED set where the detector was full. saturate [DN].

    Returns
    -------
    (new mask, pixels added).
    """
    _same_shape(data, mask)
    full = (mask & SATURATED) != 0
    grown = full.copy()
    if full.any():
        _follow_bleed(data, full, np.float32(config.bleed_sigma), np.float32(0.02 * saturate), grown)
        grown = _dilated(grown)
    found = mask.copy()
    found[grown] |= np.uint16(SATURATED)
    return found, int(np.count_nonzero(grown & ~full))


def mask_ghosts(mask: np.ndarray, x: np.ndarray, y: np.ndarray, magnitude: np.ndarray, *, light: np.ndarray | None = None,
                noise: float = np.nan, ghosts: Sequence[Ghost] = (), config: ArtifactConfig = ArtifactConfig()) -> tuple[np.ndarray, int]:
    """Circles around very bright stars (HALO), and the rings where the optics reflect bright ones (GHOST).

    The radius of a halo is `halo_radius_pix` at `halo_magnitude` and doubles every 2.5 mag brighter; fainter stars are ignored. A ring of
    the camera's description is masked, with a pixel more on either side, where it adds more than `ghost_sigma` times the noise.

    Parameters
    ----------
    mask : uint16 (ny, nx). x, y : zero-based pixels of the stars, also outside the image. magnitude : V [mag].
    light : of the stars [DN], noise : of a sky pixel [DN], ghosts : the camera's reflections; without them no GHOST is set.

    Returns
    -------
    (new mask, stars whose halo touches the image).
    """
    found = mask.copy()
    touching = 0
    x, y, magnitude = (np.atleast_1d(values) for values in (x, y, magnitude))
    bright = magnitude <= config.halo_magnitude
    for u, v, m in zip(x[bright], y[bright], magnitude[bright], strict=True):
        radius = config.halo_radius_pix * 2.0 ** ((config.halo_magnitude - m) / 2.5)
        touching += _mark_ring(found, u, v, 0.0, radius, np.uint16(Mask.HALO))
    for ghost in ghosts if light is not None else ():
        seen = ghost.brightness(np.atleast_1d(light)) > config.ghost_sigma * noise
        for u, v in zip(*ghost.centre(x[seen], y[seen], mask.shape), strict=True):
            _mark_ring(found, u, v, max(ghost.inner_pix - 1.0, 0.0), ghost.outer_pix + 1.0, np.uint16(Mask.GHOST))
    return found, touching


def _same_shape(first: np.ndarray, *others: np.ndarray) -> None:
    for other in others:
        if other.shape != first.shape:
            raise BadInput(f"arrays have shapes {first.shape} and {other.shape}, expected equal ones")


def _mark_ring(mask: np.ndarray, x: float, y: float, inner: float, outer: float, bit: np.uint16) -> bool:
    y0, y1 = max(int(np.floor(y - outer)), 0), min(int(np.ceil(y + outer)) + 1, mask.shape[0])
    x0, x1 = max(int(np.floor(x - outer)), 0), min(int(np.ceil(x + outer)) + 1, mask.shape[1])
    if y0 >= y1 or x0 >= x1:
        return False
    v, u = np.ogrid[y0:y1, x0:x1]
    radius2 = (u - x) ** 2 + (v - y) ** 2
    inside = (radius2 <= outer * outer) & (radius2 >= inner * inner)
    mask[y0:y1, x0:x1][inside] |= bit
    return bool(inside.any())


def _dilated(mask: np.ndarray) -> np.ndarray:
    """The mask with the eight neighbours of each set pixel."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    tall = wide.copy()
    tall[1:] |= wide[:-1]
    tall[:-1] |= wide[1:]
    return tall


@njit(cache=True, nogil=True)
def _follow_bleed(data, full, factor, least, grown):
    ny, nx = data.shape
    for x in range(nx):
        left, right = max(x - 2, 0), min(x + 2, nx - 1)
        for y in range(ny):
            if not full[y, x]:
                continue
            for step in (-1, 1):
                v = y + step
                while 0 <= v < ny and not full[v, x] and abs(v - y) <= LONGEST_BLEED:
                    side = max(data[v, left], data[v, right])
                    excess = data[v, x] - side
                    if excess <= least or excess <= factor * np.sqrt(max(side, np.float32(1.0))):
                        break
                    grown[v, x] = True
                    v += step
