"""Bias and flat masters."""

import numpy as np
import pytest

from ztfluigi.algorithms.masters import compare, led_mix, make_bias, make_flat
from ztfluigi.model.errors import BadInput, NoWork, Unusable
from ztfluigi.model.maskbits import Mask

SHAPE = (128, 140)
LINEAR = (-6e-12, 7e-8)


def reader(frames):
    return lambda i, y0, y1: frames[i][y0:y1]


def bias_frames(rng, n=20, pattern=None):
    pattern = np.zeros(SHAPE) if pattern is None else pattern
    return np.rint(pattern + rng.normal(0, 1.6, (n, *SHAPE))).astype(np.float32)


def bent(true):
    """Measured DN of true DN: the inverse of x / (A x^2 + B x + 1), by iteration."""
    x = true.copy()
    for _ in range(20):
        x = true * (LINEAR[0] * x * x + LINEAR[1] * x + 1)
    return x


def flat_frames(rng, response, bias, n=20):
    frames = []
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]] / SHAPE[0] - 0.5
    for i in range(n):
        light = 20000.0 * (1 + 0.02 * i) * (1 + 0.01 * ((i % 4) - 1.5) * x) * response
        frames.append(bent(np.maximum(rng.normal(light, np.sqrt(np.maximum(light, 1) / 6.2)), 0)) + bias + rng.normal(0, 1.6, SHAPE))
    return np.array(frames, np.float32)


def some_response(rng):
    return 1 + rng.normal(0, 0.01, SHAPE) + 0.03 * (np.mgrid[:SHAPE[0], :SHAPE[1]][0] / SHAPE[0] - 0.5)


def unmasked():
    return np.zeros(SHAPE, np.uint16)


def test_bias_pattern_is_recovered():
    rng = np.random.default_rng(1)
    pattern = 4 * np.sin(np.arange(SHAPE[1]) / 9) * np.ones(SHAPE)
    master = make_bias(reader(bias_frames(rng, pattern=pattern)), 20, SHAPE)
    assert np.std(master.image - pattern) == pytest.approx(1.63 / 20**0.5, rel=0.05)
    assert abs(np.mean(master.image - pattern)) < 0.02
    assert master.metrics["read_noise_dn"] == pytest.approx(1.63, rel=0.05)
    assert np.mean(master.mask != 0) < 3e-4


def test_noisy_pixels_are_found_and_single_hits_are_not():
    rng = np.random.default_rng(2)
    frames = bias_frames(rng)
    noisy = (np.array([10, 40, 77, 100]), np.array([12, 90, 33, 130]))
    frames[(slice(None), *noisy)] += rng.normal(0, 12, (20, 4))
    frames[3:20:5, 60, 60] += 300.0  # random telegraph noise: four of twenty
    frames[7, 20, 20] += 2000.0      # one radiation hit
    master = make_bias(reader(frames), 20, SHAPE)
    flagged = (master.mask & Mask.NOISY) != 0
    assert flagged[noisy].all() and flagged[60, 60] and not flagged[20, 20]
    assert flagged.sum() < 12
    assert abs(master.image[20, 20]) < 2


def test_hot_pixels_are_noisy():
    pattern = np.zeros(SHAPE)
    pattern[30, 30], pattern[31, 40] = 25.0, 6.0
    mask = make_bias(reader(bias_frames(np.random.default_rng(12), pattern=pattern)), 20, SHAPE).mask
    assert mask[30, 30] & Mask.NOISY and not mask[31, 40]


def test_missing_bias_pixels_are_marked_and_filled():
    frames = bias_frames(np.random.default_rng(3), pattern=np.full(SHAPE, 50.0))
    frames[:, 5, 5] = np.nan
    master = make_bias(reader(frames), 20, SHAPE)
    assert master.mask[5, 5] & Mask.NAN and master.image[5, 5] == pytest.approx(50, abs=1)
    with pytest.raises(Unusable):
        make_bias(reader(np.full((20, *SHAPE), np.nan, np.float32)), 20, SHAPE)


def test_too_few_frames_are_no_work():
    with pytest.raises(NoWork) as caught:
        make_bias(reader(bias_frames(np.random.default_rng(4))), 19, SHAPE)
    assert caught.value.numbers == {"frames": 19, "needed": 20}


def test_response_is_recovered_whatever_lamp_level_bias_and_curvature():
    rng = np.random.default_rng(5)
    response, bias = some_response(rng), rng.normal(300, 1, SHAPE).astype(np.float32)
    master = make_flat(reader(flat_frames(rng, response, bias)), 20, SHAPE, bias=bias, mask=unmasked(), nonlinearity=LINEAR)
    photon = 1 / np.sqrt(20000 * 1.19 * 6.2 * 20)
    ratio = master.image / (response / response.mean())
    assert np.std(ratio) == pytest.approx(photon, rel=0.1)
    assert abs(np.mean(ratio) - 1) < 2e-4
    assert np.mean(master.mask != 0) < 5e-4
    assert master.metrics["lamp_drift"] == pytest.approx(0.38 / 1.19, rel=0.05)
    assert master.metrics["gradient"] == pytest.approx(0.03, rel=0.7)


def test_bad_responses_are_classified():
    rng = np.random.default_rng(6)
    response = some_response(rng)
    response[10, 10], response[20, 20], response[30, 30] = 0.0, 0.6, 1.4
    frames = flat_frames(rng, response, np.zeros(SHAPE, np.float32))
    frames[:, 50, 50] *= 1 + 0.05 * rng.normal(size=20)
    frames[:, 60, 60] = np.nan
    master = make_flat(reader(frames), 20, SHAPE, bias=np.zeros(SHAPE, np.float32), mask=unmasked(), nonlinearity=LINEAR)
    assert master.mask[10, 10] == Mask.DEAD and master.image[10, 10] == 1.0
    assert master.mask[60, 60] == Mask.DEAD and master.image[60, 60] == 1.0
    assert master.mask[20, 20] == Mask.LOW_RESPONSE and master.image[20, 20] == pytest.approx(0.6, abs=0.01)
    assert master.mask[30, 30] == Mask.HIGH_RESPONSE
    assert master.mask[50, 50] & Mask.NOISY
    assert np.count_nonzero(master.mask) < 15


def test_masked_pixels_do_not_enter_the_normalisation():
    rng = np.random.default_rng(7)
    response = some_response(rng)
    frames = flat_frames(rng, response, np.zeros(SHAPE, np.float32))
    mask = unmasked()
    mask[:, :60] = Mask.NOISY
    frames[:, :, :60] *= 0.97
    master = make_flat(reader(frames), 20, SHAPE, bias=np.zeros(SHAPE, np.float32), mask=mask, nonlinearity=LINEAR)
    assert master.image[:, 60:].mean() == pytest.approx(1.0, abs=1e-3)
    assert not np.any(master.mask & mask)


def test_dark_frames_are_left_out():
    rng = np.random.default_rng(8)
    frames = flat_frames(rng, some_response(rng), np.zeros(SHAPE, np.float32), n=21)
    frames[4] = -1.0
    arguments = dict(bias=np.zeros(SHAPE, np.float32), mask=unmasked(), nonlinearity=LINEAR)
    assert make_flat(reader(frames), 21, SHAPE, **arguments).metrics["frames"] == 20
    frames[5] = 0.0
    with pytest.raises(NoWork) as caught:
        make_flat(reader(frames), 21, SHAPE, **arguments)
    assert caught.value.numbers["frames"] == 19


def test_flat_refuses_what_does_not_fit():
    frames = np.ones((20, *SHAPE), np.float32)
    with pytest.raises(BadInput):
        make_flat(reader(frames), 20, SHAPE, bias=np.zeros((3, 3), np.float32), mask=unmasked(), nonlinearity=LINEAR)
    with pytest.raises(Unusable):
        make_flat(reader(frames), 20, SHAPE, bias=np.zeros(SHAPE, np.float32), mask=unmasked() + np.uint16(Mask.DEAD), nonlinearity=LINEAR)


def test_lamps_take_equal_part():
    def kept(leds, expected=(7, 8), needed=4):
        frames, numbers = led_mix(leds, expected, needed)
        return frames.tolist(), numbers["led_frames_dropped"], numbers["led_mix_off"]

    assert kept([7, 8, 7, 8, 7]) == ([0, 1, 2, 3, 4], 0, 0)
    assert kept([7, 7, 7, 8, 7, 8]) == ([0, 1, 3, 5], 2, 0)
    assert kept([7, 7, 7, 8, 9]) == ([0, 1, 2, 3, 4], 0, 1)  # an equal mix is too few
    assert kept([7, 7, 7, 7]) == kept([None] * 4) == ([0, 1, 2, 3], 0, 1)  # a lamp is out; nobody says which
    assert kept([7, 8, 9, 8, 7]) == ([0, 1, 3, 4], 1, 0)  # a lamp of another filter


def test_comparison_measures_shift_scatter_and_gradient():
    rng = np.random.default_rng(9)
    old = rng.normal(1, 0.01, (256, 256)).astype(np.float32)
    x = np.linspace(-0.5, 0.5, 256)
    new = old + 0.003 + 0.02 * x + rng.normal(0, 0.001, old.shape)
    new[4, 4] = np.nan
    numbers = compare(new.astype(np.float32), old)
    assert numbers["shift"] == pytest.approx(0.003, abs=3e-4)
    assert numbers["shift_gradient"] == pytest.approx(0.02, rel=0.1)
    flat_change = compare((old + rng.normal(0, 0.001, old.shape)).astype(np.float32), old)
    assert flat_change["shift_scatter"] == pytest.approx(0.001, rel=0.05)
    assert compare(old, old) == {"shift": 0.0, "shift_scatter": 0.0, "shift_gradient": pytest.approx(0.0, abs=1e-12)}
    with pytest.raises(BadInput):
        compare(old, old[1:])
