"""Low-frequency flat: the response on large scales that the lamps get wrong, from binned photometric residuals of stars (paper 3.4.2, 7.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ztfluigi.algorithms.background import expand_cells
from ztfluigi.algorithms.overscan import MAD_SIGMA
from ztfluigi.model.config.detector import LowFlatConfig
from ztfluigi.model.errors import BadInput, NoWork

SWEEPS = 6
#: The uncertainty is computed every so many pixels.
STEP = 16


@dataclass
class LowFlat:
    """image : float32 (ny, nx) [relative to 1, mean 1], divided into images flattened by the lamps. uncertainty : float32 (ny, nx), 1 sigma.

    cells : float32 (rows, columns) [mag], mean residual of each cell, NaN where stars are too few. counts : int (rows, columns), stars.
    """

    image: np.ndarray
    uncertainty: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    metrics: dict = field(default_factory=dict)


def fit(x: np.ndarray, y: np.ndarray, residual: np.ndarray, uncertainty: np.ndarray, exposure: np.ndarray, shape: tuple[int, int], *,
        config: LowFlatConfig = LowFlatConfig()) -> LowFlat:
    """Map the response that stars see where the zero point of their exposure is right on average.

    Each exposure has an unknown zero point of its own; with it taken out, residuals are averaged in cells, clipped, and a polynomial of
    total order `order` is laid through the cells. Zero points and map are found in turn, so that fields with uneven stars do no harm.

    Parameters
    ----------
    x, y : zero-based pixels of stars (n,). residual : catalogue minus calibrated magnitude [mag], positive where the image is too bright.
    uncertainty : 1 sigma [mag]; stars with one not positive, and non-finite ones, are left out. exposure : integer per star, which exposure.
    shape : (ny, nx) of the image.

    Metrics: `exposures`, `stars`, `range` of the map, `rms` of the map, `cell_fraction` of the cells with at least `cell_stars` stars,
    `cell_scatter` [mag] robust scatter of the cells about the map, `residual_before`, `residual_after` [mag] rms of the cells.

    Raises
    ------
    BadInput : lengths differ. NoWork : fewer exposures than `minimum_frames`, or fewer filled cells than the polynomial has terms.
    """
    if not len(x) == len(y) == len(residual) == len(uncertainty) == len(exposure):
        raise BadInput(f"columns of {len(x)}, {len(y)}, {len(residual)}, {len(uncertainty)} and {len(exposure)} stars, expected equal numbers")
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(residual) & (uncertainty > 0)
    x, y, residual, variance = (np.asarray(v, float)[good] for v in (x, y, residual, np.asarray(uncertainty, float) ** 2))
    numbers, exposure = np.unique(np.asarray(exposure)[good], return_inverse=True)
    if len(numbers) < config.minimum_frames:
        raise NoWork(f"{len(numbers)} exposures with photometric residuals, {config.minimum_frames} are needed", exposures=len(numbers))
    n = config.cells
    cell = np.clip((y / shape[0] * n).astype(int), 0, n - 1) * n + np.clip((x / shape[1] * n).astype(int), 0, n - 1)
    at = _terms(x, y, shape, config.order)
    coefficients, weight = np.zeros(at.shape[1]), 1.0 / variance
    for _ in range(SWEEPS):
        rest = residual - at @ coefficients
        zero = np.array([np.average(rest[rows], weights=weight[rows]) if weight[rows].sum() > 0 else 0.0
                         for rows in np.split(np.argsort(exposure, kind="stable"), np.cumsum(np.bincount(exposure))[:-1])])
        rest -= zero[exposure]
        spread = MAD_SIGMA * np.median(np.abs(rest))
        weight = np.where(np.abs(rest) < config.clip_sigma * np.hypot(spread, np.sqrt(variance)), 1.0 / (variance + spread**2), 0.0)
        light = residual - zero[exposure]
        counts = np.bincount(cell[weight > 0], minlength=n * n)
        sums = [np.bincount(cell, weight * values, minlength=n * n) for values in (np.ones_like(x), light, x, y)]
        filled = counts >= config.cell_stars
        if filled.sum() < 2 * at.shape[1]:
            raise NoWork(f"{filled.sum()} cells with {config.cell_stars} stars, {2 * at.shape[1]} are needed", cells=int(filled.sum()))
        mean, middle_x, middle_y = (values[filled] / sums[0][filled] for values in sums[1:])
        design = _terms(middle_x, middle_y, shape, config.order)
        root = np.sqrt(sums[0][filled])
        coefficients = np.linalg.lstsq(design * root[:, None], mean * root, rcond=None)[0]
    return _result(coefficients, design * root[:, None], mean, design, filled, counts, len(numbers), int((weight > 0).sum()), shape, config)


def _result(coefficients, weighted, mean, design, filled, counts, exposures, stars, shape, config) -> LowFlat:
    n = config.cells
    covariance = np.linalg.pinv(weighted.T @ weighted)
    misfit = mean - design @ coefficients
    covariance *= max(1.0, float(np.sum((weighted @ coefficients - mean * weighted[:, 0]) ** 2)) / max(len(mean) - len(coefficients), 1))
    pu, pv = (np.polynomial.legendre.legvander(2.0 * (np.arange(size) + 0.5) / size - 1.0, config.order) for size in shape[::-1])
    table = np.zeros((config.order + 1,) * 2)
    for value, (i, j) in zip(coefficients, _orders(config.order), strict=True):
        table[j, i] = value
    image = (10.0 ** (0.4 * ((pv @ table) @ pu.T))).astype(np.float32)
    grid = tuple(max(1, size // STEP) for size in shape)
    v, u = ((np.arange(size) + 0.5) * full / size - 0.5 for size, full in zip(grid, shape, strict=True))
    terms = _terms(*(axis.ravel() for axis in np.meshgrid(u, v)), shape, config.order)
    coarse = 0.4 * np.log(10.0) * np.sqrt(np.sum((terms @ covariance) * terms, axis=1))
    sigma = expand_cells(coarse.reshape(grid).astype(np.float32), shape)
    unit = np.float32(image.mean(dtype=float))
    image /= unit
    cells = np.full(n * n, np.nan, np.float32)
    cells[filled] = mean
    metrics = {"exposures": exposures, "stars": stars, "range": float(np.ptp(image)), "rms": float(image.std(dtype=float)),
               "cell_fraction": float(filled.mean()), "cell_scatter": float(MAD_SIGMA * np.median(np.abs(misfit - np.median(misfit)))),
               "residual_before": float(np.std(mean)), "residual_after": float(np.std(misfit))}
    return LowFlat(image, sigma * image, cells.reshape(n, n), counts.reshape(n, n), metrics)


def _terms(x, y, shape, order) -> np.ndarray:
    """Products of Legendre polynomials of total order up to `order`: (n, terms); the first is 1."""
    u, v = (2.0 * (np.asarray(p) + 0.5) / size - 1.0 for p, size in ((x, shape[1]), (y, shape[0])))
    pu, pv = (np.polynomial.legendre.legvander(p, order) for p in (u, v))
    return np.column_stack([pu[:, i] * pv[:, j] for i, j in _orders(order)])


def _orders(order: int) -> list[tuple[int, int]]:
    """Orders in x and y of each term."""
    return [(i, total - i) for total in range(order + 1) for i in range(total + 1)]
