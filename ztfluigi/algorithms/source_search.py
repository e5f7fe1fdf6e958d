"""Search of a residual image for point sources: matched filter and its maxima; mask bits round a position."""

from __future__ import annotations

import numpy as np
from numba import njit

from ztfluigi.algorithms.psf_kernels import FAST


@njit(cache=True, nogil=True, fastmath=FAST)
def matched_filter(image, kernel):
    """Correlation of the image with a small square kernel (odd size); zero within its half width of the edges. float32."""
    ny, nx = image.shape
    size = kernel.shape[0]
    h = size // 2
    out = np.zeros((ny, nx), np.float32)
    for y in range(h, ny - h):
        target = out[y]
        for i in range(size):
            source = image[y - h + i]
            for j in range(size):
                k = kernel[i, j]
                for x in range(h, nx - h):
                    target[x] += k * source[x - h + j]
    return out


@njit(cache=True, nogil=True)
def local_maxima(score, residual, variance, slope, model_error, data, sky_sigma, norm, peak, threshold, half):
    """Zero-based integer (y, x, flux) of 3 x 3 maxima of score / (norm * local sigma) above the threshold.

    score : sum of residual * filter. norm : sum of filter^2. peak : mean of the PSF's central 3 x 3 pixels. The local sigma adds
    model_error times the light (in data, 3 x 3 pixels) that is not the candidate's own to the pixel noise. Unusable pixels (infinite
    variance) hold no maximum.
    """
    ny, nx = score.shape
    ys, xs, fs = [], [], []
    root = np.sqrt(norm)
    least = threshold * root * sky_sigma
    for y in range(half + 1, ny - half - 1):
        for x in range(half + 1, nx - half - 1):
            s = score[y, x]
            if s < least or variance[y, x] >= 1e30:
                continue
            if (s <= score[y, x - 1] or s < score[y, x + 1] or s <= score[y - 1, x] or s < score[y + 1, x] or s <= score[y - 1, x - 1]
                    or s < score[y + 1, x + 1] or s <= score[y - 1, x + 1] or s < score[y + 1, x - 1]):
                continue
            var = light = 0.0
            for i in range(-1, 2):
                for j in range(-1, 2):
                    v, r = variance[y + i, x + j], residual[y + i, x + j]
                    var += max(v - slope * r, 0.0) if v < 1e30 else 0.0
                    light += data[y + i, x + j]
            var = max(var / 9.0, 0.5 * sky_sigma * sky_sigma) + (model_error * max(light / 9.0 - s / norm * peak, 0.0)) ** 2
            if s > threshold * root * np.sqrt(var):
                ys.append(y)
                xs.append(x)
                fs.append(s / norm)
    return np.array(ys, np.int64), np.array(xs, np.int64), np.array(fs, np.float64)


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
