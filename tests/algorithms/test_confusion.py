"""Confusion noise against what faint neighbours really do, and its bounds."""

import numpy as np
import pytest
from scipy.signal import fftconvolve

from ztfluigi.algorithms.confusion import add_confusion
from ztfluigi.model.columns import PSFCAT, dtype_of
from ztfluigi.model.psf import PsfModel

SHAPE, SIGMA, FAINTEST = (1024, 1024), 30.0, 3.0


def catalogue(x, y, flux):
    table = np.zeros(len(x), dtype_of(PSFCAT))
    table["xpos"], table["ypos"], table["flux"], table["sigflux"] = x + 1, y + 1, flux, SIGMA
    table["snr"], table["sigmag"] = flux / SIGMA, 1.0857 * SIGMA / flux
    return table


def sky(density, rng, slope=0.8):
    """Places and fluxes of sources whose number brighter than 5 sigma is `density` per pixel."""
    number = rng.poisson(density * (5 * SIGMA / FAINTEST) ** slope * SHAPE[0] * SHAPE[1])
    return *rng.uniform(0, SHAPE[0], (2, number)), FAINTEST * rng.random(number) ** (-1 / slope)


def test_noise_is_that_of_the_sources_below_the_limit():
    rng, psf = np.random.default_rng(1), PsfModel.gaussian(2.4, SHAPE)
    x, y, flux = sky(0.004, rng)
    found = flux > 5 * SIGMA
    faint = np.zeros(SHAPE)
    np.add.at(faint, (y[~found].astype(int), x[~found].astype(int)), flux[~found])
    stamp = psf.render(512, 512)
    shift = fftconvolve(faint, fftconvolve(stamp, stamp[::-1, ::-1]) / np.sum(stamp**2), mode="same")[30:-30, 30:-30]
    table = catalogue(x[found], y[found], flux[found])
    before = table.copy()
    noise = add_confusion(table, psf)
    assert noise == pytest.approx(shift.std(), rel=0.15)
    assert np.median(table["sigflux"]) == pytest.approx(np.hypot(SIGMA, noise), rel=0.02)
    assert table["snr"] == pytest.approx(table["flux"] / table["sigflux"], rel=1e-5)
    assert table["sigmag"] == pytest.approx(before["sigmag"] * table["sigflux"] / SIGMA, rel=1e-3)
    assert (table["flux"] == before["flux"]).all()


def test_sparse_fields_keep_their_errors():
    rng, psf = np.random.default_rng(2), PsfModel.gaussian(2.4, SHAPE)
    few = catalogue(*rng.uniform(0, 1024, (2, 9)), np.full(9, 200.0))
    assert add_confusion(few, psf) == 0 and (few["sigflux"] == SIGMA).all()
    x, y, flux = sky(1e-5, rng)
    table = catalogue(x[flux > 5 * SIGMA], y[flux > 5 * SIGMA], flux[flux > 5 * SIGMA])
    assert add_confusion(table, psf) < 0.1 * SIGMA
