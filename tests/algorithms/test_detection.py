"""Detection: every bright star is found once, where it is, with honest errors; masks and blank images behave."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms.centroid import gather_bits
from ztfluigi.algorithms.detection import detect, image_fwhm
from ztfluigi.model.config.astrometry import DetectionConfig
from ztfluigi.model.maskbits import Mask

GAIN, SKY_RMS = 6.2, 9.0


def starfield(seed, *, fwhm=2.2, size=256, n=60, flux=(3e3, 1e5), separation=10.0, oversampling=5):
    """Moffat (beta 3.2) stars integrated over pixels: image, rms, x, y, flux."""
    rng = np.random.default_rng(seed)
    x, y = np.empty(0), np.empty(0)
    while x.size < n:
        new = rng.uniform(8, size - 9, 2)
        if not x.size or np.hypot(x - new[0], y - new[1]).min() > separation:
            x, y = np.append(x, new[0]), np.append(y, new[1])
    fluxes = np.exp(rng.uniform(*np.log(flux), n))
    alpha = 0.5 * fwhm / np.sqrt(2 ** (1 / 3.2) - 1)
    image = np.zeros((size, size))
    steps = (np.arange(oversampling) + 0.5) / oversampling - 0.5
    for cx, cy, f in zip(x, y, fluxes):
        x0, y0 = int(round(cx)), int(round(cy))
        cols, rows = np.arange(max(0, x0 - 15), min(size, x0 + 16)), np.arange(max(0, y0 - 15), min(size, y0 + 16))
        dx = (cols[:, None] + steps).ravel() - cx
        dy = (rows[:, None] + steps).ravel() - cy
        profile = (2.2 / (np.pi * alpha**2)) * (1 + (dx[None, :] ** 2 + dy[:, None] ** 2) / alpha**2) ** -3.2
        image[np.ix_(rows, cols)] += f * profile.reshape(rows.size, oversampling, cols.size, oversampling).mean(axis=(1, 3))
    image += rng.normal(0, 1, image.shape) * np.sqrt(SKY_RMS**2 + image / GAIN)
    return image.astype("f4"), np.full(image.shape, SKY_RMS, "f4"), x, y, fluxes


def matched(found, x, y):
    distance = np.hypot(found["x"][:, None] - x, found["y"][:, None] - y)
    return distance.argmin(axis=0), distance.min(axis=0)


@pytest.mark.parametrize("fwhm", [1.3, 2.2, 4.0])
def test_positions_have_the_errors_they_claim(fwhm):
    pulls = []
    for seed in range(4):
        image, rms, x, y, _ = starfield(seed, fwhm=fwhm, flux=(2e3, 1e4), separation=20.0, n=50)
        found = detect(image, rms, np.zeros(image.shape, "u2"), gain=GAIN)
        rows, distance = matched(found, x, y)
        assert distance.max() < 1.0
        pulls += [(found["x"][rows] - x) / found["x_err"][rows], (found["y"][rows] - y) / found["y_err"][rows]]
    pulls = np.concatenate(pulls)
    assert abs(np.mean(pulls)) < 0.25
    assert 0.8 < 1.4826 * np.median(np.abs(pulls)) < 1.35


def test_undersampled_positions_do_not_depend_on_pixel_phase():
    errors, phases = [], []
    for seed in range(4):
        image, rms, x, y, _ = starfield(seed, fwhm=1.3, flux=(3e4, 2e5), separation=20.0, n=50)
        found = detect(image, rms, np.zeros(image.shape, "u2"), gain=GAIN)
        rows, _ = matched(found, x, y)
        errors.append(found["x"][rows] - x)
        phases.append(x - np.rint(x))
    errors, phases = np.concatenate(errors), np.concatenate(phases)
    amplitude = 2 * np.mean(errors * np.sin(2 * np.pi * phases))
    assert abs(amplitude) < 0.005


def test_fluxes_follow_the_truth():
    image, rms, x, y, flux = starfield(3)
    found = detect(image, rms, np.zeros(image.shape, "u2"), gain=GAIN)
    rows, _ = matched(found, x, y)
    ratio = found["flux"][rows] / flux
    assert np.std(ratio) / np.mean(ratio) < 0.05
    assert 0.95 < np.median(ratio) < 1.06
    assert np.all(np.diff(found["flux"]) <= 0)


def test_fwhm_of_the_image():
    for fwhm in (1.5, 2.2, 3.5):
        image, rms, *_ = starfield(5, fwhm=fwhm)
        found = detect(image, rms, np.zeros(image.shape, "u2"))
        assert image_fwhm(found) == pytest.approx(np.hypot(fwhm, 0.68), rel=0.06)


def test_blended_pair_is_told_apart():
    image, rms, x, y, flux = starfield(7, n=40, separation=3.3 * 2.2, flux=(2e4, 4e4))
    found = detect(image, rms, np.zeros(image.shape, "u2"), gain=GAIN)
    _, distance = matched(found, x, y)
    assert np.mean(distance < 0.2) > 0.97


def test_noise_alone_gives_next_to_nothing():
    rng = np.random.default_rng(1)
    image = rng.normal(0, SKY_RMS, (256, 256)).astype("f4")
    assert detect(image, np.full(image.shape, SKY_RMS, "f4"), np.zeros(image.shape, "u2")).size < 10


def test_blank_image_gives_an_empty_table():
    image = np.zeros((64, 64), "f4")
    assert detect(image, np.ones_like(image), np.zeros(image.shape, "u2")).size == 0


def test_mask_bits_and_blind_pixels():
    image, rms, x, y, _ = starfield(9)
    mask = np.zeros(image.shape, "u2")
    col, row = int(round(x[0])), int(round(y[0]))
    mask[row, col] |= np.uint16(Mask.SATURATED)
    tracked = int(round(y[1]))
    mask[tracked - 8:tracked + 9, int(round(x[1])) - 8:int(round(x[1])) + 9] |= np.uint16(Mask.TRACK)
    image[5, 5] = np.nan
    found = detect(image, rms, mask)
    rows, distance = matched(found, x, y)
    assert found["mask_bits"][rows[0]] & Mask.SATURATED
    assert distance[0] < 1.0
    assert distance[1] > 4.0
    assert np.isfinite(found["x"]).all()


def test_gather_bits_is_an_or_over_five_by_five():
    mask = np.zeros((20, 20), "u2")
    mask[10, 12], mask[8, 10] = 4, 256
    bits = gather_bits(mask, np.array([10.2, 0.0, 13.0]), np.array([10.4, 0.0, 10.0]), 2)
    assert bits.tolist() == [260, 0, 4]


def test_crowding_beyond_the_pixel_stack_is_survived(monkeypatch):
    monkeypatch.setattr("ztfluigi.algorithms.extraction._PIXSTACK", 2000)
    image, rms, x, y, _ = starfield(11, n=100)
    found = detect(image, rms, np.zeros(image.shape, "u2"))
    assert matched(found, x, y)[1].max() < 1.0


def test_threshold_is_the_config_s():
    image, rms, *_ = starfield(13, flux=(300, 3e4))
    mask = np.zeros(image.shape, "u2")
    counts = [detect(image, rms, mask, config=DetectionConfig(threshold=t)).size for t in (1.5, 5.0, 50.0)]
    assert counts[0] >= counts[1] > counts[2]
