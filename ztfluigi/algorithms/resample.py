"""Mapping an image from one sky grid to another by Lanczos interpolation (paper 3.6, 3.7; kernels as in SWarp, Bertin et al. 2002)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from ztfluigi.model.errors import BadInput
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.model.wcs import TpvWcs

#: Exact coordinates are computed at every GRID-th target pixel, bilinear in between (error below 1e-3 pix for ZTF's distortion).
GRID = 32
#: Steps of the tabulated kernel per pixel of phase; the rounding is 1/2048 pix.
PHASES = 1024
#: A source pixel passes its mask on when the kernel gives it at least this weight.
SIGNIFICANT_WEIGHT = 0.05
#: Masked pixels that are filled from their neighbours before interpolation; saturated cores keep their own value.
FILLED = UNUSABLE & ~int(Mask.SATURATED)


def resample(data, source_wcs: TpvWcs, target_wcs: TpvWcs, target_shape: tuple[int, int], *, order: int = 3, mask=None,
             fill: float = np.nan, registration=None) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate `data` onto another grid; a source keeps its flux in DN (surface brightness times pixel-area ratio).

    data : float32 (ny, nx) [DN]; NaN pixels, and with `mask` those with `FILLED` bits, are first filled from good neighbours within
        2 pixels, so that they do not ring; holes too large for that give `fill`.
    order : 1 bilinear, 3 Lanczos-3, 4 Lanczos-4.
    mask : uint16 (ny, nx) or None. registration : function (x, y) -> (dx, dy) [target pix], by how much sources on the target frame lie
        beside the place its WCS gives them; None for no correction.

    Returns (data float32, mask uint16), both `target_shape`: the mask is the OR of source pixels with significant kernel weight,
    plus `NAN` where `fill` was put.
    """
    if order not in (1, 3, 4):
        raise BadInput(f"resample: order {order} is not 1, 3 or 4")
    gx, gy, area = source_grid(source_wcs, target_wcs, target_shape, registration=registration)
    bad = ~np.isfinite(data) if mask is None else ((mask & np.uint16(FILLED)) != 0) | ~np.isfinite(data)
    data = np.ascontiguousarray(data, dtype=np.float32)
    if bad.any():
        data = fill_holes(data, bad)
    carried = np.zeros((1, 1), np.uint16) if mask is None else np.ascontiguousarray(mask, dtype=np.uint16)
    out = np.empty(target_shape, np.float32)
    out_mask = np.zeros(target_shape, np.uint16)
    _interpolate(data, carried, gx, gy, area, GRID, kernel_table(order), (0,) * (2 * order), np.float32(fill), int(Mask.NAN), out, out_mask)
    return out, out_mask


def source_grid(source_wcs: TpvWcs, target_wcs: TpvWcs, target_shape: tuple[int, int], *, registration=None
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source pixel (x, y) and source pixels per target pixel, at every GRID-th target pixel; one node beyond the far edges."""
    ny, nx = target_shape
    y, x = np.mgrid[0:ny + 2 * GRID:GRID, 0:nx + 2 * GRID:GRID].astype(float)
    if registration is not None:
        dx, dy = registration(x, y)
        x, y = x - dx, y - dy
    gx, gy = source_wcs.pixel(*target_wcs.sky(x, y))
    xy, xx = np.gradient(gx, GRID)
    yy, yx = np.gradient(gy, GRID)
    return gx, gy, np.abs(xx * yy - xy * yx)


@lru_cache
def kernel_table(order: int) -> np.ndarray:
    """Interpolation weights (PHASES + 1, 2 order) for phases 0..1, of pixels floor(x) + 1 - order .. floor(x) + order; sum 1.

    The first moment is left as it is (it moves a source by up to 0.01 pix): kernels bent to make it 0 interpolate sharp PSFs worse.
    """
    phase = np.linspace(0.0, 1.0, PHASES + 1)[:, None]
    distance = np.arange(1 - order, order + 1)[None, :] - phase
    if order == 1:
        weights = 1.0 - np.abs(distance)
    else:
        weights = np.where(np.abs(distance) < order, np.sinc(distance) * np.sinc(distance / order), 0.0)
    table = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    table.flags.writeable = False
    return table


def noise_shrinkage(order: int) -> float:
    """Factor by which interpolation lowers the scatter of a single pixel, mean over phases; large sums keep their noise."""
    return float(np.mean(np.sum(kernel_table(order).astype(float) ** 2, axis=1)))


def fill_holes(data: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Copy with bad pixels replaced by the inverse-square-distance mean of good pixels within 2 pixels; NaN where there are none."""
    out = data.copy()
    _fill_holes(data, bad, out)
    return out


@njit(cache=True, nogil=True)
def _fill_holes(data, bad, out):
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            if not bad[y, x]:
                continue
            total, weights = 0.0, 0.0
            for j in range(max(0, y - 2), min(ny, y + 3)):
                for i in range(max(0, x - 2), min(nx, x + 3)):
                    if not bad[j, i]:
                        weight = 1.0 / ((j - y) ** 2 + (i - x) ** 2)
                        total += weight * data[j, i]
                        weights += weight
            out[y, x] = total / weights if weights > 0 else np.nan


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _interpolate(data, mask, gx, gy, area, step, table, taps, fill, nan_bit, out, out_mask):
    """`taps` is a tuple whose length is the number of kernel taps, so that the inner loops have a constant trip count."""
    ny, nx = data.shape
    n = len(taps)
    order = n // 2
    reach = min(2, order)
    phases = table.shape[0] - 1
    carry = mask.shape[0] == ny and mask.shape[1] == nx
    busy = _busy_blocks(mask)
    for row in range(out.shape[0]):
        cell_y = row // step
        fy = (row - cell_y * step) / step
        for cell_x in range((out.shape[1] + step - 1) // step):
            x_left = (1 - fy) * gx[cell_y, cell_x] + fy * gx[cell_y + 1, cell_x]
            x_right = (1 - fy) * gx[cell_y, cell_x + 1] + fy * gx[cell_y + 1, cell_x + 1]
            y_left = (1 - fy) * gy[cell_y, cell_x] + fy * gy[cell_y + 1, cell_x]
            y_right = (1 - fy) * gy[cell_y, cell_x + 1] + fy * gy[cell_y + 1, cell_x + 1]
            ratio = 0.25 * (area[cell_y, cell_x] + area[cell_y, cell_x + 1] + area[cell_y + 1, cell_x] + area[cell_y + 1, cell_x + 1])
            for col in range(cell_x * step, min(out.shape[1], (cell_x + 1) * step)):
                fx = (col - cell_x * step) / step
                x = x_left + fx * (x_right - x_left)
                y = y_left + fx * (y_right - y_left)
                if not (x >= -0.5 and y >= -0.5 and x <= nx - 0.5 and y <= ny - 0.5):
                    out[row, col] = fill
                    out_mask[row, col] = nan_bit
                    continue
                ix, iy = int(np.floor(x)), int(np.floor(y))
                wx = table[int((x - ix) * phases + 0.5)]
                wy = table[int((y - iy) * phases + 0.5)]
                x0, y0 = ix + 1 - order, iy + 1 - order
                value = np.float32(np.nan)
                if x0 >= 0 and y0 >= 0 and x0 + n <= nx and y0 + n <= ny:
                    value = np.float32(0.0)
                    for j in range(n):
                        line = np.float32(0.0)
                        for i in range(n):
                            line += wx[i] * data[np.uint64(y0 + j), np.uint64(x0 + i)]
                        value += wy[j] * line
                if not np.isfinite(value):
                    value = _over_good(data, x0, y0, wx, wy)
                if np.isfinite(value):
                    out[row, col] = value * ratio
                else:
                    out[row, col] = fill
                    out_mask[row, col] = nan_bit
                if carry and busy[iy + 1 >> 4, ix + 1 >> 4]:
                    bits = np.uint16(0)
                    for j in range(max(order - reach, -y0), min(order + reach, ny - y0)):
                        for i in range(max(order - reach, -x0), min(order + reach, nx - x0)):
                            here = mask[np.uint64(y0 + j), np.uint64(x0 + i)]
                            if here and abs(wx[i] * wy[j]) > SIGNIFICANT_WEIGHT:
                                bits |= here
                    out_mask[row, col] |= bits


@njit(cache=True, nogil=True)
def _busy_blocks(mask):
    """Blocks of 16 x 16 pixels (from pixel -1) within reach of any mask bit: most pixels need not be looked at one by one."""
    ny, nx = mask.shape
    busy = np.zeros(((ny + 1 >> 4) + 1, (nx + 1 >> 4) + 1), np.bool_)
    for y in range(ny):
        for x in range(nx):
            if mask[y, x]:
                for j in (max(0, y - 1) >> 4, min(ny, y + 3) >> 4):
                    for i in (max(0, x - 1) >> 4, min(nx, x + 3) >> 4):
                        busy[j, i] = True
    return busy


@njit(cache=True, nogil=True)
def _over_good(data, x0, y0, wx, wy):
    """The kernel normalised over the finite pixels inside the image; NaN when they hold less than half of it."""
    ny, nx = data.shape
    total, weights = 0.0, 0.0
    for j in range(len(wy)):
        for i in range(len(wx)):
            if 0 <= y0 + j < ny and 0 <= x0 + i < nx and np.isfinite(data[y0 + j, x0 + i]):
                total += wx[i] * wy[j] * data[y0 + j, x0 + i]
                weights += wx[i] * wy[j]
    return np.float32(total / weights) if weights > 0.5 else np.float32(np.nan)
