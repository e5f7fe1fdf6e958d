"""PSF files: the DAOPhot text renders as the model does, and the FITS form loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from targets.codecs import daophot
from ztfluigi.model.errors import BadInput
from ztfluigi.model.psf import PsfModel

SHAPE = (200, 240)


def moffat_model(fwhm, *, gradient=0.0, curvature=0.0):
    """A pixel-integrated Moffat whose width varies over the quadrant: degree 2, oversample 4."""
    oversample, half = 4, 13
    offset = np.arange(-half * oversample, half * oversample + 1) / oversample
    fine = np.linspace(-0.5, 0.5, 9)[:-1] + 1 / 16

    def table(width):
        alpha2 = (width / 2) ** 2 / (2 ** (1 / 3) - 1)
        dy, dx = np.meshgrid(offset, offset, indexing="ij")
        out = sum((1 + ((dx + a) ** 2 + ((dy + b) * 1.05) ** 2) / alpha2) ** -3.0 for a in fine for b in fine)
        return out / out.sum() * oversample**2

    base = table(fwhm)
    slope = table(fwhm * 1.1) - table(fwhm * 0.9)
    tables = np.zeros((6, *base.shape))
    tables[0], tables[1], tables[2] = base, gradient * slope, -0.5 * gradient * slope
    tables[3] = curvature * slope
    return PsfModel(tables, 2, SHAPE, oversample)


@pytest.mark.parametrize("fwhm", [1.5, 2.0, 3.5])
@pytest.mark.parametrize("dx, dy", [(0.0, 0.0), (0.3, -0.45)])
def test_text_renders_as_the_model(tmp_path, fwhm, dx, dy):
    model = moffat_model(fwhm, gradient=0.3)
    daophot.write_daophot(tmp_path / "sciimgdao.psf", model)
    read = daophot.read_daophot(tmp_path / "sciimgdao.psf")
    for x, y in ((0.0, 0.0), (119.5, 99.5), (239.0, 20.0)):
        expected = model.render(x, y, 21, dx, dy)
        assert np.abs(read.render(x, y, 21, dx, dy) - expected).max() < 0.02 * expected.max()
    assert read.render(119.5, 99.5, 25).sum() == pytest.approx(model.render(119.5, 99.5, 25).sum(), abs=2e-3)


def test_curvature_is_projected_onto_the_linear_terms():
    model = moffat_model(2.0, gradient=0.2, curvature=0.1)
    dao = daophot.from_model(model)
    mean = np.mean([model.render(x, y) for x in np.linspace(0, 239, 9) for y in np.linspace(0, 199, 9)], axis=0)
    assert np.abs(dao.render(119.5, 99.5) - mean).max() < 0.02 * mean.max()


def test_text_has_the_fields_daophot_reads(tmp_path):
    daophot.write_daophot(tmp_path / "a.psf", PsfModel.gaussian(2.2, SHAPE))
    first, second, third = (tmp_path / "a.psf").read_text().splitlines()[:3]
    label, n, parameters, tables, fractional, magnitude, height, xpsf, ypsf = first.split()
    assert (label, int(parameters), int(tables), int(fractional), float(magnitude)) == ("GAUSSIAN", 2, 3, 0, 12.5)
    assert (float(xpsf), float(ypsf)) == (119.5, 99.5) and int(n) % 2 == 1 and float(height) > 1e4
    assert [float(v) for v in second.split()] == pytest.approx([1.1, 1.1], abs=1e-3)
    assert len(third) == 1 + 6 * 13


def test_files_of_quadratic_psfs_read_too(tmp_path):
    n = 5
    lines = [f" GAUSSIAN{n:5d}    2    6    0   12.500      20000.000    119.5     99.5", "  1.100000E+00 1.100000E+00"]
    lines += [" " + "".join(f"{v:13.6E}" for v in np.full(5, -1.0)) for _ in range(6 * n)]
    (tmp_path / "q.psf").write_text("\n".join(lines))
    assert daophot.read_daophot(tmp_path / "q.psf").tables.shape == (6, 5, 5)


@pytest.mark.parametrize("text, words", [
    ("", "not a DAOPhot PSF file"), (" MOFFAT25   51    3    3    0   12.5   1.0  1.0  1.0\n", "expected GAUSSIAN"),
    (" GAUSSIAN   51    2    3    0   12.5   1.0  1.0  1.0\n 1.0E+00 1.0E+00\n", "holds 2 numbers, expected 7805")])
def test_other_files_are_refused(tmp_path, text, words):
    (tmp_path / "x.psf").write_text(text)
    with pytest.raises(BadInput, match=words):
        daophot.read_daophot(tmp_path / "x.psf")


def test_model_round_trip_is_exact(tmp_path):
    model = moffat_model(2.0, gradient=0.2)
    daophot.write_psf_model(tmp_path / "psf.fits", model, {"OBSJD": 2459116.9})
    with astropy_fits.open(tmp_path / "psf.fits", checksum=True) as hdus:
        hdus.verify("exception")
    back = daophot.read_psf_model(tmp_path / "psf.fits")
    np.testing.assert_array_equal(back.tables, model.tables)
    assert (back.degree, back.shape, back.oversample) == (2, SHAPE, 4)


def test_an_image_is_no_model(tmp_path):
    from targets.codecs import image

    image.write_image(tmp_path / "i.fits", np.zeros((4, 4), np.float32))
    with pytest.raises(BadInput, match="PSFDEG"):
        daophot.read_psf_model(tmp_path / "i.fits")
