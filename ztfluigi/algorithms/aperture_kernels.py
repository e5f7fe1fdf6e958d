"""Compiled loops of aperture photometry: what a segmentation map and growth curves tell about every source."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Bins of elliptical radius (units of the source's RMS axes) for the Petrosian profile.
_STEP, _BINS = 0.25, 40


@njit(cache=True, nogil=True)
def isophotes(data, segments, mask, threshold, peak):
    """Per source of a segmentation map: areas (N, 8) above threshold * (peak / threshold)^(n / 8), OR of the mask, masked pixels."""
    n = len(threshold)
    areas, bits, masked = np.zeros((n, 8), np.int32), np.zeros(n, np.int32), np.zeros(n, np.int32)
    scale = np.empty(n)
    for s in range(n):
        scale[s] = 8.0 / np.log(peak[s] / threshold[s]) if peak[s] > threshold[s] > 0.0 else 0.0
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            s = segments[y, x] - 1
            if s < 0:
                continue
            if mask[y, x]:
                bits[s] |= mask[y, x]
                masked[s] += 1
            if data[y, x] >= threshold[s]:
                level = min(7, int(np.log(data[y, x] / threshold[s]) * scale[s]))
                for k in range(level + 1):
                    areas[s, k] += 1
    return areas, bits, masked


@njit(cache=True, nogil=True)
def foreign_fraction(segments, bad, x, y, cxx, cyy, cxy, radius):
    """Fraction of the pixels of each ellipse (radius in units of its RMS axes) that are unusable or belong to another source."""
    ny, nx = segments.shape
    out = np.zeros(len(x))
    for s in range(len(x)):
        det = 4.0 * cxx[s] * cyy[s] - cxy[s] ** 2
        if not (det > 0.0 and radius[s] > 0.0):
            continue
        half_x, half_y = 2.0 * radius[s] * np.sqrt(cyy[s] / det), 2.0 * radius[s] * np.sqrt(cxx[s] / det)
        total = foreign = 0
        for j in range(max(0, int(y[s] - half_y)), min(ny, int(y[s] + half_y) + 2)):
            for i in range(max(0, int(x[s] - half_x)), min(nx, int(x[s] + half_x) + 2)):
                dx, dy = i - x[s], j - y[s]
                if cxx[s] * dx * dx + cyy[s] * dy * dy + cxy[s] * dx * dy <= radius[s] * radius[s]:
                    total += 1
                    foreign += bad[j, i] or (segments[j, i] != 0 and segments[j, i] != s + 1)
        out[s] = foreign / total if total > 0 else 0.0
    return out


@njit(cache=True, nogil=True)
def petrosian_radius(data, bad, segments, x, y, cxx, cyy, cxy, eta):
    """Elliptical radius (units of the RMS axes) at which the local surface brightness is `eta` times the mean inside; NaN if never.

    Pixels of other sources and unusable ones are left out.
    """
    ny, nx = data.shape
    out = np.full(len(x), np.nan)
    flux, area = np.empty(_BINS), np.empty(_BINS)
    reach = _STEP * _BINS
    for s in range(len(x)):
        det = 4.0 * cxx[s] * cyy[s] - cxy[s] ** 2
        if not det > 0.0:
            continue
        flux[:], area[:] = 0.0, 0.0
        half_x, half_y = 2.0 * reach * np.sqrt(cyy[s] / det), 2.0 * reach * np.sqrt(cxx[s] / det)
        for j in range(max(0, int(y[s] - half_y)), min(ny, int(y[s] + half_y) + 2)):
            for i in range(max(0, int(x[s] - half_x)), min(nx, int(x[s] + half_x) + 2)):
                if bad[j, i] or (segments[j, i] != 0 and segments[j, i] != s + 1):
                    continue
                dx, dy = i - x[s], j - y[s]
                k = int(np.sqrt(max(cxx[s] * dx * dx + cyy[s] * dy * dy + cxy[s] * dx * dy, 0.0)) / _STEP)
                if k < _BINS:
                    flux[k] += data[j, i]
                    area[k] += 1.0
        inner_flux = inner_area = 0.0
        last = 1.0
        for k in range(_BINS - 1):
            inner_flux += flux[k]
            inner_area += area[k]
            if (k + 1) * _STEP < 1.0 or inner_area < 4.0 or inner_flux <= 0.0:
                continue
            # Surface brightness round the edge of what lies inside, over two bins on either side.
            lo, hi = max(0, k - 1), min(_BINS, k + 3)
            ring_area = area[lo:hi].sum()
            ratio = flux[lo:hi].sum() / ring_area / (inner_flux / inner_area) if ring_area > 0.0 else 1.0
            if ratio < eta:
                part = (last - eta) / (last - ratio) if last > ratio else 1.0
                out[s] = (k + part) * _STEP
                break
            last = ratio
    return out


@njit(cache=True, nogil=True)
def half_light_radius(data, bad, x, y, total, reach):
    """Radius [pix] of the circle with half of `total`; NaN where the growth curve does not get there within `reach` [pix]."""
    ny, nx = data.shape
    out = np.full(len(x), np.nan)
    growth = np.empty(128)
    for s in range(len(x)):
        n = min(int(2.0 * reach[s]) + 1, 127)
        growth[:] = 0.0
        h = 0.5 * n
        for j in range(max(0, int(y[s] - h)), min(ny, int(y[s] + h) + 2)):
            for i in range(max(0, int(x[s] - h)), min(nx, int(x[s] + h) + 2)):
                if bad[j, i]:
                    continue
                r = np.hypot(i - x[s], j - y[s])
                # A pixel is spread over the radii it covers: 0.8 pixels wide on average.
                lo, hi = max(r - 0.4, 0.0), r + 0.4
                for k in range(int(2.0 * lo), min(int(2.0 * hi) + 1, n)):
                    share = (min(hi, 0.5 * (k + 1)) - max(lo, 0.5 * k)) / (hi - lo)
                    growth[k] += data[j, i] * max(share, 0.0)
        inside = 0.0
        for k in range(n):
            if growth[k] > 0.0 and inside + growth[k] >= 0.5 * total[s] > 0.0:
                out[s] = 0.5 * (k + (0.5 * total[s] - inside) / growth[k])
                break
            inside += growth[k]
    return out


@njit(cache=True, nogil=True)
def _window(n, first, centre, width, out):
    """Pixel means (5 samples) of a Gaussian window times distance to the power 0, 1, 2."""
    for i in range(n):
        a0 = a1 = a2 = 0.0
        for k in range(5):
            d = first + i - centre + 0.2 * k - 0.4
            g = np.exp(-0.5 * d * d / (width * width))
            a0 += g
            a1 += g * d
            a2 += g * d * d
        out[0, i], out[1, i], out[2, i] = a0 / 5.0, a1 / 5.0, a2 / 5.0


@njit(cache=True, nogil=True)
def windowed(data, rms, bad, gain, x, y, width):
    """Gaussian-windowed centroids and moments (SExtractor's definitions): (N, 8) x, y, xx, yy, xy, variances of x, y, covariance.

    width : sigma [pix] of each window. Unusable pixels are left out. NaN where the windowed flux is not positive or the centroid
    walks farther than two pixels.
    """
    ny, nx = data.shape
    out = np.full((len(x), 8), np.nan)
    wx, wy = np.empty((3, 256)), np.empty((3, 256))
    for s in range(len(x)):
        xc, yc, sig = x[s], y[s], width[s]
        h = min(int(4.0 * sig + 2.0), 60)
        ok = False
        for step in range(16):
            x0, x1 = max(0, int(xc) - h), min(nx, int(xc) + h + 2)
            y0, y1 = max(0, int(yc) - h), min(ny, int(yc) + h + 2)
            _window(x1 - x0, x0, xc, sig, wx)
            _window(y1 - y0, y0, yc, sig, wy)
            total = mx = my = 0.0
            for j in range(y1 - y0):
                r0 = r1 = 0.0
                for i in range(x1 - x0):
                    if not bad[y0 + j, x0 + i]:
                        r0 += data[y0 + j, x0 + i] * wx[0, i]
                        r1 += data[y0 + j, x0 + i] * wx[1, i]
                total += r0 * wy[0, j]
                mx += r1 * wy[0, j]
                my += r0 * wy[1, j]
            if not total > 0.0:
                break
            dx, dy = 2.0 * mx / total, 2.0 * my / total
            xc, yc = xc + dx, yc + dy
            if not np.hypot(xc - x[s], yc - y[s]) < 2.0:
                break
            if dx * dx + dy * dy < 4e-8:
                ok = True
                break
        if not ok:
            continue
        xx = yy = xy = exx = eyy = exy = 0.0
        for j in range(y1 - y0):
            for i in range(x1 - x0):
                if bad[y0 + j, x0 + i]:
                    continue
                d = data[y0 + j, x0 + i]
                xx += d * wx[2, i] * wy[0, j]
                yy += d * wx[0, i] * wy[2, j]
                xy += d * wx[1, i] * wy[1, j]
                v = rms[y0 + j, x0 + i] ** 2 + max(d, 0.0) / gain
                exx += v * (wx[1, i] * wy[0, j]) ** 2
                eyy += v * (wx[0, i] * wy[1, j]) ** 2
                exy += v * wx[1, i] * wy[0, j] * wx[0, i] * wy[1, j]
        out[s, 0], out[s, 1] = xc, yc
        out[s, 2], out[s, 3], out[s, 4] = xx / total, yy / total, xy / total
        out[s, 5], out[s, 6], out[s, 7] = 4.0 * exx / total**2, 4.0 * eyy / total**2, 4.0 * exy / total**2
    return out
