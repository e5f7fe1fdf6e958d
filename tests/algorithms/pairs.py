"""A small seeded sky seen by a science image and a reference: for the tests of differencing and events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfluigi.algorithms.subtract import Difference, subtract
from ztfluigi.model.columns import PSFCAT, dtype_of
from ztfluigi.model.config.difference import DifferenceConfig
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

SCALE = 1.0125 / 3600.0
SHAPE = (256, 240)
REF_SHAPE = (280, 276)
GAIN, READ_NOISE, SKY = 6.2, 10.0, 250.0
SCIENCE_ZP, REFERENCE_ZP = 26.2, 26.275
RATIO = 10 ** (0.4 * (SCIENCE_ZP - REFERENCE_ZP))
DISTORTION = ({1: 1.0, 7: 0.01}, {1: 1.0, 10: -0.01})
SCIENCE_WCS = TpvWcs(((SHAPE[1] + 1) / 2, (SHAPE[0] + 1) / 2), (150.0, 30.0), ((-SCALE, 2e-4 * SCALE), (2e-4 * SCALE, -SCALE)), *DISTORTION)
REFERENCE_WCS = TpvWcs(((REF_SHAPE[1] + 1) / 2, (REF_SHAPE[0] + 1) / 2), (150.0003, 29.9998), ((-SCALE, 0.0), (0.0, SCALE)))
TILED = DifferenceConfig(tile_size=128, background_mesh=64)


def moffat(fwhm_pix, shape, beta=3.2, half_size=14, oversample=4, fine=5):
    """Pixel-integrated circular Moffat."""
    step = oversample * fine
    offset = np.arange(-half_size * step - step, half_size * step + step + 1) / step
    alpha = fwhm_pix / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    profile = (1.0 + (offset[:, None] ** 2 + offset[None, :] ** 2) / alpha**2) ** -beta
    box = np.cumsum(np.cumsum(np.pad(profile, ((1, 0), (1, 0))), axis=0), axis=1)
    # Mean over step + 1 points centred on each pixel: a pixel wide to within 1/step.
    summed = box[step + 1:, step + 1:] - box[:-step - 1, step + 1:] - box[step + 1:, :-step - 1] + box[:-step - 1, :-step - 1]
    centre = summed.shape[0] // 2
    reach = half_size * step
    table = summed[centre - reach:centre + reach + 1:fine, centre - reach:centre + reach + 1:fine]
    return PsfModel((table / table.sum() * oversample**2)[None], 0, shape, oversample)


def add_stars(image, psf, x, y, flux, size=25):
    """Add point sources at zero-based pixels."""
    half = size // 2
    for sx, sy, f in zip(x, y, flux, strict=True):
        ix, iy = round(float(sx)), round(float(sy))
        y0, y1, x0, x1 = max(0, iy - half), min(image.shape[0], iy + half + 1), max(0, ix - half), min(image.shape[1], ix + half + 1)
        if y0 < y1 and x0 < x1:
            stamp = psf.render(sx, sy, size, sx - ix, sy - iy)
            image[y0:y1, x0:x1] += f * stamp[y0 - iy + half:y1 - iy + half, x0 - ix + half:x1 - ix + half]


def catalogue(x, y, flux, sigma, wcs):
    """A PSF catalogue of given zero-based places."""
    out = np.zeros(len(x), dtype_of(PSFCAT))
    out["sourceid"], out["xpos"], out["ypos"] = np.arange(len(x)), np.asarray(x) + 1.0, np.asarray(y) + 1.0
    out["ra"], out["dec"] = wcs.sky(x, y)
    out["flux"], out["sigflux"], out["snr"] = flux, sigma, np.asarray(flux) / sigma
    out["mag"], out["sigmag"], out["chi"] = -2.5 * np.log10(flux), 1.0857 * sigma / np.asarray(flux), 1.0
    return out


@dataclass
class Pair:
    """Inputs of `subtract`, and the truth."""

    science: Calibrated
    science_psf: PsfModel
    reference: Coadd
    psfcat_sci: np.ndarray
    psfcat_ref: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray

    def subtract(self, config=TILED) -> Difference:
        return subtract(self.science, self.science_psf, SCIENCE_ZP, self.reference, psfcat_sci=self.psfcat_sci, psfcat_ref=self.psfcat_ref,
                        config=config)


def make_pair(seed=1, *, n_stars=60, transients=(), science_fwhm=2.3, reference_fwhm=2.0, depth=25, shift=(0.0, 0.0), gradient=0.0,
              max_flux=2e4) -> Pair:
    """Stars of 100 to `max_flux` science DN, `transients` (x, y, flux) only in the science image; `shift` [pix] is an error of its WCS."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(4, SHAPE[1] - 5, n_stars), rng.uniform(4, SHAPE[0] - 5, n_stars)
    flux = 10 ** rng.uniform(2.0, np.log10(max_flux), n_stars)
    science_psf, reference_psf = moffat(science_fwhm, SHAPE), moffat(reference_fwhm, REF_SHAPE)
    sky = SKY + gradient * np.linspace(-1, 1, SHAPE[1])[None, :] * np.ones((SHAPE[0], 1))
    clean = sky.copy()
    add_stars(clean, science_psf, x + shift[0], y + shift[1], flux)
    for tx, ty, tf in transients:
        add_stars(clean, science_psf, [tx + shift[0]], [ty + shift[1]], [tf])
    sigma = np.sqrt(np.maximum(clean, 1.0) / GAIN + (READ_NOISE / GAIN) ** 2)
    data = clean + sigma * rng.normal(size=SHAPE)
    rx, ry = REFERENCE_WCS.pixel(*SCIENCE_WCS.sky(x, y))
    ref_clean = np.zeros(REF_SHAPE)
    add_stars(ref_clean, reference_psf, rx, ry, flux / RATIO)
    ref_sigma = np.sqrt(((SKY + ref_clean) / GAIN + (READ_NOISE / GAIN) ** 2) / depth)
    ref_data = ref_clean + ref_sigma * rng.normal(size=REF_SHAPE)
    science = Calibrated(data.astype(np.float32), sigma.astype(np.float32), np.zeros(SHAPE, np.uint16), GAIN, READ_NOISE, 5e4, SCIENCE_WCS)
    reference = Coadd(ref_data.astype(np.float32), ref_sigma.astype(np.float32), np.full(REF_SHAPE, depth, np.int16),
                      np.zeros(REF_SHAPE, np.uint16), REFERENCE_WCS, REFERENCE_ZP, GAIN * depth, 5e4, 1.0, reference_psf)
    error = np.sqrt(flux / GAIN + 400.0)
    cat_sci = catalogue(x + shift[0] + rng.normal(size=n_stars) * error / flux, y + shift[1] + rng.normal(size=n_stars) * error / flux,
                        flux + error * rng.normal(size=n_stars), error, SCIENCE_WCS)
    cat_ref = catalogue(rx, ry, flux / RATIO, error / np.sqrt(depth), REFERENCE_WCS)
    return Pair(science, science_psf, reference, cat_sci, cat_ref, x, y, flux)
