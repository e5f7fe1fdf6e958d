"""Smooth sky."""

import numpy as np
import pytest

from ztfluigi.algorithms.background import cell_levels, estimate, expand_cells
from ztfluigi.model.config.detector import BackgroundConfig
from ztfluigi.model.errors import Unusable
from ztfluigi.model.maskbits import Mask

SHAPE = (320, 300)


def sky(rng, slope=20.0, sigma=6.0):
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    return (220 + slope * (x / SHAPE[1] - 0.5)), (220 + slope * (x / SHAPE[1] - 0.5) + rng.normal(0, sigma, SHAPE)).astype(np.float32)


def stars(rng, n, shape=SHAPE):
    y, x = np.mgrid[-6:7, -6:7]
    image = np.zeros(shape, np.float32)
    for _ in range(n):
        v, u = rng.integers(6, shape[0] - 6), rng.integers(6, shape[1] - 6)
        image[v - 6:v + 7, u - 6:u + 7] += 100 * rng.pareto(1.0) * np.exp(-0.5 * (x**2 + y**2))
    return np.minimum(image, 50000)


def test_level_and_noise_are_recovered_under_stars():
    rng = np.random.default_rng(1)
    truth, data = sky(rng)
    data += stars(rng, 60)
    found = estimate(data, np.zeros(SHAPE, np.uint16))
    assert found.level.dtype == found.rms.dtype == np.float32
    assert np.abs(found.level - truth).max() < 4
    assert np.mean(found.level - truth) == pytest.approx(0, abs=1)
    assert found.median == pytest.approx(220, abs=1) and found.median_rms == pytest.approx(6, rel=0.1)


def test_masked_and_missing_pixels_are_ignored():
    rng = np.random.default_rng(2)
    truth, data = sky(rng)
    mask = np.zeros(SHAPE, np.uint16)
    data[100:180, 100:180] = 30000
    mask[100:180, 100:180] = Mask.SATURATED
    data[5:9] = np.nan
    found = estimate(data, mask)
    assert np.isfinite(found.level).all() and np.all(found.rms > 0)
    assert np.abs(found.level - truth).max() < 5


def test_source_bits_are_not_ignored():
    rng = np.random.default_rng(3)
    truth, data = sky(rng)
    found = estimate(data, np.full(SHAPE, Mask.SEX_SOURCE, np.uint16))
    assert found.median == pytest.approx(220, abs=1)


def test_nothing_to_measure_is_refused():
    with pytest.raises(Unusable):
        estimate(np.full(SHAPE, np.nan, np.float32), np.zeros(SHAPE, np.uint16))
    with pytest.raises(Unusable):
        estimate(np.ones(SHAPE, np.float32), np.full(SHAPE, Mask.DEAD, np.uint16))


def test_mesh_is_a_setting():
    rng = np.random.default_rng(4)
    truth, data = sky(rng, slope=0)
    fine = estimate(data, np.zeros(SHAPE, np.uint16), config=BackgroundConfig(mesh=32, filter_size=1))
    coarse = estimate(data, np.zeros(SHAPE, np.uint16), config=BackgroundConfig(mesh=150, filter_size=1))
    assert fine.level.std() > 1.5 * coarse.level.std()


def test_cells_follow_a_slope_and_ignore_bad_pixels():
    rng = np.random.default_rng(5)
    truth, data = sky(rng, slope=100.0, sigma=0.5)
    bad = np.zeros(SHAPE, bool)
    bad[:70, :70] = True
    data[bad] = np.nan
    cells = cell_levels(data, bad, 64)
    assert cells.shape == (5, 5) and np.isfinite(cells).all()
    back = expand_cells(cells, SHAPE)
    assert np.abs(back - truth)[80:, 40:-40].max() < 1
    np.testing.assert_allclose(expand_cells(np.full((1, 1), 7, np.float32), (4, 9)), 7)


def test_crowded_cells_are_close_to_the_sky():
    rng = np.random.default_rng(6)
    data = rng.normal(220, 6, SHAPE).astype(np.float32) + stars(rng, 1500)
    cells = cell_levels(data, np.zeros(SHAPE, bool), 64)
    assert np.median(cells) == pytest.approx(220, abs=2.5)
    assert np.median(cells) < np.median(data)
