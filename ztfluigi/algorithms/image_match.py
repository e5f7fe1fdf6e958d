"""What differencing must know about two images of one field: relative place, throughput, background and PSF."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.ndimage import map_coordinates, median_filter
from scipy.spatial import cKDTree

from ztfluigi.algorithms.resample import PHASES, kernel_table
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

#: Range of the power law that continues a PSF outwards.
WING_SLOPES = (2.5, 9.0)
#: Matched stars needed for a polynomial of each degree over the quadrant.
STARS_FOR_DEGREE = {2: 60, 1: 20, 0: 3}


@dataclass(frozen=True)
class Surface:
    """A polynomial over a quadrant of `shape`, with the robust scatter of its data and their number."""

    coefficients: np.ndarray
    shape: tuple[int, int]
    scatter: float
    count: int

    def __call__(self, x, y) -> np.ndarray:
        return np.tensordot(self.coefficients, _monomials(x, y, self.shape, _degree(len(self.coefficients))), axes=1)


@dataclass(frozen=True)
class StarMatch:
    """Stars in both catalogues: science position (zero-based pixels), offset from the place the WCS gives them [pix], fluxes, S/N."""

    x: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    flux_science: np.ndarray
    flux_reference: np.ndarray
    snr: np.ndarray


def match_stars(psfcat_sci: np.ndarray, psfcat_ref: np.ndarray, science_wcs: TpvWcs, reference_wcs: TpvWcs, *, radius_pix: float,
                min_snr: float) -> StarMatch:
    """Mutual nearest neighbours within `radius_pix` among clean stars above `min_snr` in both PSF catalogues (dtype PSFCAT)."""
    sci, ref = (cat[(cat["snr"] > min_snr) & (cat["flags"].astype(int) & UNUSABLE == 0) & (cat["flux"] > 0)]
                for cat in (psfcat_sci, psfcat_ref))
    xy_sci = np.column_stack([sci["xpos"], sci["ypos"]]).astype(float) - 1.0
    ra, dec = reference_wcs.sky(ref["xpos"].astype(float) - 1.0, ref["ypos"].astype(float) - 1.0)
    xy_ref = np.column_stack(science_wcs.pixel(ra, dec))
    near = np.isfinite(xy_ref).all(axis=1)
    ref, xy_ref = ref[near], xy_ref[near]
    if len(sci) == 0 or len(ref) == 0:
        pairs = np.empty(0, int), np.empty(0, int)
    else:
        distance, to_ref = cKDTree(xy_ref).query(xy_sci, distance_upper_bound=radius_pix)
        to_sci = cKDTree(xy_sci).query(xy_ref)[1]
        i = np.flatnonzero(np.isfinite(distance))
        i = i[to_sci[to_ref[i]] == i]
        pairs = i, to_ref[i]
    i, j = pairs
    offset = xy_sci[i] - xy_ref[j]
    snr = 1.0 / np.hypot(1.0 / sci["snr"][i].astype(float), 1.0 / ref["snr"][j].astype(float))
    flux_sci, flux_ref = sci["flux"][i].astype(float), ref["flux"][j].astype(float)
    return StarMatch(xy_sci[i, 0], xy_sci[i, 1], offset[:, 0], offset[:, 1], flux_sci, flux_ref, snr)


def fit_surface(x, y, values, errors, shape: tuple[int, int], *, fallback: float) -> Surface:
    """Robust weighted polynomial (degree by the number of points, `STARS_FOR_DEGREE`); the constant `fallback` when there are too few."""
    degree = next((d for d, needed in STARS_FOR_DEGREE.items() if len(values) >= needed), None)
    if degree is None:
        return Surface(np.array([fallback]), shape, np.nan, len(values))
    basis = _monomials(x, y, shape, degree).T
    residual = values - np.median(values)
    coefficients, sigma = np.zeros(basis.shape[1]), 0.0
    for _ in range(5):
        sigma = max(1.4826 * float(np.median(np.abs(residual))), 1e-9)
        keep = np.abs(residual) < 3.5 * np.maximum(sigma, errors)
        weight = 1.0 / np.hypot(errors[keep], sigma)
        coefficients = np.linalg.lstsq(basis[keep] * weight[:, None], values[keep] * weight, rcond=None)[0]
        residual = values - basis @ coefficients
    return Surface(coefficients, shape, sigma, int(keep.sum()))


def differential_background(difference: np.ndarray, good: np.ndarray, mesh: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth background [DN] of `difference` at pixels (x, y): clipped medians of good pixels in cells, bilinear.

    Every fourth row and every second column is used.
    """
    ny, nx = (max(1, round(n / mesh)) for n in difference.shape)
    rows, cols = np.linspace(0, difference.shape[0], ny + 1).astype(int), np.linspace(0, difference.shape[1], nx + 1).astype(int)
    cells = np.full((ny, nx), np.nan)
    for j in range(ny):
        for i in range(nx):
            window = np.s_[rows[j]:rows[j + 1]:4, cols[i]:cols[i + 1]:2]
            values = difference[window][good[window]]
            if values.size > 30:
                low, middle, high = np.percentile(values, (15.865, 50.0, 84.135))
                cells[j, i] = np.median(values[np.abs(values - middle) < 1.5 * (high - low) + 1e-6])
    return _between_cells(cells, difference.shape, x, y)


def residual_background(difference: np.ndarray, sigma: np.ndarray, usable: np.ndarray, mesh: int,
                        x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Level [DN] left in a difference at pixels (x, y): means, clipped at 3 sigma, of usable pixels in cells, bilinear."""
    ny, nx = (max(1, round(n / mesh)) for n in difference.shape)
    cells = np.zeros((ny, nx))
    for _ in range(3):
        cells = _clipped_cell_means(difference, sigma, usable, cells)
    return _between_cells(cells, difference.shape, x, y)


def _between_cells(cells: np.ndarray, shape: tuple[int, int], x, y) -> np.ndarray:
    """Bilinear values at pixels between cell centres, linear beyond them; outlying cells take the median of their neighbours, empty
    ones that of all."""
    ny, nx = cells.shape
    if np.isnan(cells).all():
        return np.zeros(np.shape(x))
    cells = np.where(np.isnan(cells), np.nanmedian(cells), cells)
    if min(ny, nx) >= 3:
        smooth = median_filter(cells, 3)
        outlying = np.abs(cells - smooth) > 3.0 * np.std(cells - smooth)
        cells[outlying] = smooth[outlying]
    padded = np.pad(cells, 1, mode="reflect", reflect_type="odd") if min(ny, nx) >= 2 else np.pad(cells, 1, mode="edge")
    place_y = (np.asarray(y) + 0.5) * ny / shape[0] + 0.5
    place_x = (np.asarray(x) + 0.5) * nx / shape[1] + 0.5
    return map_coordinates(padded, [place_y, place_x], order=1, mode="nearest")


@njit(cache=True, nogil=True)
def _clipped_cell_means(data, sigma, usable, centres):
    """Mean of the usable pixels within 3 sigma of each cell's `centres`; NaN where a cell has fewer than 30."""
    ny, nx = centres.shape
    sums, counts = np.zeros((ny, nx)), np.zeros((ny, nx))
    for y in range(data.shape[0]):
        j = y * ny // data.shape[0]
        for i in range(nx):
            centre = np.float32(centres[j, i]) if np.isfinite(centres[j, i]) else np.float32(0.0)
            total, count = 0.0, 0
            for x in range((i * data.shape[1] + nx - 1) // nx, ((i + 1) * data.shape[1] + nx - 1) // nx):
                good = usable[y, x] and abs(data[y, x] - centre) < np.float32(3.0) * sigma[y, x]
                total += data[y, x] if good else 0.0
                count += good
            sums[j, i] += total
            counts[j, i] += count
    return np.where(counts >= 30, sums / np.maximum(counts, 1), np.nan)


def stamp_of_science(psf: PsfModel, x: float, y: float, size: int) -> np.ndarray:
    """PSF at a place, (size, size), with smooth wings."""
    return with_wings(psf.render(x, y, size), psf.half_size)


def stamp_of_reference(psf: PsfModel, x: np.ndarray, y: np.ndarray, jacobian: np.ndarray, order: int, size: int) -> np.ndarray:
    """PSF of the resampled reference on the science grid, (size, size), with smooth wings.

    x, y : reference pixels of a few science pixels around the place; their phases tell how much the Lanczos kernel smooths there
        (an interpolated pixel is a sum of pixels at known offsets, so its PSF is the same sum of shifted PSFs).
    jacobian : 2 x 2, reference pixels per science pixel: [[dx/dX, dx/dY], [dy/dX, dy/dY]].
    """
    smoothed = smoothed_reference(psf.table(float(np.mean(x)), float(np.mean(y))), psf.oversample, x, y, order)
    m = smoothed.shape[0]
    offset = np.arange(size) - size // 2
    dx, dy = np.meshgrid(offset, offset)
    rows = (jacobian[1, 0] * dx + jacobian[1, 1] * dy) * psf.oversample + m // 2
    cols = (jacobian[0, 0] * dx + jacobian[0, 1] * dy) * psf.oversample + m // 2
    # The two grids may differ in pixel size: the PSF is light per pixel of the science grid.
    stamp = map_coordinates(smoothed, [rows, cols], order=3, mode="constant", cval=0.0) * abs(np.linalg.det(jacobian))
    return with_wings(stamp, psf.half_size)


def smoothed_reference(table: np.ndarray, oversample: int, x: np.ndarray, y: np.ndarray, order: int) -> np.ndarray:
    """An oversampled PSF table with the mean smoothing that interpolation at reference pixels x, y brings."""
    frequency = np.fft.fftfreq(table.shape[0], 1.0 / oversample)
    transfer_x, transfer_y = _kernel_transfer(x, order, frequency), _kernel_transfer(y, order, frequency)
    return np.fft.ifft2(np.fft.fft2(table) * (transfer_y.T @ transfer_x / x.size)).real


def with_wings(stamp: np.ndarray, half_size: int) -> np.ndarray:
    """A PSF stamp whose outskirts are a power law of the radius, fitted where the PSF is still well measured.

    Empirical wings are noise and end in an edge; under a star of 1e5 DN both show as rings in the difference. From 2.2 to 3.5 FWHM the
    stamp gives way to the power law, which goes on to the corners.
    """
    half = stamp.shape[0] // 2
    offset = np.arange(stamp.shape[0]) - half
    radius = np.hypot(offset[:, None], offset[None, :])
    fwhm = 2.0 * np.sqrt(stamp.sum() / stamp.max() / np.pi * np.log(2.0))
    inner, outer = np.clip(2.2 * fwhm, 2.0, 0.6 * half_size), np.clip(3.5 * fwhm, 3.0, 0.85 * half_size)
    light = [stamp[np.abs(radius / r - 1.0) < 0.2].mean() for r in (inner, outer)]
    if not light[0] > 0:
        return stamp
    slope = np.log(light[0] / light[1]) / np.log(outer / inner) if light[1] > 0 else WING_SLOPES[1]
    wing = light[0] * (np.maximum(radius, 0.5) / inner) ** -np.clip(slope, *WING_SLOPES)
    share = np.clip((radius - inner) / (outer - inner), 0.0, 1.0)
    return (1.0 - share) * stamp + share * wing


def _kernel_transfer(coordinate: np.ndarray, order: int, frequency: np.ndarray) -> np.ndarray:
    """Transfer function (points, frequencies) of the interpolation kernel at each coordinate's phase."""
    phase = np.ravel(coordinate) - np.floor(np.ravel(coordinate))
    weights = kernel_table(order)[np.rint(phase * PHASES).astype(int)].astype(float)
    taps = np.arange(1 - order, order + 1)[None, :] - phase[:, None]
    return np.einsum("pt,ptf->pf", weights, np.exp(2j * np.pi * taps[:, :, None] * frequency[None, None, :]))


def _degree(terms: int) -> int:
    return {1: 0, 3: 1, 6: 2}[terms]


def _monomials(x, y, shape: tuple[int, int], degree: int) -> np.ndarray:
    u = 2.0 * np.asarray(x, float) / max(1, shape[1] - 1) - 1.0
    v = 2.0 * np.asarray(y, float) / max(1, shape[0] - 1) - 1.0
    return np.array([u ** (n - k) * v**k for n in range(degree + 1) for k in range(n + 1)])
