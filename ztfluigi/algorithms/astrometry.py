"""Astrometric solution of one quadrant against Gaia in two passes (paper 3.5.1).

Pass 1 matches patterns and gives pointing, rotation and scale with the prior distortion. Pass 2 fits the fourth-order TPV polynomial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ztfluigi.algorithms.pattern_match import match_pattern, unique_pairs
from ztfluigi.algorithms.tpv_fit import fit_linear, fit_tpv, terms_of
from ztfluigi.model.config.astrometry import AstrometryConfig
from ztfluigi.model.errors import NoSolution, TooFewCalibrators
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.wcs import TpvWcs, deproject, project

NOT_POSSIBLE = 1 << 12
"""INFOBITS of a quadrant without astrometric solution."""
RESIDUAL = np.dtype([("x", "f8"), ("y", "f8"), ("dra_mas", "f4"), ("ddec_mas", "f4"), ("g_mag", "f4"), ("source_id", "i8"), ("snr", "f4")])

_J2000_JD = 2451545.0
_DAYS_PER_YEAR = 365.25
_MAS_PER_DEG = 3.6e6
_ACCURACY_MAS = 10.0  # smallest per-star uncertainty used in ASTCHI2: turbulence of a 30 s exposure, residual detector effects
_BLEND_ARCSEC, _BLEND_MAG = 3.0, 2.5  # a neighbour so close and so bright moves the centroid of a seeing disc
_HIGH_SNR = 100.0
_GRID = 3  # cells a side of the grid behind the in-grid metrics
_TRUNCATED = 2 | 4 | 8  # extraction flags of cut-off footprints
_MAX_MERIDIAN_TURN_DEG = 5.0
_PER_TERM = 1.5  # stars wanted for each coefficient before the order is lowered; the prior steadies the rest


@dataclass(frozen=True)
class Astrometry:
    """wcs; metrics (see `solve`); residuals: `RESIDUAL` rows, image minus Gaia, dra_mas with cos(dec), x and y zero-based."""

    wcs: TpvWcs
    metrics: dict
    residuals: np.ndarray


@dataclass(frozen=True)
class _Stars:
    # The two lists to be matched: detections (x, y, sigma_pix, snr, flux), reference (ra, dec, sigma_deg, g, isolated, id).
    x: np.ndarray
    y: np.ndarray
    sigma_pix: np.ndarray
    snr: np.ndarray
    flux: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    sigma_deg: np.ndarray
    g: np.ndarray
    isolated: np.ndarray
    source_id: np.ndarray


def carry_to_epoch(gaia, jd: float) -> tuple[np.ndarray, np.ndarray]:
    """(ra, dec) [deg] of Gaia rows (columns `GAIA`) at Julian date `jd`, by proper motion along the great circle.

    Unknown (NaN) motions count as none. Right ascension comes back in 0..360; good up to the poles. Parallax is not applied.
    """
    years = 2000.0 + (jd - _J2000_JD) / _DAYS_PER_YEAR - gaia["ref_epoch"].astype(float)
    xi = np.nan_to_num(gaia["pmra"].astype(float)) * years / _MAS_PER_DEG
    eta = np.nan_to_num(gaia["pmdec"].astype(float)) * years / _MAS_PER_DEG
    return deproject(xi, eta, gaia["ra"].astype(float), gaia["dec"].astype(float))


def solve(detections, gaia, *, prior: TpvWcs, jd: float, shape, config: AstrometryConfig = AstrometryConfig()) -> Astrometry:
    """Solve a quadrant.

    Parameters
    ----------
    detections : structured array with x, y (zero-based) [pix], flux, fluxerr [DN], flags, mask_bits and optionally x_err, y_err [pix].
    gaia : structured array with the columns of `ztfluigi.model.columns.GAIA`; rows without finite position or G are ignored.
    prior : expected coordinates: pointing, orientation, scale and distortion. jd : mid-exposure. shape : (ny, nx).

    Metrics: ASTROMN, ASTRRMS1, ASTRRMS2 [deg], ASTCHI2 as the header cards; astrom_ref_percent, astrom_detected_percent,
    astrom_grid_min, astrom_grid_residual_arcsec, pixel_scale_percent, astrom_chi2_change_percent (inputs of INFOBITS 13 to 21);
    pixel_scale_arcsec at the centre;
    pointing_offset_arcsec, rotation_deg, pattern_pairs, pattern_log_chance, astrom_order, astrom_floor_mas.

    Raises
    ------
    TooFewCalibrators : fewer usable stars in either list than `min_matches`.
    NoSolution : no transformation within the search range is beyond chance, or the second pass does not hold it. Both carry bit 12.
    """
    stars = _select(detections, gaia, jd, prior, shape, config)
    first, found = _first_pass(stars, prior, shape, config)
    wcs, used, pairs, order, floor = _second_pass(stars, first, prior, config)
    metrics, residuals = _judge(stars, wcs, first, prior, used, pairs, shape, config)
    centre = (shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0
    moved = project(*wcs.sky(*centre), *prior.sky(*centre))
    metrics |= {"pointing_offset_arcsec": float(np.hypot(*moved) * 3600.0), "rotation_deg": _rotation(prior, wcs),
                "pattern_pairs": found.pairs, "pattern_log_chance": found.log_chance, "astrom_order": order,
                "astrom_floor_mas": float(floor * _MAS_PER_DEG)}
    return Astrometry(wcs, metrics, residuals)


def _select(detections, gaia, jd, prior, shape, config) -> _Stars:
    good = ((detections["mask_bits"] & UNUSABLE) == 0) & ((detections["flags"] & _TRUNCATED) == 0) & (detections["flux"] > 0)
    good &= np.isfinite(detections["fluxerr"]) & (detections["fluxerr"] > 0) & np.isfinite(detections["x"] + detections["y"])
    rows = detections[good]
    rows = rows[np.argsort(-rows["flux"], kind="stable")]
    snr = rows["flux"] / rows["fluxerr"]
    if "x_err" in (rows.dtype.names or ()):
        sigma_pix = np.hypot(rows["x_err"], rows["y_err"]).astype(float) / np.sqrt(2.0)
    else:
        sigma_pix = np.full(rows.size, np.nan)
    # A centroid without its own error: sigma_PSF / (S/N) for seeing of about two pixels.
    sigma_pix = np.where(np.isfinite(sigma_pix) & (sigma_pix > 0), sigma_pix, 1.0 / np.maximum(snr, 1.0))

    gaia = gaia[np.isfinite(gaia["ra"] + gaia["dec"]) & np.isfinite(gaia["phot_g_mean_mag"])]
    ra, dec = carry_to_epoch(gaia, jd)
    g = gaia["phot_g_mean_mag"].astype(float)
    # Only what can be in the frame: its diagonal and the pointing error around the expected centre.
    reach = (0.5 * np.hypot(*shape) * prior.pixel_scale_arcsec + config.search_radius_arcsec) / 3600.0
    near = np.hypot(*project(ra, dec, *prior.sky((shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0))) < reach
    chosen = np.flatnonzero(near & (g >= config.bright_limit) & (g <= config.faint_limit))
    chosen = chosen[np.argsort(g[chosen], kind="stable")]
    for what, count in (("detections for astrometry", rows.size), ("Gaia stars for astrometry", chosen.size)):
        if count < config.min_matches:
            raise TooFewCalibrators(what, found=int(count), needed=config.min_matches, infobits=NOT_POSSIBLE)
    years = abs(2000.0 + (jd - _J2000_JD) / _DAYS_PER_YEAR - gaia["ref_epoch"][chosen])
    error = np.hypot(np.nan_to_num(gaia["ra_error"][chosen], nan=1.0), np.nan_to_num(gaia["dec_error"][chosen], nan=1.0)) / np.sqrt(2.0)
    # Proper-motion errors are close to the position errors per year; a star without motion may move by some 5 mas/yr.
    drift = np.where(np.isfinite(gaia["pmra"][chosen]), error, 5.0) * years
    return _Stars(rows["x"].astype(float), rows["y"].astype(float), sigma_pix, snr.astype(float), rows["flux"].astype(float),
                  ra[chosen], dec[chosen], np.hypot(error, drift) / _MAS_PER_DEG, g[chosen], _isolated(ra, dec, g, chosen),
                  gaia["source_id"][chosen])


def _isolated(ra, dec, g, chosen) -> np.ndarray:
    # Reference stars without a neighbour that a seeing disc would blend in; judged on the whole list, fainter stars included.
    plane = np.column_stack(project(ra, dec, ra[chosen[0]], dec[chosen[0]])) * 3600.0
    inside = np.all(np.isfinite(plane), axis=1)
    index = np.flatnonzero(inside)
    _, neighbour = cKDTree(plane[inside]).query(plane[chosen], k=[2, 3, 4], distance_upper_bound=_BLEND_ARCSEC)
    magnitude = np.append(g[index], np.inf)[neighbour]
    return np.all(magnitude > g[chosen][:, None] + _BLEND_MAG, axis=1)


def _first_pass(stars: _Stars, prior, shape, config):
    pixel = prior.pixel_scale_arcsec
    ref_x, ref_y = prior.pixel(stars.ra, stars.dec)
    known = np.isfinite(ref_x + ref_y)
    # Near a pole a pointing error turns the meridian under the camera.
    turn = min(config.search_radius_arcsec / 3600.0 * abs(np.tan(np.radians(prior.crval[1]))), _MAX_MERIDIAN_TURN_DEG)
    found = match_pattern(stars.x, stars.y, ref_x[known], ref_y[known], shape=shape, search_radius=config.search_radius_arcsec / pixel,
                          pair_radius=config.match_radius_arcsec / pixel, max_rotation_deg=config.max_rotation_deg + turn,
                          max_scale_change=config.max_scale_change)
    if found is None:
        raise NoSolution("no pattern match between detections and Gaia beyond chance", infobits=NOT_POSSIBLE,
                         detections=int(stars.x.size), references=int(stars.ra.size))
    tree = cKDTree(np.column_stack([ref_x[known], ref_y[known]]))
    distance, index = tree.query(np.column_stack(found.apply(stars.x, stars.y)),
                                 distance_upper_bound=config.match_radius_arcsec / pixel)
    i, j = unique_pairs(distance, index, tree.n)
    if i.size < config.min_matches:
        raise NoSolution(f"the pattern match leaves only {i.size} pairs", infobits=NOT_POSSIBLE, pairs=int(i.size))
    rows = np.flatnonzero(known)[j]
    return fit_linear(stars.x[i], stars.y[i], stars.ra[rows], stars.dec[rows], start=prior), found


def _match(stars: _Stars, wcs: TpvWcs, radius_arcsec: float):
    # Unique pairs in the tangent plane of `wcs`: indices, and residuals (2, n) [deg], image minus reference.
    plane = np.column_stack(wcs.distort(*wcs.intermediate(stars.x, stars.y)))
    reference = np.column_stack(project(stars.ra, stars.dec, *wcs.crval))
    tree = cKDTree(reference)
    i, j = unique_pairs(*tree.query(plane, distance_upper_bound=radius_arcsec / 3600.0), tree.n)
    return i, j, (plane[i] - reference[j]).T


def _mad(values) -> float:
    return float(1.4826 * np.median(np.abs(values))) if values.size else 0.0


def _second_pass(stars: _Stars, first, prior, config):
    wcs, radius, floor = first, config.match_radius_arcsec, _ACCURACY_MAS / _MAS_PER_DEG
    scale = prior.pixel_scale_arcsec / 3600.0
    isolated_only = True
    for step in range(4):
        i, j, residual = _match(stars, wcs, radius)
        formal = (stars.sigma_pix[i] * scale) ** 2 + stars.sigma_deg[j] ** 2
        good = np.max(np.abs(residual), axis=0) <= config.clip_sigma * np.sqrt(formal + max(_mad(residual) ** 2, floor**2))
        if isolated_only and np.sum(good & stars.isolated[j]) >= max(config.min_matches, _PER_TERM * len(terms_of(4))):
            good &= stars.isolated[j]
        if good.sum() < config.min_matches:
            raise NoSolution(f"the second pass keeps only {good.sum()} stars", infobits=NOT_POSSIBLE, pairs=int(good.sum()))
        if step:
            # What bright stars scatter beyond their formal errors is turbulence and detector; it belongs to every star.
            bright = good & (stars.snr[i] >= _HIGH_SNR)
            sample = bright if bright.sum() >= 10 else good
            floor = np.sqrt(max(_mad(residual[:, sample]) ** 2 - np.median(formal[sample]), (1.0 / _MAS_PER_DEG) ** 2))
        order = 2 if step == 0 else 4
        while order > 1 and good.sum() < _PER_TERM * len(terms_of(order)):
            order -= 1
        wcs = fit_tpv(stars.x[i[good]], stars.y[i[good]], stars.ra[j[good]], stars.dec[j[good]], formal[good] + floor**2,
                      start=wcs, prior=prior, order=order, tolerance=config.distortion_tolerance)
        scatter = 3600.0 * np.hypot(_mad(residual[:, good]), np.median(np.sqrt(formal)))
        radius = float(np.clip(5.0 * scatter, 0.5, config.match_radius_arcsec))
    i, j, residual = _match(stars, wcs, radius)
    formal = (stars.sigma_pix[i] * scale) ** 2 + stars.sigma_deg[j] ** 2
    used = np.max(np.abs(residual), axis=0) <= config.clip_sigma * np.sqrt(formal + floor**2)
    return wcs, used, (i, j, residual, formal), order, floor


def _chi_square(residual, formal) -> float:
    variance = formal + (_ACCURACY_MAS / _MAS_PER_DEG) ** 2
    return float(np.mean(residual**2 / variance)) if residual.size else float("nan")


def _judge(stars: _Stars, wcs, first, prior, used, pairs, shape, config):
    i, j, residual, formal = (pairs[0][used], pairs[1][used], pairs[2][:, used], pairs[3][used])
    if i.size < config.min_matches:
        raise NoSolution(f"only {i.size} stars agree with the solution", infobits=NOT_POSSIBLE, pairs=int(i.size))
    high = stars.snr[i] >= _HIGH_SNR
    if high.sum() < 20:
        high = np.ones(i.size, bool)
    rms = np.sqrt(np.mean(residual[:, high] ** 2, axis=1))
    chi2 = _chi_square(residual, formal)
    plane = np.array(first.distort(*first.intermediate(stars.x[i], stars.y[i]))) - project(stars.ra[j], stars.dec[j], *first.crval)
    chi2_first = _chi_square(plane, formal)
    ny, nx = shape
    row, column = (np.clip((v[i] * _GRID / n).astype(int), 0, _GRID - 1) for v, n in ((stars.y, ny), (stars.x, nx)))
    cell = row * _GRID + column
    counts = np.bincount(cell, minlength=_GRID**2)
    distance = np.hypot(*residual) * 3600.0
    medians = [np.median(distance[cell == k]) for k in np.flatnonzero(counts)]
    ref_x, ref_y = wcs.pixel(stars.ra, stars.dec)
    inside = (ref_x > 0) & (ref_x < nx - 1) & (ref_y > 0) & (ref_y < ny - 1)
    # Detections that Gaia must know: brighter than all but the faintest tenth of the matched stars.
    expected = stars.flux >= np.percentile(stars.flux[i], 10)
    matched = np.zeros(stars.flux.size, bool)
    matched[pairs[0]] = True
    metrics = {
        "ASTROMN": int(i.size), "ASTRRMS1": float(rms[0]), "ASTRRMS2": float(rms[1]), "ASTCHI2": chi2,
        "astrom_ref_percent": 100.0 * i.size / max(1, int(inside.sum())),
        "astrom_detected_percent": 100.0 * float(np.mean(matched[expected])),
        "astrom_grid_min": int(counts.min()), "astrom_grid_residual_arcsec": float(max(medians)),
        "pixel_scale_arcsec": 3600.0 * _central_scale(wcs, shape),
        "pixel_scale_percent": 100.0 * (_central_scale(wcs, shape) / _central_scale(prior, shape) - 1.0),
        "astrom_chi2_change_percent": 100.0 * (chi2 / chi2_first - 1.0) if chi2_first > 0 else 0.0,
    }
    sky = wcs.sky(stars.x[i], stars.y[i])
    offset = _local_offset(*sky, stars.ra[j], stars.dec[j])
    residuals = np.zeros(i.size, RESIDUAL)
    for name, values in (("x", stars.x[i]), ("y", stars.y[i]), ("dra_mas", offset[0] * _MAS_PER_DEG),
                         ("ddec_mas", offset[1] * _MAS_PER_DEG), ("g_mag", stars.g[j]), ("source_id", stars.source_id[j]),
                         ("snr", stars.snr[i])):
        residuals[name] = values
    return metrics, residuals


def _local_offset(ra, dec, ra0, dec0) -> tuple[np.ndarray, np.ndarray]:
    dra = (ra - ra0 + 180.0) % 360.0 - 180.0
    return dra * np.cos(np.radians(dec0)), dec - dec0


def _central_scale(wcs: TpvWcs, shape) -> float:
    x, y = (shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0
    corner = wcs.distort(*wcs.intermediate(np.array([x - 1, x + 1, x, x]), np.array([y, y, y - 1, y + 1])))
    dx, dy = [np.array([c[1] - c[0], c[3] - c[2]]) / 2.0 for c in corner]
    return float(np.sqrt(abs(dx[0] * dy[1] - dx[1] * dy[0])))


def _rotation(prior: TpvWcs, wcs: TpvWcs) -> float:
    turn = np.array(wcs.cd) @ np.linalg.inv(np.array(prior.cd))
    return float(np.degrees(np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])))
