"""Compiled loops of the simulator: point sources, charge bleeding, cosmic-ray tracks."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Gauss-Legendre abscissae and weights of the integral over one pixel.
_X3, _W3 = (-0.3872983346207417, 0.0, 0.3872983346207417), (5 / 18, 8 / 18, 5 / 18)
_X2, _W2 = (-0.28867513459481287, 0.28867513459481287), (0.5, 0.5)


@njit(cache=True, nogil=True)
def _profile(q, wide, ratio):
    u = 1.0 + q
    v = 1.0 + q / (ratio * ratio)
    return (1.0 - wide) / (u * u * u * np.sqrt(u)) + wide / (ratio * ratio * v * v * v * np.sqrt(v))


@njit(cache=True, nogil=True)
def _pixel_mean(dx, dy, a, b, c, wide, ratio, fine, medium):
    r2 = dx * dx + dy * dy
    if r2 < fine:
        total = 0.0
        for j in range(3):
            y = dy + _X3[j]
            for i in range(3):
                x = dx + _X3[i]
                total += _W3[i] * _W3[j] * _profile(a * x * x + 2.0 * b * x * y + c * y * y, wide, ratio)
        return total
    if r2 < medium:
        total = 0.0
        for j in range(2):
            y = dy + _X2[j]
            for i in range(2):
                x = dx + _X2[i]
                total += _W2[i] * _W2[j] * _profile(a * x * x + 2.0 * b * x * y + c * y * y, wide, ratio)
        return total
    return _profile(a * dx * dx + 2.0 * b * dx * dy + c * dy * dy, wide, ratio)


@njit(cache=True, nogil=True)
def add_points(image, x, y, flux, form, wide, ratio, floor, fine, medium):
    """Add pixel-integrated point sources to `image` (ny, nx).

    x, y : zero-based pixels. flux : total. form : (n, 3) quadratic form (a, b, c) of the profile [pix^-2]. `wide` of the flux lies in a
    second profile `ratio` times as wide. Each stamp ends where the surface brightness falls below `floor`. Nine
    samples a pixel within a squared distance `fine` [pix^2], four within `medium`, one outside.
    """
    ny, nx = image.shape
    for k in range(len(x)):
        a, b, c = form[k, 0], form[k, 1], form[k, 2]
        root = np.sqrt(a * c - b * b)
        peak = flux[k] * 2.5 / np.pi * root
        scale = 1.0 / np.sqrt(root)
        core = scale * max(abs((1.0 - wide) * peak) / floor, 1.0) ** (1.0 / 7.0)
        wing = scale * ratio * max(abs(wide * peak) / (ratio * ratio * floor), 1.0) ** (1.0 / 7.0)
        radius = min(max(core, wing) + 1.0, 200.0)
        limit = radius * radius
        y0, y1 = max(int(np.ceil(y[k] - radius)), 0), min(int(np.floor(y[k] + radius)), ny - 1)
        x0, x1 = max(int(np.ceil(x[k] - radius)), 0), min(int(np.floor(x[k] + radius)), nx - 1)
        for j in range(y0, y1 + 1):
            dy = j - y[k]
            for i in range(x0, x1 + 1):
                dx = i - x[k]
                if dx * dx + dy * dy <= limit:
                    image[j, i] += peak * _pixel_mean(dx, dy, a, b, c, wide, ratio, fine, medium)


@njit(cache=True, nogil=True)
def add_rings(image, x, y, brightness, inner, outer):
    """Add flat rings (out-of-focus reflections): `brightness` per pixel between two radii [pix]."""
    ny, nx = image.shape
    for k in range(len(x)):
        for j in range(max(int(y[k] - outer), 0), min(int(y[k] + outer) + 1, ny - 1) + 1):
            for i in range(max(int(x[k] - outer), 0), min(int(x[k] + outer) + 1, nx - 1) + 1):
                r = np.sqrt((i - x[k]) ** 2 + (j - y[k]) ** 2)
                if inner <= r <= outer:
                    image[j, i] += brightness[k]


@njit(cache=True, nogil=True)
def bleed(charge, well):
    """Spill what exceeds the full well along the columns (y), half to each side; what runs off the edge is lost. Returns the mask."""
    ny, nx = charge.shape
    full = np.zeros((ny, nx), np.bool_)
    for i in range(nx):
        for j in range(ny):
            if charge[j, i] <= well[j, i] or full[j, i]:
                continue
            half = 0.0
            k = j
            while k < ny and charge[k, i] > well[k, i]:  # the whole saturated run first
                half += 0.5 * (charge[k, i] - well[k, i])
                charge[k, i] = well[k, i]
                full[k, i] = True
                k += 1
            up, low = half, half
            while up > 0.0 and k < ny:
                room = well[k, i] - charge[k, i]
                if up >= room:
                    up -= room
                    charge[k, i] = well[k, i]
                    full[k, i] = True
                else:
                    charge[k, i] += up
                    up = 0.0
                k += 1
            k = j - 1
            while low > 0.0 and k >= 0:
                room = well[k, i] - charge[k, i]
                if low >= room:
                    low -= room
                    charge[k, i] = well[k, i]
                    full[k, i] = True
                else:
                    charge[k, i] += low
                    low = 0.0
                k -= 1
    return full


@njit(cache=True, nogil=True)
def add_tracks(charge, x, y, length, angle, electrons, steps):
    """Deposit cosmic-ray tracks: `electrons` spread evenly over a straight path of `length` pixels from (x, y), pixel by pixel."""
    ny, nx = charge.shape
    for k in range(len(x)):
        n = steps * (int(length[k]) + 1)
        for s in range(n):
            t = (s + 0.5) / n * length[k]
            i = int(np.floor(x[k] + t * np.cos(angle[k]) + 0.5))
            j = int(np.floor(y[k] + t * np.sin(angle[k]) + 0.5))
            if 0 <= i < nx and 0 <= j < ny:
                charge[j, i] += electrons[k] / n


@njit(cache=True)
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def draw_by_id(ids, seed, columns):
    """Standard normal numbers (n, columns) that depend only on each object's id and the seed (splitmix64, Box-Muller)."""
    out = np.empty((len(ids), columns))
    golden = np.uint64(0x9E3779B97F4A7C15)
    for k in range(len(ids)):
        state = _mix(np.uint64(ids[k]) + golden * np.uint64(seed + 1))
        for c in range(columns):
            state += golden
            u = (np.float64(_mix(state) >> np.uint64(11)) + 0.5) / 9007199254740992.0
            state += golden
            v = np.float64(_mix(state) >> np.uint64(11)) / 9007199254740992.0
            out[k, c] = np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
    return out


@njit(cache=True, nogil=True)
def galaxy_points(radius, axis_ratio, angle, bulge, number, x, y):
    """Equal-light points of inclined two-component galaxies: an exponential disc and a steeper bulge, on Vogel spirals.

    radius : half-light [pix]. number : points of each galaxy. x, y : outputs, offsets [pix], one galaxy after the other.
    """
    place = 0
    for k in range(len(radius)):
        n = number[k]
        inner = int(np.round(bulge[k] * n))
        for m in range(n):
            if m < inner:
                part = (m + 0.5) / inner
                r = 0.6 * radius[k] * part / max(1.0 - part, 0.02) ** 1.1
            else:
                part = (m - inner + 0.5) / (n - inner)
                r = np.sqrt(2.0 * part) + part  # then Newton steps on 1 - (1 + r) exp(-r) = part
                for _ in range(20):
                    fall = np.exp(-r)
                    step = (1.0 - (1.0 + r) * fall - part) / max(r * fall, 1e-9)
                    r = min(max(r - step, 1e-6), 12.0)
                    if abs(step) < 1e-3:
                        break
                r *= radius[k] / 1.678
            turn = m * 2.399963229728653
            u, v = r * np.cos(turn), r * axis_ratio[k] * np.sin(turn)
            x[place] = u * np.cos(angle[k]) - v * np.sin(angle[k])
            y[place] = u * np.sin(angle[k]) + v * np.cos(angle[k])
            place += 1
