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
#: Rows and columns of a phase plane: the stamp and the reach of the spline on either side. Scratch planes use the same row length, so
#: that one long loop over flat memory serves all rows; what falls between the rows is never used.
SIDE = 2 * (HALF + 2) + 1
PLANE = SIDE * SIDE
FAST = {"nsz", "arcp", "contract", "reassoc"}
#: Unsigned indices: numba guards signed ones against negative values, which keeps loops from being vectorised.
_U = np.uint64


@dataclass(frozen=True)
class PsfGrid:
    """B-spline coefficients of the local PSF on a grid of cells.

    coefficients : float32 (cells, oversample, oversample, SIDE, SIDE), by cell, phase in y, phase in x, pixel row, pixel column.
    cell_size : (y, x) [pix]; cells : (rows, columns).
    """

    coefficients: np.ndarray
    cell_size: tuple[float, float]
    cells: tuple[int, int]

    def cell(self, x, y) -> np.ndarray:
        """Cell number of zero-based positions (outside: nearest cell)."""
        col = np.clip((np.asarray(x) + 0.5) // self.cell_size[1], 0, self.cells[1] - 1)
        row = np.clip((np.asarray(y) + 0.5) // self.cell_size[0], 0, self.cells[0] - 1)
        return (row * self.cells[1] + col).astype(np.int32)


def psf_grid(psf: PsfModel, cells_a_side: int = 24) -> PsfGrid:
    """Local PSFs in equal cells; a constant PSF has one cell."""
    ny, nx = psf.shape
    cells = (1, 1) if psf.degree == 0 else (cells_a_side, cells_a_side)
    step = psf.oversample
    centre = (HALF + 2) * step
    half = psf.tables.shape[1] // 2
    reach = min(half, centre)
    phased = np.zeros((len(psf.tables), step, step, SIDE, SIDE), np.float32)
    for term, table in zip(phased, psf.tables, strict=True):
        padded = np.zeros((SIDE * step, SIDE * step))
        inside = slice(centre - reach, centre + reach + 1)
        padded[inside, inside] = spline_filter(table, order=3)[half - reach:half + reach + 1, half - reach:half + reach + 1]
        term[:] = padded.reshape(SIDE, step, SIDE, step).transpose(1, 3, 0, 2)
    mid_y = (np.arange(cells[0]) + 0.5) * ny / cells[0] - 0.5
    mid_x = (np.arange(cells[1]) + 0.5) * nx / cells[1] - 0.5
    yy, xx = np.meshgrid(mid_y, mid_x, indexing="ij")
    local = psf.monomials(xx.ravel(), yy.ravel()).T.astype(np.float32) @ phased.reshape(len(phased), -1)
    return PsfGrid(local.reshape(-1, step, step, SIDE, SIDE), (ny / cells[0], nx / cells[1]), cells)


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
def _phase(d, step, half, phase_stride, pixel_stride, w, o):
    """Weights w and flat table offsets o of the four taps for a centre offset d [pix], for pixel -half of this axis."""
    t = (HALF + 2) * step - d * step
    k = int(np.floor(t))
    _spline_weights(t - k, w)
    for a in range(4):
        o[a] = (k - 1 + a) % step * phase_stride + ((k - 1 + a) // step - half) * pixel_stride


@njit(cache=True, nogil=True, fastmath=FAST)
def _blend(flat, ox, oy, half, v, w, keep, target):
    """target = keep * target + v times the row tap at oy of the table, weighted over its four column taps by w."""
    o0, o1, o2, o3 = _U(oy + ox[0]), _U(oy + ox[1]), _U(oy + ox[2]), _U(oy + ox[3])
    v0, v1, v2, v3 = np.float32(v * w[0]), np.float32(v * w[1]), np.float32(v * w[2]), np.float32(v * w[3])
    n = 2 * half * (SIDE + 1) + 1
    if keep:
        for j in range(n):
            u = _U(j)
            target[j] += v0 * flat[o0 + u] + v1 * flat[o1 + u] + v2 * flat[o2 + u] + v3 * flat[o3 + u]
    else:
        for j in range(n):
            u = _U(j)
            target[j] = v0 * flat[o0 + u] + v1 * flat[o1 + u] + v2 * flat[o2 + u] + v3 * flat[o3 + u]


@njit(cache=True, nogil=True)
def render(table, dx, dy, half, wx, wy, out):
    """PSF in rows and columns -half..half about the pixel nearest to the centre, which lies (dx, dy) from it.

    table : float32 (oversample, oversample, SIDE, SIDE), one cell of a PsfGrid. out : float32 (PLANE,); pixel (i, j) is element
    i * SIDE + j. wx, wy : float64 scratch (3, 4).
    """
    flat, step = table.reshape(-1), table.shape[0]
    ox, oy = np.empty(4, np.int64), np.empty(4, np.int64)
    _phase(dx, step, half, PLANE, 1, wx, ox)
    _phase(dy, step, half, step * PLANE, SIDE, wy, oy)
    for a in range(4):
        _blend(flat, ox, oy[a], half, wy[0, a], wx[0], a > 0, out)


@njit(cache=True, nogil=True)
def render_derivatives(table, dx, dy, half, laplacian, wx, wy, out):
    """PSF (out[0]), d/dx0 (out[1]), d/dy0 (out[2]) and, if asked, half the Laplacian (out[3]: the change with the profile's variance).

    out : float32 (4, PLANE), otherwise as `render`.
    """
    flat, step = table.reshape(-1), table.shape[0]
    ox, oy = np.empty(4, np.int64), np.empty(4, np.int64)
    _phase(dx, step, half, PLANE, 1, wx, ox)
    _phase(dy, step, half, step * PLANE, SIDE, wy, oy)
    for a in range(4):
        _blend(flat, ox, oy[a], half, wy[0, a], wx[0], a > 0, out[0])
        _blend(flat, ox, oy[a], half, -step * wy[0, a], wx[1], a > 0, out[1])
        _blend(flat, ox, oy[a], half, -step * wy[1, a], wx[0], a > 0, out[2])
        if laplacian:
            _blend(flat, ox, oy[a], half, 0.5 * step * step * wy[0, a], wx[2], a > 0, out[3])
            _blend(flat, ox, oy[a], half, 0.5 * step * step * wy[2, a], wx[0], True, out[3])


@njit(cache=True, nogil=True)
def add_star(image, table, x, y, flux, half, wx, wy, buffer):
    """Add flux times the PSF at (x, y) to the image, inside a box of the given half width. buffer : float32 (PLANE,)."""
    cx, cy = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    render(table, x - cx, y - cy, half, wx, wy, buffer)
    i0, i1 = max(0, half - cy), min(2 * half + 1, image.shape[0] - cy + half)
    j0, j1 = max(0, half - cx), min(2 * half + 1, image.shape[1] - cx + half)
    f = np.float32(flux)
    for i in range(i0, i1):
        row, source = image[cy - half + i, cx - half + j0:cx - half + j1], buffer[i * SIDE + j0:i * SIDE + j1]
        for j in range(len(row)):
            row[j] += f * source[j]


@njit(cache=True, nogil=True)
def add_stars(image, coefficients, cell, x, y, flux, sign, half):
    """Add (sign +1) or remove (-1) every star."""
    wx, wy, buffer = np.empty((3, 4)), np.empty((3, 4)), np.zeros(PLANE, np.float32)
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


@njit(cache=True, nogil=True)
def _gather(residual, variance, cx, cy, half, pixels):
    """Residual (pixels[0]) and variance (pixels[1]) of the disc about pixel (cx, cy), infinite variance outside it."""
    ny, nx = residual.shape
    pixels[0, :(2 * half + 1) * SIDE] = np.float32(0.0)
    pixels[1, :(2 * half + 1) * SIDE] = np.float32(np.inf)
    for i in range(max(0, half - cy), min(2 * half + 1, ny - cy + half)):
        span = int(np.sqrt((half + 0.3) ** 2 - (i - half) ** 2))
        j0, j1 = max(half - span, half - cx), min(half + span + 1, nx - cx + half)
        if j1 > j0:
            pixels[0, i * SIDE + j0:i * SIDE + j1] = residual[cy - half + i, cx - half + j0:cx - half + j1]
            pixels[1, i * SIDE + j0:i * SIDE + j1] = variance[cy - half + i, cx - half + j0:cx - half + j1]


@njit(cache=True, nogil=True)
def model_error(psf_error, flux, half, out):
    """Factor of the PSF in the variance that its error adds."""
    return np.float32((psf_error * flux) ** 2 * abs(out[0, half * (SIDE + 1)]))


@njit(cache=True, nogil=True, fastmath=FAST)
def normal_equations(residual, variance, slope, floor, psf_error, flux, cx, cy, half, out, pixels, a):
    """Weighted sums for a star's (flux, x, y) in a disc of radius `half` about pixel (cx, cy).

    The variance of a pixel is that of the model, variance - slope * residual (the noise of the pixel's own count taken out), so the
    weights do not follow the noise. The error of the PSF enters like extra photon noise, psf_error^2 flux^2 peak psf: relatively larger in
    the wings, and bright stars keep the weights of photon noise. Infinite variance: not used. Fills a (10): A00 A01 A02
    A11 A12 A22 b0 b1 b2, number of pixels. Derivatives with position are per unit flux. pixels : float32 scratch (2, PLANE).
    """
    _gather(residual, variance, cx, cy, half, pixels)
    slope32, floor32, error = np.float32(slope), np.float32(floor), model_error(psf_error, flux, half, out)
    one, zero = np.float32(1.0), np.float32(0.0)
    p0, p1, p2, rr, vv = out[0], out[1], out[2], pixels[0], pixels[1]
    a00 = a01 = a02 = a11 = a12 = a22 = b0 = b1 = b2 = n = zero
    for j in range(2 * half * (SIDE + 1) + 1):
        p, gx, gy, r, v = p0[j], p1[j], p2[j], rr[j], vv[j]
        w = one / (max(v - slope32 * r, floor32) + abs(error * p))
        wp, wx, wy = w * p, w * gx, w * gy
        a00 += wp * p
        a01 += wp * gx
        a02 += wp * gy
        a11 += wx * gx
        a12 += wx * gy
        a22 += wy * gy
        b0 += wp * r
        b1 += wx * r
        b2 += wy * r
        n += one if w > zero else zero
    a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9] = a00, a01, a02, a11, a12, a22, b0, b1, b2, n


@njit(cache=True, nogil=True, fastmath=FAST)
def goodness(slope, floor, psf_error, flux, half, out, pixels, a):
    """After `normal_equations`, with out[3] the half Laplacian L: fills a[10:14] with chi-square and the sums of w psf L, w L^2, w r L."""
    slope32, floor32, error = np.float32(slope), np.float32(floor), model_error(psf_error, flux, half, out)
    p0, p3, rr, vv = out[0], out[3], pixels[0], pixels[1]
    chi2 = wpl = wll = wrl = np.float32(0.0)
    for j in range(2 * half * (SIDE + 1) + 1):
        p, lap, r = p0[j], p3[j], rr[j]
        w = np.float32(1.0) / (max(vv[j] - slope32 * r, floor32) + abs(error * p))
        chi2 += w * r * r
        wpl += w * p * lap
        wll += w * lap * lap
        wrl += w * r * lap
    a[10], a[11], a[12], a[13] = chi2, wpl, wll, wrl


@njit(cache=True, nogil=True)
def sweep(residual, variance, slope, floor, psf_error, coefficients, cell, x, y, flux, fit_half, draw_half, x0, y0, max_shift, free,
          tolerance, active, first, pairs):
    """One Gauss-Newton step of (flux, x, y) for every star in turn; `residual` (data minus all models) follows each step.

    x, y, flux, residual change in place. x0, y0 : starting places, which a star may leave by max_shift [pix] at most. free : False
    keeps positions. Steps that lower chi-square by less than tolerance**2 are not taken. Only stars marked in `active` are visited;
    the mark goes when a star rests and comes when a neighbour (pairs[first[i]:first[i + 1]]) moves. Returns the number of steps taken.
    """
    wx, wy, a = np.empty((3, 4)), np.empty((3, 4)), np.empty(16)
    out, pixels = np.zeros((4, PLANE), np.float32), np.zeros((2, PLANE), np.float32)
    buffer = np.zeros(PLANE, np.float32)
    taken = 0
    for s in range(len(x)):
        if not active[s]:
            continue
        active[s] = False
        table = coefficients[cell[s]]
        cx, cy = int(np.floor(x[s] + 0.5)), int(np.floor(y[s] + 0.5))
        render_derivatives(table, x[s] - cx, y[s] - cy, fit_half[s], False, wx, wy, out)
        normal_equations(residual, variance, slope, floor, psf_error, flux[s], cx, cy, fit_half[s], out, pixels, a)
        if a[9] < 4 or not a[0] > 0.0:
            continue
        f, dx, dy = flux[s], 0.0, 0.0
        df = a[6] / a[0]
        gain = df * a[6]
        if free and f > 0.0:
            ok, df_free, fdx, fdy = _solve3(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8])
            if ok:
                df, dx, dy = df_free, fdx / f, fdy / f
                gain = df_free * a[6] + fdx * a[7] + fdy * a[8]
        if gain < tolerance * tolerance:
            continue
        taken += 1
        active[s] = True
        for k in range(first[s], first[s + 1]):
            active[pairs[k]] = True
        if free:
            # A linear step is only trusted over a part of the profile (Stetson 1987 clamps alike).
            df = min(max(df, -0.8 * abs(f)), max(4.0 * abs(f), 3.0 / np.sqrt(a[0])))
            dx, dy = min(max(dx, -0.4), 0.4), min(max(dy, -0.4), 0.4)
        add_star(residual, table, x[s], y[s], f, draw_half[s], wx, wy, buffer)
        x[s] = min(max(x[s] + dx, x0[s] - max_shift), x0[s] + max_shift)
        y[s] = min(max(y[s] + dy, y0[s] - max_shift), y0[s] + max_shift)
        flux[s] = f + df
        add_star(residual, table, x[s], y[s], -flux[s], draw_half[s], wx, wy, buffer)
    return taken


@njit(cache=True, nogil=True)
def measure_stars(residual, variance, slope, floor, psf_error, coefficients, cell, x, y, flux, fit_half, information, quality):
    """Information matrices and fit quality of every star from the final residual.

    information : (N, 6) A00 A01 A02 A11 A12 A22 with position derivatives times flux. quality : (N, 3) chi, sharp [pix^2], number of
    pixels fitted. sharp is the least-squares excess of the source's second moment over that of the PSF, flux being refitted.
    """
    wx, wy, a = np.empty((3, 4)), np.empty((3, 4)), np.empty(16)
    out, pixels = np.zeros((4, PLANE), np.float32), np.zeros((2, PLANE), np.float32)
    for s in range(len(x)):
        cx, cy, f = int(np.floor(x[s] + 0.5)), int(np.floor(y[s] + 0.5)), flux[s]
        render_derivatives(coefficients[cell[s]], x[s] - cx, y[s] - cy, fit_half[s], True, wx, wy, out)
        normal_equations(residual, variance, slope, floor, psf_error, f, cx, cy, fit_half[s], out, pixels, a)
        goodness(slope, floor, psf_error, f, fit_half[s], out, pixels, a)
        information[s, 0], information[s, 1], information[s, 2] = a[0], a[1] * f, a[2] * f
        information[s, 3], information[s, 4], information[s, 5] = a[3] * f * f, a[4] * f * f, a[5] * f * f
        quality[s, 2] = a[9]
        quality[s, 0] = np.sqrt(a[10] / (a[9] - 3.0)) if a[9] > 3 else np.nan
        det = a[0] * a[12] - a[11] * a[11]
        quality[s, 1] = (a[0] * a[13] - a[11] * a[6]) / det / f if det > 0.0 and f > 0.0 else np.nan


@njit(cache=True, nogil=True)
def flux_sigma(residual, variance, slope, floor, psf_error, coefficients, cell, x, y, flux, fit_half, information, first, pairs, free):
    """1-sigma uncertainty of each flux after its own position and its neighbours' fluxes and positions were marginalised.

    The information about neighbour j is taken out of star i's matrix one neighbour at a time (Schur complement); with `free` False
    positions are held. Returns (N,) [DN], infinite where nothing constrains the flux.
    """
    n = len(x)
    sigma = np.empty(n)
    wx, wy = np.empty((3, 4)), np.empty((3, 4))
    own, other = np.zeros((4, PLANE), np.float32), np.zeros((4, PLANE), np.float32)
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
            render_derivatives(coefficients[cell[s]], x[s] - cx, y[s] - cy, half, False, wx, wy, own)
        for k in range(first[s], first[s + 1]):
            t = pairs[k]
            tx, ty = int(np.floor(x[t] + 0.5)), int(np.floor(y[t] + 0.5))
            reach = fit_half[t]
            error = model_error(psf_error, flux[s], half, own)
            render_derivatives(coefficients[cell[t]], x[t] - tx, y[t] - ty, reach, False, wx, wy, other)
            cross = np.zeros((3, 3))
            for yy in range(max(cy - half, ty - reach, 0), min(cy + half, ty + reach, ny - 1) + 1):
                for xx in range(max(cx - half, tx - reach, 0), min(cx + half, tx + reach, nx - 1) + 1):
                    v = variance[yy, xx]
                    if v >= 1e30:
                        continue
                    i = (yy - cy + half) * SIDE + xx - cx + half
                    m = (yy - ty + reach) * SIDE + xx - tx + reach
                    w = 1.0 / (max(v - slope * residual[yy, xx], floor) + abs(error * own[0, i]))
                    for u in range(size):
                        g = w * own[u, i] * (1.0 if u == 0 else flux[s])
                        for h in range(size):
                            cross[u, h] += g * other[h, m] * (1.0 if h == 0 else flux[t])
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
