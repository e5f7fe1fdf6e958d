"""Astrometry: positions against Gaia, the truth and the Cramer-Rao bound; solutions found and wrong ones accepted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.truth import CONFIG, Case, Epoch, bounds, ideal_limit, matched, night, pairs, reduced, width
from ztfluigi.algorithms import astrometry
from ztfluigi.algorithms.catalogue import measure_quadrant
from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import Unusable
from ztfluigi.model.wcs import separation_arcsec
from ztfluigi.simulate import scene

WRONG_ARCSEC = 1.0
SEEDS, SEEDS_QUICK = 100, 6
"""Frames of each density: 200 together."""
POINTING_ARCSEC, ROTATION_DEG = 180.0, 0.5
FAINT_ENOUGH = 17.5
"""Ideal five-sigma limit [mag] below which INFOBITS call a frame unusable."""


def measure(case: Case) -> None:
    """Print the figures of one case."""
    epochs = night(case).epochs
    to_gaia = np.concatenate([_to_gaia(epoch) for epoch in epochs])
    ratio, bright = (np.concatenate(parts) for parts in zip(*map(_to_truth, epochs), strict=True))
    case.figure("astrometry.snr10_mas", width(to_gaia), "mas", len(to_gaia), 85.0)
    case.figure("astrometry.bound_ratio", width(ratio), "ratio", len(ratio), 1.15)
    case.figure("astrometry.bright_mas", width(bright), "mas", len(bright), 8.0)
    _solutions(case)


def _to_gaia(epoch: Epoch) -> np.ndarray:
    """Offsets along both axes [mas] of sources with measured S/N >= 10. The paper's survey has 45 to 85 mas."""
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
    """Frames of ztf-mini, each of another sky: pointing errors to 3 arcmin, rotations to 0.5 deg, seeing 1.5 to 4 arcsec, clouds. Those deep
    enough to be of use must be solved, the others flagged, and calibrators of another place refused."""
    camera = load_camera("ztf-mini")
    solved, flagged, wrong, tried = [], [], 0, 0
    for n in range(SEEDS_QUICK if case.quick else SEEDS):
        truth = _troubled(camera, case, n)
        usable = ideal_limit(truth) > FAINT_ENOUGH
        found = _attempt(truth)
        right = found is not None and _is_right(found.calibrated.wcs, truth)
        if usable:
            solved.append(right)
        elif ideal_limit(truth) < FAINT_ENOUGH - 0.5:
            flagged.append(found is None or _status(found, truth) == 0)
        tried += 1 + (found is not None)
        wrong += found is not None and not right
        wrong += found is not None and _accepts_elsewhere(found, truth)
    case.figure("astrometry.solved", np.mean(solved), "fraction", len(solved), 1.0)
    case.figure("astrometry.flagged", np.mean(flagged) if flagged else np.nan, "fraction", len(flagged), 1.0)
    case.figure("astrometry.wrong", wrong, "solutions", tried, 0)


def _troubled(camera, case: Case, n: int):
    """Frame `n`, its nominal coordinates turned about the centre."""
    draw = np.random.default_rng([case.seed, n])
    error, angle = POINTING_ARCSEC * np.sqrt(draw.random()), draw.uniform(0.0, 2.0 * np.pi)
    clouds = draw.uniform(0.0, 7.0) if n % 3 == 2 else 0.0
    truth = scene.simulate_quadrant(camera, density=case.density, seed=1000 * case.seed + n, boost=case.options["boost"],
                                    seeing_arcsec=draw.uniform(1.5, 4.0), clouds_mag=clouds, airmass=draw.uniform(1.0, 2.0),
                                    pointing_error_arcsec=(error * np.cos(angle), error * np.sin(angle)))
    turn = np.radians(draw.uniform(-ROTATION_DEG, ROTATION_DEG))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array(truth.nominal_wcs.cd)
    return replace(truth, nominal_wcs=replace(truth.nominal_wcs, cd=tuple(map(tuple, matrix.tolist()))))


def _attempt(truth):
    try:
        return reduced(truth)
    except Unusable:
        return None


def _status(found, truth) -> int:
    try:
        return measure_quadrant(found.calibrated, ps1=truth.ps1, filter_code=truth.conditions.filter, config=CONFIG).status
    except Unusable:
        return 0


def _accepts_elsewhere(found, truth) -> bool:
    """Whether a calibrator table of another place, this one mirrored, is taken for the stars of the frame."""
    elsewhere = truth.gaia.copy()
    elsewhere["dec"] = 2.0 * np.median(elsewhere["dec"]) - elsewhere["dec"]
    try:
        solution = astrometry.solve(found.detections, elsewhere, prior=truth.nominal_wcs, jd=truth.jd_mid, shape=truth.raw.shape,
                                    config=CONFIG["astrometry"])
    except Unusable:
        return False
    return not _is_right(solution.wcs, truth)


def _is_right(wcs, truth) -> bool:
    ny, nx = truth.raw.shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5)))
    ra, dec = truth.true_wcs.sky(x, y)
    return bool(separation_arcsec(*wcs.sky(x, y), ra, dec).max() < WRONG_ARCSEC)
