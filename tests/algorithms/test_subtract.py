"""Properties of the difference: zero for equals, sign, flux, S/N, noise width, masks, registration, throughput."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.algorithms import pairs
from tests.algorithms.pairs import SHAPE, TILED, make_pair, moffat
from ztfluigi.algorithms.coadd import coadd, footprint
from ztfluigi.algorithms.image_match import stamp_of_reference
from ztfluigi.algorithms.subtract import subtract
from ztfluigi.algorithms.zogy import TileGrid, proper_difference
from ztfluigi.model.errors import BadInput, Unusable
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

TRANSIENTS = [(100.3, 120.7, 700.0), (60.2, 30.4, 350.0), (180.5, 200.1, 3000.0)]


@pytest.fixture(scope="module")
def pair():
    return make_pair(3, transients=TRANSIENTS)


@pytest.fixture(scope="module")
def difference(pair):
    return pair.subtract()


def as_coadd(image: Calibrated, sky, psf, magzp=pairs.SCIENCE_ZP):
    return Coadd(image.data - sky, image.sigma, np.ones(image.data.shape, np.int16), image.mask, image.wcs, magzp, image.gain,
                 image.saturate, 1.0, psf)


def on_science_grid(seed, fwhm, transients=()):
    """A science image on the science grid; its catalogue."""
    made = make_pair(seed, science_fwhm=fwhm, transients=transients)
    return made.science, made.science_psf, made.psfcat_sci


def test_equal_images_leave_nothing():
    image, psf, cat = on_science_grid(5, 2.3)
    out = subtract(image, psf, pairs.SCIENCE_ZP, as_coadd(image, pairs.SKY, psf), psfcat_sci=cat, psfcat_ref=cat, config=TILED)
    assert np.abs(out.data).max() < 0.02 * np.median(image.sigma) + 1e-4 * image.data.max()
    assert np.abs(out.scorr).max() < 0.2


def test_swapping_changes_the_sign():
    first, first_psf, first_cat = on_science_grid(6, 2.3, [(100.0, 100.0, 1500.0)])
    second, second_psf, second_cat = on_science_grid(6, 2.1)
    second.data += np.random.default_rng(9).normal(0, 3, SHAPE).astype(np.float32)
    forth = subtract(first, first_psf, pairs.SCIENCE_ZP, as_coadd(second, pairs.SKY, second_psf), psfcat_sci=first_cat,
                     psfcat_ref=second_cat, config=TILED)
    back = subtract(second, second_psf, pairs.SCIENCE_ZP, as_coadd(first, pairs.SKY, first_psf), psfcat_sci=second_cat,
                    psfcat_ref=first_cat, config=TILED)
    bright = np.abs(forth.scorr) > 6
    assert bright.any()
    np.testing.assert_allclose(back.scorr[bright], -forth.scorr[bright], rtol=0.05, atol=0.3)
    assert np.corrcoef(forth.scorr.ravel(), back.scorr.ravel())[0, 1] < -0.98


def test_transients_come_back_with_their_flux_and_score(pair, difference):
    for x, y, flux in TRANSIENTS:
        ix, iy = round(x), round(y)
        psf = difference.psf_at(ix, iy)
        noise = float(difference.sigma[iy, ix]) / np.sqrt((psf**2).sum())
        stamp = difference.data[iy - 8:iy + 9, ix - 8:ix + 9]
        assert stamp.sum() == pytest.approx(flux, abs=4 * 17 * 6.8)
        # S/N of an isolated source of this flux for an ideal PSF fit; the source's own photons are in sigma.
        ideal = flux / noise
        assert difference.scorr[iy - 1:iy + 2, ix - 1:ix + 2].max() == pytest.approx(ideal, abs=3.5, rel=0.1)


def test_flux_is_unbiased_over_many_transients():
    rng = np.random.default_rng(11)
    places = [(20 + 25 * (k % 9) + rng.uniform(-3, 3), 20 + 25 * (k // 9) + rng.uniform(-3, 3), 500.0) for k in range(72)]
    out = make_pair(12, transients=places, n_stars=25).subtract()
    fluxes = []
    for x, y, _ in places:
        ix, iy = round(x), round(y)
        psf = PsfModel(out.psf_at(ix, iy)[None], 0, SHAPE, 1).render(0, 0, 15, x - ix, y - iy)
        fluxes.append((psf * out.data[iy - 7:iy + 8, ix - 7:ix + 8]).sum() / (psf**2).sum())
    fluxes = np.array(fluxes)
    error = fluxes.std() / np.sqrt(len(fluxes))
    assert fluxes.mean() == pytest.approx(500.0, abs=3 * error)
    assert fluxes.std() == pytest.approx(float(np.median(out.sigma)) / np.sqrt((out.psf**2).sum()), rel=0.35)


def test_calm_takes_ripples_and_no_light():
    rng, shape = np.random.default_rng(8), (128, 128)
    psfs, calm = tuple(moffat(w, SHAPE).render(60, 60) for w in (2.2, 2.4)), np.zeros(shape, np.float32)
    calm[:64] = 1.0
    science, reference = (rng.normal(0, s, shape).astype(np.float32) for s in (10.0, 3.0))
    ripple = 20.0 * np.exp(-0.5 * (np.arange(128) / 20.0 - 1.6) ** 2)
    reference += np.float32(ripple[:, None] * (-1.0) ** np.arange(128))
    half = psfs[0].shape[0] // 2
    for y in (32, 96):
        science[y - half:y + half + 1, 64 - half:64 + half + 1] += np.float32(5000.0) * psfs[0]
    variances = [np.full(shape, s**2, np.float32) for s in (10.0, 3.0)]
    made = [proper_difference(science, reference, *variances, lambda j, i: psfs, tiles=TileGrid.covering(shape, 128), astrometric_rms=(0.0, 0.0),
                              calm=given) for given in (None, calm)]
    np.testing.assert_array_equal(made[0][0][64:], made[1][0][64:])
    for one, other in zip(made[0][1:], made[1][1:], strict=True):
        np.testing.assert_array_equal(one, other)
    psf = made[1][4][0, 0]
    flux = [np.sum(psf * one[0][20:45, 52:77]) / np.sum(psf**2) for one in made]
    assert flux[1] == pytest.approx(flux[0], rel=0.015) and flux[1] == pytest.approx(5000.0, rel=0.05)
    assert made[1][0][8:56, 8:48].std() < 0.5 * made[0][0][8:56, 8:48].std()


@pytest.mark.parametrize(("science_fwhm", "reference_fwhm"), [(2.3, 2.0), (2.0, 2.6), (3.4, 2.1)])
def test_score_of_noise_has_unit_width(science_fwhm, reference_fwhm):
    out = make_pair(20, science_fwhm=science_fwhm, reference_fwhm=reference_fwhm, n_stars=50).subtract()
    assert out.metrics["score_width"] == pytest.approx(1.0, abs=0.035)
    assert abs(out.metrics["score_mean"]) < 0.12
    assert np.count_nonzero(np.abs(out.scorr) > 5) == 0
    white = out.data / out.sigma
    assert 0.5 * np.subtract(*np.percentile(white, (84.135, 15.865))) == pytest.approx(1.0, abs=0.04)


def test_correlated_noise_of_a_real_coadd_is_calibrated():
    rng = np.random.default_rng(31)
    sigma = np.full(SHAPE, np.sqrt(pairs.SKY / pairs.GAIN + (pairs.READ_NOISE / pairs.GAIN) ** 2), np.float32)

    def epoch(i):
        noise = np.random.default_rng(1000 + i)
        dx, dy = noise.uniform(-4, 4, 2)
        wcs = replace(pairs.SCIENCE_WCS, crpix=(pairs.SCIENCE_WCS.crpix[0] + dx, pairs.SCIENCE_WCS.crpix[1] + dy))
        data = (pairs.SKY + sigma * noise.normal(size=SHAPE)).astype(np.float32)
        return Calibrated(data, sigma, np.zeros(SHAPE, np.uint16), pairs.GAIN, pairs.READ_NOISE, 5e4, wcs)

    epochs = [epoch(i) for i in range(6)]
    wcs, shape = footprint([e.wcs for e in epochs], [SHAPE] * 6)
    reference = coadd(lambda i: epochs[i], [26.275] * 6, wcs=wcs, shape=shape, filter_code="zr")
    reference.psf = PsfModel.gaussian(2.0, shape)
    data = (pairs.SKY + sigma * rng.normal(size=SHAPE)).astype(np.float32)
    science = Calibrated(data, sigma, np.zeros(SHAPE, np.uint16), pairs.GAIN, pairs.READ_NOISE, 5e4, pairs.SCIENCE_WCS)
    empty = pairs.catalogue(np.empty(0), np.empty(0), np.empty(0), np.empty(0), wcs)
    out = subtract(science, PsfModel.gaussian(2.3, SHAPE), 26.275, reference, psfcat_sci=empty, psfcat_ref=empty, config=TILED)
    full = out.mask == 0
    assert np.std(out.scorr[full]) == pytest.approx(1.0, abs=0.03)


def test_wrong_astrometry_is_registered():
    good = make_pair(40).subtract()
    moved = make_pair(40, shift=(0.4, -0.3)).subtract()
    assert moved.metrics["dx_mean"] == pytest.approx(0.4, abs=0.03) and moved.metrics["dy_mean"] == pytest.approx(-0.3, abs=0.03)
    assert np.abs(moved.scorr).max() < np.abs(good.scorr).max() + 1.5


def test_flux_ratio_and_background_gradient_are_found():
    out = make_pair(41, gradient=15.0).subtract()
    assert out.metrics["flux_ratio"] == pytest.approx(pairs.RATIO, rel=0.01)
    truth = pairs.SKY + 15.0 * np.linspace(-1, 1, SHAPE[1])
    assert np.abs(out.background - truth[None, :]).max() < 4.0
    assert np.median(np.abs(out.background - truth[None, :])) < 0.8


def test_masked_pixels_are_neutral_and_flagged(pair):
    science = replace(pair.science, data=pair.science.data.copy(), mask=pair.science.mask.copy())
    reference = replace(pair.reference, data=pair.reference.data.copy(), mask=pair.reference.mask.copy())
    science.data[150:153, 30:60], science.mask[150:153, 30:60] = 3e4, Mask.TRACK
    science.data[10, 10], science.mask[10, 10] = np.nan, Mask.NAN
    reference.data[100:140, 100:140] = np.nan
    reference.mask[100:140, 100:140] = Mask.NAN
    out = replace(pair, science=science, reference=reference).subtract()
    assert np.isfinite(out.data).all() and np.isfinite(out.scorr).all() and np.isfinite(out.sigma).all()
    assert (out.mask[150:153, 30:60] & Mask.TRACK).all() and (out.scorr[150:153, 30:60] == 0).all()
    around = out.scorr[140:163, 20:70]
    assert np.abs(around).max() < 5.0
    assert np.count_nonzero(out.mask & Mask.NAN) > 1200
    hole = (out.mask & Mask.NAN) > 0
    assert (out.data[hole] == 0).all()


def test_psf_of_the_difference_is_a_unit_stamp(difference):
    assert difference.psf.shape == (25, 25) and difference.psf.sum() == pytest.approx(1.0)
    assert np.unravel_index(difference.psf.argmax(), (25, 25)) == (12, 12)
    assert difference.psf_at(np.array([3.0, 239.0]), np.array([3.0, 255.0])).shape == (2, 25, 25)


def test_reference_psf_turns_with_the_grids():
    """An elongated PSF along x of the reference lies along y of a science grid turned by 90 degrees."""
    base = PsfModel.gaussian(2.2, SHAPE).tables[0]
    wide = (np.roll(base, 4, axis=1) + np.roll(base, -4, axis=1)) / 2
    model = PsfModel(wide[None], 0, SHAPE, 4)
    places = np.array([[50.0]]), np.array([[60.0]])
    stamp = stamp_of_reference(model, *places, np.array([[0.0, 1.0], [-1.0, 0.0]]), 3, 25)
    offset = np.arange(-12, 13)
    assert (stamp.sum(axis=1) * offset**2).sum() > 1.5 * (stamp.sum(axis=0) * offset**2).sum()


def test_limits_and_metrics_are_sensible(difference):
    metrics = difference.metrics
    noise = float(np.median(difference.sigma)) / np.sqrt((difference.psf**2).sum())
    assert difference.diffmaglim == pytest.approx(pairs.SCIENCE_ZP - 2.5 * np.log10(5 * noise), abs=0.05)
    assert metrics["n_match"] > 20 and metrics["masked_percent"] < 1.0
    assert metrics["fwhm_difference"] >= metrics["fwhm_reference"]


def test_bad_inputs_are_told(pair):
    with pytest.raises(BadInput):
        replace(pair, reference=replace(pair.reference, psf=None)).subtract()
    elsewhere = TpvWcs(pairs.REFERENCE_WCS.crpix, (160.0, 30.0), pairs.REFERENCE_WCS.cd)
    with pytest.raises(Unusable):
        replace(pair, reference=replace(pair.reference, wcs=elsewhere)).subtract()


def test_point_spread_function_of_the_helper_is_normalised():
    assert moffat(2.2, SHAPE).render(100, 100, 27).sum() == pytest.approx(1.0, abs=0.01)


def test_a_sigma_that_is_not_finite_spoils_only_its_pixel(pair):
    reference = replace(pair.reference, sigma=pair.reference.sigma.copy())
    reference.sigma[120:160, 130:170] = np.inf
    out = replace(pair, reference=reference).subtract()
    assert np.isfinite(out.scorr).all() and np.isfinite(out.sigma).all()
    assert out.metrics["score_width"] == pytest.approx(1.0, abs=0.05)
