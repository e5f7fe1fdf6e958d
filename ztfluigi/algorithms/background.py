"""Smooth sky level and noise of an image."""

from __future__ import annotations

import numpy as np
import sep
from numba import njit
from scipy.ndimage import distance_transform_edt

from ztfluigi.model.config.detector import BackgroundConfig
from ztfluigi.model.errors import Unusable
from ztfluigi.model.images import Background
from ztfluigi.model.maskbits import UNUSABLE

#: Quadrants at least this long [pix] take the coarser mesh.
LARGE = 2048
#: Every how-many-th row and column the medians of the smooth images look at.
STRIDE = 5


def estimate(data: np.ndarray, mask: np.ndarray, *, config: BackgroundConfig = BackgroundConfig()) -> Background:
    """Sky level and rms: clipped modes in cells, median-filtered, bicubic spline between (SExtractor's estimator, by way of sep).

    Parameters
    ----------
    data : float32 (ny, nx) [DN]; non-finite pixels are ignored.
    mask : uint16 (ny, nx); pixels with any UNUSABLE bit are ignored. Sources need no mask: cells are clipped.

    Raises
    ------
    Unusable : no pixel to measure.
    """
    bad = (mask & UNUSABLE) != 0
    bad |= ~np.isfinite(data)
    if bad.all():
        raise Unusable("background: no usable pixel", usable_pixels=0, pixels=data.size)
    mesh = config.mesh or (128 if max(data.shape) >= LARGE else 64)
    sky = sep.Background(np.ascontiguousarray(data, np.float32), mask=bad, bw=mesh, bh=mesh, fw=config.filter_size, fh=config.filter_size)
    level, rms = sky.back(dtype=np.float32), sky.rms(dtype=np.float32)
    # a spline through cells of which some are empty may fall to zero, which no noise is
    np.maximum(rms, np.float32(0.05 * sky.globalrms), out=rms)
    return Background(level, rms, float(np.median(level[::STRIDE, ::STRIDE])), float(np.median(rms[::STRIDE, ::STRIDE])))


def cell_levels(data: np.ndarray, bad: np.ndarray, mesh: int) -> np.ndarray:
    """Clipped medians of the good pixels of cells of about `mesh` pixels: float32 (rows, columns) [unit of data].

    bad : bool (ny, nx). One pixel in eight is looked at. A cell without good pixels takes the nearest that has some; NaN when none has any.
    """
    ny, nx = data.shape
    cells = np.empty((max(1, round(ny / mesh)), max(1, round(nx / mesh))), np.float32)
    _cell_levels(data, bad, cells)
    empty = np.isnan(cells)
    if empty.any() and not empty.all():
        cells = cells[tuple(distance_transform_edt(empty, return_distances=False, return_indices=True))]
    return cells


@njit(cache=True, nogil=True)
def _cell_levels(data, bad, cells):
    ny, nx = data.shape
    rows, columns = cells.shape
    values = np.empty((ny // rows + 2) * (nx // columns // 8 + 2), np.float32)
    for r in range(rows):
        for c in range(columns):
            n = 0
            for y in range(r * ny // rows, (r + 1) * ny // rows):
                for x in range(c * nx // columns + (3 * y & 7), (c + 1) * nx // columns, 8):
                    if not bad[y, x] and np.isfinite(data[y, x]):
                        values[n] = data[y, x]
                        n += 1
            cells[r, c] = _clipped_median(np.sort(values[:n])) if n else np.nan


@njit(cache=True, nogil=True)
def _clipped_median(values):
    """Median of sorted values after trimming what lies farther above the median than three times the lower half's spread."""
    n = len(values)
    for _ in range(4):
        middle = values[n // 2]
        # sources only add light: the lower half shows the noise (16th percentile, one sigma)
        limit = middle + np.float32(3.0) * (middle - values[int(0.1587 * n)])
        kept = np.searchsorted(values[:n], limit, side="right")
        if kept == n or kept < 3:
            break
        n = kept
    return np.float32(0.5) * (values[n // 2] + values[(n - 1) // 2])


def expand_cells(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation of cell values to every pixel, constant beyond the outermost cell centres: float32 `shape`."""
    out = np.empty(shape, np.float32)
    _expand_cells(cells, *cell_weights(cells.shape[0], shape[0]), *cell_weights(cells.shape[1], shape[1]), out)
    return out


def cell_weights(cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `size` pixels the cell before it and how far it is on the way to the next: int64, float32 (size,)."""
    place = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    index = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    return index, (place - index).astype(np.float32)


@njit(cache=True, nogil=True)
def cell_line(cells, row, part, column, column_part, out):
    """One row of `expand_cells` into `out` (nx,)."""
    rows, columns = cells.shape
    line = np.empty(columns + 1, np.float32)
    for c in range(columns):
        line[c] = cells[row, c] + part * (cells[min(row + 1, rows - 1), c] - cells[row, c])
    line[columns] = line[columns - 1]
    for x in range(len(out)):
        c = column[x]
        out[x] = line[c] + column_part[x] * (line[c + 1] - line[c])


@njit(cache=True, nogil=True)
def _expand_cells(cells, row, row_part, column, column_part, out):
    for y in range(out.shape[0]):
        cell_line(cells, row[y], row_part[y], column, column_part, out[y])
