"""Floating-bias correction."""

import numpy as np
import pytest

from ztfluigi.algorithms.overscan import subtract_overscan
from ztfluigi.model.config.detector import OverscanConfig
from ztfluigi.model.errors import BadInput, Unusable

ROWS = np.linspace(-1, 1, 400)
FLOATING = 120.0 + 1.5 * ROWS - 0.8 * ROWS**2


def strip(rng, noise=1.6, columns=30, trail=60.0):
    """An overscan of digitised read noise on a floating level; the first columns carry trailing charge."""
    charge = trail * np.exp(-np.arange(columns) / 1.2)
    return np.rint(FLOATING[:, None] + charge + rng.normal(0, noise, (len(ROWS), columns)))


def test_floating_level_is_recovered_better_than_a_tenth_of_a_count():
    rng = np.random.default_rng(1)
    result = subtract_overscan(np.zeros((400, 8), np.uint16), strip(rng).astype(np.uint16))
    assert result.data.dtype == np.float32
    np.testing.assert_allclose(result.level, FLOATING, atol=0.1)
    np.testing.assert_array_equal(result.data[:, 3], -result.level)


def test_numbers_describe_the_strip():
    metrics = subtract_overscan(np.zeros((400, 8)), strip(np.random.default_rng(2))).metrics
    assert metrics["read_noise_dn"] == pytest.approx(np.hypot(1.6, 1 / 12**0.5), rel=0.03)
    assert metrics["overscan_residual_rms"] == pytest.approx(1.63 / 22**0.5, rel=0.2)
    assert metrics["overscan_level"] == pytest.approx(np.median(FLOATING), abs=0.1)
    assert metrics["overscan_trail"] > 5
    assert metrics["overscan_rows"] > 390


def test_numbers_describe_the_image():
    rng = np.random.default_rng(9)
    image = FLOATING[:, None] + rng.normal(220, 6, (400, 300))
    image[:, :30] = np.nan
    image[::2, 100:110] += 5000
    metrics = subtract_overscan(image, strip(rng)).metrics
    assert metrics["image_median"] == pytest.approx(220, abs=0.5) and metrics["image_scatter"] == pytest.approx(6, rel=0.1)
    assert metrics["image_low"] == pytest.approx(206, abs=2) and metrics["image_high"] > 5000
    assert metrics["image_missing"] == pytest.approx(0.1, abs=0.02)
    assert subtract_overscan(np.full((400, 8), np.nan), strip(rng)).metrics["image_missing"] == 1.0


def test_rows_with_trailing_charge_of_saturated_stars_do_not_bend_the_fit():
    overscan = strip(np.random.default_rng(3))
    overscan[100:130] += 40.0
    overscan[300:303] = 5000.0
    result = subtract_overscan(np.zeros((400, 8)), overscan)
    np.testing.assert_allclose(result.level, FLOATING, atol=0.12)


def test_missing_pixels_are_ignored_and_missing_image_pixels_stay_missing():
    overscan = strip(np.random.default_rng(4))
    overscan[::3] = np.nan
    overscan[1, 9:] = np.inf
    image = np.zeros((400, 8), np.float32)
    image[5, 5] = np.nan
    result = subtract_overscan(image, overscan)
    np.testing.assert_allclose(result.level, FLOATING, atol=0.12)
    assert np.isnan(result.data[5, 5]) and np.isfinite(result.data).sum() == image.size - 1


def test_constant_strip_gives_its_constant():
    result = subtract_overscan(np.full((400, 8), 130.0), np.full((400, 30), 120))
    np.testing.assert_allclose(result.data, 10.0, atol=1e-4)
    assert result.metrics["read_noise_dn"] == 0.0


def test_order_is_a_setting():
    overscan = strip(np.random.default_rng(5))
    level = subtract_overscan(np.zeros((400, 8)), overscan, config=OverscanConfig(order=0)).level
    assert np.ptp(level) == 0.0


def test_wrong_or_empty_strips_are_refused():
    with pytest.raises(BadInput):
        subtract_overscan(np.zeros((400, 8)), np.zeros((399, 30)))
    with pytest.raises(BadInput):
        subtract_overscan(np.zeros((400, 8)), np.zeros((400, 8)))
    with pytest.raises(Unusable) as caught:
        subtract_overscan(np.zeros((400, 8)), np.full((400, 30), np.nan))
    assert caught.value.numbers["usable_rows"] == 0


@pytest.mark.real
def test_read_noise_of_real_frames_is_the_headers(shared_data):
    """WHT/ISIS bias frames (BIASSEC [1:966,4110:4190], rows and columns exchanged): header 4.0 electrons at 0.98 electron/DN."""
    import fitsio

    noises, levels = [], []
    for path in sorted((shared_data / "images-isis-bias").glob("*.fits.fz")):
        with fitsio.FITS(str(path)) as file:
            frame, header = file[1].read(), file[1].read_header()
        result = subtract_overscan(frame[:4096].T, frame[4110:4190].T)
        noises.append(result.metrics["read_noise_dn"] * header["GAIN"])
        levels.append(float(np.median(result.data)))
    assert np.ptp(noises) < 0.02 * np.mean(noises)
    assert np.mean(noises) == pytest.approx(header["READNOIS"], rel=0.15)
    assert np.all(np.abs(levels) < 0.3)
