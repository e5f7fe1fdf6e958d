"""Source catalogues of one calibrated quadrant (paper 3.5, second half): PSF, PSF-fit and aperture photometry, zero point, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ztfluigi.algorithms import apertures, background, extraction, limits, psf, psf_photometry, quality
from ztfluigi.algorithms.confusion import add_confusion
from ztfluigi.algorithms.photometric_calibration import ZeroPoint, fit_zero_point
from ztfluigi.model.errors import Unusable
from ztfluigi.model.images import Calibrated
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel


@dataclass
class Catalogue:
    """What is measured on a quadrant.

    psfcat, sexcat : structured arrays. zero_point : None when photometric calibration was not possible.
    apcor, apcorun : (6,) PSF minus aperture magnitudes and their uncertainties [mag].
    metrics, infobits, status : QA numbers and the verdict on the science image.
    """

    psf: PsfModel
    psfcat: np.ndarray
    sexcat: np.ndarray
    zero_point: ZeroPoint | None
    apcor: np.ndarray
    apcorun: np.ndarray
    metrics: dict = field(default_factory=dict)
    infobits: int = 0
    status: int = 1


def measure_quadrant(image: Calibrated, *, config: Mapping[str, object], ps1: np.ndarray | None = None, filter_code: str = "zr",
                     zero_point: float | None = None, colour_coefficient: float | None = None) -> Catalogue:
    """Build the PSF, fit every source, measure apertures, calibrate against PS1 and judge the image.

    Parameters
    ----------
    image : calibrated quadrant with WCS and artefact mask.
    ps1 : calibrators (`columns.PS1`); None uses `zero_point` [mag] as it is (co-adds, adopted images).
    colour_coefficient : that of the filter in the header [mag/mag], if known; another filter's light does not follow it.
    config : settings by section name.

    Raises
    ------
    Unusable : no PSF can be made; carries infobits and numbers. A failed zero point does not raise: it sets bit 8 and status 0.
    """
    metrics = dict(image.metrics)
    with quality.explained(metrics, psf_failed=1):
        sky = background.estimate(image.data, image.mask, config=config["background"])
        metrics |= {"background_dn": sky.median, "noise_dn": sky.median_rms}
        residual = image.data - sky.level
        sources = extraction.segment(residual, sky.rms, image.mask, config["apertures"])
        detections = extraction.starts(sources, sky.rms, image.gain)
        model, found = psf.build_psf(residual, image.sigma, image.mask, detections, config=config["psf"])
    psfcat, _ = psf_photometry.fit_catalogue(residual, image.sigma, image.mask, detections, model, image.wcs, config=config["psf_photometry"])
    depth = limits.limiting_magnitude(psfcat, 0.0)  # of the noise: the limit of an isolated source
    metrics["confusion_dn"] = add_confusion(psfcat, model)
    sexcat = apertures.measure(sources, sky.rms, image.mask, wcs=image.wcs, gain=image.gain, config=config["apertures"])
    apcor, apcorun = apertures.aperture_corrections(psfcat, sexcat)
    metrics |= {**found, "n_psf_sources": len(psfcat), "n_sex_sources": len(sexcat)}
    fitted = None
    if ps1 is not None:
        try:
            fitted = fit_zero_point(psfcat, ps1, filter_code=filter_code, shape=image.data.shape, config=config["zero_point"])
            zero_point = fitted.magzp
            metrics |= {"magzp": fitted.magzp, "magzprms": fitted.magzprms, "nmatches": fitted.nmatches, "clrcoeff": fitted.clrcoeff}
            if colour_coefficient is not None:
                metrics["colour_departure"] = abs(fitted.clrcoeff - colour_coefficient) - 3.0 * fitted.clrcounc
        except Unusable as reason:
            metrics |= {"zero_point_failed": 1, **reason.numbers}
    if zero_point is not None:
        metrics["maglim"] = depth + zero_point
        centre = model.render((image.data.shape[1] - 1) / 2, (image.data.shape[0] - 1) / 2)
        metrics["maglim_theory"] = limits.theoretical_limit(sky.median_rms, centre, image.gain, zero_point)
    infobits, status = quality.judge_science(metrics)
    return Catalogue(model, psfcat, sexcat, fitted, apcor, apcorun, metrics, infobits, status)


def mark_sources(mask: np.ndarray, psfcat: np.ndarray, sexcat: np.ndarray) -> np.ndarray:
    """A copy of the mask with the positions of PSF-fit sources (bit 11) and of aperture detections (bit 1) set."""
    marked = mask.copy()
    ny, nx = mask.shape
    for table, x, y, bit in ((psfcat, "xpos", "ypos", Mask.PSF_SOURCE), (sexcat, "X_IMAGE", "Y_IMAGE", Mask.SEX_SOURCE)):
        col = np.clip(np.rint(table[x]).astype(int) - 1, 0, nx - 1)
        row = np.clip(np.rint(table[y]).astype(int) - 1, 0, ny - 1)
        marked[row, col] |= np.uint16(bit)
    return marked
