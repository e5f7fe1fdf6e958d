"""Masks of what is not sky: saturation bleed, radiation hits, aircraft and satellite tracks, ghosts and halos (paper 3.5)."""

from __future__ import annotations

import numpy as np
from numba import njit

from ztfluigi.algorithms.tracks import mask_tracks  # noqa: F401  part of this module's interface
from ztfluigi.model.config.detector import ArtifactConfig
from ztfluigi.model.errors import BadInput
from ztfluigi.model.images import Background
from ztfluigi.model.maskbits import UNUSABLE, Mask

SPIKE, SATURATED = int(Mask.SPIKE), int(Mask.SATURATED)
#: The eight neighbours of a pixel, counter-clockwise: (dy, dx).
RING = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)])
#: Neighbours a straight hit may pass through: none, or two at least 135 degrees apart (the others are compared with the pixel).
ALLOWED = np.array([255] + [255 & ~(1 << i | 1 << (i + step) % 8) for step in (4, 3) for i in range(8) if step == 3 or i < 4], np.int64)
#: A pixel brighter than this [sigma] may start a hit; a neighbour of a hit, brighter than GROW, joins it when sharper by GROW_SHARP.
START, GROW, GROW_SHARP = 5.0, 3.0, 1.5
#: Widths of the sharpest PSF [pix FWHM]: below the first stars and hits are alike; a wider one than the second tells them no better
#: and asks more of the shape of bright stars.
LEAST_FWHM, MOST_FWHM = 1.0, 2.5
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


def mask_cosmic_rays(data: np.ndarray, sigma: np.ndarray, mask: np.ndarray, background: Background, fwhm_pix: float, *,
                     config: ArtifactConfig = ArtifactConfig()) -> tuple[np.ndarray, int]:
    """Set SPIKE on radiation hits: pixels that stand out of their neighbours more than any star can.

    Whatever the sky holds is a sum of positive point-spread functions. For the sharpest PSF possible (a Gaussian of `hit_fwhm_margin`
    times the measured FWHM) weights w are such that p(0) - sum w_i p(i) <= 0 at any position of the star; so d(0) - sum w_i d(i),
    d the image above the background, is positive beyond its noise for hits only. A hit may be a straight track: neighbours
    along a line through the pixel are left out in turn. Pixels touching a hit are then tested at a lower level, without the hit's
    own pixels.

    Parameters
    ----------
    data, sigma : float32 (ny, nx) [DN]. mask : uint16; UNUSABLE pixels are not tested nor used, SATURATED ones shield their neighbours.
    fwhm_pix : FWHM of stars as measured on the pixels [pix].

    Returns
    -------
    (new mask, hits): pixels connected over sides or corners count as one hit.
    """
    _same_shape(data, sigma, mask, background.level)
    if not fwhm_pix > 0:
        raise BadInput(f"the FWHM of stars is {fwhm_pix} pixels, expected a positive number")
    weights, scale = _comparison(min(max(config.hit_fwhm_margin * fwhm_pix, LEAST_FWHM), MOST_FWHM))
    found = mask.copy()
    hits = _find_hits(data, sigma, background.level, found, np.int64(UNUSABLE), weights, scale, np.float32(config.hit_sigma))
    return found, int(hits)


def mask_ghosts(mask: np.ndarray, x: np.ndarray, y: np.ndarray, magnitude: np.ndarray, *, axis: tuple[float, float] | None = None,
                config: ArtifactConfig = ArtifactConfig()) -> tuple[np.ndarray, int]:
    """Circles around very bright stars (HALO), and where the optics reflect them (GHOST).

    The radius is `halo_radius_pix` at `halo_magnitude` and doubles every 2.5 mag brighter; fainter stars are ignored. A ghost has the
    halo's radius and lies at axis + `ghost_scale` (star - axis); none when the scale is 0 or `axis` is None.

    Parameters
    ----------
    mask : uint16 (ny, nx). x, y : zero-based pixels of the stars, also outside the image. magnitude : V [mag].
    axis : zero-based pixel of the optical axis on this quadrant's grid.

    Returns
    -------
    (new mask, stars whose circle touches the image).
    """
    found = mask.copy()
    touching = 0
    for u, v, m in zip(np.atleast_1d(x), np.atleast_1d(y), np.atleast_1d(magnitude), strict=True):
        if not m <= config.halo_magnitude:
            continue
        radius = config.halo_radius_pix * 2.0 ** ((config.halo_magnitude - m) / 2.5)
        touching += _mark_circle(found, u, v, radius, np.uint16(Mask.HALO))
        if config.ghost_scale and axis is not None:
            ghost = (a + config.ghost_scale * (p - a) for a, p in zip(axis, (u, v), strict=True))
            _mark_circle(found, *ghost, radius, np.uint16(Mask.GHOST))
    return found, touching


def _same_shape(first: np.ndarray, *others: np.ndarray) -> None:
    for other in others:
        if other.shape != first.shape:
            raise BadInput(f"arrays have shapes {first.shape} and {other.shape}, expected equal ones")


def _mark_circle(mask: np.ndarray, x: float, y: float, radius: float, bit: np.uint16) -> bool:
    y0, y1 = max(int(np.floor(y - radius)), 0), min(int(np.ceil(y + radius)) + 1, mask.shape[0])
    x0, x1 = max(int(np.floor(x - radius)), 0), min(int(np.ceil(x + radius)) + 1, mask.shape[1])
    if y0 >= y1 or x0 >= x1:
        return False
    v, u = np.ogrid[y0:y1, x0:x1]
    inside = (u - x) ** 2 + (v - y) ** 2 <= radius * radius
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


def _comparison(fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the eight neighbours, and for each subset of them (bits) the factor that makes the comparison safe for a star anywhere.

    float32 (8,) and (256,); infinite where the subset cannot tell.
    """
    narrow = -4.0 * np.log(2.0) / fwhm**2
    weights = np.exp(narrow * (RING**2).sum(axis=1))
    place = np.arange(-2.0, 2.01, 0.1)
    dy, dx = (axis.ravel() for axis in np.meshgrid(place, place))
    # of a star at (dy, dx): each neighbour relative to the central pixel
    ratio = np.exp(narrow * ((RING[:, 0, None] - dy) ** 2 + (RING[:, 1, None] - dx) ** 2 - dy**2 - dx**2))
    used = (np.arange(256)[:, None] >> np.arange(8)) & 1
    least = (used @ (weights[:, None] * ratio)).min(axis=1)
    scale = np.divide(1.0, least, out=np.full(256, np.inf), where=least > 1e-6)
    return weights.astype(np.float32), scale.astype(np.float32)


@njit(cache=True, nogil=True)
def _find_hits(data, sigma, level, mask, unusable, weights, scale, threshold):
    """Mark hits in `mask`; their number."""
    ny, nx = data.shape
    queue_y, queue_x = [np.int64(0)], [np.int64(0)]
    queue_y.pop()
    queue_x.pop()
    hits = 0
    start, grow, sharp = np.float32(START), np.float32(GROW), np.float32(GROW_SHARP)
    for y in range(ny):
        for x in range(nx):
            if data[y, x] - level[y, x] <= start * sigma[y, x] or mask[y, x] & unusable:
                continue
            if not _stands_out(data, sigma, level, mask, unusable, weights, scale, y, x, threshold):
                continue
            hits += 1
            mask[y, x] |= SPIKE
            queue_y.append(y)
            queue_x.append(x)
            while len(queue_y):
                v, u = queue_y.pop(), queue_x.pop()
                for i in range(8):
                    b, a = v + RING[i, 0], u + RING[i, 1]
                    if 0 <= b < ny and 0 <= a < nx and not mask[b, a] & unusable and data[b, a] - level[b, a] > grow * sigma[b, a]:
                        if _stands_out(data, sigma, level, mask, unusable, weights, scale, b, a, sharp):
                            mask[b, a] |= SPIKE
                            queue_y.append(b)
                            queue_x.append(a)
    return hits


@njit(cache=True, nogil=True)
def _stands_out(data, sigma, level, mask, unusable, weights, scale, y, x, threshold):
    """Is the pixel sharper than a star, by `threshold` sigmas, in any comparison with its usable neighbours?"""
    ny, nx = data.shape
    excess, noise = np.zeros(8, np.float32), np.zeros(8, np.float32)
    usable = 0
    for i in range(8):
        v, u = y + RING[i, 0], x + RING[i, 1]
        if not (0 <= v < ny and 0 <= u < nx):
            continue
        if mask[v, u] & SATURATED:
            return False
        if mask[v, u] & unusable:
            continue
        usable |= 1 << i
        excess[i] = weights[i] * (data[v, u] - level[v, u])
        noise[i] = (weights[i] * sigma[v, u]) ** 2
    peak, own = data[y, x] - level[y, x], sigma[y, x] ** 2
    for k in range(len(ALLOWED)):
        subset = usable & ALLOWED[k]
        factor = scale[subset]
        if not np.isfinite(factor):
            continue
        total, variance = np.float32(0.0), np.float32(0.0)
        for i in range(8):
            if subset >> i & 1:
                total += excess[i]
                variance += noise[i]
        sharper = peak - factor * total
        if sharper > 0 and sharper * sharper > threshold * threshold * (own + factor * factor * variance):
            return True
    return False
