"""Instrumental calibration."""

import numpy as np
import pytest

from ztfluigi.algorithms.detector import calibrate, linearise
from ztfluigi.model.config.detector import DetectorConfig
from ztfluigi.model.errors import BadInput, Unusable
from ztfluigi.model.maskbits import Mask

SHAPE = (256, 250)
GAIN, READ_NOISE, LINEAR, FULL = 6.2, 9.6, (-6e-12, 7e-8), 60000.0


def masters(rng=None, spread=0.0):
    rng = rng or np.random.default_rng(0)
    bias = (2.0 + rng.normal(0, 0.3, SHAPE)).astype(np.float32)
    flat = (1.0 + rng.normal(0, 1, SHAPE) * spread).astype(np.float32)
    return dict(bias=bias, flat=flat, mask=np.zeros(SHAPE, np.uint16), gain=GAIN, read_noise=READ_NOISE, nonlinearity=(0.0, 0.0),
                saturation_dn=FULL)


def observe(rng, truth, bias, flat):
    """Measured DN of the true (flat) DN image: photon noise on the detector, read noise."""
    return (rng.poisson(truth * flat * GAIN) / GAIN + bias + rng.normal(0, READ_NOISE / GAIN, SHAPE)).astype(np.float32)


def test_linearity_follows_the_formula():
    x = np.array([0.0, 100.0, 50000.0], np.float32)
    np.testing.assert_allclose(linearise(x, *LINEAR), x / (LINEAR[0] * x**2 + LINEAR[1] * x + 1), rtol=1e-6)
    assert linearise(x, 0, 0).dtype == np.float32 and np.isnan(linearise(np.array([np.nan]), *LINEAR)[0])


def test_corrections_undo_the_detector():
    given = masters(spread=0.05)
    truth = np.linspace(100, 40000, np.prod(SHAPE)).reshape(SHAPE)
    low = np.full(SHAPE, 1.1, np.float32)
    measured = truth * given["flat"] * 1.1 + given["bias"]
    result = calibrate(measured.astype(np.float32), **given, low_flat=low)
    np.testing.assert_allclose(result.data, truth, rtol=1e-5)
    assert result.data.dtype == result.sigma.dtype == np.float32 and result.mask.dtype == np.uint16 and result.wcs is None
    bent = calibrate(measured.astype(np.float32), **{**given, "nonlinearity": LINEAR})
    expected = (linearise(measured, *LINEAR) - given["bias"]) / given["flat"]
    np.testing.assert_allclose(bent.data, expected, rtol=1e-5)


def test_uncertainty_is_the_scatter_and_does_not_follow_the_noise():
    rng = np.random.default_rng(1)
    given = masters(rng, spread=0.02)
    truth = np.full(SHAPE, 220.0)
    result = calibrate(observe(rng, truth, given["bias"], given["flat"]), **given)
    pull = (result.data - truth) / result.sigma
    assert np.std(pull) == pytest.approx(1.0, abs=0.02)
    weight = 1 / result.sigma.astype(float) ** 2
    sky = np.sum(weight * result.data) / np.sum(weight)
    # weights from the pixels' own counts would be low by 1/gain = 0.16 DN
    assert sky == pytest.approx(220.0, abs=0.05)
    assert result.metrics["sigma_dn"] == pytest.approx(np.std(result.data - truth), rel=0.03)
    assert result.metrics["pixel_noise_dn"] == pytest.approx(np.std(result.data - truth), rel=0.05)
    assert result.metrics["median_dn"] == pytest.approx(220, abs=0.2)


def test_weighted_flux_of_stars_is_unbiased():
    rng = np.random.default_rng(2)
    given = masters(rng)
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    profile = np.exp(-0.5 * ((y % 16 - 8) ** 2 + (x % 16 - 8) ** 2) / 1.0**2) / (2 * np.pi)
    for flux in (150.0, 600.0, 6000.0):
        result = calibrate(observe(rng, 220 + flux * profile, given["bias"], given["flat"]), **given)
        used = profile > 1e-4
        weight = 1 / result.sigma[used].astype(float) ** 2
        fitted = np.sum(weight * profile[used] * (result.data[used] - 220)) / np.sum(weight * profile[used] ** 2)
        stars = (SHAPE[0] // 16) * (SHAPE[1] // 16)
        formal = 1 / np.sqrt(np.sum(weight * profile[used] ** 2))
        assert abs(fitted - flux) < 3 * formal + 0.002 * flux, (flux, fitted, stars)


def test_saturated_pixels_are_marked_and_kept():
    given = masters()
    measured = np.full(SHAPE, 200.0, np.float32)
    measured[20, 20:23] = FULL
    measured[30, 30] = 0.9 * FULL
    result = calibrate(measured, **given)
    assert np.all(result.mask[20, 20:23] == Mask.SATURATED) and np.count_nonzero(result.mask) == 3
    assert result.data[20, 20] > 0.95 * FULL
    assert result.saturate == pytest.approx(0.98 * FULL - 2, rel=1e-3)
    assert result.metrics["saturated_percent"] == pytest.approx(300 / measured.size)


def test_missing_and_dead_pixels_are_interpolated_and_prior_bits_kept():
    given = masters()
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    measured = (200 + 0.1 * x + given["bias"]).astype(np.float32)
    measured[50, 50] = np.nan
    measured[60:64, :] = np.nan
    measured[100:130, 100:130] = np.inf
    given["flat"][70, 70], given["flat"][71, 80] = 0.0, np.nan
    given["mask"][80, 80] = Mask.DEAD
    given["mask"][90, 90] = Mask.NOISY
    measured[80, 80] = -5000.0
    measured[90, 90] = 300.0
    result = calibrate(measured, **given)
    assert np.isfinite(result.data).all() and np.isfinite(result.sigma).all() and np.all(result.sigma > 0)
    for at in ((50, 50), (61, 9), (70, 70), (71, 80), (80, 80), (115, 115)):
        assert result.data[at] == pytest.approx(200 + 0.1 * at[1], abs=4)
    assert result.mask[50, 50] == Mask.NAN and result.mask[70, 70] == Mask.NAN and result.mask[71, 80] == Mask.NAN
    assert result.mask[80, 80] == Mask.DEAD and result.mask[90, 90] == Mask.NOISY
    assert result.data[90, 90] == pytest.approx(298, abs=2)
    assert result.metrics["nan_pixels"] == 3 + 4 * SHAPE[1] + 900


def test_hopeless_images_are_refused_with_numbers():
    given = masters()
    with pytest.raises(Unusable) as caught:
        calibrate(np.full(SHAPE, FULL, np.float32), **given)
    assert caught.value.infobits == 4 and caught.value.numbers["saturated_percent"] == 100.0
    with pytest.raises(Unusable) as caught:
        calibrate(np.full(SHAPE, np.nan, np.float32), **given)
    assert caught.value.infobits == 0 and caught.value.numbers["bad_percent"] == 100.0
    half = np.full(SHAPE, 200.0, np.float32)
    half[:200] = FULL
    assert calibrate(half, **given).metrics["saturated_percent"] == pytest.approx(20000 / 256)
    with pytest.raises(BadInput):
        calibrate(half[1:], **given)


def test_saturation_fraction_is_a_setting():
    measured = np.full(SHAPE, 200.0, np.float32)
    measured[9, 9] = 0.9 * FULL
    assert calibrate(measured, **masters(), config=DetectorConfig(saturation_fraction=0.85)).mask[9, 9] == Mask.SATURATED
