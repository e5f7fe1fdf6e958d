"""Differences of what should not come: turned, shifted and foreign references, quadrants full of light. Flagged, and bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.algorithms import pairs
from tests.algorithms.pairs import REF_SHAPE, SHAPE, make_pair
from ztfluigi.algorithms.events import extract, light_filter
from ztfluigi.algorithms.quality import judge_difference
from ztfluigi.model.config.difference import EventConfig
from ztfluigi.model.errors import Unusable
from ztfluigi.model.maskbits import Mask


@pytest.fixture(scope="module")
def pair():
    return make_pair(22, n_stars=40, transients=[(100.3, 120.2, 2000.0)])


def found_in(pair, difference, **settings):
    return extract(difference, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP, config=EventConfig(**settings))


def judged(difference, n_events=0):
    ratio = difference.metrics["flux_ratio"] / pairs.RATIO
    return judge_difference(difference.metrics | {"n_events": n_events, "flux_ratio_relative": ratio}, filter_code="zr")


def test_a_reference_turned_by_half_a_circle_gives_the_same_difference(pair):
    ny, nx = REF_SHAPE
    wcs, cat = pair.reference.wcs, pair.psfcat_ref.copy()
    turned = replace(wcs, crpix=(nx + 1 - wcs.crpix[0], ny + 1 - wcs.crpix[1]), cd=tuple(tuple(-v for v in row) for row in wcs.cd))
    planes = {name: np.ascontiguousarray(getattr(pair.reference, name)[::-1, ::-1]) for name in ("data", "sigma", "depth", "mask")}
    cat["xpos"], cat["ypos"] = nx + 1 - cat["xpos"], ny + 1 - cat["ypos"]
    out = replace(pair, reference=replace(pair.reference, wcs=turned, **planes), psfcat_ref=cat).subtract()
    assert np.abs(out.scorr - pair.subtract().scorr).max() < 0.3


def test_a_shallow_patch_of_the_reference_is_a_hole(pair):
    depth = pair.reference.depth.copy()
    depth[120:150, 120:150] = 2
    out = replace(pair, reference=replace(pair.reference, depth=depth)).subtract()
    hole = (out.mask & Mask.NAN) > 0
    assert 600 < np.count_nonzero(hole) < 1500 and (out.scorr[hole] == 0).all()


def test_a_reference_of_another_place_is_unusable_or_flagged(pair):
    far = replace(pair.reference, wcs=replace(pairs.REFERENCE_WCS, crval=(150.5, 30.0)))
    with pytest.raises(Unusable, match="no usable pixel in common"):
        replace(pair, reference=far).subtract()
    part = replace(pair.reference, wcs=replace(pairs.REFERENCE_WCS, crval=(150.0, 30.0 + 0.8 * SHAPE[0] * pairs.SCALE)))
    out = replace(pair, reference=part).subtract()
    bits, status = judged(out)
    assert status == 0 and bits & 1 << 9 and np.isfinite(out.scorr).all()


def test_a_bright_galaxy_over_the_quadrant_leaves_few_events_and_the_transient():
    pair = make_pair(23, n_stars=40, transients=[(30.3, 220.2, 4000.0)])
    rng = np.random.default_rng(3)
    for image, shape, gain, wcs, share in ((pair.science, SHAPE, pairs.GAIN, pairs.SCIENCE_WCS, 1.0),
                                           (pair.reference, REF_SHAPE, pair.reference.gain, pairs.REFERENCE_WCS, 1.0 / pairs.RATIO)):
        x, y = wcs.pixel(*pairs.SCIENCE_WCS.sky(120.0, 128.0))
        rows, cols = np.mgrid[:shape[0], :shape[1]]
        light = share * 8000.0 * np.exp(-np.hypot(rows - float(y), 1.5 * (cols - float(x))) / 25.0)
        image.data += (light + rng.normal(size=shape) * np.sqrt(light / gain)).astype(np.float32)
        image.sigma = np.sqrt(image.sigma**2 + light / gain).astype(np.float32)
    out = pair.subtract()
    found = found_in(pair, out)
    kept = found[light_filter(found) == ""]
    assert np.hypot(kept["xpos"] - 31.3, kept["ypos"] - 221.2).min() < 0.5
    assert len(found) < 30 and len(kept) < 6


def test_events_of_a_difference_that_failed_are_bounded_and_it_is_judged_so(pair):
    """The stars of another sky, as crowded as a globular cluster, stand in the reference."""
    other = make_pair(99, n_stars=3000).reference
    out = replace(pair, reference=other).subtract()
    every, some = found_in(pair, out), found_in(pair, out, max_events=50)
    assert len(every) > 100 and len(some) <= 50
    assert some["scorr"].min() >= np.sort(every["scorr"])[-60]
    assert judged(out, n_events=5000)[1] == 0
