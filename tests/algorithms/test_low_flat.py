"""Low-frequency flat: what was put into the stars' magnitudes comes back."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms import low_flat, quality
from ztfluigi.model.config.detector import LowFlatConfig
from ztfluigi.model.errors import BadInput, NoWork

SHAPE = (770, 768)
STARS, EXPOSURES = 150, 30


def illumination(x, y):
    """A low-order error of the lamps of a few percent, mean 1."""
    u, v = 2 * (np.asarray(x) + 0.5) / SHAPE[1] - 1, 2 * (np.asarray(y) + 0.5) / SHAPE[0] - 1
    return 1 + 0.02 * u - 0.015 * v + 0.012 * (u * v) + 0.01 * (u**2 - 1 / 3) - 0.006 * (v**3 - 0.6 * v)


def stars(seed=1, exposures=EXPOSURES, illuminated=illumination):
    """x, y, residual, uncertainty, exposure; zero points scatter by 0.05 mag, one star in fifty is far off, each field has its own lean."""
    rng = np.random.default_rng(seed)
    columns = []
    for n in range(exposures):
        x, y = SHAPE[1] * rng.beta(*rng.uniform(0.8, 1.3, 2), STARS), SHAPE[0] * rng.beta(*rng.uniform(0.8, 1.3, 2), STARS)
        sigma = rng.uniform(0.005, 0.03, STARS)
        residual = 2.5 * np.log10(illuminated(x, y)) + rng.normal(0, sigma) + rng.normal(0, 0.05)
        residual[rng.uniform(size=STARS) < 0.02] += rng.normal(0, 0.5)
        columns.append((x, y, residual, sigma, np.full(STARS, n)))
    return tuple(np.concatenate(column) for column in zip(*columns, strict=True))


def test_a_low_order_illumination_error_comes_back():
    found = low_flat.fit(*stars(), SHAPE)
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    error = found.image / illumination(x, y)
    assert found.image.mean() == pytest.approx(1, abs=1e-5)
    assert np.std(error) < 0.0015 and np.abs(error - 1).max() < 0.008
    inner = np.s_[100:-100, 100:-100]
    pull = (error[inner] - error[inner].mean()) / found.uncertainty[inner]
    assert 0.3 < np.sqrt(np.mean(pull**2)) < 2.0
    metrics = found.metrics
    assert metrics["exposures"] == EXPOSURES and metrics["residual_after"] < 0.4 * metrics["residual_before"]
    assert quality.judge_master("low_flat", metrics) == (0, 1)


def test_a_right_response_gives_one():
    found = low_flat.fit(*stars(seed=2, illuminated=lambda x, y: np.ones_like(x)), SHAPE)
    assert found.metrics["rms"] < 0.0015 and found.metrics["range"] < 0.015


def test_stars_without_a_usable_residual_change_nothing():
    columns = stars(seed=3)
    x, y, residual, sigma, exposure = (column.copy() for column in columns)
    spoiled = np.concatenate([residual, [np.nan, 0.3]]), np.concatenate([sigma, [0.01, 0.0]])
    more = low_flat.fit(np.append(x, [5, 5]), np.append(y, [5, 5]), *spoiled, np.append(exposure, [0, 0]), SHAPE)
    np.testing.assert_array_equal(more.image, low_flat.fit(*columns, SHAPE).image)


def test_too_little_is_no_work_and_a_wild_map_is_refused():
    with pytest.raises(NoWork, match="19 exposures"):
        low_flat.fit(*stars(exposures=19), SHAPE)
    with pytest.raises(NoWork, match="cells with 500 stars"):
        low_flat.fit(*stars(), SHAPE, config=LowFlatConfig(cell_stars=500))
    with pytest.raises(BadInput, match="equal numbers"):
        low_flat.fit(*stars()[:4], np.zeros(3), SHAPE)
    assert quality.judge_master("low_flat", {"cell_fraction": 1.0, "range": 0.3, "cell_scatter": 0.001}) == (2, 0)
