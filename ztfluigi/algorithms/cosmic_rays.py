"""Radiation hits: pixels that stand out of their neighbours more than any star can, found in one pass (paper 3.5)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from ztfluigi.model.config.detector import ArtifactConfig
from ztfluigi.model.errors import BadInput
from ztfluigi.model.images import Background
from ztfluigi.model.maskbits import UNUSABLE, Mask

SPIKE, SATURATED = int(Mask.SPIKE), int(Mask.SATURATED)
#: The eight neighbours of a pixel, counter-clockwise: (dy, dx). The i-th and the (i + 4)-th are opposite.
RING = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)])
#: Neighbours a straight hit may pass through: none, or two at least 135 degrees apart (the others are compared with the pixel).
ALLOWED = np.array([255] + [255 & ~(1 << i | 1 << (i + step) % 8) for step in (4, 3) for i in range(8) if step == 3 or i < 4], np.int64)
#: Sets of two and more pairs of opposite neighbours.
PAIRS = np.array([pairs for pairs in range(16) if pairs.bit_count() > 1], np.int64)
#: A pixel brighter than this [sigma] may start a hit; neighbours of a hit, brighter than GROW, join it when sharper by GROW_SHARP.
START, GROW, GROW_SHARP = 5.0, 2.5, 0.0
#: A pixel that joined leads on to its own neighbours when sharper by this.
LEAD_SHARP = 1.0
#: Widths of the sharpest PSF [pix FWHM]: below the first stars and hits are alike; a wider one than the second tells them no better
#: and asks more of the shape of bright stars.
LEAST_FWHM, MOST_FWHM = 1.0, 2.5
#: The bound on pairs holds with more room: widths of its profile relative to the sharpest PSF, for pixels that start and that join a hit.
PAIR_START, PAIR_GROW = 1.06, 1.2
#: The profile of turbulence: a Moffat function of this index (Trujillo et al. 2001). A square pixel blurs as this Gaussian FWHM [pix].
BETA, PIXEL_FWHM = 4.765, 2.3548 / np.sqrt(12.0)
#: Bins of the logarithmic slope between opposite neighbours: width and number; samples per pixel of the tabulated profile.
SLOPE_STEP, SLOPES, FINE = 0.05, 40, 5


def mask_cosmic_rays(data: np.ndarray, sigma: np.ndarray, mask: np.ndarray, background: Background, fwhm_pix: float, *,
                     config: ArtifactConfig = ArtifactConfig()) -> tuple[np.ndarray, int]:
    """Set SPIKE on radiation hits.

    Whatever the sky holds is a sum of positive point-spread functions, none sharper than `hit_fwhm_margin` times the measured FWHM. Two
    bounds hold for such a sum at any pixel, d being the image above the background; a pixel that exceeds one by `hit_sigma` is hit:

    * d(0) <= sum w_i d(i) over neighbours, with weights w such that it holds for one star anywhere;
    * d(0) <= K sqrt(d(+) d(-)) for opposite neighbours, with the largest K of one star anywhere that has the logarithmic slope seen from
      + to -. By Cauchy and Schwarz, what holds for each star of one slope holds for their sum. It is sharp on the wings of stars.

    A hit may be a straight track: neighbours along a line through the pixel, or single pairs, are left out in turn. Pixels touching a
    hit are then tested at a lower level, without the hit's own pixels.

    Parameters
    ----------
    data, sigma : float32 (ny, nx) [DN]. mask : uint16; UNUSABLE pixels are not tested nor used, SATURATED ones shield their neighbours.
    fwhm_pix : FWHM of stars as measured on the pixels [pix].

    Returns
    -------
    (new mask, hits): pixels connected over sides or corners count as one hit.
    """
    for other in (sigma, mask, background.level):
        if other.shape != data.shape:
            raise BadInput(f"arrays have shapes {data.shape} and {other.shape}, expected equal ones")
    if not fwhm_pix > 0:
        raise BadInput(f"the FWHM of stars is {fwhm_pix} pixels, expected a positive number")
    sharpest = min(max(config.hit_fwhm_margin * fwhm_pix, LEAST_FWHM), MOST_FWHM)
    bounds = np.stack([_pair_bounds(round(factor * sharpest, 2)) for factor in (PAIR_START, PAIR_GROW)])
    found = mask.copy()
    hits = _find_hits(data, sigma, background.level, found, np.int64(UNUSABLE), *_comparison(sharpest), bounds, np.float32(config.hit_sigma))
    return found, int(hits)


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


@lru_cache(maxsize=64)
def _pair_bounds(fwhm: float) -> np.ndarray:
    """Largest p(0) / sqrt(p(+) p(-)) of a star of this FWHM (pixel included) anywhere within eight pixels, whose |ln(p(+) / p(-))| / 2 is
    at least the bin's: float32 (2, SLOPES), for pairs along rows or columns and for diagonal ones."""
    width = np.sqrt(max(fwhm**2 - PIXEL_FWHM**2, 0.5))
    middle, reach = 10 * FINE, 8 * FINE
    place = np.arange(-middle, middle + 1) / FINE
    radius2 = place[:, None] ** 2 + place**2
    profile = (1.0 + radius2 * (2.0 ** (1.0 / BETA) - 1.0) * 4.0 / width**2) ** -BETA
    sums = np.cumsum(np.cumsum(np.pad(profile, ((1, 0), (1, 0))), axis=0), axis=1)
    pixel = sums[FINE:, FINE:] - sums[:-FINE, FINE:] - sums[FINE:, :-FINE] + sums[:-FINE, :-FINE]
    middle -= FINE // 2
    bounds = np.zeros((2, SLOPES), np.float32)
    for k, (dy, dx) in enumerate(((0, 1), (1, 1))):
        at, plus, minus = (pixel[middle - reach + s * dy * FINE:middle + reach + 1 + s * dy * FINE,
                                 middle - reach + s * dx * FINE:middle + reach + 1 + s * dx * FINE].ravel() for s in (0, 1, -1))
        order = np.argsort(0.5 * np.abs(np.log(plus / minus)))
        slope, ratio = 0.5 * np.abs(np.log(plus / minus))[order], (at / np.sqrt(plus * minus))[order]
        steepest = np.maximum.accumulate(ratio[::-1])[::-1]
        bounds[k] = steepest[np.minimum(np.searchsorted(slope, SLOPE_STEP * np.arange(SLOPES)), len(slope) - 1)]
    return bounds


@njit(cache=True, nogil=True)
def _find_hits(data, sigma, level, mask, unusable, weights, scale, bounds, threshold):
    """Mark hits in `mask`; their number."""
    ny, nx = data.shape
    queue_y, queue_x = [np.int64(0)], [np.int64(0)]
    queue_y.pop()
    queue_x.pop()
    hits = 0
    start, grow, sharp, lead = np.float32(START), np.float32(GROW), np.float32(GROW_SHARP), np.float32(LEAD_SHARP)
    for y in range(ny):
        for x in range(nx):
            if data[y, x] - level[y, x] <= start * sigma[y, x] or mask[y, x] & unusable:
                continue
            if not _stands_out(data, sigma, level, mask, unusable, weights, scale, bounds[0], y, x, threshold):
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
                        if _stands_out(data, sigma, level, mask, unusable, weights, scale, bounds[1], b, a, sharp):
                            # a doubtful pixel leads no further: beside a star it would lead over all of it
                            if _stands_out(data, sigma, level, mask, unusable, weights, scale, bounds[0], b, a, lead):
                                queue_y.append(b)
                                queue_x.append(a)
                            mask[b, a] |= SPIKE
    return hits


@njit(cache=True, nogil=True)
def _stands_out(data, sigma, level, mask, unusable, weights, scale, bounds, y, x, threshold):
    """Is the pixel sharper than a star, by `threshold` sigmas, in any comparison with its usable neighbours?"""
    ny, nx = data.shape
    light, noise = np.zeros(8, np.float32), np.zeros(8, np.float32)
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
        light[i] = data[v, u] - level[v, u]
        noise[i] = sigma[v, u]
    peak, own = data[y, x] - level[y, x], sigma[y, x] ** 2
    for k in range(len(ALLOWED)):
        subset = usable & ALLOWED[k]
        factor = scale[subset]
        if not np.isfinite(factor):
            continue
        total, variance = np.float32(0.0), np.float32(0.0)
        for i in range(8):
            if subset >> i & 1:
                total += weights[i] * light[i]
                variance += (weights[i] * noise[i]) ** 2
        sharper = peak - factor * total
        if sharper > 0 and sharper * sharper > threshold * threshold * (own + factor * factor * variance):
            return True
    return _above_pairs(peak, own, light, noise, usable, bounds, threshold)


@njit(cache=True, nogil=True)
def _above_pairs(peak, own, light, noise, usable, bounds, threshold):
    """Does the pixel exceed, by `threshold` sigmas, what pairs of opposite neighbours allow, weighted means of two and more?"""
    most, weight = np.zeros(4, np.float32), np.zeros(4, np.float32)
    half = np.float32(0.5)
    for k in range(4):
        if usable >> k & 1 and usable >> (k + 4) & 1:
            # light below the noise tells nothing
            one, other = max(light[k], noise[k]), max(light[k + 4], noise[k + 4])
            doubt = (noise[k] / one) ** 2 + (noise[k + 4] / other) ** 2
            slope = half * (abs(np.log(one / other)) - np.sqrt(doubt))
            most[k] = bounds[k & 1, min(max(int(slope / SLOPE_STEP), 0), SLOPES - 1)] * np.sqrt(one * other)
            weight[k] = np.float32(4.0) / (most[k] * most[k] * doubt)
    for pairs in PAIRS:
        total, weights, missing = np.float32(0.0), np.float32(0.0), False
        for k in range(4):
            if pairs >> k & 1:
                missing |= weight[k] == 0
                weights += weight[k]
                total += weight[k] * most[k]
        if missing:
            continue
        sharper = peak - total / weights
        if sharper > 0 and sharper * sharper > threshold * threshold * (own + np.float32(1.0) / weights):
            return True
    return False
