"""Search of a residual image for point sources, its smooth sky, and mask bits round a position."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import median_filter


@njit(cache=True, nogil=True)
def _smoothed(image, variance, side):
    """Correlation with the outer square of (side, 1, side), unusable pixels (infinite variance) counted as zero; zero on the border."""
    ny, nx = image.shape
    across = np.zeros((3, nx), np.float32)
    out = np.zeros((ny, nx), np.float32)
    zero, limit, side32 = np.float32(0.0), np.float32(1e30), np.float32(side)
    clean = np.empty(nx, np.float32)
    for y in range(ny):
        row, var, line = image[y], variance[y], across[y % 3]
        for x in range(nx):
            clean[x] = row[x] if var[x] < limit else zero
        for x in range(1, nx - 1):
            line[x] = side32 * (clean[x - 1] + clean[x + 1]) + clean[x]
        if y >= 2:
            target, above, middle = out[y - 1], across[(y - 2) % 3], across[(y - 1) % 3]
            for x in range(nx):
                target[x] = side32 * (above[x] + line[x]) + middle[x]
    return out


@njit(cache=True, nogil=True)
def _is_peak(sums, y, x):
    s = sums[y, x]
    return (s > sums[y, x - 1] and s >= sums[y, x + 1] and s > sums[y - 1, x] and s >= sums[y + 1, x] and s > sums[y - 1, x - 1]
            and s >= sums[y + 1, x + 1] and s > sums[y - 1, x + 1] and s >= sums[y + 1, x - 1])


@njit(cache=True, nogil=True)
def _filtered(image, variance, slope, floor, psf, y, x, half):
    """(flux, weight sum, psf peak) of the weighted least-squares fit of flux and local sky with the PSF on pixel (y, x)."""
    sw = swp = swpp = swr = swpr = 0.0
    for i in range(-half, half + 1):
        for j in range(-half, half + 1):
            v = variance[y + i, x + j]
            if v < 1e30:
                r, p = image[y + i, x + j], psf[i + half, j + half]
                w = 1.0 / max(v - slope * r, floor)
                sw += w
                swp += w * p
                swpp += w * p * p
                swr += w * r
                swpr += w * p * r
    information = swpp - swp * swp / sw if sw > 0.0 else 0.0
    return ((swpr - swp * swr / sw) / information if information > 0.0 else 0.0), information


@njit(cache=True, nogil=True)
def find_sources(residual, variance, slope, floor, data, sky_sigma, psf, light_error, threshold):
    """Point sources in a residual image: zero-based integer y, x and flux, float64 arrays.

    Peaks of the image smoothed over 3 x 3 pixels that could be significant are measured by a least-squares fit of the PSF on a local
    sky (blind to diffuse light: galaxies, wings of bright stars) at the peak and the pixels round it. Kept are those whose flux exceeds
    the threshold times its uncertainty, which counts pixel noise and, as an error of what was subtracted, `light_error` times the light
    in the central 3 x 3 pixels of `data` that is not the source's own. psf : (2h + 1, 2h + 1) unit-flux stamp.
    """
    ny, nx = residual.shape
    half = psf.shape[0] // 2
    core = psf[half - 1:half + 2, half - 1:half + 2].sum()
    side = (psf[half, half - 1] + psf[half, half + 1] + psf[half - 1, half] + psf[half + 1, half]) / (4.0 * psf[half, half])
    seen = 0.0
    for i in range(-1, 2):
        for j in range(-1, 2):
            seen += psf[half + i, half + j] * side ** (abs(i) + abs(j))
    # The smoothed pixel goes with the full filter by this correlation; two sigma are allowed for what it may differ.
    noise = 1.0 + 2.0 * side * side
    correlation = seen / (noise * np.sqrt((psf * psf).sum()))
    least = noise * sky_sigma * max(1.0, threshold * correlation - 2.0 * np.sqrt(max(1.0 - correlation * correlation, 0.0)) - 0.5)
    sums = _smoothed(residual, variance, side)
    ys, xs, fs = [], [], []
    for y in range(half + 1, ny - half - 1):
        for x in range(half + 1, nx - half - 1):
            if sums[y, x] < least or not _is_peak(sums, y, x):
                continue
            flux, information = _filtered(residual, variance, slope, floor, psf, y, x, half)
            best, by, bx = flux * np.sqrt(information), y, x
            if best < 0.5 * threshold:
                continue
            for i in range(-1, 2):
                for j in range(-1, 2):
                    f, information = _filtered(residual, variance, slope, floor, psf, y + i, x + j, half)
                    if f > 0.0 and f * np.sqrt(information) > best:
                        best, flux, by, bx = f * np.sqrt(information), f, y + i, x + j
            if best < threshold or variance[by, bx] >= 1e30:
                continue
            light = 0.0
            for i in range(-1, 2):
                for j in range(-1, 2):
                    light += data[by + i, bx + j] if variance[by + i, bx + j] < 1e30 else 0.0
            foreign = light_error * max(light - flux * core, 0.0) / core
            if flux > threshold * np.sqrt((flux / best) ** 2 + foreign**2):
                ys.append(by)
                xs.append(bx)
                fs.append(flux)
    return np.array(ys, np.float64), np.array(xs, np.float64), np.array(fs, np.float64)


@njit(cache=True, nogil=True)
def _mesh_medians(image, variance, y_edge, x_edge):
    """Median of every second usable pixel (chessboard) of each mesh; NaN with fewer than 20."""
    rows, cols = len(y_edge) - 1, len(x_edge) - 1
    level = np.empty((rows, cols))
    values = np.empty((np.max(np.diff(y_edge)) + 1) * (np.max(np.diff(x_edge)) + 1))
    for i in range(rows):
        for j in range(cols):
            n = 0
            for y in range(y_edge[i], y_edge[i + 1]):
                for x in range(x_edge[j] + y % 2, x_edge[j + 1], 2):
                    if variance[y, x] < 1e30:
                        values[n] = image[y, x]
                        n += 1
            level[i, j] = np.median(values[:n]) if n >= 20 else np.nan
    return level


@njit(cache=True, nogil=True)
def _subtract_bilinear(image, level, y_low, y_part, x_low, x_part):
    rows, cols = level.shape
    for y in range(image.shape[0]):
        a, b, t = level[y_low[y]], level[min(y_low[y] + 1, rows - 1)], y_part[y]
        line = a * (np.float32(1.0) - t) + b * t
        row = image[y]
        for x in range(len(row)):
            k = x_low[x]
            row[x] -= line[k] * (np.float32(1.0) - x_part[x]) + line[min(k + 1, cols - 1)] * x_part[x]


def remove_mesh_sky(image: np.ndarray, variance: np.ndarray, mesh: int) -> None:
    """Subtract in place a smooth level: medians of meshes [pix] over usable pixels, 3 x 3 median over meshes, bilinear between them."""
    edges = [np.linspace(0, n, max(1, round(n / mesh)) + 1).astype(np.int64) for n in image.shape]
    level = _mesh_medians(image, variance, *edges)
    if not np.isfinite(level).any():
        return
    level[np.isnan(level)] = np.nanmedian(level)
    level = median_filter(level, 3, mode="nearest").astype(np.float32)
    places = []
    for edge, n in zip(edges, image.shape, strict=True):
        where = np.interp(np.arange(n), (edge[1:] + edge[:-1] - 1) / 2, np.arange(len(edge) - 1))
        low = where.astype(np.int64)
        places += [low, (where - low).astype(np.float32)]
    _subtract_bilinear(image, level, *places)


@njit(cache=True, nogil=True)
def box_or(mask, x, y, half):
    """Bitwise OR of the mask in the (2 half + 1)^2 box at each zero-based position."""
    bits = np.zeros(len(x), mask.dtype)
    ny, nx = mask.shape
    for s in range(len(x)):
        cx, cy = int(np.floor(x[s] + 0.5)), int(np.floor(y[s] + 0.5))
        for i in range(max(0, cy - half), min(ny, cy + half + 1)):
            for j in range(max(0, cx - half), min(nx, cx + half + 1)):
                bits[s] |= mask[i, j]
    return bits
