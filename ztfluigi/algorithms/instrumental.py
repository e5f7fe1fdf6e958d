"""Instrumental calibration of one quadrant (paper 3.5, first half): detector corrections, artefact masks, sky and astrometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ztfluigi.algorithms import artifacts, astrometry, background, detection, detector, quality
from ztfluigi.model.camera import Ghost
from ztfluigi.model.images import Background, Calibrated
from ztfluigi.model.wcs import TpvWcs


@dataclass
class Reduced:
    """A calibrated quadrant with its sky, its detections and how the astrometric fit went."""

    calibrated: Calibrated
    background: Background
    detections: np.ndarray
    residuals: np.ndarray


def reduce_quadrant(image: np.ndarray, *, bias: np.ndarray, flat: np.ndarray, mask: np.ndarray, gain: float, read_noise: float,
                    nonlinearity: tuple[float, float], saturation_dn: float, gaia: np.ndarray, prior: TpvWcs, jd: float,
                    config: Mapping[str, object], low_flat: np.ndarray | None = None, ghosts: Sequence[Ghost] = (),
                    zero_point: float = np.nan) -> Reduced:
    """Calibrate an overscan-subtracted quadrant and solve its astrometry.

    Parameters
    ----------
    image : float32 (ny, nx) [DN]. bias [DN], flat [relative to 1], mask (uint16): masters of the same shape.
    gain [electron/DN], read_noise [electron], nonlinearity (A, B), saturation_dn [raw DN]: of the amplifier.
    gaia : calibrator table (`columns.GAIA`). prior : nominal WCS at the commanded pointing. jd : mid-exposure, UTC.
    config : settings by section name. low_flat : low-frequency flat [relative to 1], divided out too.
    ghosts : reflections the camera describes; zero_point [mag]: of its filter, good enough to tell which stars show one.

    Raises
    ------
    Unusable : nothing can be measured (saturated, blank, no astrometric solution); carries infobits and numbers.
    """
    with quality.explained({}, astrometry_failed=1):
        calibrated = detector.calibrate(image, bias=bias, flat=flat, mask=mask, gain=gain, read_noise=read_noise, nonlinearity=nonlinearity,
                                        saturation_dn=saturation_dn, low_flat=low_flat, config=config["detector"])
    with quality.explained(calibrated.metrics, astrometry_failed=1):
        return solve_quadrant(calibrated, gaia=gaia, prior=prior, jd=jd, config=config, ghosts=ghosts, zero_point=zero_point)


def solve_quadrant(calibrated: Calibrated, *, gaia: np.ndarray, prior: TpvWcs, jd: float, config: Mapping[str, object],
                   ghosts: Sequence[Ghost] = (), zero_point: float = np.nan) -> Reduced:
    """Sky, detections, artefact masks and astrometry of a calibrated quadrant; `calibrated` is completed in place."""
    sky = background.estimate(calibrated.data, calibrated.mask, config=config["background"])
    residual = calibrated.data - sky.level
    detections = detection.detect(residual, sky.rms, calibrated.mask, gain=calibrated.gain, config=config["detection"])
    metrics = calibrated.metrics
    metrics |= {"background_dn": sky.median, "noise_dn": sky.median_rms, "n_detections": len(detections)}
    fwhm = detection.image_fwhm(detections)
    # bleeds first: their mask shields them from both searches
    mask, metrics["n_saturated"] = artifacts.mask_saturation(calibrated.data, calibrated.mask, calibrated.saturate, config=config["artifacts"])
    if np.isfinite(fwhm):
        metrics["fwhm_pix"] = fwhm
        mask, metrics["n_cosmic"] = artifacts.mask_cosmic_rays(calibrated.data, calibrated.sigma, mask, sky, fwhm, config=config["artifacts"])
    mask, metrics["n_tracks"] = artifacts.mask_tracks(calibrated.data, calibrated.sigma, mask, sky, config=config["artifacts"])
    calibrated.mask = mask
    solution = astrometry.solve(detections, gaia, prior=prior, jd=jd, shape=calibrated.data.shape, config=config["astrometry"])
    calibrated.wcs = solution.wcs
    metrics |= solution.metrics
    x, y = solution.wcs.pixel(*astrometry.carry_to_epoch(gaia, jd))
    magnitude = gaia["phot_g_mean_mag"]
    calibrated.mask, metrics["n_halo"] = artifacts.mask_ghosts(mask, x, y, magnitude, light=10.0 ** (0.4 * (zero_point - magnitude)),
                                                               noise=sky.median_rms, ghosts=ghosts, config=config["artifacts"])
    return Reduced(calibrated, sky, detections, solution.residuals)
