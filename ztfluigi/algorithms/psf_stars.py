"""Choice and cutting-out of the stars a PSF is built from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ztfluigi.algorithms.neighbours import find_neighbours
from ztfluigi.model.config.photometry import PsfConfig
from ztfluigi.model.errors import TooFewCalibrators
from ztfluigi.model.maskbits import UNUSABLE

#: Science INFOBITS bit 20: PSF creation not possible.
INFOBIT_NO_PSF = 1 << 20


@dataclass
class Stamps:
    """Cut-outs of the candidates as one tall image, with each star's place in it and on the quadrant."""

    image: np.ndarray
    variance: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    quadrant_x: np.ndarray
    quadrant_y: np.ndarray
    half: int

    def keep(self, which: np.ndarray) -> Stamps:
        """The chosen stars' stamps."""
        size = 2 * self.half + 1
        rows = np.flatnonzero(np.repeat(which, size))
        shift = size * (np.cumsum(which) - 1 - np.arange(len(which)))
        return Stamps(self.image[rows], self.variance[rows], self.x[which], (self.y + shift)[which], self.flux[which],
                       self.quadrant_x[which], self.quadrant_y[which], self.half)


@dataclass
class Neighbours:
    """Sources beside the stars of `Stamps`: those of stamp n are first[n]:first[n + 1], at (x, y) of the tall image, with flux [DN]."""

    first: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray


def require(found: int, config: PsfConfig) -> None:
    """Raise `TooFewCalibrators` unless there are enough stars."""
    if found < config.min_stars:
        raise TooFewCalibrators("PSF", found=int(found), needed=config.min_stars, infobits=INFOBIT_NO_PSF)


def select_stars(data, sigma, mask, detections, config: PsfConfig) -> tuple[Stamps, Neighbours]:
    """Bright, clean, lonely detections, evenly over the quadrant, and what lies beside them."""
    ny, nx = data.shape
    half = config.half_size + 1
    x, y, flux = (np.asarray(detections[k], float) for k in ("x", "y", "flux"))
    snr = flux / np.asarray(detections["fluxerr"], float)
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(snr) & (flux > 0)
    clean = finite & (x > half) & (y > half) & (x < nx - 1 - half) & (y < ny - 1 - half) & (snr > config.min_snr)
    bad = (mask & np.uint16(UNUSABLE)) != 0
    chosen = np.flatnonzero(clean)
    chosen = chosen[np.argsort(-flux[chosen])][:4 * config.max_stars]
    near_bad = np.array([bad[int(y[i] + 0.5) - 3:int(y[i] + 0.5) + 4, int(x[i] + 0.5) - 3:int(x[i] + 0.5) + 4].any() for i in chosen], bool)
    chosen = chosen[~near_bad]
    first, pairs = find_neighbours(np.where(finite, x, -1e6), np.where(finite, y, -1e6), (ny, nx), 1.4 * half)
    crowding = np.array([_crowding(i, x, y, flux, pairs[first[i]:first[i + 1]]) for i in chosen])
    lonely = chosen[crowding < 0.3] if len(chosen) else chosen
    require(len(lonely), config)
    spread = _spread(lonely, x, y, flux, crowding[crowding < 0.3], (ny, nx), config.max_stars)
    stamps = _cut(data, sigma, bad, x, y, flux, spread, half)
    _mask_neighbours(stamps, 2.0 * half_sample_mode(half_light_radius(stamps)), x, y, flux, spread, first, pairs)
    return stamps, _neighbours(stamps, x, y, flux, spread, first, pairs)


def _crowding(i, x, y, flux, neighbours) -> float:
    """Neighbours' light relative to the star's, falling with distance as the PSF's wings do."""
    distance = np.hypot(x[neighbours] - x[i], y[neighbours] - y[i])
    ratio = flux[neighbours] / flux[i]
    return float(np.sum(ratio * np.clip(6.0 / np.maximum(distance, 0.5), 0, None) ** 3 * 0.3))


def _spread(index, x, y, flux, crowding, shape, count) -> np.ndarray:
    """At most `count` of the stars: the brightest and least crowded of each cell of a 6 x 6 grid, rank by rank."""
    cell = (y[index] * 6 // shape[0]) * 6 + x[index] * 6 // shape[1]
    merit = np.log(flux[index]) - 3.0 * crowding
    order = np.lexsort((-merit, cell))
    rank = np.empty(len(index), int)
    sorted_cell = cell[order]
    rank[order] = np.arange(len(index)) - np.searchsorted(sorted_cell, sorted_cell)
    return index[np.sort(np.argsort(rank, kind="stable")[:count])]


def _cut(data, sigma, bad, x, y, flux, index, half) -> Stamps:
    """Cut the stamps; unusable pixels get infinite variance."""
    size = 2 * half + 1
    image = np.empty((len(index) * size, size), np.float32)
    variance = np.empty_like(image)
    stamp_x, stamp_y = np.empty(len(index)), np.empty(len(index))
    for n, i in enumerate(index):
        cx, cy = int(x[i] + 0.5), int(y[i] + 0.5)
        box = np.s_[cy - half:cy + half + 1, cx - half:cx + half + 1]
        rows = slice(n * size, (n + 1) * size)
        image[rows] = data[box]
        block = np.square(sigma[box], dtype=np.float32)
        block[bad[box] | ~np.isfinite(image[rows]) | ~(block > 0)] = np.inf
        variance[rows] = block
        stamp_x[n], stamp_y[n] = x[i] - cx + half, y[i] - cy + half + n * size
    image[~np.isfinite(image)] = 0.0
    return Stamps(image, variance, stamp_x, stamp_y, flux[index].copy(), x[index], y[index], half)


def _mask_neighbours(stamps: Stamps, fwhm: float, x, y, flux, index, first, pairs) -> None:
    """Give the pixels of neighbours infinite variance: more round bright ones, but never past the middle between the two."""
    half, size = stamps.half, 2 * stamps.half + 1
    yy, xx = np.mgrid[-half:half + 1, -half:half + 1]
    for n, i in enumerate(index):
        cx, cy = int(x[i] + 0.5), int(y[i] + 0.5)
        block = stamps.variance[n * size:(n + 1) * size]
        for j in pairs[first[i]:first[i + 1]]:
            reach = np.clip(1.6 * fwhm * (flux[j] / flux[i]) ** 0.25, 2.0, 10.0)
            middle = 0.5 * np.hypot(x[j] - x[i], y[j] - y[i]) + 0.5
            block[(xx + cx - x[j]) ** 2 + (yy + cy - y[j]) ** 2 < min(reach, middle) ** 2] = np.inf


def _neighbours(stamps: Stamps, x, y, flux, index, first, pairs) -> Neighbours:
    """Places of the neighbours on the stamps."""
    count = first[index + 1] - first[index]
    near = np.concatenate([pairs[first[i]:first[i + 1]] for i in index]) if len(index) else np.zeros(0, int)
    owner = np.repeat(np.arange(len(index)), count)
    return Neighbours(np.concatenate([[0], np.cumsum(count)]), stamps.x[owner] + x[near] - x[index][owner],
                      stamps.y[owner] + y[near] - y[index][owner], np.nan_to_num(flux[near]))


def subtract_neighbours(stamps: Stamps, neighbours: Neighbours, table: np.ndarray, oversample: int) -> None:
    """Take the wings of the neighbours out of the stamps, by the mean profile of a PSF table (m, m); their cores are masked.

    Lonely stars have their neighbours at the rim of the stamp, where the light would be taken for sky.
    """
    half = table.shape[0] // 2
    offset = np.arange(-half, half + 1)
    ring = np.rint(np.hypot(offset[:, None], offset)).astype(int).ravel()
    profile = (np.bincount(ring, table.ravel()) / np.bincount(ring))[:half + 1]
    _subtract(stamps.image, 2 * stamps.half + 1, neighbours.first, neighbours.x, neighbours.y, neighbours.flux, profile, float(oversample))


@njit(cache=True, nogil=True)
def _subtract(image, size, first, x, y, flux, profile, step):
    last = len(profile) - 1
    for n in range(len(first) - 1):
        for k in range(first[n], first[n + 1]):
            for i in range(n * size, (n + 1) * size):
                for j in range(size):
                    place = np.sqrt((i - y[k]) ** 2 + (j - x[k]) ** 2) * step
                    if place < last:
                        m = int(place)
                        image[i, j] -= flux[k] * (profile[m] + (place - m) * (profile[m + 1] - profile[m]))


def half_light_radius(stamps: Stamps) -> np.ndarray:
    """Radius [pix] with half of the light inside 6 pixels, for every star."""
    size = 2 * stamps.half + 1
    stack = stamps.image.reshape(-1, size, size)
    yy, xx = np.mgrid[:size, :size]
    centre_y = stamps.y - size * np.arange(len(stamps.y))
    radius = np.hypot(xx - stamps.x[:, None, None], yy - centre_y[:, None, None])
    edges = np.arange(0.5, 6.01, 0.5)
    light = np.array([np.sum(stack * np.clip(edge - radius + 0.5, 0, 1), axis=(1, 2)) for edge in edges]).T
    light = np.maximum.accumulate(light / light[:, -1:], axis=1)
    return np.array([np.interp(0.5, row, edges) for row in light])


def half_sample_mode(values: np.ndarray) -> float:
    """Mode by repeated choice of the densest half (Robertson & Cryer 1974)."""
    values = np.sort(np.asarray(values, float))
    while len(values) > 3:
        n = (len(values) + 1) // 2
        widths = values[n - 1:] - values[:len(values) - n + 1]
        start = int(np.argmin(widths))
        values = values[start:start + n]
    return float(np.median(values))
