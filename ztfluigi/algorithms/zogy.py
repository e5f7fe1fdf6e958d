"""Proper image subtraction in tiles: D, P_D, S and S_corr of Zackay, Ofek & Gal-Yam 2016 (ApJ 830, 27; ZOGY)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import fft

#: Side of the PSF stamp of a difference image [pix].
STAMP = 25
#: Overlap of tiles: kernels reach at most this far [pix].
MARGIN = 32
#: Squared amplitude (relative to zero frequency) below which both PSFs are taken to pass nothing.
PSF_FLOOR = 1e-8
#: Amplitude of P_D (1 at zero frequency) of which a calmed difference keeps half: below it lies less than 1 % of its power.
BARELY = 0.05


@dataclass(frozen=True)
class TileGrid:
    """Edges of the tiles along both axes [pix]; tile (j, i) covers rows[j]:rows[j+1], cols[i]:cols[i+1]."""

    rows: np.ndarray
    cols: np.ndarray

    @classmethod
    def covering(cls, shape: tuple[int, int], size: int) -> TileGrid:
        """Equal tiles of about `size` pixels."""
        return cls(*(np.linspace(0, n, max(1, round(n / size)) + 1).round().astype(int) for n in shape))

    def index(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Tile (j, i) of zero-based pixels; outside counts to the nearest tile."""
        j = np.clip(np.searchsorted(self.rows, np.rint(y), side="right") - 1, 0, len(self.rows) - 2)
        i = np.clip(np.searchsorted(self.cols, np.rint(x), side="right") - 1, 0, len(self.cols) - 2)
        return j, i


def proper_difference(science, reference, science_variance, reference_variance, stamps: Callable, *, tiles: TileGrid,
                      astrometric_rms: tuple[float, float],
                      calm: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Difference, matched-filter score and corrected score of two images on one grid and flux scale.

    science, reference : float32 (ny, nx) [DN], background-free, finite. science_variance, reference_variance : float32 (ny, nx) [DN^2];
        noise is taken as independent between pixels. stamps : (j, i) -> (PSF of science, PSF of reference) of a tile, square, odd,
        both for the light their fluxes count (their sums may exceed 1 by the wings beyond).
    astrometric_rms : scatter of the relative place in x and y [pix]. calm : float32 (ny, nx), 1 where D goes without the frequencies that
        its PSF does not pass, 0 where it keeps them (white noise), between the two in between.

    Returns (D, S, factor, response, P_D): D float32 [DN], its point sources have PSF P_D (tile rows, tile cols, 25, 25; sum 1) and true
    flux (the paper's D over F_D); S float32 in units of its own sky noise; factor float32, S_corr = factor S: sky noise of S over its
    full noise, with source photons of both images and astrometric noise (the paper's equations 13-16, 25-31; the latter from S_R alone, so
    that a transient does not pay it); response (tile rows, tile cols, 2), what a level of 1 DN in D adds to S, and the peak of S of a
    point source of 1 DN.
    """
    out = tuple(np.empty(science.shape, np.float32) for _ in range(3))
    response = np.empty((len(tiles.rows) - 1, len(tiles.cols) - 1, 2))
    psf_grid = np.empty((*response.shape[:2], STAMP, STAMP))
    for j in range(len(tiles.rows) - 1):
        for i in range(len(tiles.cols) - 1):
            science_psf, reference_psf = stamps(j, i)
            inner = np.s_[tiles.rows[j]:tiles.rows[j + 1], tiles.cols[i]:tiles.cols[i + 1]]
            images, core = _cut(inner, science, reference, science_variance, reference_variance)
            psf_grid[j, i], response[j, i] = _subtract_tile(*images, science_psf, reference_psf, astrometric_rms, core,
                                                            None if calm is None else calm[inner], [plane[inner] for plane in out])
    return *out, response, psf_grid


def _cut(inner, *planes):
    """Tile with its margins, zero-padded to a fast FFT size (variances: by their medians); and where the tile lies inside."""
    (y0, y1), (x0, x1) = ((s.start, s.stop) for s in inner)
    ny, nx = planes[0].shape
    ya, yb, xa, xb = max(0, y0 - MARGIN), min(ny, y1 + MARGIN), max(0, x0 - MARGIN), min(nx, x1 + MARGIN)
    size = tuple(fft.next_fast_len(n + 2 * MARGIN, real=True) for n in (y1 - y0, x1 - x0))
    top, left = MARGIN - (y0 - ya), MARGIN - (x0 - xa)
    cut = []
    for k, plane in enumerate(planes):
        part = plane[ya:yb, xa:xb]
        padded = np.full(size, 0.0 if k < 2 else np.median(part[::4, ::4]), np.float32)
        padded[top:top + part.shape[0], left:left + part.shape[1]] = part
        cut.append(padded)
    return cut, np.s_[MARGIN:MARGIN + y1 - y0, MARGIN:MARGIN + x1 - x0]


def _subtract_tile(science, reference, science_variance, reference_variance, science_psf, reference_psf, astrometric_rms, core, calm, out):
    """Fill the three planes of `out` for one padded tile; returns P_D as a stamp and the response of S to a level and to a point source."""
    # The 30th percentile is the sky even where stars cover half of the tile.
    sky_sci, sky_ref = (float(np.percentile(v[core][::4, ::4], 30.0)) for v in (science_variance, reference_variance))
    size = science.shape
    floor = PSF_FLOOR * (sky_sci + sky_ref)
    small = 2 * MARGIN, 2 * MARGIN
    p_sci, p_ref = (fft.rfft2(_centred(p, small)) for p in (science_psf, reference_psf))
    kernels = _kernels(p_sci, p_ref, sky_sci, sky_ref, floor)
    peak = fft.irfft2(kernels[0] * p_sci, small)[0, 0]
    k_sci, k_ref, psf_diff = (fft.irfft2(kernel, small) for kernel in kernels)
    s_noise = np.sqrt(sky_sci * np.sum(k_sci**2) + sky_ref * np.sum(k_ref**2))

    p_sci, p_ref = (_transform(p, size) for p in (science_psf, reference_psf))
    n, r = fft.rfft2(science), fft.rfft2(reference)
    _combine(p_sci, p_ref, n, r, sky_sci, sky_ref, floor)
    difference, score, score_ref = (fft.irfft2(plane, size, overwrite_x=k > 0) for k, plane in enumerate((p_sci, p_ref, r)))
    out[0][...] = difference[core]
    if calm is not None and calm.any():
        # n holds the share of each frequency by now
        p_sci *= n.real
        out[0][...] += calm * (fft.irfft2(p_sci, size, overwrite_x=True)[core] - out[0])
    v_sci, v_ref = fft.rfft2(science_variance), fft.rfft2(reference_variance)
    v_sci *= _transform(_stamp(k_sci**2), size)
    v_ref *= _transform(_stamp(k_ref**2), size)
    v_sci += v_ref
    variance = fft.irfft2(v_sci, size, overwrite_x=True)
    _score_and_factor(score, score_ref, variance, *astrometric_rms, s_noise, core[0].start, core[1].start, out[1], out[2])
    stamp = np.roll(psf_diff, (STAMP // 2, STAMP // 2), (0, 1))[:STAMP, :STAMP]
    return stamp / stamp.sum(), (1.0 / ((sky_sci + sky_ref) * s_noise), peak / s_noise)


def _centred(stamp: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The stamp in a larger float32 frame with its centre at pixel (0, 0)."""
    half = stamp.shape[0] // 2
    frame = np.zeros(size, np.float32)
    frame[:stamp.shape[0], :stamp.shape[1]] = stamp
    return np.roll(frame, (-half, -half), (0, 1))


def _stamp(kernel: np.ndarray) -> np.ndarray:
    """A kernel of even side with its centre at pixel (0, 0) as an odd stamp with its centre in the middle."""
    half = kernel.shape[0] // 2 - 1
    return np.roll(kernel, (half, half), (0, 1))[:2 * half + 1, :2 * half + 1]


def _transform(stamp: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """rfft2 of `_centred(stamp, size)`; rows without light are not transformed."""
    m, half = stamp.shape[0], stamp.shape[0] // 2
    rows = np.zeros((m, size[1]), np.float32)
    rows[:, :half + 1], rows[:, -half:] = stamp[:, half:], stamp[:, :half]
    light = fft.rfft(rows, axis=1)
    frame = np.zeros((size[0], light.shape[1]), np.complex64)
    frame[:half + 1], frame[-half:] = light[half:], light[:half]
    return fft.fft(frame, axis=0, overwrite_x=True)


@njit(cache=True, nogil=True)
def _kernels(p_sci, p_ref, sky_sci, sky_ref, floor):
    """Transforms of k_n, k_r and P_D (ZOGY equations 28, 29, 14 with both zero points 1)."""
    k_sci, k_ref, psf = np.empty_like(p_sci), np.empty_like(p_sci), np.empty_like(p_sci)
    for j in range(p_sci.shape[0]):
        for i in range(p_sci.shape[1]):
            a, b = p_sci[j, i], p_ref[j, i]
            power_sci, power_ref = a.real**2 + a.imag**2, b.real**2 + b.imag**2
            total = sky_sci * power_ref + sky_ref * power_sci + floor
            k_sci[j, i] = np.conj(a) * np.float32(power_ref / total)
            k_ref[j, i] = np.conj(b) * np.float32(power_sci / total)
            psf[j, i] = a * b * np.float32(np.sqrt((sky_sci + sky_ref) / total))
    return k_sci, k_ref, psf


@njit(cache=True, nogil=True)
def _combine(p_sci, p_ref, n, r, sky_sci, sky_ref, floor):
    """In place, to save memory: p_sci becomes D, p_ref becomes S, r becomes S_R (ZOGY equations 13, 12, 27).

    n becomes the share of each frequency that D keeps where it is calmed: little of those that P_D, the PSF of D, barely passes.
    """
    for j in range(n.shape[0]):
        for i in range(n.shape[1]):
            a, b = p_sci[j, i], p_ref[j, i]
            power_sci, power_ref = a.real**2 + a.imag**2, b.real**2 + b.imag**2
            total = sky_sci * power_ref + sky_ref * power_sci + floor
            from_ref = np.conj(b) * r[j, i] * np.float32(power_sci / total)
            p_sci[j, i] = (b * n[j, i] - a * r[j, i]) * np.float32(np.sqrt((sky_sci + sky_ref) / total))
            p_ref[j, i] = np.conj(a) * n[j, i] * np.float32(power_ref / total) - from_ref
            r[j, i] = from_ref
            passed = (power_sci * power_ref * (sky_sci + sky_ref) / total) ** 2
            n[j, i] = passed / (passed + BARELY**4)


@njit(cache=True, nogil=True)
def _score_and_factor(score, score_ref, variance, rms_x, rms_y, s_noise, y0, x0, out_score, out_factor):
    """S in its sky noise, and that noise over the square root of V(S_N) + V(S_R) + V_ast (ZOGY equation 25)."""
    least, s_noise = np.float32((0.1 * s_noise) ** 2), np.float32(s_noise)
    half_x, half_y, inverse = np.float32((0.5 * rms_x) ** 2), np.float32((0.5 * rms_y) ** 2), np.float32(1.0) / s_noise
    for j in range(out_score.shape[0]):
        for i in range(out_score.shape[1]):
            y, x = y0 + j, x0 + i
            slope_x, slope_y = score_ref[y, x + 1] - score_ref[y, x - 1], score_ref[y + 1, x] - score_ref[y - 1, x]
            total = max(variance[y, x], least) + half_x * slope_x * slope_x + half_y * slope_y * slope_y
            out_score[j, i] = score[y, x] * inverse
            out_factor[j, i] = s_noise / np.sqrt(total)
