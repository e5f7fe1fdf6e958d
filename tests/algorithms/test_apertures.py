"""Aperture catalogue: analytic fluxes, shapes, positions, flags; aperture corrections."""

import numpy as np
import pytest

from tests.algorithms.star_field import GAIN, add_gaussian, detections, grid_places, observe
from ztfluigi.algorithms import apertures
from ztfluigi.algorithms.apertures import aperture_corrections
from ztfluigi.algorithms.extraction import segment
from ztfluigi.algorithms.psf_photometry import fit_catalogue
from ztfluigi.model.columns import FIXED_APERTURES_PIX, dtype_of
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.sexcat import SEXCAT
from ztfluigi.model.wcs import TpvWcs

SIZE, WIDTH = 256, 1.1
WCS = TpvWcs((128.5, 128.5), (150.0, 20.0), ((-2.8e-4, 0.0), (0.0, 2.8e-4)))


def measure(data, rms, mask, **options):
    return apertures.measure(segment(data, rms, mask), rms, mask, **options)


@pytest.fixture(scope="module")
def sky():
    """Isolated round Gaussian stars: (catalogue matched to truth, x, y, flux, data, sigma, mask)."""
    rng = np.random.default_rng(3)
    x, y = grid_places(SIZE, 32, rng)
    flux = np.full(len(x), 50000.0)
    scene = np.zeros((SIZE, SIZE))
    for place in zip(x, y, flux, strict=True):
        add_gaussian(scene, *place, WIDTH)
    data, sigma, mask = observe(scene, rng)
    mask[round(y[3]), round(x[3])] = int(Mask.SATURATED)
    table = measure(data, np.full_like(sigma, np.sqrt(100 / 6 + 2.25)), mask, wcs=WCS, gain=GAIN)
    order = [np.argmin(np.hypot(table["X_IMAGE"] - 1 - a, table["Y_IMAGE"] - 1 - b)) for a, b in zip(x, y, strict=True)]
    return table[order], x, y, flux, data, sigma, mask


def test_every_column_is_there(sky):
    assert sky[0].dtype == dtype_of(SEXCAT)
    assert sky[0]["FLUX_APER"].shape == (len(sky[0]), 6)
    filled = [c.name for c in SEXCAT if c.name != "CLASS_STAR" and not np.isfinite(sky[0][c.name].astype(float)).all()]
    assert not filled


def test_fixed_apertures_hold_the_analytic_share(sky):
    table, flux = sky[0], sky[3]
    width2 = WIDTH**2 + 2 / 12  # smeared by the pixel, and again by taking pixels as flat
    for n, diameter in enumerate(FIXED_APERTURES_PIX):
        share = 1 - np.exp(-((diameter / 2) ** 2) / 2 / width2)
        assert np.median(table["FLUX_APER"][:, n] / flux) == pytest.approx(share, rel=0.02)
    assert table["MAG_APER"][:, 5] == pytest.approx(-2.5 * np.log10(table["FLUX_APER"][:, 5]), abs=1e-4)
    error = np.sqrt(np.pi * 49 * (100 / 6 + 2.25) + 50000 / GAIN)
    assert np.median(table["FLUXERR_APER"][:, 5]) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("kind, low", [("AUTO", 0.96), ("PETRO", 0.96), ("ISO", 0.96), ("ISOCOR", 0.98), ("BEST", 0.96)])
def test_total_fluxes(sky, kind, low):
    assert low < np.median(sky[0][f"FLUX_{kind}"] / sky[3]) < 1.02


def test_positions_and_their_errors(sky):
    table, x, y = sky[:3]
    for name, true in (("XWIN_IMAGE", x), ("YWIN_IMAGE", y)):
        error = table[name] - 1 - true
        assert np.std(error) < 0.02
        assert np.std(error / np.sqrt(table["ERRX2WIN_IMAGE"])) == pytest.approx(1.0, abs=0.35)
    assert np.hypot(table["X_IMAGE"] - 1 - x, table["Y_IMAGE"] - 1 - y).max() < 0.1
    assert np.abs(table["XPEAK_IMAGE"] - 1 - x).max() <= 1.0


def test_shapes(sky):
    table = sky[0]
    true = np.sqrt(WIDTH**2 + 1 / 12)
    filtered = np.sqrt(true**2 + 0.5)  # isophotal moments are those of the filtered image
    assert np.median(table["A_IMAGE"]) == pytest.approx(filtered, rel=0.04)
    assert np.median(table["AWIN_IMAGE"]) == pytest.approx(true / np.sqrt(2), rel=0.1)
    assert np.median(table["FWHM_IMAGE"]) == pytest.approx(2.3548 * true, rel=0.1)
    assert np.median(table["ELONGATION"]) < 1.1
    assert np.median(table["A_WORLD"] / 2.8e-4 / table["A_IMAGE"]) == pytest.approx(1.0, rel=0.01)
    assert (np.diff(np.column_stack([table[f"ISO{n}"] for n in range(8)]), axis=1) <= 0).all()


def test_sky_coordinates_and_flags(sky):
    table, x, y = sky[:3]
    ra, dec = WCS.sky(x, y)
    assert np.abs(table["ALPHAWIN_J2000"] - ra).max() < 2e-5 and np.abs(table["DELTAWIN_J2000"] - dec).max() < 2e-5
    assert table["FLAGS"][3] == 4 and table["IMAFLAGS_ISO"][3] == int(Mask.SATURATED) and table["NIMAFLAGS_ISO"][3] == 1
    assert not table["FLAGS"][4:].any()


def test_angles_of_a_tilted_source():
    data = np.zeros((64, 64))
    yy, xx = np.mgrid[:64, :64]
    along, across = (xx - 32 + yy - 32) / np.sqrt(2), (yy - 32 - xx + 32) / np.sqrt(2)
    data += 500 * np.exp(-0.5 * (along**2 / 16 + across**2 / 4))
    table = measure(data.astype(np.float32), np.ones((64, 64), np.float32), np.zeros((64, 64), np.uint16), wcs=WCS, gain=GAIN)
    assert table["THETA_IMAGE"][0] == pytest.approx(45, abs=1) and table["THETAWIN_IMAGE"][0] == pytest.approx(45, abs=1)
    # x runs against right ascension here.
    assert table["THETAWIN_WORLD"][0] == pytest.approx(-45, abs=1) and table["THETAWIN_J2000"][0] == pytest.approx(-45, abs=1)


def test_without_wcs_or_sources():
    rng = np.random.default_rng(1)
    data = rng.normal(0, 1, (64, 64)).astype(np.float32)
    ones, mask = np.ones((64, 64), np.float32), np.zeros((64, 64), np.uint16)
    assert len(measure(np.zeros_like(data), ones, mask, wcs=None, gain=GAIN)) == 0
    data[30:34, 30:34] += 50
    table = measure(data, ones, mask, wcs=None, gain=GAIN)
    assert len(table) == 1 and np.isnan(table["X_WORLD"][0]) and np.isnan(table["A_WORLD"][0])


def test_aperture_corrections_are_the_light_outside(sky):
    table, x, y, flux, data, sigma, mask = sky
    psf = PsfModel.gaussian(2.3548 * WIDTH, (SIZE, SIZE))
    psfcat, _ = fit_catalogue(data, sigma, mask, detections(x, y, flux), psf, WCS)
    correction, uncertainty = aperture_corrections(psfcat, table)
    share = 1 - np.exp(-((np.array(FIXED_APERTURES_PIX) / 2) ** 2) / 2 / (WIDTH**2 + 2 / 12))
    assert correction == pytest.approx(2.5 * np.log10(share), abs=0.015)
    assert (uncertainty < 0.01).all() and (uncertainty > 0).all()
    assert np.isnan(aperture_corrections(psfcat[:3], table)[0]).all()


@pytest.mark.real
def test_real_aperture_corrections(real_ztf):
    """ZTF's header: APCOR1..6 of the same image, its PSF fluxes normalised a little differently (0.005 mag)."""
    wanted = [-0.68324399, -0.32071051, -0.18320650, -0.07361950, -0.01002300, 0.00461700]
    table = measure(real_ztf["data"], real_ztf["rms"], real_ztf["mask"], wcs=None, gain=6.0)
    assert aperture_corrections(real_ztf["psfcat"], table)[0] == pytest.approx(wanted, abs=0.02)
