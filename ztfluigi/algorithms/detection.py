"""Source detection on a background-subtracted image, with positions good enough for astrometry (paper 3.5)."""

from __future__ import annotations

import numpy as np

from ztfluigi.algorithms.centroid import add_sources, fit_positions, fit_widths, fwhm_of, gather_bits
from ztfluigi.algorithms.extraction import extract
from ztfluigi.model.columns import Column, dtype_of
from ztfluigi.model.config.astrometry import DetectionConfig
from ztfluigi.model.maskbits import UNUSABLE, Mask

DETECTION = (
    Column("x", "f8", "pix", "centroid, zero-based"),
    Column("y", "f8", "pix", "centroid, zero-based"),
    Column("x_err", "f4", "pix", "formal 1-sigma uncertainty of x"),
    Column("y_err", "f4", "pix", "formal 1-sigma uncertainty of y"),
    Column("flux", "f4", "DN", "flux of the fitted profile"),
    Column("fluxerr", "f4", "DN", "1-sigma uncertainty of flux"),
    Column("peak", "f4", "DN", "highest pixel above the background"),
    Column("a", "f4", "pix", "RMS along the major axis of the isophotal footprint"),
    Column("b", "f4", "pix", "RMS along the minor axis"),
    Column("theta", "f4", "rad", "position angle of the major axis from +x to +y"),
    Column("fwhm", "f4", "pix", "full width at half maximum of the profile fitted to this source, smoothed by the pixel"),
    Column("npix", "i4", "", "pixels above the threshold"),
    Column("flags", "i4", "", "extraction flags of SExtractor (1 blended, 2 at the border, ...)"),
    Column("mask_bits", "u2", "", "OR of the mask bits in the 5 x 5 pixels at the source"),
)

_PIXEL_FWHM = 2.3548 / np.sqrt(12.0)  # of a Gaussian with the variance of a square pixel
_WINGS = (0.1, 0.3, 0.5, 0.7)  # trial flux fractions of the profile's wing
#: Pixels that hold no sky at all; saturated ones stay in so that a bright star remains one source.
_BLIND = int(Mask.TRACK | Mask.DEAD | Mask.NAN)
_UNWEIGHTED = _BLIND | int(Mask.SATURATED | Mask.SPIKE | Mask.NOISY)


def detect(data, rms, mask, *, gain: float | None = None, config: DetectionConfig = DetectionConfig()) -> np.ndarray:
    """Detect sources; structured array of `DETECTION`, brightest first, no more than `config.max_sources` of them.

    Parameters
    ----------
    data : float32 (ny, nx) [DN], background-subtracted. Non-finite pixels are ignored.
    rms : float32 (ny, nx) [DN], background noise.
    mask : uint16 (ny, nx). Tracks, dead and NaN pixels are not searched; saturated, spike and noisy pixels have no weight in centroids.
    gain : [electron/DN]; given, the photon noise of the sources enters weights and errors.

    Where the position fit fails (no good pixels, or it walks away) the isophotal barycentre stands, with NaN errors.
    `fwhm` is NaN then too. An image without sources gives an empty array.
    """
    data = np.ascontiguousarray(data, np.float32)
    rms = np.ascontiguousarray(rms, np.float32)
    blind = (mask & _BLIND) != 0
    blind |= ~np.isfinite(data) | ~(rms > 0)
    found = extract(data, rms, blind, config)
    if found.size > config.max_sources:
        found = found[np.sort(np.argpartition(-found["flux"], config.max_sources)[:config.max_sources])]
    sources = np.zeros(found.size, dtype_of(DETECTION))
    if not found.size:
        return sources
    for name in ("a", "b", "theta", "npix", "peak"):
        sources[name] = found[name]
    sources["flags"] = found["flag"]
    sources["x"], sources["y"], sources["flux"] = found["x"], found["y"], found["flux"]
    sources["mask_bits"] = gather_bits(mask, found["x"], found["y"], 2)
    residual = np.where(blind, np.float32(0), data) if blind.any() else data.copy()
    _measure(sources, residual, rms, blind | ((mask & _UNWEIGHTED) != 0), gain, config)
    sources["mask_bits"] = gather_bits(mask, sources["x"], sources["y"], 2)
    return sources[np.argsort(-sources["flux"], kind="stable")]


def image_fwhm(detections) -> float:
    """Median FWHM [pix] of the bright, clean, unblended detections; NaN without any."""
    stars = _clean(detections) & (detections["flux"] > 20 * detections["fluxerr"]) & np.isfinite(detections["fwhm"])
    if not stars.any():
        return float("nan")
    # Galaxies and blends only ever widen: the lower half of the distribution holds the stars.
    widths = np.sort(detections["fwhm"][stars])
    return float(np.median(widths[: max(1, int(0.7 * widths.size))])) if widths.size > 10 else float(np.median(widths))


def _clean(sources) -> np.ndarray:
    return ((sources["mask_bits"] & UNUSABLE) == 0) & (sources["flags"] == 0)


def _measure(sources, residual, rms, bad, gain, config: DetectionConfig) -> None:
    # Sweeps of the position fit with one profile for the frame, measured first on the brightest clean sources.
    inverse_gain = 0.0 if gain is None else 1.0 / gain
    order = np.argsort(-sources["flux"], kind="stable")
    x, y, flux = (sources[name][order].astype(float) for name in ("x", "y", "flux"))
    widths, wing = _frame_profile(sources[order], residual, rms, bad, inverse_gain, config)
    half = _half_box(widths)
    start_x, start_y = x.copy(), y.copy()
    errors = fit_positions(residual, rms, bad, x, y, flux, *widths, wing, inverse_gain, config.centroid_sweeps, half)
    own = np.sqrt(np.prod(fit_widths(residual, bad, x, y, flux, *widths, wing, half, 4)[:, :2], axis=1))
    limit = np.maximum(1.5, fwhm_of(max(widths), wing)) + 0.5 * sources["a"][order]
    failed = ~np.isfinite(errors[:, 0]) | (np.hypot(x - start_x, y - start_y) > limit) | (flux <= 0)
    failed |= ~((x >= 0) & (x <= residual.shape[1] - 1) & (y >= 0) & (y <= residual.shape[0] - 1))
    x[failed], y[failed] = start_x[failed], start_y[failed]
    flux[failed] = sources["flux"][order][failed]
    errors[failed], own[failed] = np.nan, np.nan
    sources["x"][order], sources["y"][order], sources["flux"][order] = x, y, flux
    sources["fluxerr"][order], sources["x_err"][order], sources["y_err"][order] = errors.T
    sources["fwhm"][order] = np.hypot(fwhm_of(1.0, wing) * own, _PIXEL_FWHM)


def _half_box(widths) -> int:
    return max(3, int(np.ceil(3.0 * max(widths))))


def _frame_profile(sources, residual, rms, bad, inverse_gain, config: DetectionConfig) -> tuple[tuple[float, float], float]:
    # Core widths and wing of the frame's profile; `residual` is left as it was found.
    stars = np.flatnonzero(_clean(sources))[: config.width_stars]
    if stars.size < 5:
        stars = np.arange(min(sources.size, config.width_stars))
    start = float(np.clip(0.8 * np.median(np.sqrt(sources["a"][stars] * sources["b"][stars])), 0.4, 8.0))
    widths, misfits = (start, start), []
    for wing in _WINGS:
        widths, _ = _trial(sources[stars], residual, rms, bad, inverse_gain, widths, wing)
        widths, misfit = _trial(sources[stars], residual, rms, bad, inverse_gain, widths, wing)
        misfits.append(misfit)
    best = int(np.clip(np.argmin(misfits), 1, len(_WINGS) - 2))
    low, middle, high = misfits[best - 1:best + 2]
    curvature = low - 2.0 * middle + high
    shift = 0.5 * (low - high) / curvature if curvature > 0 else np.sign(low - high)
    wing = float(_WINGS[best] + np.clip(shift, -1.0, 1.0) * (_WINGS[1] - _WINGS[0]))
    for _ in range(2):
        widths, _ = _trial(sources[stars], residual, rms, bad, inverse_gain, widths, wing)
    return widths, wing


def _trial(stars, residual, rms, bad, inverse_gain, widths, wing: float) -> tuple[tuple[float, float], float]:
    # Better core widths for this wing, and the misfit with the widths given.
    half = _half_box(widths)
    x, y, flux = (stars[name].astype(float) for name in ("x", "y", "flux"))
    fit_positions(residual, rms, bad, x, y, flux, *widths, wing, inverse_gain, 2, half)
    fitted = fit_widths(residual, bad, x, y, flux, *widths, wing, half, 4)
    add_sources(residual, x, y, flux, *widths, wing, half)
    good = fitted[np.isfinite(fitted[:, 0]), :2]
    # Galaxies among the brightest only ever widen.
    better = np.clip(np.percentile(good, 40, axis=0), 0.3, 8.0) if good.size else widths
    return (float(better[0]), float(better[1])), float(np.median(fitted[:, 2]))
