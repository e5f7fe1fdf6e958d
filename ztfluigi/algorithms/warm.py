"""Loading compiled kernels once, so that every process forked afterwards has them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ztfluigi.algorithms import events, forced, limits
from ztfluigi.algorithms.catalogue import measure_quadrant
from ztfluigi.algorithms.coadd import coadd, footprint
from ztfluigi.algorithms.instrumental import reduce_quadrant
from ztfluigi.algorithms.subtract import subtract
from ztfluigi.model.columns import GAIA, PS1, dtype_of
from ztfluigi.model.images import Calibrated
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

SIZE, STARS, GAIN, READ_NOISE, SKY_DN, ZERO_POINT = 512, 140, 6.2, 10.0, 200.0, 26.3


def load_kernels(config: Mapping[str, object]) -> None:
    """Run the whole chain of a quadrant on a small seeded star field; config as the tasks give it, every section."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(20, SIZE - 20, (2, STARS))
    mag = rng.uniform(14.0, 19.0, STARS)
    wcs = TpvWcs(((SIZE + 1) / 2,) * 2, (40.0, 10.0), ((-2.8e-4, 0.0), (0.0, -2.8e-4)))
    zeros, ones = np.zeros((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)
    image = _star_field(rng, x, y, 10 ** (0.4 * (ZERO_POINT - mag)))
    reduced = reduce_quadrant(image, bias=zeros, flat=ones, mask=np.zeros((SIZE, SIZE), np.uint16), gain=GAIN, read_noise=READ_NOISE,
                              nonlinearity=(0.0, 0.0), saturation_dn=60000.0, gaia=_gaia(*wcs.sky(x, y), mag), prior=wcs, jd=2457388.5,
                              config=config).calibrated
    found = measure_quadrant(reduced, ps1=_ps1(*wcs.sky(x, y), mag, rng), filter_code="zr", config=config)
    grid, shape = footprint([reduced.wcs], [image.shape])
    reference = coadd(lambda i: reduced, [ZERO_POINT] * 5, wcs=grid, shape=shape, filter_code="zr", config=config["reference"])
    covered = np.isfinite(reference.data)
    quadrant = Calibrated(np.where(covered, reference.data, np.float32(0)), np.where(covered, reference.sigma, np.float32(1)), reference.mask,
                          GAIN, 0.0, reference.saturate, grid)
    catalogue = measure_quadrant(quadrant, zero_point=reference.magzp, config=config)
    reference.psf = catalogue.psf
    difference = subtract(reduced, found.psf, ZERO_POINT, reference, psfcat_sci=found.psfcat, psfcat_ref=catalogue.psfcat,
                          config=config["difference"])
    events.extract(difference, wcs=reduced.wcs, psfcat_ref=catalogue.psfcat, reference_magzp=reference.magzp, config=config["events"])
    limits.local_limits(difference.data, difference.mask != 0, lambda x, y: np.sum(difference.psf_at(x, y) ** 2, axis=(-2, -1)), ZERO_POINT)
    stamp = np.zeros((2 * forced.HALF + 1,) * 2, np.float32)
    forced.measure([stamp], [stamp], difference.psf[None], np.zeros((1, 2)), gain=GAIN)


def _star_field(rng, x, y, flux) -> np.ndarray:
    image = np.full((SIZE, SIZE), SKY_DN)
    psf = PsfModel.gaussian(2.3, (SIZE, SIZE))
    for sx, sy, light in zip(x, y, flux, strict=True):
        i, j = round(sx), round(sy)
        image[j - 12:j + 13, i - 12:i + 13] += light * psf.render(sx, sy, 25, sx - i, sy - j)
    return (image + rng.normal(size=image.shape) * np.sqrt(image / GAIN + (READ_NOISE / GAIN) ** 2)).astype(np.float32)


def _gaia(ra, dec, mag) -> np.ndarray:
    table = np.zeros(len(ra), dtype_of(GAIA))
    table["source_id"], table["ra"], table["dec"], table["phot_g_mean_mag"] = np.arange(len(ra)), ra, dec, mag
    table["ref_epoch"], table["ra_error"], table["dec_error"] = 2016.0, 0.1, 0.1
    return table


def _ps1(ra, dec, mag, rng) -> np.ndarray:
    table = np.zeros(len(ra), dtype_of(PS1))
    table["raMean"], table["decMean"], table["rMeanPSFMag"], table["nDetections"], table["sgscore"] = ra, dec, mag, 40, 1.0
    for band, shift in (("g", rng.uniform(0.3, 0.9, len(ra))), ("i", -0.2), ("z", -0.3)):
        table[f"{band}MeanPSFMag"] = mag + shift
    for band in "griz":
        table[f"{band}MeanPSFMagErr"] = 0.005
    return table
