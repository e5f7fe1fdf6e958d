"""Properties of the PSF model."""

import numpy as np
import pytest

from ztfluigi.model.psf import PsfModel

SHAPE = (300, 200)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.5, -0.5), (0.23, 0.41)])
def test_rendering_keeps_the_flux_and_follows_the_offset(offset):
    psf = PsfModel.gaussian(2.0, SHAPE)
    stamp = psf.render(100, 150, dx=offset[0], dy=offset[1])
    yy, xx = np.mgrid[-12:13, -12:13]
    assert stamp.shape == (25, 25)
    assert stamp.sum() == pytest.approx(1.0, abs=1e-4)
    assert (stamp * xx).sum() == pytest.approx(offset[0], abs=1e-3)
    assert (stamp * yy).sum() == pytest.approx(offset[1], abs=1e-3)


@pytest.mark.parametrize("fwhm", [1.3, 2.0, 4.0])
def test_width_of_a_gaussian(fwhm):
    """The effective PSF is the Gaussian smeared by the pixel: second moments add."""
    expected = np.sqrt(fwhm**2 + 8 * np.log(2) / 12)
    assert PsfModel.gaussian(fwhm, SHAPE).fwhm() == pytest.approx(expected, rel=0.02)


def test_round_psf_is_round_and_stretched_psf_is_not():
    psf = PsfModel.gaussian(2.5, SHAPE)
    assert psf.ellipticity() == pytest.approx(0.0, abs=1e-6)
    xx, yy, xy = psf.moments()
    assert xx == pytest.approx((2.5 / 2.3548) ** 2 + 1 / 12, rel=0.02)
    assert xy == pytest.approx(0.0, abs=1e-9)
    offset = (np.arange(105) - 52) / 4
    table = np.exp(-0.5 * (offset**2 / 1.5**2 + offset[:, None] ** 2 / 1.2**2))
    assert PsfModel(table[None], 0, SHAPE, 4).ellipticity() == pytest.approx(0.2, abs=0.005)


def test_position_polynomial():
    psf = PsfModel.gaussian(2.0, SHAPE)
    varying = PsfModel(np.concatenate([psf.tables, 0.1 * psf.tables, np.zeros_like(psf.tables)]), 1, SHAPE, 4)
    assert varying.render(199, 0).sum() == pytest.approx(1.1, abs=1e-3)
    assert varying.render(0, 299).sum() == pytest.approx(0.9, abs=1e-3)
    assert varying.monomials(99.5, 149.5) == pytest.approx([1, 0, 0])
