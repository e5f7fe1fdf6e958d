"""Bright stars carried over by their PSF."""

from __future__ import annotations

import numpy as np
import pytest

from tests.algorithms.pairs import add_stars, moffat
from ztfluigi.algorithms.bright_stars import BrightStars
from ztfluigi.algorithms.resample import resample
from ztfluigi.model.wcs import TpvWcs

SHAPE = (96, 96)
SCALE = 1.0125 / 3600


def test_a_star_comes_back_without_the_ripples_that_depend_on_its_phase():
    psf = moffat(1.9, SHAPE, half_size=12)
    x, y = (v.ravel() for v in np.meshgrid([20.2, 47.6, 74.9], [21.4, 48.1, 75.7]))
    flux = np.linspace(2e4, 1e5, 9)
    image = np.zeros(SHAPE)
    add_stars(image, psf, x, y, flux)
    stars = BrightStars(psf, x, y, flux, np.zeros(9, int), 1)
    rest = stars.taken_from(image.astype(np.float32))
    assert np.abs(rest).max() < 1e-3 * flux.max()
    # A grid of 1 % smaller pixels: every phase of the interpolation occurs.
    fine = 0.99
    wcs = [TpvWcs((48.5, 48.5), (150.0, 30.0), ((-s * SCALE, 0.0), (0.0, s * SCALE))) for s in (1.0, fine)]
    place = [(v - 47.5) / fine + 47.5 for v in (x, y)]
    samples = [(np.linspace(20.0, 21.0, 25).reshape(5, 5), np.linspace(20.0, 21.0, 25).reshape(5, 5).T, fine * np.eye(2))]
    out, _ = resample(rest, *wcs, SHAPE, order=4)
    smooth = np.zeros(SHAPE)
    stars.put_on(smooth, *place, samples, 4)
    stars.put_on(out, *place, samples, 4)
    plain, _ = resample(image.astype(np.float32), *wcs, SHAPE, order=4)
    inner = np.s_[6:-6, 6:-6]
    assert np.std((out - smooth)[inner]) < 0.2 * np.std((plain - smooth)[inner])
    assert out[inner].sum() == pytest.approx(image.sum(), rel=2e-3)
