"""Outlier-trimmed stack of calibration frames, by bands of rows (paper 3.4.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from ztfluigi.model.config.detector import StackConfig
from ztfluigi.model.errors import BadInput

#: Pixels sorted together: all frames of a chunk stay in the second-level cache.
CHUNK = 1024
#: Ranks of the percentiles that are one standard deviation below and above the median.
LOWER, UPPER = 0.158655, 0.841345

#: `read_rows(i, y0, y1)` -> (y1 - y0, nx) float32, rows y0..y1-1 of frame i.
RowReader = Callable[[int, int, int], np.ndarray]


@dataclass
class Stack:
    """The five products of a stack; all (ny, nx).

    mean : float32, trimmed average. std_clipped : float32, sample standard deviation after trimming (image A).
    std_raw : float32, before trimming (image B). uncertainty : float32, std_clipped / sqrt(depth). depth : int16, samples kept.
    """

    mean: np.ndarray
    std_clipped: np.ndarray
    std_raw: np.ndarray
    uncertainty: np.ndarray
    depth: np.ndarray


def clipped_stack(read_rows: RowReader, n: int, shape: tuple[int, int], *, config: StackConfig = StackConfig()) -> Stack:
    """Trimmed average per pixel of n frames.

    Samples farther than `clip_sigma` robust sigmas from the pixel's median are trimmed, sigma being half the distance of the
    15.87th and 84.13th percentiles of the samples. Non-finite samples are left out; a pixel without samples has mean, deviations
    and uncertainty NaN and depth 0. Deviations of a single sample are NaN.

    Memory beyond the products is `band_mib`, whatever n and the shape: `read_rows` is asked for bands of rows, each row of each
    frame once.

    Raises
    ------
    BadInput : no frames, or `read_rows` returns another shape than asked for.
    """
    if n < 1:
        raise BadInput("a stack needs at least one frame")
    ny, nx = shape
    stack = Stack(*(np.empty(shape, np.float32) for _ in range(4)), np.empty(shape, np.int16))
    rows = max(1, min(ny, config.band_mib * 2**20 // (4 * n * nx)))
    band = np.empty((n, rows * nx), np.float32)
    ranks, comparators = _ranks(n), _sorting_network(n)
    for y0 in range(0, ny, rows):
        y1 = min(y0 + rows, ny)
        for i in range(n):
            part = read_rows(i, y0, y1)
            if part.shape != (y1 - y0, nx):
                raise BadInput(f"frame {i} gave rows {y0}..{y1} of shape {part.shape}, expected {(y1 - y0, nx)}")
            band[i, :part.size] = part.reshape(-1)
        outputs = (getattr(stack, name)[y0:y1].reshape(-1) for name in ("mean", "std_clipped", "std_raw", "uncertainty", "depth"))
        _stack_band(band[:, :(y1 - y0) * nx], comparators, ranks, np.float32(config.clip_sigma), *outputs)
    return stack


def _ranks(n: int) -> np.ndarray:
    """For each number of samples m <= n: (index, fraction) of the lower percentile, the median and the upper one; float64 (n + 1, 6)."""
    table = np.zeros((n + 1, 6))
    for m in range(1, n + 1):
        for k, quantile in enumerate((LOWER, 0.5, UPPER)):
            # sample quantiles are read where the expected value of the order statistic is the quantile of the parent (Blom)
            place = np.clip(quantile * (m + 0.25) + 0.375 - 1.0, 0.0, m - 1.0)
            index = min(int(place), max(m - 2, 0))
            table[m, 2 * k:2 * k + 2] = index, place - index
    return table


def _sorting_network(n: int) -> np.ndarray:
    """Pairs (i, j), i < j, whose compare-and-swap in turn sorts n values: Batcher's odd-even merge sort (Knuth 5.2.2 M)."""
    pairs = []
    if n > 1:
        top = 1 << ((n - 1).bit_length() - 1)
        p = top
        while p > 0:
            q, r, d = top, 0, p
            while d > 0:
                pairs += [(i, i + d) for i in range(n - d) if i & p == r]
                d, q, r = q - p, q >> 1, p
            p >>= 1
    return np.array(pairs, np.int64).reshape(-1, 2)


@njit(cache=True, nogil=True)
def _stack_band(band, comparators, ranks, clip, mean, std_clipped, std_raw, uncertainty, depth):
    n, size = band.shape
    block = np.empty((n, CHUNK), np.float32)
    finite = np.empty(CHUNK, np.int32)
    median, limit = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    work = np.empty((5, CHUNK), np.float32)
    for start in range(0, size, CHUNK):
        width = min(CHUNK, size - start)
        finite[:] = 0
        for i in range(n):
            for k in range(width):
                value = band[i, start + k]
                good = np.isfinite(value)
                # left-out samples sort to the end
                block[i, k] = value if good else np.float32(np.inf)
                finite[k] += good
        for c in range(comparators.shape[0]):
            low, high = block[comparators[c, 0]], block[comparators[c, 1]]
            for k in range(width):
                a, b = low[k], high[k]
                low[k], high[k] = (a if a < b else b), (b if a < b else a)
        if n > 1:
            _limits(block, width, ranks[n], clip, median, limit)
            _trim(block, width, median, limit, work)
            _finish(work, n, median, start, width, mean, std_clipped, std_raw, uncertainty, depth)
        for k in range(width):
            # few pixels lack samples, or spread
            if n == 1 or finite[k] < n or work[0, k] < 1:
                _one_pixel(block, k, finite[k], ranks, clip, start + k, mean, std_clipped, std_raw, uncertainty, depth)


@njit(cache=True, nogil=True)
def _limits(block, width, rank, clip, median, limit):
    """Median and trimming distance of each pixel, all samples being there."""
    i, j, m = int(rank[0]), int(rank[4]), int(rank[2])
    f, g, h = np.float32(rank[1]), np.float32(rank[5]), np.float32(rank[3])
    half = np.float32(0.5) * clip
    for k in range(width):
        low = block[i, k] + f * (block[i + 1, k] - block[i, k])
        high = block[j, k] + g * (block[j + 1, k] - block[j, k])
        median[k] = block[m, k] + h * (block[m + 1, k] - block[m, k])
        limit[k] = half * (high - low)


@njit(cache=True, nogil=True)
def _trim(block, width, median, limit, work):
    """Number, sum and squares of the kept deviations from the median, sum and squares of all: the rows of `work`."""
    work[:] = 0
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(block.shape[0]):
        for k in range(width):
            deviation = block[i, k] - median[k]
            keep = one if abs(deviation) <= limit[k] else zero
            work[0, k] += keep
            work[1, k] += keep * deviation
            work[2, k] += keep * deviation * deviation
            work[3, k] += deviation
            work[4, k] += deviation * deviation


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(work, n, median, start, width, mean, std_clipped, std_raw, uncertainty, depth):
    zero, one = np.float32(0.0), np.float32(1.0)
    per_n, per_less = np.float32(1.0 / n), np.float32(1.0 / (n - 1))
    for k in range(width):
        kept, at = work[0, k], start + k
        offset = work[1, k] / kept
        mean[at] = median[k] + offset
        std_raw[at] = np.sqrt(max(work[4, k] - work[3, k] * work[3, k] * per_n, zero) * per_less)
        deviation = np.sqrt(max(work[2, k] - offset * work[1, k], zero) / (kept - one))
        std_clipped[at] = deviation
        uncertainty[at] = deviation / np.sqrt(kept)
        depth[at] = np.int16(kept)


@njit(cache=True, nogil=True, inline="always")
def _one_pixel(block, k, m, ranks, clip, at, mean, std_clipped, std_raw, uncertainty, depth):
    if m == 0:
        mean[at] = std_clipped[at] = std_raw[at] = uncertainty[at] = np.nan
        depth[at] = 0
        return
    median = _quantile(block, k, m, ranks, 2)
    limit = clip * np.float32(0.5) * (_quantile(block, k, m, ranks, 4) - _quantile(block, k, m, ranks, 0))
    kept, total, squares, all_total, all_squares = 0, np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for i in range(m):
        # sums are taken about the median, which single precision bears
        deviation = block[i, k] - median
        all_total += deviation
        all_squares += deviation * deviation
        if abs(deviation) <= limit:
            kept += 1
            total += deviation
            squares += deviation * deviation
    if kept == 0:
        # an interpolated median of samples without spread
        kept, total, squares = m, all_total, all_squares
    offset = total / kept
    mean[at] = median + offset
    std_raw[at] = np.sqrt(max(all_squares - all_total * all_total / m, 0.0) / (m - 1)) if m > 1 else np.nan
    std_clipped[at] = np.sqrt(max(squares - offset * total, 0.0) / (kept - 1)) if kept > 1 else np.nan
    uncertainty[at] = std_clipped[at] / np.sqrt(np.float32(kept))
    depth[at] = kept


@njit(cache=True, nogil=True, inline="always")
def _quantile(block, k, m, ranks, column):
    index = int(ranks[m, column])
    low = block[index, k]
    if m == 1:
        return low
    return low + np.float32(ranks[m, column + 1]) * (block[index + 1, k] - low)
