"""Cutouts keep values, centre and size, and pad with NaN."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms.cutouts import cut
from ztfluigi.model.errors import BadInput

IMAGE = np.arange(100 * 80, dtype=np.float32).reshape(100, 80)


def test_stamp_is_the_image_about_the_rounded_place():
    stamps = cut(IMAGE, [40.4, 39.6], [50.3, 49.7])
    assert stamps.shape == (2, 63, 63) and stamps.dtype == np.float32
    np.testing.assert_array_equal(stamps[0], IMAGE[19:82, 9:72])
    np.testing.assert_array_equal(stamps[0], stamps[1])


def test_edges_are_padded_with_nan():
    stamp = cut(IMAGE, 2, 97, 21)[0]
    assert stamp[10, 10] == IMAGE[97, 2]
    assert np.isnan(stamp[:, :8]).all() and np.isnan(stamp[13:]).all()
    assert np.isfinite(stamp[:13, 8:]).all()


def test_places_outside_give_nan_and_none_give_none():
    assert np.isnan(cut(IMAGE, [-500.0, np.nan], [10.0, 10.0])).all()
    assert cut(IMAGE, [], []).shape == (0, 63, 63)


def test_even_sizes_are_refused():
    with pytest.raises(BadInput):
        cut(IMAGE, 10, 10, 62)
