"""A real ZTF science image through our masks, PSF and photometry, beside what IPAC's header and mask say of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from benchmarks.meter import figure
from benchmarks.truth import CONFIG
from targets.codecs import image as image_codec
from ztfluigi.algorithms import artifacts, background, detection
from ztfluigi.algorithms.catalogue import Catalogue, measure_quadrant
from ztfluigi.algorithms.noise import pixel_sigma
from ztfluigi.algorithms.psf_photometry import fit_fixed
from ztfluigi.model.header import Header
from ztfluigi.model.images import Calibrated
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.model.wcs import TpvWcs

STEM = "ztf_20200924431759_000655_zr_c13_o_q3_"
MATCH_PIX = 1.5
"""IPAC's mask marks whole pixels: a source of it is ours within this distance."""
STRONG = 8.0
SILICON = int(Mask.LOW_RESPONSE | Mask.HIGH_RESPONSE | Mask.NOISY | Mask.DEAD | Mask.NAN)
"""Bits of IPAC's mask that our detector mask would hold: they belong to the calibration, which is not here."""


def measure(data: Path) -> None:
    """Print the figures of the image; `value` is ours minus IPAC's where IPAC has a number."""
    stem = str(data / "ztf-sciimg" / STEM)
    pixels, header = image_codec.read_image(Path(stem + "sciimg.fits.fz"))
    theirs, _ = image_codec.read_mask(Path(stem + "mskimg.fits.fz"))
    image = _masked(pixels, header, theirs & np.uint16(SILICON))
    _masks(image.mask, theirs)
    found = measure_quadrant(image, zero_point=float(header["MAGZP"]), config=CONFIG)
    number = len(found.psfcat)
    figure("real.seeing_pix", found.metrics["fwhm_pix"] - header["SEEING"], "pix", found.metrics["n_psf_stars"], 0.1)
    figure("real.maglim_mag", found.metrics["maglim"] - header["MAGLIM"], "mag", number, 0.1)
    for n, ours in enumerate(found.apcor):
        figure(f"real.apcor{n + 1}_mag", ours - header[f"APCOR{n + 1}"], "mag", number, 0.02)
    _sources(image, found, theirs)


def _masked(pixels: np.ndarray, header: Header, silicon: np.ndarray) -> Calibrated:
    """The image as our own chain would hold it: noise and saturation from its counts and header, artefact masks of our own."""
    gain, read_noise, saturate = (float(header[key]) for key in ("GAIN", "READNOI", "SATURATE"))
    silicon = np.where(pixels >= CONFIG["detector"].saturation_fraction * saturate, silicon | np.uint16(Mask.SATURATED), silicon)
    sigma = pixel_sigma(pixels, gain, read_noise)
    image = Calibrated(pixels, sigma, silicon, gain, read_noise, saturate, TpvWcs.from_cards(header))
    sky = background.estimate(pixels, silicon, config=CONFIG["background"])
    stars = detection.detect(pixels - sky.level, sky.rms, silicon, gain=gain, config=CONFIG["detection"])
    mask, _ = artifacts.mask_saturation(pixels, silicon, saturate, config=CONFIG["artifacts"])
    mask, _ = artifacts.mask_cosmic_rays(pixels, sigma, mask, sky, detection.image_fwhm(stars), config=CONFIG["artifacts"])
    image.mask, _ = artifacts.mask_tracks(pixels, sigma, mask, sky, config=CONFIG["artifacts"])
    return image


def _masks(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Part of IPAC's saturated pixels and spikes that are ours (any unusable bit), and of ours that are theirs, or next to theirs."""
    lost = (ours & np.uint16(UNUSABLE)) != 0
    for name, bit in (("saturated", Mask.SATURATED), ("spikes", Mask.SPIKE)):
        own, other = (ours & np.uint16(bit)) != 0, (theirs & np.uint16(bit)) != 0
        figure(f"real.{name}_recall", lost[other].mean(), "fraction", other.sum(), None)
        near = binary_dilation(other, np.ones((3, 3)))
        figure(f"real.{name}_precision", near[own].mean() if own.any() else np.nan, "fraction", own.sum(), None)


def _sources(image: Calibrated, found: Catalogue, theirs: np.ndarray) -> None:
    """Of IPAC's PSF sources that a fit at their place measures at S/N >= 8, the part that our catalogue holds; and of ours, theirs."""
    y, x = np.nonzero(theirs & Mask.PSF_SOURCE)
    table, places = found.psfcat, np.column_stack([x, y])
    ours = np.column_stack([table["xpos"], table["ypos"]]) - 1.0
    distance, nearest = cKDTree(ours).query(places)
    have = distance <= MATCH_PIX
    residual = image.data - background.estimate(image.data, image.mask, config=CONFIG["background"]).level
    flux, error, _ = fit_fixed(residual, image.sigma, image.mask, found.psf, x, y, config=CONFIG["psf_photometry"])
    snr = np.where(have, table["snr"][nearest], flux / error)
    strong = snr >= STRONG
    figure("real.psf_found", have[strong].mean(), "fraction", strong.sum(), 0.97)
    figure("real.psf_found_all", have.mean(), "fraction", len(x), None)
    bright = (table["snr"] >= STRONG) & ((table["flags"].astype(np.int64) & UNUSABLE) == 0)
    back = cKDTree(places).query(ours[bright])[0] <= MATCH_PIX
    figure("real.psf_shared", back.mean(), "fraction", bright.sum(), None)
