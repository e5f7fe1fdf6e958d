"""Limiting magnitudes."""

import numpy as np
import pytest

from ztfluigi.algorithms.limits import limiting_magnitude, local_limits, theoretical_limit
from ztfluigi.model.columns import PSFCAT, dtype_of
from ztfluigi.model.psf import PsfModel


def catalogue(snr, sigma=10.0, flags=0):
    table = np.zeros(len(snr), dtype_of(PSFCAT))
    table["snr"], table["flux"], table["sigflux"], table["flags"] = snr, np.asarray(snr) * sigma, sigma, flags
    table["mag"] = -2.5 * np.log10(table["flux"])
    return table


def test_limit_is_the_median_of_five_sigma_sources():
    table = catalogue(np.linspace(3, 8, 501))
    assert limiting_magnitude(table, 26.0) == pytest.approx(26.0 - 2.5 * np.log10(50), abs=0.005)


def test_too_few_or_masked_sources_give_nan():
    assert np.isnan(limiting_magnitude(catalogue([5.0, 5.1, 20.0]), 26.0))
    assert np.isnan(limiting_magnitude(catalogue(np.full(50, 5.0), flags=256), 26.0))
    assert np.isfinite(limiting_magnitude(catalogue(np.full(50, 5.0), flags=2), 26.0))


def test_theoretical_limit_of_a_gaussian():
    stamp = PsfModel.gaussian(3.0, (100, 100)).render(50, 50)
    flux = 10 ** (-0.4 * (theoretical_limit(20.0, stamp, 1e9, 26.0) - 26.0))
    area = 4 * np.pi * ((3.0 / 2.3548) ** 2 + 1 / 12)
    assert flux == pytest.approx(5 * 20 * np.sqrt(area), rel=0.01)
    assert theoretical_limit(20.0, stamp, 1.0, 26.0) < theoretical_limit(20.0, stamp, 1e9, 26.0)
    with pytest.raises(ValueError):
        theoretical_limit(0.0, stamp, 1.0, 26.0)


def test_local_limits_are_those_of_an_ideal_fit_at_the_place():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:512, 0:640]
    noise = 10.0 * (1.0 + x / 640.0)  # twice as noisy at the right edge
    data = rng.normal(size=x.shape) * noise
    data[100:108, 100:108] += 1e4  # a source does not count
    bad = (y < 130) & (x > 500)
    weight = 0.08
    found = local_limits(data.astype(np.float32), bad, lambda x, y: np.full(np.shape(x), weight), 26.0)
    assert found.shape == (8, 10)
    ideal = 26.0 - 2.5 * np.log10(5.0 * noise.reshape(8, 64, 10, 64).mean(axis=(1, 3)) / np.sqrt(weight))
    masked = bad.reshape(8, 64, 10, 64).mean(axis=(1, 3)) > 0.5
    assert masked.sum() == 4 and np.array_equal(np.isnan(found), masked)
    assert np.abs(found - ideal)[~masked].max() < 0.2 and abs(np.mean((found - ideal)[~masked])) < 0.02
