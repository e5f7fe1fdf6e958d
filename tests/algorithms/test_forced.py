"""Forced photometry: injected stars come back with unit pull, on blank sky and on hosts; masks, edges and empty places are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms import forced
from ztfluigi.algorithms.forced import HALF
from ztfluigi.model.alert_schema import FORCED_FAILED

GAIN, SKY_NOISE = 6.0, 11.0
PSF = np.zeros((25, 25))
_y, _x = np.mgrid[-12:13, -12:13]
PSF[:] = np.exp(-(_x**2 + _y**2) / (2 * 0.95**2))
PSF /= PSF.sum()


def source(offset, fwhm=0.95):
    """Unit-sum Gaussians (n, side, side) at `offset` from the centre."""
    y, x = np.mgrid[-HALF:HALF + 1, -HALF:HALF + 1]
    light = np.exp(-((x - offset[:, 0, None, None]) ** 2 + (y - offset[:, 1, None, None]) ** 2) / (2 * fwhm**2))
    return light / light.sum(axis=(1, 2), keepdims=True)


def exposed(rng, flux, offset, host=0.0):
    """(difference, science) stamps with sources of `flux` on hosts of peak `host`: photon noise of all, sky noise, a sky of 200 DN."""
    y, x = np.mgrid[-HALF:HALF + 1, -HALF:HALF + 1]
    static = host * np.exp(-np.hypot(x, y) / 4.0)[None]
    star = flux[:, None, None] * source(offset)
    noise = rng.normal(size=star.shape) * np.sqrt(SKY_NOISE**2 + np.maximum(static + star, 0) / GAIN)
    return star + noise, 200.0 + static + star + noise


@pytest.mark.parametrize("host", [0.0, 3000.0])
def test_injected_stars_come_back_with_unit_pull(host):
    rng = np.random.default_rng(8)
    n = 1500
    flux, offset = rng.choice([0.0, 200.0, 1000.0], n), rng.uniform(-0.5, 0.5, (n, 2))
    difference, science = exposed(rng, flux, offset, host)
    made = forced.measure(list(difference), list(science), np.repeat(PSF[None], n, 0), offset, gain=GAIN)
    pull = (made.flux - flux) / made.sigma
    assert set(made.status) == {"0"}
    assert abs(pull.mean()) < 4 / np.sqrt(n) and pull.std() == pytest.approx(1.0, abs=0.06)
    bright = np.full(200, 1e5)
    difference, science = exposed(rng, bright, offset[:200], host)
    made_bright = forced.measure(list(difference), list(science), np.repeat(PSF[None], 200, 0), offset[:200], gain=GAIN)
    assert np.mean(made_bright.flux / bright) == pytest.approx(1.0, abs=0.004)  # what interpolating so sharp a PSF costs
    if not host:  # as good as the best fit of blank sky
        assert np.median(made.sigma[flux == 0]) == pytest.approx(SKY_NOISE / np.sqrt((PSF**2).sum()), rel=0.03)


def test_what_cannot_be_measured_is_said():
    rng = np.random.default_rng(9)
    offset = np.zeros((5, 2))
    difference, science = exposed(rng, np.full(5, 5000.0), offset)
    difference[1, HALF, HALF] = np.nan  # half the light of so sharp a star
    difference[2, HALF - 1:HALF + 2, HALF - 1:HALF + 2] = np.nan
    difference[3, :, HALF + 1:] = science[3, :, HALF + 1:] = np.nan
    difference[3, :, :HALF - 12] = science[3, :, :HALF - 12] = np.nan
    made = forced.measure([*difference[:4], None], [*science[:4], None], np.repeat(PSF[None], 5, 0), offset, gain=GAIN)
    assert made.status == ["0", "56", "55", "56", "61"]
    assert made.flux[2] == made.sigma[2] == made.flux[4] == FORCED_FAILED
    seen = [0, 1, 3]
    np.testing.assert_array_less(np.abs(made.flux[seen] - 5000.0) / made.sigma[seen], 4.0)
    assert made.sigma[1] > made.sigma[0]
    limits = made.limit(26.0)
    assert limits[2] is limits[4] is None and limits[0] == pytest.approx(26.0 - 2.5 * np.log10(5 * made.sigma[0]))
    little = np.full_like(difference[:1], np.nan)
    little[:, HALF - 5:HALF + 6, HALF - 15:HALF + 6] = difference[:1, HALF - 5:HALF + 6, HALF - 15:HALF + 6]
    assert forced.measure(list(little), list(science[:1]), PSF[None], offset[:1], gain=GAIN).status == ["54"]
    assert forced.Forced.failed(2, forced.UNREADABLE).status == ["255", "255"]
