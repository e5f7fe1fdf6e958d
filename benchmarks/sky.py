"""The simulated night that the speed benchmark works on: raw files, masters and calibrators of one quadrant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from targets import paths
from targets.codecs import catalog
from targets.codecs import image as image_codec
from targets.paths import RawName
from ztfluigi.model.camera import load_camera
from ztfluigi.model.maskbits import Mask
from ztfluigi.simulate import rawfile, scene
from ztfluigi.simulate.ephemeris import circumstances

TRANSIENT_MAGS = (17.0, 20.5)
TRANSIENTS = 30


@dataclass(frozen=True)
class Epoch:
    """One raw file and the quadrant of it that is reduced."""

    name: RawName
    qid: int
    jd: float


def write_sky(root: Path, density: str, epochs: int, seed: int) -> list[Epoch]:
    """Write `epochs` raw files of one sky and one more with new point sources; masters are the true response and bias.

    The quadrant in use stands in all four places of a file.
    """
    camera = load_camera("ztf")
    ccdid, qid = scene.default_quadrant(camera)
    written, points = [], None
    for number in range(epochs + 1):
        options = scene.epoch_options(number, seed=seed, density=density, seeing_arcsec=(1.9, 2.2))
        quadrant = scene.simulate_quadrant(camera, points=points if number == epochs else None, **options)
        if points is None:
            points = scene.transient_points(quadrant, np.linspace(*TRANSIENT_MAGS, TRANSIENTS), seed=seed)
            _write_masters(root, quadrant)
        written.append(_write_raw(root, quadrant))
    return written


def _write_masters(root: Path, quadrant: scene.SimulatedQuadrant) -> None:
    bad = np.where(quadrant.dead, Mask.DEAD, 0).astype(np.uint16) | np.where(quadrant.noisy, Mask.NOISY, 0).astype(np.uint16)
    image_codec.write_image(root / "bias.fits", quadrant.bias)
    image_codec.write_image(root / "flat.fits", np.where(quadrant.dead, np.float32(1), quadrant.response))
    image_codec.write_mask(root / "badpixels.fits", bad)
    for path, write, table in ((paths.gaia, catalog.write_gaia, quadrant.gaia), (paths.ps1, catalog.write_ps1, quadrant.ps1)):
        final = root / path(scene.DEFAULT_FIELD, quadrant.ccdid, quadrant.qid)
        final.parent.mkdir(parents=True, exist_ok=True)
        write(final, table)


def _write_raw(root: Path, quadrant: scene.SimulatedQuadrant) -> Epoch:
    camera, conditions = quadrant.camera, quadrant.conditions
    name = RawName(rawfile.exposure_name(conditions.obsjd - 2.0 / 86400.0), scene.DEFAULT_FIELD, conditions.filter, quadrant.ccdid, "o")
    there = circumstances(camera, conditions.obsjd, *quadrant.field_centre)
    primary = rawfile.primary_cards(camera, name, conditions, there, frame=conditions.number, led=None)
    rawfile.write(root, name, primary, [quadrant.raw] * 4, [quadrant.overscan] * 4,
                  [rawfile.quadrant_cards(camera, quadrant.ccdid, qid, quadrant.field_centre) for qid in (1, 2, 3, 4)])
    return Epoch(name, quadrant.qid, conditions.obsjd)
