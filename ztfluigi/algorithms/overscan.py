"""Floating-bias correction from a quadrant's overscan image (paper 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ztfluigi.model.config.detector import OverscanConfig
from ztfluigi.model.errors import BadInput, Unusable

#: Every how-many-th row and column the statistics of the image look at.
STRIDE = 7
#: Of a normal distribution: standard deviation over median absolute deviation.
MAD_SIGMA = 1.4826


@dataclass
class OverscanResult:
    """data : float32 (ny, nx) [DN], floating bias removed. level : float32 (ny,) [DN], what was subtracted. metrics : scalars."""

    data: np.ndarray
    level: np.ndarray
    metrics: dict = field(default_factory=dict)


def subtract_overscan(image: np.ndarray, overscan: np.ndarray, *, config: OverscanConfig = OverscanConfig()) -> OverscanResult:
    """Fit a polynomial in the row to the overscan's row means and subtract it.

    Parameters
    ----------
    image : any real dtype (ny, nx) [raw DN]; NaN stays NaN.
    overscan : any real dtype (ny, n) [raw DN], same row order; non-finite pixels are ignored.

    Returns
    -------
    Metrics [DN]: `overscan_level` median of the fit, `overscan_drift` its range over the rows, `overscan_scatter` robust scatter
    of the row means, `overscan_residual_rms` rms of row means minus fit, `read_noise_dn` pixel noise within rows, `overscan_trail`
    excess of the skipped columns, and `overscan_rows` [count] rows fitted. Of the corrected image, sampled: `image_median`,
    `image_scatter` robust about it, `image_low`, `image_high` 1st and 99th percentile [DN], `image_missing` fraction not finite.

    Raises
    ------
    BadInput : row counts differ, or no column is left. Unusable : fewer than a third of the rows can be fitted.
    """
    ny = image.shape[0]
    if overscan.ndim != 2 or overscan.shape[0] != ny:
        raise BadInput(f"overscan has shape {overscan.shape}, expected {ny} rows as in the image")
    if overscan.shape[1] <= config.skip_columns:
        raise BadInput(f"overscan has {overscan.shape[1]} columns, expected more than the {config.skip_columns} that are skipped")
    strip = overscan[:, config.skip_columns:].astype(np.float64)
    strip[~np.isfinite(strip)] = np.nan
    usable = np.isfinite(strip).any(axis=1)
    if np.count_nonzero(usable) < max(ny // 3, config.order + 2):
        raise Unusable(f"overscan has {np.count_nonzero(usable)} usable rows of {ny}", usable_rows=int(np.count_nonzero(usable)), rows=ny)

    means, read_noise = _row_means(strip, usable, config.clip_sigma)
    row = np.linspace(-1.0, 1.0, ny)
    keep, fit = usable, None
    for _ in range(5):
        fit = np.polynomial.chebyshev.Chebyshev.fit(row[keep], means[keep], config.order, domain=[-1, 1])
        residual = means - fit(row)
        centre = np.median(residual[keep])
        # a strip without noise still allows the rounding of its mean
        sigma = max(MAD_SIGMA * np.median(np.abs(residual[keep] - centre)), 1e-6)
        now = usable & (np.abs(residual - centre) < config.clip_sigma * sigma)
        if np.array_equal(now, keep) or np.count_nonzero(now) < config.order + 2:
            break
        keep = now
    level = fit(row).astype(np.float32)
    data = np.subtract(image, level[:, None], dtype=np.float32, casting="unsafe")
    skipped = overscan[:, :config.skip_columns]
    trail = float(np.mean(np.median(skipped, axis=0)) - np.median(level)) if config.skip_columns else 0.0
    metrics = {
        "overscan_level": float(np.median(level)), "overscan_drift": float(np.ptp(level)),
        "overscan_scatter": float(MAD_SIGMA * np.median(np.abs(means[usable] - np.median(means[usable])))),
        "overscan_residual_rms": float(np.sqrt(np.mean(residual[keep] ** 2))), "read_noise_dn": read_noise,
        "overscan_trail": trail, "overscan_rows": int(np.count_nonzero(keep)), **_statistics(data[::STRIDE, ::STRIDE]),
    }
    return OverscanResult(data, level, metrics)


def _statistics(data: np.ndarray) -> dict[str, float]:
    values = data[np.isfinite(data)]
    if not len(values):
        return {"image_missing": 1.0}
    low, median, high = np.percentile(values, [1.0, 50.0, 99.0])
    scatter = MAD_SIGMA * np.median(np.abs(values - median))
    return {"image_median": float(median), "image_scatter": float(scatter), "image_low": float(low), "image_high": float(high),
            "image_missing": 1.0 - len(values) / data.size}


def _row_means(strip: np.ndarray, usable: np.ndarray, clip: float) -> tuple[np.ndarray, float]:
    """Clipped mean of each row, and the noise of one pixel about its row's mean.

    Means, not medians: the median of digitised values moves in half-DN steps.
    """
    centre = np.full(len(strip), np.nan)
    centre[usable] = np.nanmedian(strip[usable], axis=1)
    deviation = strip - centre[:, None]
    spread = max(MAD_SIGMA * float(np.nanmedian(np.abs(deviation))), 0.5)
    good = np.abs(deviation) < clip * spread
    counts = good.sum(axis=1)
    means = np.divide(np.where(good, strip, 0.0).sum(axis=1), counts, out=centre, where=counts > 0)
    squares = (np.where(good, strip - means[:, None], 0.0) ** 2).sum()
    freedom = max(int(counts.sum()) - int(np.count_nonzero(counts)), 1)
    return means, float(np.sqrt(squares / freedom))
