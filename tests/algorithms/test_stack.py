"""Trimmed stacks by bands of rows."""

import tracemalloc

import numpy as np
import pytest

from ztfluigi.algorithms.stack import _sorting_network, clipped_stack
from ztfluigi.model.config.detector import StackConfig
from ztfluigi.model.errors import BadInput


def reader(frames):
    return lambda i, y0, y1: frames[i][y0:y1]


def gaussian(seed=1, n=20, shape=(60, 64), level=100.0, sigma=2.0):
    return np.random.default_rng(seed).normal(level, sigma, (n, *shape)).astype(np.float32)


@pytest.mark.parametrize("n", [*range(2, 33), 50])
def test_the_network_sorts(n):
    values = np.random.default_rng(n).integers(0, 9, (n, 200))
    expected = np.sort(values, axis=0)
    for low, high in _sorting_network(n):
        values[[low, high]] = np.minimum(values[low], values[high]), np.maximum(values[low], values[high])
    np.testing.assert_array_equal(values, expected)


def test_without_outliers_it_is_the_mean_and_the_deviation():
    frames = gaussian()
    stack = clipped_stack(reader(frames), 20, (60, 64), config=StackConfig(clip_sigma=50))
    np.testing.assert_allclose(stack.mean, frames.mean(axis=0), rtol=2e-6)
    np.testing.assert_allclose(stack.std_raw, frames.std(axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(stack.std_clipped, stack.std_raw, rtol=1e-6)
    np.testing.assert_allclose(stack.uncertainty, stack.std_clipped / 20**0.5, rtol=1e-6)
    assert np.all(stack.depth == 20)
    assert [getattr(stack, k).dtype for k in ("mean", "std_clipped", "std_raw", "uncertainty", "depth")] == [np.float32] * 4 + [np.int16]


def test_usual_trimming_costs_almost_nothing():
    stack = clipped_stack(reader(gaussian(shape=(200, 200))), 20, (200, 200))
    assert stack.mean.std() == pytest.approx(2.0 / 20**0.5, rel=0.03)
    assert np.median(stack.std_clipped) == pytest.approx(2.0, rel=0.03)
    assert stack.mean.mean() == pytest.approx(100.0, abs=0.01)
    assert 1 - stack.depth.mean() / 20 < 0.005


def test_outliers_leave_the_average_and_remain_in_the_raw_deviation():
    frames = gaussian()
    frames[3, 10, 10] = 5000.0
    frames[7, 20, 20] = -300.0
    frames[[1, 2], [30, 30], [5, 5]] = 900.0, 2000.0
    stack = clipped_stack(reader(frames), 20, (60, 64))
    for at, lost in (((10, 10), 1), ((20, 20), 1), ((30, 5), 2)):
        assert abs(stack.mean[at] - 100.0) < 2.0
        assert stack.depth[at] <= 20 - lost
        assert stack.std_clipped[at] < 4.0 < 50.0 < stack.std_raw[at]


def test_order_of_frames_does_not_matter():
    frames = gaussian()
    frames[2, 5:9] += 40.0
    one = clipped_stack(reader(frames), 20, (60, 64))
    other = clipped_stack(reader(frames[::-1]), 20, (60, 64))
    for name in ("mean", "std_clipped", "std_raw", "uncertainty", "depth"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_missing_samples_are_left_out():
    frames = gaussian()
    frames[:3, 4, 4] = np.nan
    frames[0, 5, 5] = np.inf
    frames[:, 6, 6] = np.nan
    frames[1:, 7, 7] = np.nan
    stack = clipped_stack(reader(frames), 20, (60, 64), config=StackConfig(clip_sigma=50))
    assert stack.depth[4, 4] == 17 and stack.depth[5, 5] == 19 and stack.depth[6, 6] == 0 and stack.depth[7, 7] == 1
    assert stack.mean[4, 4] == pytest.approx(frames[3:, 4, 4].mean(), rel=1e-5)
    assert np.isnan(stack.mean[6, 6]) and np.isnan(stack.std_raw[6, 6])
    assert stack.mean[7, 7] == frames[0, 7, 7] and np.isnan(stack.std_clipped[7, 7])


def test_equal_samples_have_no_deviation():
    stack = clipped_stack(reader(np.full((20, 5, 5), 7.25, np.float32)), 20, (5, 5))
    assert np.all(stack.mean == 7.25) and np.all(stack.std_raw == 0) and np.all(stack.depth == 20)


def test_bands_give_the_same_as_one_piece_and_each_row_is_read_once():
    frames = gaussian(shape=(700, 600))
    asked = np.zeros((20, 700), int)

    def read(i, y0, y1):
        asked[i, y0:y1] += 1
        assert (y1 - y0) * 20 * 600 * 4 <= 2**20
        return frames[i, y0:y1]

    banded = clipped_stack(read, 20, (700, 600), config=StackConfig(band_mib=1))
    assert np.all(asked == 1)
    np.testing.assert_array_equal(banded.mean, clipped_stack(reader(frames), 20, (700, 600), config=StackConfig(band_mib=1024)).mean)


def test_memory_does_not_grow_with_the_number_of_frames():
    row = np.random.default_rng(1).normal(0, 1, (1, 512)).astype(np.float32)
    config = StackConfig(band_mib=2)
    clipped_stack(lambda i, y0, y1: np.repeat(row, y1 - y0, axis=0), 2, (8, 512), config=config)
    peaks = {}
    for n in (20, 80):
        tracemalloc.start()
        clipped_stack(lambda i, y0, y1: np.repeat(row, y1 - y0, axis=0), n, (512, 512), config=config)
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    products = 512 * 512 * (4 * 4 + 2)
    assert peaks[80] < peaks[20] + 2**18
    assert peaks[80] < products + 4 * 2**20


def test_bad_requests_are_refused():
    with pytest.raises(BadInput):
        clipped_stack(reader(gaussian()), 0, (60, 64))
    with pytest.raises(BadInput):
        clipped_stack(reader(gaussian()), 20, (60, 65))
