"""Compiled inner loops of PSF fitting: PSF values and gradients from cubic B-splines, and sweeps of least-squares steps.

Every pixel of a star samples the oversampled table at the same fractional phase, so the sixteen spline weights are worked out
once per star. Coefficients are stored by phase, which makes the pixels of a row neighbours in memory (vector loads).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.ndimage import spline_filter

from ztfluigi.model.psf import PsfModel

#: Half width [pix] of the largest rendered stamp (25 x 25).
HALF = 12
FAST = {"nsz", "arcp", "contract", "reassoc"}


@dataclass(frozen=True)
class PsfGrid:
    """B-spline coefficients of the local PSF on a grid of cells.

    coefficients : float32 (cells, oversample, oversample, n, n), by cell, phase in y, phase in x, pixel row, pixel column.
    cell_size : [pix]; cells_x : cells in a row.
    """

    coefficients: np.ndarray
    cell_size: tuple[float, float]
    cells: tuple[int, int]

    def cell(self, x, y) -> np.ndarray:
        """Cell number of zero-based positions (outside: nearest cell)."""
        col = np.clip((np.asarray(x) + 0.5) // self.cell_size[1], 0, self.cells[1] - 1)
        row = np.clip((np.asarray(y) + 0.5) // self.cell_size[0], 0, self.cells[0] - 1)
        return (row * self.cells[1] + col).astype(np.int32)


def psf_grid(psf: PsfModel, cell_pix: float = 100.0) -> PsfGrid:
    """Local PSFs every `cell_pix` pixels; a constant PSF has one cell."""
    ny, nx = psf.shape
    cells = (1, 1) if psf.degree == 0 else (max(1, round(ny / cell_pix)), max(1, round(nx / cell_pix)))
    step = psf.oversample
    centre = (HALF + 2) * step
    size = 2 * centre + step
    padded = np.zeros((len(psf.tables), size, size))
    half = psf.tables.shape[1] // 2
    reach = min(half, centre)
    inside = slice(centre - reach, centre + reach + 1)
    for term, table in zip(padded, psf.tables, strict=True):
        term[inside, inside] = spline_filter(table, order=3)[half - reach:half + reach + 1, half - reach:half + reach + 1]
    rows = (np.arange(cells[0]) + 0.5) * ny / cells[0] - 0.5
    cols = (np.arange(cells[1]) + 0.5) * nx / cells[1] - 0.5
    yy, xx = np.meshgrid(rows, cols, indexing="ij")
    local = psf.monomials(xx.ravel(), yy.ravel()).T.astype(np.float32) @ padded.reshape(len(padded), -1).astype(np.float32)
    n = size // step
    phased = local.reshape(-1, n, step, n, step).transpose(0, 2, 4, 1, 3)
    return PsfGrid(np.ascontiguousarray(phased), (ny / cells[0], nx / cells[1]), cells)


@njit(cache=True, nogil=True)
def _spline_weights(t, w):
    """Cubic B-spline weights (row 0), first (row 1) and second (row 2) derivatives of the four taps at fraction t."""
    s = 1.0 - t
    w[0, 0], w[0, 3] = s * s * s / 6.0, t * t * t / 6.0
    w[0, 1] = 2.0 / 3.0 - 0.5 * t * t * (2.0 - t)
    w[0, 2] = 2.0 / 3.0 - 0.5 * s * s * (2.0 - s)
    w[1, 0], w[1, 3] = -0.5 * s * s, 0.5 * t * t
    w[1, 1] = t * (1.5 * t - 2.0)
    w[1, 2] = -s * (1.5 * s - 2.0)
    w[2, 0], w[2, 3] = s, t
    w[2, 1] = 3.0 * t - 2.0
    w[2, 2] = 3.0 * s - 2.0


@njit(cache=True, nogil=True)
def _phase(d, step, w):
    """Weights for a centre offset d [pix]; returns the first tap's index relative to the table's centre tap grid."""
    t = (HALF + 2) * step - d * step
    k = int(np.floor(t))
    _spline_weights(t - k, w)
    return k - 1


@njit(cache=True, nogil=True, fastmath=FAST)
def psf_rows(coefficients, dx, dy, half, derivatives, wx, wy, out):
    """PSF (out[0]) in rows and columns -half..half about the pixel nearest to the centre, which lies (dx, dy) from it.

    derivatives >= 1 adds d/dx0 (out[1]) and d/dy0 (out[2]); >= 2 adds half the Laplacian (out[3]), the change with the variance
    of the profile. out : float32 (4, 25, 25), filled in its first 2 half + 1 rows and columns.
    """
    step = coefficients.shape[0]
    size = 2 * half + 1
    kx = _phase(dx, step, wx)
    ky = _phase(dy, step, wy)
    planes = 1 if derivatives == 0 else (3 if derivatives == 1 else 4)
    for p in range(planes):
        for i in range(size):
            for j in range(size):
                out[p, i, j] = 0.0
    for a in range(4):
        py, qy = (ky + a) % step, (ky + a) // step - half
        for b in range(4):
            px, qx = (kx + b) % step, (kx + b) // step - half
            plane = coefficients[py, px]
            v = np.float32(wy[0, a] * wx[0, b])
            if derivatives == 0:
                for i in range(size):
                    source, target = plane[qy + i], out[0, i]
                    for j in range(size):
                        target[j] += v * source[qx + j]
                continue
            gx = np.float32(-step * wy[0, a] * wx[1, b])
            gy = np.float32(-step * wy[1, a] * wx[0, b])
            for i in range(size):
                source, target, tx, ty = plane[qy + i], out[0, i], out[1, i], out[2, i]
                for j in range(size):
                    c = source[qx + j]
                    target[j] += v * c
                    tx[j] += gx * c
                    ty[j] += gy * c
            if derivatives == 2:
                lap = np.float32(0.5 * step * step * (wy[0, a] * wx[2, b] + wy[2, a] * wx[0, b]))
                for i in range(size):
                    source, target = plane[qy + i], out[3, i]
                    for j in range(size):
                        target[j] += lap * source[qx + j]


@njit(cache=True, nogil=True)
def add_star(image, coefficients, x, y, flux, half, wx, wy, buffer):
    """Add flux times the PSF at (x, y) to the image, inside a box of the given half width."""
    cx, cy = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    psf_rows(coefficients, x - cx, y - cy, half, 0, wx, wy, buffer)
    i0, i1 = max(0, half - cy), min(2 * half + 1, image.shape[0] - cy + half)
    j0, j1 = max(0, half - cx), min(2 * half + 1, image.shape[1] - cx + half)
    f = np.float32(flux)
    for i in range(i0, i1):
        row, source = image[cy - half + i], buffer[0, i]
        for j in range(j0, j1):
            row[cx - half + j] += f * source[j]


@njit(cache=True, nogil=True)
def add_stars(image, coefficients, cell, x, y, flux, sign, half):
    """Add (sign +1) or remove (-1) every star."""
    wx, wy, buffer = np.empty((3, 4)), np.empty((3, 4)), np.empty((4, 25, 25), np.float32)
    for s in range(len(x)):
        add_star(image, coefficients[cell[s]], x[s], y[s], sign * flux[s], half[s], wx, wy, buffer)


@njit(cache=True, nogil=True)
def _solve3(a00, a01, a02, a11, a12, a22, b0, b1, b2):
    """Solve a symmetric 3 x 3 system; returns (ok, x0, x1, x2)."""
    c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
    det = a00 * c00 + a01 * c01 + a02 * c02
    if not det > 1e-12 * abs(a00 * a11 * a22):
        return False, 0.0, 0.0, 0.0
    c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
    return (True, (c00 * b0 + c01 * b1 + c02 * b2) / det, (c01 * b0 + c11 * b1 + c12 * b2) / det,
            (c02 * b0 + c12 * b1 + c22 * b2) / det)


@njit(cache=True, nogil=True, fastmath=FAST)
def normal_equations(residual, variance, slope, floor, psf_error, flux, cx, cy, half, out, a):
    """Weighted sums for a star's (flux, x, y) in a disc of radius `half` about pixel (cx, cy).

    The variance of a pixel is that of the model, variance - slope * residual (noise of the pixel's own count taken out), so the
    weights do not follow the noise. Infinite variance means the pixel is not used. Fills a: A00 A01 A02 A11 A12 A22 b0 b1 b2 and
    the number of pixels. The derivatives with position are per unit flux.
    """
    a00 = a01 = a02 = a11 = a12 = a22 = b0 = b1 = b2 = n = np.float32(0.0)
    ny, nx = residual.shape
    slope32, floor32 = np.float32(slope), np.float32(floor)
    e = np.float32(psf_error * flux)
    for i in range(2 * half + 1):
        yy = cy - half + i
        if yy < 0 or yy >= ny:
            continue
        span = int(np.sqrt((half + 0.3) ** 2 - (i - half) ** 2))
        row, var = residual[yy], variance[yy]
        p, gx, gy = out[0, i], out[1, i], out[2, i]
        j0, j1 = max(half - span, half - cx), min(half + span + 1, nx - cx + half)
        for j in range(j0, j1):
            r = row[cx - half + j]
            v0 = var[cx - half + j]
            v = max(v0 - slope32 * r, floor32) + (e * p[j]) * (e * p[j])
            good = v0 < np.float32(1e30)
            w = np.float32(1.0) / v if good else np.float32(0.0)
            wp, wgx, wgy = w * p[j], w * gx[j], w * gy[j]
            a00 += wp * p[j]
            a01 += wp * gx[j]
            a02 += wp * gy[j]
            a11 += wgx * gx[j]
            a12 += wgx * gy[j]
            a22 += wgy * gy[j]
            b0 += wp * r
            b1 += wgx * r
            b2 += wgy * r
            n += np.float32(1.0) if good else np.float32(0.0)
    a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9] = a00, a01, a02, a11, a12, a22, b0, b1, b2, n


@njit(cache=True, nogil=True)
def sweep(residual, variance, slope, floor, psf_error, coefficients, cell, x, y, flux, fit_half, draw_half, x0, y0, max_shift, free):
    """One Gauss-Newton step of (flux, x, y) for every star in turn; `residual` (data minus all models) follows each step.

    x, y, flux, residual change in place. x0, y0 : starting places, which a star may leave by max_shift [pix] at most. free : False
    keeps positions. Returns the largest change of any star in units of its uncertainty (flux only).
    """
    wx, wy = np.empty((3, 4)), np.empty((3, 4))
    out, buffer, a = np.empty((4, 25, 25), np.float32), np.empty((4, 25, 25), np.float32), np.empty(10)
    largest = 0.0
    for s in range(len(x)):
        table = coefficients[cell[s]]
        cx, cy = int(np.floor(x[s] + 0.5)), int(np.floor(y[s] + 0.5))
        psf_rows(table, x[s] - cx, y[s] - cy, fit_half[s], 1, wx, wy, out)
        normal_equations(residual, variance, slope, floor, psf_error, flux[s], cx, cy, fit_half[s], out, a)
        if a[9] < 4 or a[0] <= 0.0:
            continue
        f, ok, dx, dy = flux[s], False, 0.0, 0.0
        df = a[6] / a[0]
        if free and f > 0.0:
            ok, df_free, fdx, fdy = _solve3(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8])
            if ok:
                df, dx, dy = df_free, fdx / f, fdy / f
        largest = max(largest, abs(df) * np.sqrt(a[0]))
        # A linear step is only trusted over a part of the profile (Stetson 1987 clamps alike).
        df = min(max(df, -0.8 * abs(f)), max(4.0 * abs(f), 3.0 / np.sqrt(a[0]))) if free else df
        dx, dy = min(max(dx, -0.4), 0.4), min(max(dy, -0.4), 0.4)
        x_new = min(max(x[s] + dx, x0[s] - max_shift), x0[s] + max_shift)
        y_new = min(max(y[s] + dy, y0[s] - max_shift), y0[s] + max_shift)
        add_star(residual, table, x[s], y[s], f, draw_half[s], wx, wy, buffer)
        x[s], y[s], flux[s] = x_new, y_new, f + df
        add_star(residual, table, x_new, y_new, -flux[s], draw_half[s], wx, wy, buffer)
    return largest


@njit(cache=True, nogil=True)
def measure_stars(residual, variance, slope, floor, psf_error, coefficients, cell, x, y, flux, fit_half, information, quality):
    """Information matrices and fit quality of every star from the final residual.

    information : (N, 6) A00 A01 A02 A11 A12 A22 with position derivatives times flux. quality : (N, 3) chi, sharp [pix^2], number of
    pixels fitted. sharp is the least-squares excess of the source's second moment over that of the PSF.
    """
    wx, wy = np.empty((3, 4)), np.empty((3, 4))
    out, a = np.empty((4, 25, 25), np.float32), np.empty(10)
    ny, nx = residual.shape
    for s in range(len(x)):
        cx, cy, half, f = int(np.floor(x[s] + 0.5)), int(np.floor(y[s] + 0.5)), fit_half[s], flux[s]
        psf_rows(coefficients[cell[s]], x[s] - cx, y[s] - cy, half, 2, wx, wy, out)
        normal_equations(residual, variance, slope, floor, psf_error, f, cx, cy, half, out, a)
        information[s, 0], information[s, 1], information[s, 2] = a[0], a[1] * f, a[2] * f
        information[s, 3], information[s, 4], information[s, 5] = a[3] * f * f, a[4] * f * f, a[5] * f * f
        chi2 = wpl = wll = wrl = wpp = wrp = 0.0
        for i in range(max(0, half - cy), min(2 * half + 1, ny - cy + half)):
            span = int(np.sqrt((half + 0.3) ** 2 - (i - half) ** 2))
            for j in range(max(half - span, half - cx), min(half + span + 1, nx - cx + half)):
                r, v = residual[cy - half + i, cx - half + j], variance[cy - half + i, cx - half + j]
                if v >= 1e30:
                    continue
                p, lap = out[0, i, j], out[3, i, j]
                w = 1.0 / (max(v - slope * r, floor) + (psf_error * f * p) ** 2)
                chi2 += w * r * r
                wpl += w * p * lap
                wll += w * lap * lap
                wrl += w * r * lap
                wpp += w * p * p
                wrp += w * r * p
        n = a[9]
        quality[s, 2] = n
        quality[s, 0] = np.sqrt(chi2 / (n - 3.0)) if n > 3 else np.nan
        det = wpp * wll - wpl * wpl
        quality[s, 1] = (wpp * wrl - wpl * wrp) / det / f if det > 0.0 and f > 0.0 else np.nan


@njit(cache=True, nogil=True)
def neighbour_lists(x, y, order, start, cells_x, cells_y, size, reach):
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
    size = max(float(reach), 1.0)
    cells_x, cells_y = int(shape[1] / size) + 1, int(shape[0] / size) + 1
    column = np.clip(x / size, 0, cells_x - 1).astype(np.int64)
    row = np.clip(y / size, 0, cells_y - 1).astype(np.int64)
    bins = row * cells_x + column
    order = np.argsort(bins, kind="stable")
    start = np.searchsorted(bins[order], np.arange(cells_x * cells_y + 1))
    return neighbour_lists(x.astype(np.float64), y.astype(np.float64), order, start, cells_x, cells_y, size, float(reach))


@njit(cache=True, nogil=True)
def flux_sigma(residual, variance, slope, floor, psf_error, coefficients, cell, x, y, flux, fit_half, information, first, pairs, free):
    """1-sigma uncertainty of each flux after its own position and its neighbours' fluxes and positions were marginalised.

    The information about neighbour j is taken out of star i's matrix one neighbour at a time (Schur complement); with `free` False
    positions are held. Returns (N,) [DN], infinite where nothing constrains the flux.
    """
    n = len(x)
    sigma = np.empty(n)
    wx, wy = np.empty((3, 4)), np.empty((3, 4))
    own, other = np.empty((4, 25, 25), np.float32), np.empty((4, 25, 25), np.float32)
    size = 3 if free else 1
    ny, nx = residual.shape
    index = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
    for s in range(n):
        a = np.empty((3, 3))
        for u in range(3):
            for v in range(3):
                a[u, v] = information[s, index[u, v]]
        if not a[0, 0] > 0.0:
            sigma[s] = np.inf
            continue
        full = a[0, 0]
        half, cx, cy = fit_half[s], int(np.floor(x[s] + 0.5)), int(np.floor(y[s] + 0.5))
        if first[s + 1] > first[s]:
            psf_rows(coefficients[cell[s]], x[s] - cx, y[s] - cy, half, 1, wx, wy, own)
        for k in range(first[s], first[s + 1]):
            t = pairs[k]
            tx, ty = int(np.floor(x[t] + 0.5)), int(np.floor(y[t] + 0.5))
            reach = fit_half[t]
            psf_rows(coefficients[cell[t]], x[t] - tx, y[t] - ty, reach, 1, wx, wy, other)
            cross = np.zeros((3, 3))
            for yy in range(max(cy - half, ty - reach, 0), min(cy + half, ty + reach, ny - 1) + 1):
                for xx in range(max(cx - half, tx - reach, 0), min(cx + half, tx + reach, nx - 1) + 1):
                    v = variance[yy, xx]
                    if v >= 1e30:
                        continue
                    i, j, m, q = yy - cy + half, xx - cx + half, yy - ty + reach, xx - tx + reach
                    w = 1.0 / (max(v - slope * residual[yy, xx], floor) + (psf_error * flux[s] * own[0, i, j]) ** 2)
                    for u in range(size):
                        g = w * own[u, i, j] * (1.0 if u == 0 else flux[s])
                        for h in range(size):
                            cross[u, h] += g * other[h, m, q] * (1.0 if h == 0 else flux[t])
            b = np.empty((size, size))
            for u in range(size):
                for v in range(size):
                    b[u, v] = information[t, index[u, v]]
            if abs(np.linalg.det(b)) > 0.0:
                gain = np.linalg.solve(b, np.ascontiguousarray(cross[:size, :size].T))
                for u in range(size):
                    for v in range(size):
                        for h in range(size):
                            a[u, v] -= cross[u, h] * gain[h, v]
        if free:
            schur = a[1, 1] * a[2, 2] - a[1, 2] ** 2
            reduced = a[0, 0]
            if schur > 1e-9 * abs(information[s, 3] * information[s, 5]):
                reduced -= (a[0, 1] ** 2 * a[2, 2] - 2.0 * a[0, 1] * a[0, 2] * a[1, 2] + a[0, 2] ** 2 * a[1, 1]) / schur
        else:
            reduced = a[0, 0]
        # Blends closer than the data can part keep a finite uncertainty.
        sigma[s] = 1.0 / np.sqrt(max(reduced, 0.02 * full))
    return sigma
