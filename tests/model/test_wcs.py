"""World coordinates: inverse, header round trip, agreement with an independent implementation."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS

from tests.algorithms.star_lists import DISTORTION, prior_wcs
from ztfluigi.model.wcs import TPV_TERMS, TpvWcs, deproject, evaluate_tpv, project, separation_arcsec

SHAPE = (3080, 3072)


def tpv(crval=(57.997, 35.746)) -> TpvWcs:
    return replace(prior_wcs(SHAPE, crval, DISTORTION), cd=((-2.8124e-4, 1.4e-6), (-1.3e-6, -2.8126e-4)))


@pytest.mark.parametrize("crval", [(57.997, 35.746), (0.05, -28.0), (200.0, 89.7), (310.0, -5.0)])
def test_sky_to_pixel_and_back(crval):
    wcs = tpv(crval)
    y, x = np.mgrid[-100:3180:12j, -100:3172:12j]
    back_x, back_y = wcs.pixel(*wcs.sky(x, y))
    assert np.abs(back_x - x).max() < 1e-6 and np.abs(back_y - y).max() < 1e-6


def test_agrees_with_wcslib():
    wcs = tpv()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = WCS(Header(wcs.cards()))
    y, x = (v.ravel() for v in np.mgrid[0:3079:9j, 0:3071:9j])
    assert separation_arcsec(*wcs.sky(x, y), *peer.all_pix2world(x, y, 0)).max() < 1e-6


def test_cards_round_trip():
    wcs = tpv()
    cards = wcs.cards()
    assert cards["CTYPE1"] == "RA---TPV"
    assert {key for key in cards if key.startswith("PV1_")} == {f"PV1_{n}" for n in TPV_TERMS}
    again = TpvWcs.from_cards(cards)
    assert again.sky(10.0, 2000.0) == pytest.approx(wcs.sky(10.0, 2000.0), abs=1e-12)
    assert prior_wcs().cards()["CTYPE2"] == "DEC--TAN"


def test_headers_without_or_with_part_of_the_coefficients():
    cards = {**prior_wcs().cards(), "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"}
    assert not TpvWcs.from_cards(cards).distorted
    partial = TpvWcs.from_cards({**cards, "PV1_4": 1e-4})
    assert partial.pv1 == {1: 1.0, 4: 1e-4}
    with pytest.raises(ValueError, match="not supported"):
        TpvWcs.from_cards({**cards, "PV1_3": 1e-4})


def test_far_side_and_nan():
    wcs = tpv((10.0, 20.0))
    x, y = wcs.pixel(np.array([190.0, np.nan, 10.0]), np.array([-20.0, 20.0, 20.0]))
    assert np.isnan(x[:2]).all() and np.isnan(y[:2]).all() and np.isfinite(x[2])
    assert np.isnan(wcs.sky(np.nan, 3.0)).any()


def test_polynomial_is_the_sum_of_its_terms():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(2, 50))
    value = evaluate_tpv({0: 1.0, 4: 2.0, 9: -3.0, 16: 0.5}, own, other)
    assert value == pytest.approx(1 + 2 * own**2 - 3 * own * other**2 + 0.5 * other**4)


def test_projection_is_its_own_inverse_and_conformal_at_the_centre():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(359, 361, 40) % 360, rng.uniform(-89.9, -88, 40)
    again = deproject(*project(ra, dec, 0.0, -89.0), 0.0, -89.0)
    assert separation_arcsec(ra, dec, *again).max() < 1e-8
    assert project(10.0, 20.0 + 1e-4, 10.0, 20.0)[1] == pytest.approx(1e-4, rel=1e-6)
