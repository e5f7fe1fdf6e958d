"""Positions of point-like sources: least-squares fit of a pixel-integrated profile, neighbours subtracted, in compiled loops.

The profile is a Gaussian core and a Gaussian wing of twice its widths in x and y, close to a seeing disc. It is integrated over each pixel, so that
undersampled images (FWHM below 1.5 pixels) show little dependence on pixel phase. A least-squares fit with the right profile and the full
variance reaches the Cramer-Rao bound (e.g. King 1983, PASP 95, 163).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

WING = 2.0
"""Width of the wing over that of the core."""
MAX_STEP = 0.5
"""Largest move of one Gauss-Newton step [pix]."""
_ROOT_HALF = 0.7071067811865476
_ROOT_TWO_PI = 2.5066282746310002


def fwhm_of(sigma, wing: float):
    """Full width at half maximum of the profile with core width `sigma` and flux fraction `wing` in the wing (before pixel integration)."""
    low, high = 1.0, 3.0 * WING
    for _ in range(50):
        r = 0.5 * (low + high)
        value = (1.0 - wing) * math.exp(-0.5 * r * r) + wing / WING**2 * math.exp(-0.5 * (r / WING) ** 2)
        low, high = (r, high) if value > 0.5 * (1.0 - wing + wing / WING**2) else (low, r)
    return (low + high) * sigma


@njit(cache=True, nogil=True)
def _gaussian(centre, sigma, start, values, slopes, growths):
    # Pixel-integrated unit Gaussian along one axis, and its derivatives with respect to the centre and to log(sigma).
    t = (start - 0.5 - centre) / sigma
    low_cdf = 0.5 * math.erf(t * _ROOT_HALF)
    low_pdf = math.exp(-0.5 * t * t) / (_ROOT_TWO_PI * sigma)
    low_t = t
    for i in range(values.size):
        t = (start + i + 0.5 - centre) / sigma
        cdf = 0.5 * math.erf(t * _ROOT_HALF)
        pdf = math.exp(-0.5 * t * t) / (_ROOT_TWO_PI * sigma)
        values[i] = cdf - low_cdf
        slopes[i] = low_pdf - pdf
        growths[i] = sigma * (low_t * low_pdf - t * pdf)
        low_cdf, low_pdf, low_t = cdf, pdf, t


@njit(cache=True, nogil=True)
def _stamps(x, y, sigma_x, sigma_y, wing, x0, y0, axes, out):
    # Unit-flux profile on the box with corner (x0, y0), out[0], and its derivatives with respect to x, y, log(sigma_x), log(sigma_y).
    # `axes` is scratch: [component, axis, kind, pixel].
    for c in range(2):
        factor = 1.0 if c == 0 else WING
        _gaussian(x, factor * sigma_x, x0, axes[c, 0, 0], axes[c, 0, 1], axes[c, 0, 2])
        _gaussian(y, factor * sigma_y, y0, axes[c, 1, 0], axes[c, 1, 1], axes[c, 1, 2])
    a, b = 1.0 - wing, wing
    for j in range(out.shape[1]):
        p, dp, gp = a * axes[0, 1, 0, j], a * axes[0, 1, 1, j], a * axes[0, 1, 2, j]
        q, dq, gq = b * axes[1, 1, 0, j], b * axes[1, 1, 1, j], b * axes[1, 1, 2, j]
        for i in range(out.shape[2]):
            u, v = axes[0, 0, 0, i], axes[1, 0, 0, i]
            out[0, j, i] = p * u + q * v
            out[1, j, i] = p * axes[0, 0, 1, i] + q * axes[1, 0, 1, i]
            out[2, j, i] = dp * u + dq * v
            out[3, j, i] = p * axes[0, 0, 2, i] + q * axes[1, 0, 2, i]
            out[4, j, i] = gp * u + gq * v


@njit(cache=True, nogil=True)
def _add(image, value, flux, x0, y0):
    ny, nx = image.shape
    for j in range(max(0, -y0), min(value.shape[0], ny - y0)):
        for i in range(max(0, -x0), min(value.shape[1], nx - x0)):
            image[y0 + j, x0 + i] += flux * value[j, i]


@njit(cache=True, nogil=True)
def add_sources(image, x, y, flux, sigma_x, sigma_y, wing, half):
    """Add the profiles of sources to an image in place (negative fluxes subtract)."""
    size = 2 * half + 1
    axes, stamp = np.empty((2, 2, 3, size)), np.empty((5, size, size))
    for k in range(x.size):
        x0, y0 = int(np.rint(x[k])) - half, int(np.rint(y[k])) - half
        _stamps(x[k], y[k], sigma_x, sigma_y, wing, x0, y0, axes, stamp)
        _add(image, stamp[0], flux[k], x0, y0)


@njit(cache=True, nogil=True)
def fit_positions(residual, rms, bad, x, y, flux, sigma_x, sigma_y, wing, inverse_gain, sweeps, half):
    """Fit flux, x and y of every source by Gauss-Seidel sweeps of Gauss-Newton steps.

    residual : float32 (ny, nx) [DN], background-subtracted; on return the image without the fitted sources.
    rms : float32 (ny, nx) [DN], background noise. bad : bool (ny, nx), pixels without weight. x, y : float64 (n,), zero-based start
    positions, updated. flux : float64 (n,) [DN], start values, updated. sigma_x, sigma_y, wing : widths of the core [pix] and flux in the wing.
    inverse_gain : [DN/electron], 0 leaves the sources' own photon noise out. half : half size of the fitted box [pix].
    Returns float64 (n, 3): 1-sigma errors of flux [DN], x and y [pix]; NaN where the box has too few good pixels.
    """
    n = x.size
    ny, nx = residual.shape
    size = 2 * half + 1
    axes, stamp = np.empty((2, 2, 3, size)), np.empty((5, size, size))
    value, dx, dy = stamp[0], stamp[1], stamp[2]
    errors = np.full((n, 3), np.nan)
    add_sources(residual, x, y, -flux, sigma_x, sigma_y, wing, half)
    for _ in range(sweeps):
        for k in range(n):
            x0, y0 = int(np.rint(x[k])) - half, int(np.rint(y[k])) - half
            _stamps(x[k], y[k], sigma_x, sigma_y, wing, x0, y0, axes, stamp)
            _add(residual, value, flux[k], x0, y0)
            f = max(flux[k], 0.0)
            slope = max(f, 1e-3 * rms[min(max(y0 + half, 0), ny - 1), min(max(x0 + half, 0), nx - 1)])
            a00 = a01 = a02 = a11 = a12 = a22 = b0 = b1 = b2 = 0.0
            for j in range(max(0, -y0), min(size, ny - y0)):
                for i in range(max(0, -x0), min(size, nx - x0)):
                    if bad[y0 + j, x0 + i]:
                        continue
                    shape = value[j, i]
                    noise = rms[y0 + j, x0 + i]
                    weight = 1.0 / (noise * noise + inverse_gain * f * shape + 1e-30)
                    misfit = residual[y0 + j, x0 + i] - f * shape
                    gx, gy = slope * dx[j, i], slope * dy[j, i]
                    a00 += weight * shape * shape
                    a01 += weight * shape * gx
                    a02 += weight * shape * gy
                    a11 += weight * gx * gx
                    a12 += weight * gx * gy
                    a22 += weight * gy * gy
                    b0 += weight * shape * misfit
                    b1 += weight * gx * misfit
                    b2 += weight * gy * misfit
            c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
            det = a00 * c00 + a01 * c01 + a02 * c02
            if det > 1e-9 * a00 * a11 * a22:
                c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
                flux[k] = f + (c00 * b0 + c01 * b1 + c02 * b2) / det
                x[k] += min(max((c01 * b0 + c11 * b1 + c12 * b2) / det, -MAX_STEP), MAX_STEP)
                y[k] += min(max((c02 * b0 + c12 * b1 + c22 * b2) / det, -MAX_STEP), MAX_STEP)
                errors[k, 0], errors[k, 1], errors[k, 2] = math.sqrt(c00 / det), math.sqrt(c11 / det), math.sqrt(c22 / det)
            else:
                errors[k, :] = np.nan
            x0, y0 = int(np.rint(x[k])) - half, int(np.rint(y[k])) - half
            _stamps(x[k], y[k], sigma_x, sigma_y, wing, x0, y0, axes, stamp)
            _add(residual, value, -flux[k], x0, y0)
    return errors


@njit(cache=True, nogil=True)
def fit_widths(residual, bad, x, y, flux, sigma_x, sigma_y, wing, half, steps):
    """Core widths of every source about its fitted position, neighbours subtracted.

    residual : as `fit_positions` leaves it. Fits flux, log(sigma_x) and log(sigma_y) with equal weights. Returns float64 (n, 3): both
    widths [pix], NaN where that is impossible, and the sum of the squared residuals over the squared flux with the frame's widths.
    """
    n = x.size
    ny, nx = residual.shape
    size = 2 * half + 1
    axes, own, stamp = np.empty((2, 2, 3, size)), np.empty((5, size, size)), np.empty((5, size, size))
    fitted = np.empty((n, 3))
    for k in range(n):
        x0, y0 = int(np.rint(x[k])) - half, int(np.rint(y[k])) - half
        _stamps(x[k], y[k], sigma_x, sigma_y, wing, x0, y0, axes, own)
        f, width_x, width_y, misfits = flux[k], sigma_x, sigma_y, 0.0
        for step in range(steps):
            _stamps(x[k], y[k], width_x, width_y, wing, x0, y0, axes, stamp)
            a00 = a01 = a02 = a11 = a12 = a22 = b0 = b1 = b2 = 0.0
            for j in range(max(0, -y0), min(size, ny - y0)):
                for i in range(max(0, -x0), min(size, nx - x0)):
                    if bad[y0 + j, x0 + i]:
                        continue
                    shape, gx, gy = stamp[0, j, i], f * stamp[3, j, i], f * stamp[4, j, i]
                    left = residual[y0 + j, x0 + i]
                    misfit = left + flux[k] * own[0, j, i] - f * shape
                    a00 += shape * shape
                    a01 += shape * gx
                    a02 += shape * gy
                    a11 += gx * gx
                    a12 += gx * gy
                    a22 += gy * gy
                    b0 += shape * misfit
                    b1 += gx * misfit
                    b2 += gy * misfit
                    if step == 0:
                        misfits += left * left
            c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
            c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
            det = a00 * c00 + a01 * c01 + a02 * c02
            if not det > 1e-9 * a00 * a11 * a22:
                width_x = width_y = np.nan
                break
            f += (c00 * b0 + c01 * b1 + c02 * b2) / det
            width_x *= math.exp(min(max((c01 * b0 + c11 * b1 + c12 * b2) / det, -0.4), 0.4))
            width_y *= math.exp(min(max((c02 * b0 + c12 * b1 + c22 * b2) / det, -0.4), 0.4))
            width_x, width_y = min(max(width_x, 0.2), 2.0 * half), min(max(width_y, 0.2), 2.0 * half)
        fitted[k, 0], fitted[k, 1], fitted[k, 2] = width_x, width_y, misfits / max(flux[k] * flux[k], 1e-30)
    return fitted


@njit(cache=True, nogil=True)
def gather_bits(mask, x, y, radius):
    """OR of the mask bits over the (2 radius + 1)^2 pixels about each zero-based position; uint16 (n,)."""
    ny, nx = mask.shape
    bits = np.zeros(x.size, np.uint16)
    for k in range(x.size):
        xc, yc = int(np.rint(x[k])), int(np.rint(y[k]))
        for j in range(max(0, yc - radius), min(ny, yc + radius + 1)):
            for i in range(max(0, xc - radius), min(nx, xc + radius + 1)):
                bits[k] |= mask[j, i]
    return bits
