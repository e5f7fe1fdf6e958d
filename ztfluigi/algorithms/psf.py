"""Empirical effective PSF from the stars of the image (Anderson & King 2000, PASP 112, 1360), varying over the quadrant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from scipy.ndimage import convolve1d, gaussian_filter

from ztfluigi.algorithms import psf_kernels as kernels
from ztfluigi.algorithms.psf_photometry import pixel_noise
from ztfluigi.algorithms.psf_stars import Stamps, half_light_radius, half_sample_mode, require, select_stars, subtract_neighbours
from ztfluigi.algorithms.psf_wings import UNIT_FLUX_RADIUS, WING_START, levelled, table_radius, wing_correction
from ztfluigi.model.config.photometry import PsfConfig
from ztfluigi.model.psf import PsfModel

#: Samples of the table per pixel.
OVERSAMPLE = 4
#: Gaussian FWHM [pix] with the second moment of a square pixel.
PIXEL_FWHM = np.sqrt(8.0 * np.log(2.0) / 12.0)


def build_psf(data: np.ndarray, sigma: np.ndarray, mask: np.ndarray, detections: np.ndarray, *,
              config: PsfConfig = PsfConfig()) -> tuple[PsfModel, dict]:
    """Effective PSF of a background-subtracted image.

    Isolated, unsaturated, bright detections are cut out; in turns each star's centre and flux are fitted with the present PSF, stars
    off the stellar locus (second moment, goodness of fit) are dropped, and the residuals, sorted by sub-pixel place, correct the table
    through a least-squares polynomial in position. Neighbours, masked pixels and outlying pixels (cosmic rays) do not enter. The centre
    of the PSF is its Gaussian-windowed centroid. It has unit flux within a radius of 12 pixels, at every place: a PSF flux is the flux
    in that aperture, and a 25 x 25 rendering sums to about one.

    Parameters
    ----------
    data, sigma : float32 (ny, nx) [DN]. mask : uint16; pixels with UNUSABLE bits (6141) are ignored.
    detections : structured, with x, y (zero-based), flux, fluxerr [DN].

    Returns
    -------
    psf, metrics : metrics hold fwhm_pix (SEEING: median FWHM over the quadrant with the width of the pixel taken out in quadrature),
        fwhm_effective_pix (with the pixel), n_psf_stars, psf_degree, ellipticity, psf_error (see `PsfModel.error`).

    Raises
    ------
    TooFewCalibrators : fewer than `min_stars` stars; infobits bit 20.
    """
    stamps, neighbours = select_stars(data, sigma, mask, detections, config)
    noise = pixel_noise(data, sigma, mask)
    psf = _first_guess(stamps, noise, data.shape, config)
    error = 0.1
    m = psf.tables.shape[1]
    work = np.empty((len(stamps.x), m, m), np.float32), np.empty((len(stamps.x), m, m), np.float32)
    for turn in range(config.iterations):
        degree = 0 if turn < 2 else _degree(len(stamps.x), config)
        psf = _with_degree(psf, degree)
        if turn == 2:
            subtract_neighbours(stamps, neighbours, psf.tables[0], psf.oversample)
        residual, chi_stars, sharp = _fit_stamps(stamps, noise, psf, error)
        if turn < 2 and len(sharp) >= 40:
            sharp = _without_trend(sharp, PsfModel(psf.tables, 2, psf.shape, OVERSAMPLE).monomials(stamps.quadrant_x, stamps.quadrant_y))
        good = _locus(chi_stars, sharp, config.clip if turn >= 2 else 2 * config.clip)
        require(np.count_nonzero(good), config)
        tolerance = max(config.core_error, 3 * error) if turn >= 2 else 0.3
        error = _model_error(stamps, residual, psf, noise, good)
        psf = _corrected(psf, stamps, residual, good, tolerance, noise, work)
        if turn >= 2:
            stamps = stamps.keep(good)
    effective = float(np.median([psf.fwhm(x, y) for x, y in zip(*_places(psf, 3), strict=True)]))
    metrics = {"fwhm_pix": float(np.sqrt(max(effective**2 - PIXEL_FWHM**2, 0.25))), "fwhm_effective_pix": effective,
               "n_psf_stars": len(stamps.x), "psf_degree": psf.degree, "ellipticity": psf.ellipticity(), "psf_error": error}
    return replace(psf, error=error), metrics


def _model_error(stamps: Stamps, residual: np.ndarray, psf: PsfModel, noise, good: np.ndarray) -> float:
    """Relative error of the PSF (`PsfModel.error`) that explains the residuals of the brighter half of the stars beyond noise."""
    size = 2 * stamps.half + 1
    bright = np.flatnonzero(good & (stamps.flux >= np.median(stamps.flux[good])))
    reach = np.s_[bright, stamps.half - 3:stamps.half + 4, stamps.half - 3:stamps.half + 4]
    values = residual.reshape(-1, size, size)[reach].astype(float)
    variance = stamps.variance.reshape(-1, size, size)[reach] - noise.slope * values
    values[~np.isfinite(variance)] = np.nan
    excess = np.nansum(values**2 - np.maximum(variance, noise.floor), axis=(1, 2))
    peak, terms = psf.tables[0].max(), len(psf.tables)
    seen = np.sum(excess) / np.sum(stamps.flux[bright] ** 2 * peak) * len(bright) / max(len(bright) - terms, 1)
    # What the noise of the few stars themselves leaves in the table is common to them and does not show in their residuals.
    own_noise = terms * noise.sky_sigma**2 / np.sum(stamps.flux[good] ** 2) / peak**2
    return float(np.sqrt(np.clip(seen, 1e-7, 0.1) + own_noise))


def _degree(n_stars: int, config: PsfConfig) -> int:
    """Order of the polynomial that the number of stars can carry."""
    return min(config.degree, int(np.searchsorted([20, 50, 120], n_stars, side="right")))


def _first_guess(stamps: Stamps, noise, shape, config) -> PsfModel:
    """The round Moffat profile, pixel-integrated, that fits the brighter stars best.

    In undersampled images centres and profile can hide each other's errors; the later free table finds its way out of that only from
    a start of nearly the right width.
    """
    bright = stamps.keep(stamps.flux >= np.sort(stamps.flux)[::-1][min(100, len(stamps.flux)) - 1])
    start = bright.x.copy(), bright.y.copy(), bright.flux.copy()
    fwhm, best = 0.9 * 2.0 * half_sample_mode(half_light_radius(stamps)), (np.inf, None)
    for beta, turns in ((3.2, 4), (2.5, 2), (4.5, 2), (10.0, 2)):
        for turn in range(turns + 1):
            psf = _moffat(fwhm, shape, config, beta)
            bright.x[:], bright.y[:], bright.flux[:] = start
            _, chi, sharp = _fit_stamps(bright, noise, psf, 0.01)
            seen = np.isfinite(chi) & np.isfinite(sharp)
            require(np.count_nonzero(seen), config)
            if turn < turns:
                change = 8.0 * np.log(2.0) * half_sample_mode(sharp[seen])
                fwhm = np.sqrt(np.clip(fwhm**2 + change, 0.5 * fwhm**2, 2.0 * fwhm**2))
        best = min(best, (float(np.median(chi[seen])), psf), key=lambda pair: pair[0])
    return best[1]


def _moffat(fwhm: float, shape, config, beta: float) -> PsfModel:
    """Constant Moffat PSF integrated over pixels."""
    half = config.half_size * OVERSAMPLE
    offset = np.arange(-half, half + 1) / OVERSAMPLE
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    table = (1.0 + (offset[:, None] ** 2 + offset**2) / alpha**2) ** -beta
    pixel = np.array([0.5] + [1.0] * (OVERSAMPLE - 1) + [0.5]) / OVERSAMPLE
    table = convolve1d(convolve1d(table, pixel, axis=0), pixel, axis=1)
    return _normalised(PsfModel(table[None], 0, shape, OVERSAMPLE))


def _with_degree(psf: PsfModel, degree: int) -> PsfModel:
    terms = (degree + 1) * (degree + 2) // 2
    tables = np.zeros((terms, *psf.tables.shape[1:]))
    shared = min(terms, len(psf.tables))
    tables[:shared] = psf.tables[:shared]
    return PsfModel(tables, degree, psf.shape, psf.oversample)


def _fit_stamps(stamps: Stamps, noise, psf: PsfModel, error: float):
    """Fit every star on its stamp; returns the residual image, chi and sharp of the fits. Centres and fluxes change in place."""
    grid = kernels.psf_grid(psf, 12)
    cell = grid.cell(stamps.quadrant_x, stamps.quadrant_y)
    n = len(stamps.x)
    fit_half = np.full(n, int(np.clip(np.ceil(1.7 * psf.fwhm()), 3, kernels.HALF)))
    draw_half = np.full(n, kernels.HALF)
    residual = stamps.image.copy()
    kernels.add_stars(residual, grid.coefficients, cell, stamps.x, stamps.y, stamps.flux, -1.0, draw_half)
    common = (residual, stamps.variance, noise.slope, noise.floor, error, grid.coefficients, cell, stamps.x, stamps.y, stamps.flux)
    alone = np.zeros(n + 1, np.int64)
    x0, y0 = stamps.x.copy(), stamps.y.copy()
    for _ in range(3):
        kernels.sweep(*common, fit_half, draw_half, x0, y0, 2.0, True, 0.03, np.ones(n, bool), alone, alone)
    quality = np.empty((n, 3))
    kernels.measure_stars(*common, fit_half, np.empty((n, 6)), quality)
    return residual, quality[:, 0], quality[:, 1]


def _locus(chi: np.ndarray, sharp: np.ndarray, clip: float) -> np.ndarray:
    """Stars near the mode of the second moment and with an acceptable fit.

    The scatter of the stars is taken from the sharp side of the mode: galaxies and blends lie on the other.
    """
    finite = np.isfinite(chi) & np.isfinite(sharp)
    if not finite.any():
        return finite
    centre = half_sample_mode(sharp[finite])
    good = finite
    for _ in range(4):
        below = centre - sharp[finite & (sharp <= centre)]
        width = max(1.4826 * np.median(below), 1e-3) if below.size else 1e-3
        middle = np.median(chi[good])
        spread = max(1.4826 * np.median(np.abs(chi[good] - middle)), 0.05)
        good = finite & (np.abs(sharp - centre) <= clip * width) & (chi <= middle + clip * spread)
        if not good.any():
            break
        centre = np.median(sharp[good])
    return good


def _without_trend(sharp: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Take out what a PSF varying over the quadrant does to the second moment as long as the model is constant."""
    good = np.isfinite(sharp)
    for _ in range(5):
        terms = np.linalg.lstsq(design[:, good].T, sharp[good], rcond=None)[0]
        rest = sharp - terms @ design
        spread = 1.4826 * np.median(np.abs(rest[good]))
        good = np.abs(rest) <= 2.5 * max(spread, 1e-4)
    return rest


@njit(cache=True, nogil=True)
def _deposit(residual, variance, x, y, flux, used, noise, level, table, slope, floor, tolerance, half, step, values, count, sums):
    """Relative residual of the pixel nearest to every table point, star by star: values (N, m, m); count is 1 where there is one.
    sums (2, m, m) : weighted sum and weight of the residuals in the bin of the table where each pixel centre falls. The weight of a star
    follows its `noise` over signal; in the core `level` joins it, where the model and not the noise limits a star.

    Left out (zero): unusable pixels and those farther than four sigma, noise and `tolerance` of the model together. The sky of a
    star is the mean residual beyond 10.5 pixels, clipped alike, so that faint neighbours weigh equally on both.
    """
    size = 2 * half + 1
    m = table.shape[0]
    c = m // 2
    peak = table[c, c]
    fraction = np.zeros((size, size), np.float32)
    seen = np.zeros((size, size), np.float32)
    column = np.empty(m, np.int64)
    for s in range(len(x)):
        if not used[s]:
            values[s] = 0.0
            count[s] = 0.0
            continue
        top = int(np.floor(y[s] + 0.5)) // size * size
        ys, xs = y[s] - top, x[s]
        n, sky = 0, 0.0
        for i in range(size):
            for j in range(size):
                v, r = variance[top + i, j], residual[top + i, j]
                if v < 1e30 and (i - ys) ** 2 + (j - xs) ** 2 > 110.25 and r * r < 16.0 * v:
                    sky += r
                    n += 1
        sky = sky / n if n > 20 else 0.0
        for i in range(size):
            a = int(np.floor((i - ys) * step + c + 0.5))
            for j in range(size):
                r = residual[top + i, j] - sky
                b = int(np.floor((j - xs) * step + c + 0.5))
                p = table[a, b] if 0 <= a < m and 0 <= b < m else 0.0
                v = variance[top + i, j]
                good = v < 1e30 and r * r < 16.0 * (max(v - slope * r, floor) + (tolerance * flux[s] * p) ** 2)
                if good and 0 <= a < m and 0 <= b < m:
                    weight = 1.0 / (noise[s] ** 2 + level**2 * max(p, 0.0) / peak)
                    sums[0, a, b] += weight * r / flux[s]
                    sums[1, a, b] += weight
                fraction[i, j] = r / flux[s] if good else 0.0
                seen[i, j] = 1.0 if good else 0.0
        for b in range(m):
            column[b] = min(max(int(np.floor(xs + (b - c) / step + 0.5)), 0), size - 1)
        for a in range(m):
            i = min(max(int(np.floor(ys + (a - c) / step + 0.5)), 0), size - 1)
            for b in range(m):
                values[s, a, b] = fraction[i, column[b]]
                count[s, a, b] = seen[i, column[b]]


def _corrected(psf: PsfModel, stamps: Stamps, residual, good, tolerance, noise, work) -> PsfModel:
    """The PSF with the mean residual of its stars added, as a polynomial in position, then centred and normalised."""
    n, m = len(stamps.x), psf.tables.shape[1]
    values, count, sums = work[0][:n], work[1][:n], np.zeros((2, m, m))
    # Weights by flux, levelled where the model and not the noise limits a star.
    noise_to_signal = noise.sky_sigma / stamps.flux
    level = float(np.hypot(np.min(noise_to_signal[good]), 1e-3))
    weight = np.where(good, 1.0 / (noise_to_signal**2 + level**2), 0.0)
    _deposit(residual, stamps.variance, stamps.x, stamps.y, stamps.flux, good, noise_to_signal, level, psf.tables[0], noise.slope,
             noise.floor, tolerance, stamps.half, float(psf.oversample), values, count, sums)
    fwhm, radius = psf.fwhm(), table_radius(psf)
    # A wide PSF has no fine structure; few stars leave gaps between their sub-pixel phases, which a wider kernel bridges.
    core = max(0.11 * fwhm, 0.35 * np.sqrt(15.0 / np.count_nonzero(good)))
    tables = psf.tables.copy()
    weight_scale = np.min(noise_to_signal[good]) ** 2 + level**2 * np.abs(psf.tables[0]) / psf.tables[0].max()
    tables[0] += _mean_correction(sums, weight_scale, psf, radius, fwhm, core)
    if psf.degree > 0:
        root = np.sqrt(weight)
        monomials = psf.monomials(stamps.quadrant_x, stamps.quadrant_y)
        inverse = (np.linalg.pinv((monomials * root).T, rcond=1e-6) * root)[1:]
        update = (inverse.astype(np.float32) @ values.reshape(n, -1)).reshape(-1, m, m).astype(float)
        update /= np.maximum(((weight / weight.sum()).astype(np.float32) @ count.reshape(n, -1)).reshape(m, m), 0.3)
        update = np.array([_smooth(term, radius, fwhm, psf.oversample, max(0.2, 0.11 * fwhm)) for term in update])
        tables[1:] += _wings_follow_core(update, psf, radius, fwhm)
    own_noise = noise.sky_sigma / np.sqrt(np.sum(stamps.flux[good] ** 2))
    return _normalised(levelled(_centred(replace(psf, tables=tables), fwhm), fwhm, own_noise))


def _mean_correction(sums, scale, psf, radius, fwhm, core) -> np.ndarray:
    """Weighted mean residual: smoothed in the core, harmonics of few knots in the wings; zero far from any data.

    scale (m, m) : makes weights of different radii alike, so that smoothing does not pull the wings inwards.
    """
    value, weight = sums * scale
    total = _smooth(weight, radius, fwhm, psf.oversample, core)
    smooth = _smooth(value, radius, fwhm, psf.oversample, core) / np.maximum(total, 1e-3 * weight.max())
    part = np.clip(radius / fwhm - WING_START, 0.0, 1.0)
    return smooth * (1.0 - part) + part * wing_correction(sums, psf.tables[0], radius, fwhm)


def _wings_follow_core(update: np.ndarray, psf: PsfModel, radius: np.ndarray, fwhm: float) -> np.ndarray:
    """Beyond two FWHM, where single stars are lost in the noise, let the PSF vary only by the changes of scale and shear seen in its core."""
    half = psf.tables.shape[1] // 2
    offset = np.arange(-half, half + 1) / psf.oversample
    down, across = np.gradient(psf.tables[0], 1.0 / psf.oversample)
    y, x = offset[:, None], offset
    modes = np.array([2.0 * psf.tables[0] + y * down + x * across, x * across - y * down, y * across + x * down]).reshape(3, -1)
    core = np.clip(2.2 - radius / fwhm, 0.0, 1.0)
    weighted = modes * core.ravel()
    amplitude = np.linalg.solve(weighted @ modes.T, weighted @ update.reshape(len(update), -1).T)
    stretched = (amplitude.T @ modes).reshape(update.shape)
    return stretched + core * (update - stretched)


def _smooth(term: np.ndarray, radius: np.ndarray, fwhm: float, step: int, core: float) -> np.ndarray:
    """Smooth a correction by `core` pixels in the core and by 1.2 in the wings, where the profile has no structure so fine."""
    levels = [gaussian_filter(term, sigma * step, mode="nearest", truncate=3.0) for sigma in (core, max(core, 0.5), max(core, 1.2))]
    first = np.clip((radius - 0.8 * fwhm) / (0.5 * fwhm), 0.0, 1.0)
    second = np.clip((radius - 2.0 * fwhm) / fwhm, 0.0, 1.0)
    return (levels[0] * (1 - first) + levels[1] * first) * (1 - second) + levels[2] * second


def _places(psf: PsfModel, n: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """A grid of places over the quadrant."""
    yy, xx = np.meshgrid(np.linspace(0, psf.shape[0] - 1, n), np.linspace(0, psf.shape[1] - 1, n), indexing="ij")
    return xx.ravel(), yy.ravel()


def _centred(psf: PsfModel, fwhm: float) -> PsfModel:
    """Shift the tables so that the Gaussian-windowed centroid lies in the centre everywhere (to first order in the shift)."""
    x, y = _places(psf)
    design = psf.monomials(x, y)
    half = psf.tables.shape[1] // 2
    offset = np.arange(-half, half + 1) / psf.oversample
    window = np.exp(-0.5 * (offset * 2.3548 / fwhm) ** 2)
    moments = [np.einsum("kij,i,j->k", psf.tables, window * offset**a, window * offset**b) for a, b in ((0, 0), (0, 1), (1, 0))]
    light, first_x, first_y = (design.T @ moment for moment in moments)
    shift_x, shift_y = 2.0 * first_x / light, 2.0 * first_y / light
    terms = np.linalg.pinv(design.T)
    mean_gradient = np.gradient(psf.tables[0], 1.0 / psf.oversample)
    shifted = psf.tables + (terms @ shift_x)[:, None, None] * mean_gradient[1] + (terms @ shift_y)[:, None, None] * mean_gradient[0]
    return replace(psf, tables=shifted)


def _normalised(psf: PsfModel) -> PsfModel:
    """Unit flux within UNIT_FLUX_RADIUS at every place, and the same flux whatever the sub-pixel phase of the star."""
    inside = np.clip((UNIT_FLUX_RADIUS - table_radius(psf)) * psf.oversample + 0.5, 0.0, 1.0)
    step, mean = psf.oversample, psf.tables[0]
    tables = psf.tables.copy()
    for py in range(step):
        for px in range(step):
            phase = np.s_[py::step, px::step]
            flux = np.sum(tables[:, *phase] * inside[phase], axis=(1, 2))
            tables[0][phase] /= flux[0]
            tables[1:, *phase] -= (flux[1:] / flux[0])[:, None, None] * mean[phase]
    return replace(psf, tables=tables)
