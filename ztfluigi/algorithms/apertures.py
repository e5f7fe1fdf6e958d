"""Aperture photometry and shapes of every detection in SExtractor's terms (Bertin & Arnouts 1996, A&AS 117, 393), through `sep`."""

from __future__ import annotations

import numpy as np
import sep
from scipy.spatial import cKDTree

from ztfluigi.algorithms import aperture_kernels as kernels
from ztfluigi.algorithms.extraction import Sources, flux_error
from ztfluigi.model.columns import FIXED_APERTURES_PIX, dtype_of
from ztfluigi.model.config.photometry import ApertureConfig
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.model.sexcat import SEXCAT


def measure(sources: Sources, rms: np.ndarray, mask: np.ndarray, *, wcs, gain: float,
            config: ApertureConfig = ApertureConfig()) -> np.ndarray:
    """Aperture catalogue of the sources of a background-subtracted image; structured array of `SEXCAT` in their order.

    Parameters
    ----------
    sources : what `extraction.segment` found; unusable pixels are left out of all sums. rms : float32 (ny, nx) [DN], of the
        background. mask : uint16, for flags. wcs : TpvWcs or None (world columns NaN). gain : [electron/DN].

    Notes
    -----
    Pixel coordinates are FITS one-based, angles degrees. BACKGROUND is 0 (the image is background-subtracted), CLASS_STAR is NaN
    (SExtractor's neural network has no counterpart here). FWHM_IMAGE fits a Gaussian core to the isophotal areas; PETRO uses a
    surface-brightness ratio of 0.2. Windowed columns are NaN where the centroid does not converge. Without any detection the array is
    empty. Isophotal positions and moments are those of the filtered image, as SExtractor's are.
    """
    found, segments, data, bad = sources.found, sources.segments, sources.data, sources.bad
    rms = np.ascontiguousarray(rms, np.float32)
    table = np.zeros(len(found), dtype_of(SEXCAT))
    if not len(found):
        return table
    table["NUMBER"] = np.arange(1, len(found) + 1)
    table["CLASS_STAR"] = np.nan
    _positions(table, found)
    areas, bits, masked = kernels.isophotes(data, segments, mask, found["thresh"].astype(float), found["peak"].astype(float))
    for n in range(8):
        table[f"ISO{n}"] = areas[:, n]
    table["IMAFLAGS_ISO"], table["NIMAFLAGS_ISO"] = bits, masked
    table["FWHM_IMAGE"] = _core_fwhm(areas, found["thresh"], found["peak"])
    crowded = _fluxes(table, found, data, rms, bad, segments, gain, config)
    table["FLAGS"] |= np.where(crowded, 1, 0) | np.where(bits & int(Mask.SATURATED), 4, 0)
    _windowed(table, found, data, rms, bad, gain)
    _world(table, found, wcs)
    return table


def _positions(table, found) -> None:
    table["X_IMAGE"], table["Y_IMAGE"] = found["x"] + 1.0, found["y"] + 1.0
    table["XPEAK_IMAGE"], table["YPEAK_IMAGE"] = found["xpeak"] + 1, found["ypeak"] + 1
    for axis, name in (("x2", "X2"), ("y2", "Y2"), ("xy", "XY")):
        table[f"{name}_IMAGE"] = found[axis]
        table[f"ERR{name}_IMAGE"] = np.where(np.isfinite(found[f"err{axis}"]), found[f"err{axis}"], np.nan)
    table["A_IMAGE"], table["B_IMAGE"], table["THETA_IMAGE"] = found["a"], found["b"], np.degrees(found["theta"])
    table["ELONGATION"] = found["a"] / found["b"]
    _ellipse(table, "ERR{}_IMAGE", *(table[f"ERR{name}_IMAGE"] for name in ("X2", "Y2", "XY")))
    table["THRESHOLD"] = found["thresh"]
    table["FLAGS"] = np.where(found["flag"] & 1, 2, 0) | np.where(found["flag"] & 2, 8, 0)


def _ellipse(table, form: str, xx, yy, xy) -> None:
    """Axes and angle [deg] of a 2 x 2 covariance into the columns `form` with A, B, THETA."""
    mean, root = (xx + yy) / 2.0, np.hypot((xx - yy) / 2.0, xy)
    table[form.format("A")] = np.sqrt(np.maximum(mean + root, 0.0))
    table[form.format("B")] = np.sqrt(np.maximum(mean - root, 0.0))
    if form.format("THETA") in table.dtype.names:
        table[form.format("THETA")] = np.degrees(0.5 * np.arctan2(2.0 * xy, xx - yy))


def _core_fwhm(areas, threshold, peak) -> np.ndarray:
    """A Gaussian's area above level t is 2 pi sigma^2 ln(peak / t): slope of the areas with the logarithm of the level."""
    step = np.log(np.maximum(peak / threshold, 1.0 + 1e-6)) / 8.0
    level = (np.arange(8) - 3.5) * step[:, None]
    slope = -np.sum(areas * level, axis=1) / np.sum(level**2, axis=1)
    return 2.0 * np.sqrt(2.0 * np.log(2.0)) * np.sqrt(np.maximum(slope, 0.0) / (2.0 * np.pi))


def _store(table, kind: str, flux, fluxerr) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = flux > 0
        magnitude = np.where(positive, -2.5 * np.log10(np.where(positive, flux, 1.0)), 99.0)
        error = np.where(positive, 2.5 / np.log(10.0) * fluxerr / np.where(positive, flux, 1.0), 99.0)
    for name, value in (("FLUX", flux), ("FLUXERR", fluxerr), ("MAG", magnitude), ("MAGERR", error)):
        table[f"{name}_{kind}"] = value


def _fluxes(table, found, data, rms, bad, segments, gain, config) -> np.ndarray:
    """All fluxes and radii; returns where neighbours or bad pixels disturb the Kron ellipse."""
    x, y, theta = found["x"], found["y"], np.clip(found["theta"], -np.pi / 2, np.pi / 2)
    a, b = np.maximum(found["a"], 0.1), np.maximum(found["b"], 0.1)
    common = {"err": rms, "mask": bad, "gain": gain}
    for n, diameter in enumerate(FIXED_APERTURES_PIX):
        flux, error, flag = sep.sum_circle(data, x, y, diameter / 2.0, subpix=5, **common)
        if n == 0:
            columns = np.empty((2, len(found), len(FIXED_APERTURES_PIX)))
        columns[0, :, n], columns[1, :, n] = flux, error
    table["FLAGS"] |= np.where(flag & sep.APER_TRUNC, 16, 0).astype(np.int16)
    _store(table, "APER", columns[0], columns[1])
    iso = found["flux"].astype(float)
    iso_error = flux_error(found, rms, gain)
    _store(table, "ISO", iso, iso_error)
    # Flux outside the isophote of a Gaussian (SExtractor manual, section on isophotal-corrected magnitudes).
    share = np.clip(found["tnpix"] * found["thresh"] / np.maximum(iso, 1e-9), 0.0, None)
    factor = 1.0 / np.maximum(1.0 - 0.1961 * share - 0.7512 * share**2, 0.4)
    _store(table, "ISOCOR", iso * factor, iso_error * factor)
    number = table["NUMBER"].astype(np.int32)
    kron, _ = sep.kron_radius(data, x, y, a, b, theta, 6.0, mask=bad, segmap=segments, seg_id=number)
    table["KRON_RADIUS"] = radius = config.kron_factor * np.where(np.isfinite(kron), np.maximum(kron, 0.0), 0.0)
    auto, auto_error = _ellipse_sum(data, x, y, a, b, theta, radius, config.kron_min_radius, segments, number, common)
    _store(table, "AUTO", auto, auto_error)
    shape = (x, y, found["cxx"], found["cyy"], found["cxy"])
    petro = kernels.petrosian_radius(data, bad, segments, *shape, 0.2)
    table["PETRO_RADIUS"] = radius_petro = config.petrosian_factor * np.where(np.isfinite(petro), petro, 0.0)
    _store(table, "PETRO", *_ellipse_sum(data, x, y, a, b, theta, radius_petro, config.kron_min_radius, segments, number, common))
    reach = np.maximum(radius, config.kron_min_radius / np.sqrt(a * b))
    crowded = kernels.foreign_fraction(segments, bad, *shape, reach) > 0.1
    _store(table, "BEST", np.where(crowded, iso * factor, auto), np.where(crowded, iso_error * factor, auto_error))
    return crowded


def _ellipse_sum(data, x, y, a, b, theta, radius, smallest, segments, number, common):
    """Flux in ellipses of `radius` RMS axes, or in circles of the smallest radius [pix] where the ellipse is smaller."""
    small = radius * np.sqrt(a * b) < smallest
    major, minor = np.where(small, smallest, a * radius), np.where(small, smallest, b * radius)
    flux, error, _ = sep.sum_ellipse(data, x, y, major, minor, theta, 1.0, subpix=1, segmap=segments, seg_id=number, **common)
    return flux, error


def _windowed(table, found, data, rms, bad, gain) -> None:
    reach = np.clip(6.0 * found["a"], 4.0, 40.0)
    half = kernels.half_light_radius(data, bad, found["x"], found["y"], table["FLUX_AUTO"].astype(float), reach)
    width = np.clip(np.where(np.isfinite(half), half, found["a"]) * 2.0 / 2.3548, 0.5, 20.0)
    result = kernels.windowed(data, rms, bad, float(gain), found["x"], found["y"], width)
    table["XWIN_IMAGE"], table["YWIN_IMAGE"] = result[:, 0] + 1.0, result[:, 1] + 1.0
    for n, name in enumerate(("X2", "Y2", "XY")):
        table[f"{name}WIN_IMAGE"], table[f"ERR{name}WIN_IMAGE"] = result[:, 2 + n], result[:, 5 + n]
    _ellipse(table, "{}WIN_IMAGE", *result[:, 2:5].T)
    _ellipse(table, "ERR{}WIN_IMAGE", *result[:, 5:8].T)


def _world(table, found, wcs) -> None:
    if wcs is None:
        for name in table.dtype.names:
            if name.endswith(("_WORLD", "_J2000")) or name.startswith("MU_"):
                table[name] = np.nan
        return
    x, y = found["x"], found["y"]
    ra, dec = wcs.sky(x, y)
    table["X_WORLD"], table["Y_WORLD"] = ra, dec
    table["ALPHAWIN_J2000"], table["DELTAWIN_J2000"] = wcs.sky(table["XWIN_IMAGE"] - 1.0, table["YWIN_IMAGE"] - 1.0)
    jacobian = np.empty((len(x), 2, 2))
    for axis, (dx, dy) in enumerate(((0.5, 0.0), (0.0, 0.5))):
        (ra1, dec1), (ra0, dec0) = wcs.sky(x + dx, y + dy), wcs.sky(x - dx, y - dy)
        jacobian[:, 0, axis] = (np.mod(ra1 - ra0 + 180.0, 360.0) - 180.0) * np.cos(np.radians(dec))
        jacobian[:, 1, axis] = dec1 - dec0
    area = np.abs(np.linalg.det(jacobian))
    for prefix, kind in (("", ""), ("ERR", ""), ("", "WIN"), ("ERR", "WIN")):
        xx, yy, xy = (table[f"{prefix}{name}{kind}_IMAGE"] for name in ("X2", "Y2", "XY"))
        sky = jacobian @ np.array([[xx, xy], [xy, yy]]).transpose(2, 0, 1) @ jacobian.transpose(0, 2, 1)
        _ellipse(table, f"{prefix}{{}}{kind}_WORLD", sky[:, 0, 0], sky[:, 1, 1], sky[:, 0, 1])
    # North through east runs the other way round than from right ascension to declination.
    table["THETAWIN_J2000"] = np.mod(180.0 - table["THETAWIN_WORLD"], 180.0) - 90.0
    table["ISOAREA_WORLD"], table["ISOAREAF_WORLD"] = found["tnpix"] * area, found["npix"] * area
    arcsec2 = area * 3600.0**2
    with np.errstate(divide="ignore", invalid="ignore"):
        table["MU_THRESHOLD"] = -2.5 * np.log10(found["thresh"] / arcsec2)
        table["MU_MAX"] = np.where(found["peak"] > 0, -2.5 * np.log10(found["peak"] / arcsec2), 99.0)


def aperture_corrections(psfcat: np.ndarray, sexcat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """APCOR1..6: median PSF magnitude minus aperture magnitude per fixed aperture, and its uncertainty [mag], float64 (6,) each.

    From bright (S/N > 50), clean (no unusable mask bit, FLAGS without border and saturation), isolated stars, sigma-clipped. NaN with fewer
    than five stars. Add the correction to an aperture magnitude of a point source to get its PSF magnitude.
    """
    empty = np.full(len(FIXED_APERTURES_PIX), np.nan), np.full(len(FIXED_APERTURES_PIX), np.nan)
    if not len(psfcat) or not len(sexcat):
        return empty
    places = np.column_stack([psfcat["xpos"], psfcat["ypos"]]).astype(float)
    bright = (psfcat["snr"] > 50) & ((psfcat["flags"].astype(np.int64) & UNUSABLE) == 0)
    # Stars are the rule: leave out what is wider or sharper than the bulk.
    if np.count_nonzero(bright) >= 5:
        centre = np.median(psfcat["sharp"][bright])
        bright &= np.abs(psfcat["sharp"] - centre) < 4.0 * 1.4826 * np.median(np.abs(psfcat["sharp"][bright] - centre)) + 1e-3
    stars = np.flatnonzero(bright)
    tree = cKDTree(places)
    near = tree.query_ball_point(places[stars], 0.5 * FIXED_APERTURES_PIX[-1] + 4.0)
    light = np.array([psfcat["flux"][n].sum() for n in near]) / psfcat["flux"][stars] - 1.0 if len(stars) else np.empty(0)
    stars = stars[light < max(0.003, np.sort(light)[min(len(light) - 1, 30)])] if len(stars) else stars
    if not len(stars):
        return empty
    distance, index = cKDTree(np.column_stack([sexcat["X_IMAGE"], sexcat["Y_IMAGE"]])).query(places[stars], distance_upper_bound=1.5)
    matched = np.isfinite(distance)
    stars, index = stars[matched], index[matched]
    clean = ((sexcat["FLAGS"][index] & (4 | 8 | 16)) == 0) & (sexcat["MAG_APER"][index] < 90).all(axis=1)
    difference = psfcat["mag"][stars][clean, None] - sexcat["MAG_APER"][index][clean].astype(float)
    return _clipped_median(difference) if len(difference) >= 5 else empty


def _clipped_median(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median of each column and its standard error after clipping at three robust sigmas."""
    good = np.ones(values.shape, bool)
    for _ in range(5):
        kept = np.where(good, values, np.nan)
        centre = np.nanmedian(kept, axis=0)
        spread = 1.4826 * np.nanmedian(np.abs(kept - centre), axis=0)
        good = np.abs(values - centre) <= 3.0 * spread + 1e-9
    return centre, np.sqrt(np.pi / 2.0) * spread / np.sqrt(good.sum(axis=0))
