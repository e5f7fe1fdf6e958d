"""Images that nothing can be made of: each ends unusable, soon, with the bits and numbers that say why, and none with another error."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from ztfluigi.algorithms.catalogue import measure_quadrant
from ztfluigi.algorithms.instrumental import reduce_quadrant
from ztfluigi.algorithms.overscan import subtract_overscan
from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import Unusable
from ztfluigi.simulate import scene
from ztfluigi.tasks.settings import SECTIONS

CONFIG = {name: section() for name, section in SECTIONS.items()}
CAMERA = load_camera("ztf-mini")
BOUND_S = 30.0
BACKGROUND, SATURATED, SEEING, DEPTH, ZERO_POINT, ASTROMETRY = 0, 2, 3, 4, 8, 12


@lru_cache(maxsize=2)
def good(filter_code="zr"):
    return scene.simulate_quadrant(CAMERA, filter=filter_code, cosmic_rays=0.0)


def judged(truth, filter_code="zr"):
    """(status, infobits, numbers) of a raw quadrant by the steps of the tasks."""
    flat, empty = np.where(truth.dead, np.float32(1), truth.response), np.zeros(truth.raw.shape, np.uint16)
    try:
        image = subtract_overscan(truth.raw, truth.overscan, config=CONFIG["overscan"]).data
        reduced = reduce_quadrant(image, bias=truth.bias, flat=flat, mask=empty, gain=truth.gain, read_noise=truth.read_noise,
                                  nonlinearity=truth.nonlinearity, saturation_dn=truth.saturation_dn, gaia=truth.gaia,
                                  prior=truth.nominal_wcs, jd=truth.jd_mid, config=CONFIG)
        found = measure_quadrant(reduced.calibrated, ps1=truth.ps1, filter_code=filter_code, config=CONFIG,
                                 colour_coefficient=CAMERA.filter(filter_code).colour_coefficient)
    except Unusable as reason:
        return 0, reason.infobits, reason.numbers
    return found.status, found.infobits, found.metrics


def trailed(truth, length):
    """The stars drawn out to `length` pixels along a slanted line, under fresh noise."""
    sky = float(np.median(truth.raw))
    light = np.mean([np.roll(truth.raw - sky, (k // 3, k), (0, 1)) for k in range(length)], axis=0)
    return replace(truth, raw=np.clip(light + np.random.default_rng(1).normal(sky, 7.0, light.shape), 0, 65535).astype(np.uint16))


def elsewhere(truth):
    other = scene.calibrators(CAMERA, truth.ccdid, truth.qid, truth.nominal_wcs.crval, scene.sky.Sky(99, "high-lat", 3.4))
    return replace(truth, gaia=other[0], ps1=other[1])


CASES = {
    "fully saturated": (lambda: replace(good(), raw=np.full(CAMERA.shape, 65535, np.uint16)), SATURATED, "saturated_percent"),
    "blank": (lambda: replace(good(), raw=np.full(CAMERA.shape, int(np.median(good().overscan)), np.uint16)), ASTROMETRY, "background_dn"),
    "not a number": (lambda: replace(good(), raw=np.full(CAMERA.shape, np.nan, np.float32)), ASTROMETRY, "bad_percent"),
    "clouded to fifty stars": (lambda: scene.simulate_quadrant(CAMERA, clouds_mag=5.5), ZERO_POINT, "n_psf_sources"),
    "a short trail": (lambda: trailed(good(), 9), SEEING, "fwhm_pix"),
    "a long trail": (lambda: trailed(good(), 60), SEEING, "fwhm_pix"),
    "another filter": (lambda: good("zi"), ZERO_POINT, "clrcoeff"),
    "another field": (lambda: elsewhere(good()), ASTROMETRY, "n_detections"),
    "the Moon": (lambda: scene.simulate_quadrant(CAMERA, sky_factor=40.0), BACKGROUND, "background_dn"),
    "thick clouds": (lambda: scene.simulate_quadrant(CAMERA, clouds_mag=4.0), DEPTH, "maglim"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_unusable_with_bits_and_numbers(case):
    make, bit, number = CASES[case]
    truth = make()
    start = time.process_time()
    status, infobits, numbers = judged(truth)
    assert time.process_time() - start < BOUND_S
    assert status == 0 and infobits >> bit & 1
    assert np.isfinite(numbers[number])


def test_a_good_image_is_usable():
    status, infobits, _ = judged(good())
    assert (status, infobits) == (1, 0)
