"""Astrometry: positions against Gaia, the truth and the Cramer-Rao bound; solutions found and wrong ones accepted."""

from __future__ import annotations

import numpy as np

from benchmarks.truth import CONFIG, Case, Epoch, bounds, matched, night, pairs, reduced, simulate, width
from ztfluigi.algorithms import astrometry
from ztfluigi.model.errors import Unusable
from ztfluigi.model.wcs import separation_arcsec

WRONG_ARCSEC = 1.0
POINTING_ERRORS_ARCSEC = ((0.0, 0.0), (40.0, -30.0), (-70.0, 60.0), (20.0, 90.0))


def measure(case: Case) -> None:
    """Print the figures of one case."""
    epochs = night(case).epochs
    to_gaia = np.concatenate([_to_gaia(epoch) for epoch in epochs])
    ratio, bright = (np.concatenate(parts) for parts in zip(*map(_to_truth, epochs), strict=True))
    case.figure("astrometry.snr10_mas", width(to_gaia), "mas", len(to_gaia), 100.0)
    case.figure("astrometry.bound_ratio", width(ratio), "ratio", len(ratio), 1.3)
    case.figure("astrometry.bright_mas", width(bright), "mas", len(bright), 30.0)
    _solutions(case)


def _to_gaia(epoch: Epoch) -> np.ndarray:
    """Offsets along both axes [mas] of sources with measured S/N >= 10."""
    cat = epoch.found.psfcat[epoch.found.psfcat["snr"] >= 10]
    ra, dec = astrometry.carry_to_epoch(epoch.truth.gaia, epoch.truth.jd_mid)
    gx, gy = epoch.truth.true_wcs.pixel(ra, dec)
    i, j = pairs(cat["xpos"] - 1, cat["ypos"] - 1, gx, gy, 1.5)
    return _offsets(cat["ra"][i], cat["dec"][i], ra[j], dec[j])


def _to_truth(epoch: Epoch) -> tuple[np.ndarray, np.ndarray]:
    """Errors along both axes: over the bound for ideal S/N >= 10; in mas for stars brighter than 16."""
    found = matched(epoch)
    errors = _offsets(found.rows["ra"], found.rows["dec"], found.stars["ra"], found.stars["dec"])
    bound = np.tile(bounds(epoch.truth, found.stars["dn"])[1], 2) * epoch.truth.camera.pixel_scale_arcsec * 1e3
    strong, bright = np.tile(found.snr >= 10, 2), np.tile(found.stars["mag"] < 16, 2)
    return (errors / bound)[strong], errors[bright]


def _offsets(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Both axes, one after the other [mas]."""
    return np.concatenate([(ra1 - ra2) * np.cos(np.radians(dec2)), dec1 - dec2]) * 3.6e6


def _solutions(case: Case) -> None:
    """Pointing errors up to 1.5 arcmin must be solved; a calibrator table of another place must be refused."""
    solved, wrong, tried = 0, 0, 0
    for n, error in enumerate(POINTING_ERRORS_ARCSEC):
        truth = simulate(case, 60 + n, pointing_error_arcsec=error)
        tried += 2
        try:
            found = reduced(truth)
        except Unusable:
            continue
        good = _is_right(found.calibrated.wcs, truth)
        solved, wrong = solved + good, wrong + (not good)
        elsewhere = truth.gaia.copy()
        elsewhere["dec"] = 2.0 * np.median(elsewhere["dec"]) - elsewhere["dec"]  # mirrored
        try:
            solution = astrometry.solve(found.detections, elsewhere, prior=truth.nominal_wcs, jd=truth.jd_mid, shape=truth.raw.shape,
                                        config=CONFIG["astrometry"])
        except Unusable:
            continue
        wrong += not _is_right(solution.wcs, truth)
    case.figure("astrometry.solved", solved / len(POINTING_ERRORS_ARCSEC), "fraction", len(POINTING_ERRORS_ARCSEC), 1.0)
    case.figure("astrometry.wrong", wrong, "solutions", tried, 0)


def _is_right(wcs, truth) -> bool:
    ny, nx = truth.raw.shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5)))
    ra, dec = truth.true_wcs.sky(x, y)
    return bool(separation_arcsec(*wcs.sky(x, y), ra, dec).max() < WRONG_ARCSEC)
