"""Resampling keeps flux, place and mask, and does not ring."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms.resample import GRID, kernel_table, noise_shrinkage, resample, source_grid
from ztfluigi.model.errors import BadInput
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

SCALE = 1.0125 / 3600.0
SHAPE = (160, 150)
DISTORTION = ({1: 1.0, 4: 2e-3, 7: 0.02}, {1: 1.0, 5: 1e-3, 10: -0.02})
SCIENCE = TpvWcs((75.5, 80.5), (150.0, 30.0), ((-SCALE, 0.0), (0.0, -SCALE)), *DISTORTION)
NORTH_UP = TpvWcs((90.3, 85.8), (150.001, 29.999), ((-SCALE, 1e-3 * SCALE), (1e-3 * SCALE, SCALE)))
TARGET_SHAPE = (180, 170)


def stars(positions, flux=1e4, fwhm=2.4, shape=SHAPE):
    psf = PsfModel.gaussian(fwhm, shape)
    image = np.zeros(shape)
    for x, y in positions:
        ix, iy = round(x), round(y)
        image[iy - 12:iy + 13, ix - 12:ix + 13] += flux * psf.render(x, y, 25, x - ix, y - iy)
    return image.astype(np.float32)


@pytest.mark.parametrize("order", [1, 3, 4])
def test_same_grid_gives_the_same_image(order):
    data = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    out, mask = resample(data, SCIENCE, SCIENCE, SHAPE, order=order, mask=np.zeros(SHAPE, np.uint16))
    np.testing.assert_allclose(out, data, atol=2e-3 * np.abs(data).max())
    assert not mask.any()


@pytest.mark.parametrize("order", [3, 4])
def test_source_keeps_flux_and_place(order):
    position = (61.37, 92.81)
    out, _ = resample(stars([position]), SCIENCE, NORTH_UP, TARGET_SHAPE, order=order, fill=0.0)
    x, y = (float(v) for v in NORTH_UP.pixel(*SCIENCE.sky(*position)))
    rows, cols = np.mgrid[0:TARGET_SHAPE[0], 0:TARGET_SHAPE[1]]
    assert out.sum() == pytest.approx(1e4, rel=2e-3)
    assert (out * cols).sum() / out.sum() == pytest.approx(x, abs=0.02)
    assert (out * rows).sum() / out.sum() == pytest.approx(y, abs=0.02)


@pytest.mark.parametrize(("ratio", "tolerance"), [(0.995, 2e-3), (1.004, 2e-3), (0.8, 1e-2)])
def test_flux_is_kept_when_the_pixel_scale_changes(ratio, tolerance):
    # A large change of scale meets the stop-band leak of the Lanczos kernel (about 1 %); scales of one camera do not.
    other = TpvWcs((160.0, 170.0), (150.0, 30.0), ((-ratio * SCALE, 0.0), (0.0, ratio * SCALE)))
    out, _ = resample(stars([(70.2, 75.4)], fwhm=3.0), SCIENCE, other, (340, 320), fill=0.0)
    assert out.sum() == pytest.approx(1e4, rel=tolerance)


def test_bilinear_coordinates_agree_with_exact_ones():
    gx, gy, area = source_grid(SCIENCE, NORTH_UP, TARGET_SHAPE)
    middle = (gx[:-1, :-1] + gx[1:, :-1] + gx[:-1, 1:] + gx[1:, 1:]) / 4, (gy[:-1, :-1] + gy[1:, :-1] + gy[:-1, 1:] + gy[1:, 1:]) / 4
    y, x = np.mgrid[0:middle[0].shape[0], 0:middle[0].shape[1]] * GRID + GRID / 2.0
    exact = SCIENCE.pixel(*NORTH_UP.sky(x, y))
    assert max(np.abs(middle[0] - exact[0]).max(), np.abs(middle[1] - exact[1]).max()) < 0.01
    np.testing.assert_allclose(area, 1.0, atol=5e-3)


def test_registration_moves_sources_back_to_their_place():
    # Sources lie 0.4 pix right of and 0.3 pix below the place the target WCS gives them; the map must follow them.
    position = (75.0, 80.0)
    out, _ = resample(stars([position]), SCIENCE, SCIENCE, SHAPE, fill=0.0, registration=lambda x, y: (0.4 + 0 * x, -0.3 + 0 * y))
    rows, cols = np.mgrid[0:SHAPE[0], 0:SHAPE[1]]
    assert (out * cols).sum() / out.sum() == pytest.approx(75.4, abs=0.02)
    assert (out * rows).sum() / out.sum() == pytest.approx(79.7, abs=0.02)


def test_outside_is_filled_and_flagged():
    out, mask = resample(stars([(70, 70)]), SCIENCE, NORTH_UP, TARGET_SHAPE, fill=-7.0)
    assert (out[mask & Mask.NAN > 0] == -7.0).all() and out[0, 0] == -7.0
    x, y = np.meshgrid(np.arange(TARGET_SHAPE[1]), np.arange(TARGET_SHAPE[0]))
    sx, sy = SCIENCE.pixel(*NORTH_UP.sky(x, y))
    outside = (sx < -0.6) | (sy < -0.6) | (sx > SHAPE[1] - 0.4) | (sy > SHAPE[0] - 0.4)
    inside = (sx > 0) & (sy > 0) & (sx < SHAPE[1] - 1) & (sy < SHAPE[0] - 1)
    assert (mask[outside] & Mask.NAN).all() and not (mask[inside] & Mask.NAN).any()


def test_masked_spike_does_not_ring_and_is_carried():
    data = np.full(SHAPE, 100.0, np.float32)
    mask = np.zeros(SHAPE, np.uint16)
    data[80, 75], mask[80, 75] = 5e4, Mask.SPIKE
    data[60, 60] = np.nan
    out, carried = resample(data, SCIENCE, NORTH_UP, TARGET_SHAPE, mask=mask)
    good = carried & Mask.NAN == 0
    # 0.5 %: the pixel area ratio of the distortion, not ringing.
    np.testing.assert_allclose(out[good], 100.0, rtol=5e-3)
    x, y = (int(round(float(v))) for v in NORTH_UP.pixel(*SCIENCE.sky(75, 80)))
    assert carried[y, x] & Mask.SPIKE
    assert 1 <= np.count_nonzero(carried & Mask.SPIKE) <= 16


def test_large_hole_stays_a_hole():
    data = np.full(SHAPE, 10.0, np.float32)
    data[50:70, 50:70] = np.nan
    out, mask = resample(data, SCIENCE, SCIENCE, SHAPE)
    assert np.isnan(out[60, 60]) and mask[60, 60] & Mask.NAN
    np.testing.assert_allclose(out[np.isfinite(out)], 10.0, rtol=1e-3)


def test_noise_shrinks_as_told():
    data = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    tilted = TpvWcs((90.3, 85.8), (150.0, 30.0), ((-SCALE, 0.06 * SCALE), (0.06 * SCALE, SCALE)))
    for order in (3, 4):
        out, _ = resample(data, SCIENCE, tilted, TARGET_SHAPE, order=order)
        assert np.nanstd(out) == pytest.approx(noise_shrinkage(order), abs=0.03)


def test_kernels_are_normalised_and_symmetric():
    for order in (1, 3, 4):
        table = kernel_table(order)
        np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(table, table[::-1, ::-1], atol=1e-6)


def test_unknown_order_is_refused():
    with pytest.raises(BadInput):
        resample(np.zeros(SHAPE, np.float32), SCIENCE, SCIENCE, SHAPE, order=2)
