"""Reference images: depth, zero point, what is left of moving objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks.truth import CONFIG, WHOLE_REFERENCE, Case, light_fraction, night, pairs, sky_variance
from ztfluigi.algorithms.catalogue import Catalogue, measure_quadrant
from ztfluigi.algorithms.coadd import coadd, footprint
from ztfluigi.algorithms.limits import theoretical_limit
from ztfluigi.model.images import Coadd
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.simulate.scene import SimulatedQuadrant
from ztfluigi.tasks.reference import as_quadrant

BRIGHT_SNR = 200.0
APERTURE_PIX = 3.0


@dataclass
class Built:
    """A reference, with its PSF, and its catalogue."""

    coadd: Coadd
    found: Catalogue


@lru_cache(maxsize=1)
def build(case: Case) -> Built:
    """The reference of the case's night."""
    epochs = night(case).epochs
    images = [epoch.image().wcs for epoch in epochs]
    wcs, shape = footprint(images, [case.camera.shape] * len(epochs))
    made = coadd(lambda i: epochs[i].image(), [epoch.magzp for epoch in epochs], wcs=wcs, shape=shape,
                 filter_code=epochs[0].truth.conditions.filter, config=CONFIG["reference"])
    found = measure_quadrant(as_quadrant(made), zero_point=made.magzp, config=CONFIG)
    made.psf = found.psf
    return Built(made, found)


def measure(case: Case) -> None:
    """Depth: limit less that of the mean of the epochs under their true PSFs and noise (within the target of 0). Zero point: median error
    of bright stars. Movers: median of what is left of their light.
    """
    built, epochs = build(case), night(case).epochs
    ideal = _ideal_limit([epoch.truth for epoch in epochs], built.coadd)
    errors = _errors(case, built)
    case.figure("reference.depth_mag", built.found.metrics["maglim"] - ideal, "mag", len(epochs), 0.1)
    case.figure("reference.zp_mmag", abs(np.median(errors)), "mmag", len(errors), 5.0)
    if len(epochs) == WHOLE_REFERENCE:
        left = _left_of_movers(case, built)
        case.figure("reference.mover_residual", abs(np.median(left)), "fraction", len(left), 0.01, suffix=False)


def _ideal_limit(epochs: list[SimulatedQuadrant], made: Coadd) -> float:
    """Five-sigma limit [mag] of an isolated star in the mean of the epochs."""
    ny, nx = epochs[0].raw.shape
    scale = np.array([10.0 ** (0.4 * (made.magzp - epoch.zero_point)) for epoch in epochs])
    variance = np.mean(scale**2 * [sky_variance(epoch) for epoch in epochs]) / len(epochs)
    psf = np.mean([epoch.psf.render(nx / 2, ny / 2) for epoch in epochs], axis=0)
    return theoretical_limit(float(np.sqrt(variance)), psf, made.gain, made.magzp)


def _errors(case: Case, built: Built) -> np.ndarray:
    """Magnitude errors [mmag] of bright, clean, constant stars: against their true mean light at the reference's zero point."""
    epochs, cat = night(case).epochs, built.found.psfcat
    cat = cat[(cat["snr"] > BRIGHT_SNR) & ((cat["flags"].astype(np.int64) & UNUSABLE) == 0)]
    first = epochs[0].truth
    stars = first.stars
    x, y = built.coadd.wcs.pixel(stars["ra"], stars["dec"])
    i, j = pairs(cat["xpos"] - 1, cat["ypos"] - 1, x, y, 1.0)
    stars, light = stars[j], []
    for epoch in epochs:
        _, rows, places = np.intersect1d(stars["id"], epoch.truth.stars["id"], return_indices=True)
        value = np.full(len(stars), np.nan)
        found = epoch.truth.stars[places]
        fraction = light_fraction(epoch.truth)(found["x"], found["y"])
        value[rows] = found["dn"] * fraction * 10.0 ** (0.4 * (built.coadd.magzp - epoch.truth.zero_point)) / np.mean(fraction)
        light.append(value)
    # A PSF flux is the light within 12 pixels, and so is the zero point that each epoch was scaled by.
    errors = -2.5e3 * np.log10(cat["flux"][i] / np.mean(light, axis=0))
    steady = np.ptp(light, axis=0) / np.mean(light, axis=0) < 0.02
    return errors[np.isfinite(errors) & steady]


def _left_of_movers(case: Case, built: Built) -> np.ndarray:
    """Light in the reference at every place of every moving object, over that of the object in one epoch."""
    shared = night(case)
    data, left = built.coadd.data, []
    ny, nx = data.shape
    grid_y, grid_x = np.mgrid[-4:5, -4:5]
    for epoch, points in zip(shared.epochs, shared.movers, strict=True):
        x, y = built.coadd.wcs.pixel(points["ra"], points["dec"])
        dn = 10.0 ** (-0.4 * (points["mag"] - built.coadd.magzp))
        inside = epoch.truth.psf.aperture_fraction(*(n / 2 for n in epoch.truth.raw.shape[::-1]), radius=APERTURE_PIX)
        for u, v, light in zip(x, y, dn, strict=True):
            if 5 < u < nx - 6 and 5 < v < ny - 6:
                i, j = round(u), round(v)
                within = np.hypot(grid_x + i - u, grid_y + j - v) <= APERTURE_PIX
                left.append(float(data[j - 4:j + 5, i - 4:i + 5][within].sum()) / (light * inside))
    return np.array(left)
