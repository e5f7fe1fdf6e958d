"""Pairs of sources that lie close together on the image."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _lists(x, y, order, start, cells_x, cells_y, size, reach):
    """Pairs (i, j), i != j, closer than `reach` <= size [pix], from stars sorted by bins (order, start). Two passes: count, fill."""
    n = len(x)
    first = np.zeros(n + 1, np.int64)
    pairs = np.empty(0, np.int64)
    for step in range(2):
        count = 0
        for s in range(n):
            first[s] = count
            bx, by = int(min(max(x[s] / size, 0), cells_x - 1)), int(min(max(y[s] / size, 0), cells_y - 1))
            for b in range(max(0, by - 1), min(cells_y, by + 2)):
                for k in range(start[b * cells_x + max(0, bx - 1)], start[b * cells_x + min(cells_x - 1, bx + 1) + 1]):
                    t = order[k]
                    if t != s and (x[t] - x[s]) ** 2 + (y[t] - y[s]) ** 2 < reach * reach:
                        if step == 1:
                            pairs[count] = t
                        count += 1
        first[n] = count
        if step == 0:
            pairs = np.empty(count, np.int64)
    return first, pairs


def find_neighbours(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours within `reach` [pix]: those of star i are pairs[first[i]:first[i + 1]]."""
    size = max(float(reach), 16.0)
    cells_x, cells_y = int(shape[1] / size) + 1, int(shape[0] / size) + 1
    column = np.clip(x / size, 0, cells_x - 1).astype(np.int64)
    row = np.clip(y / size, 0, cells_y - 1).astype(np.int64)
    bins = row * cells_x + column
    order = np.argsort(bins, kind="stable")
    start = np.searchsorted(bins[order], np.arange(cells_x * cells_y + 1))
    return _lists(x.astype(np.float64), y.astype(np.float64), order, start, cells_x, cells_y, size, float(reach))
