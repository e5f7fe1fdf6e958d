"""Properties of PSF building: truth recovered at several widths, variation, robustness, failure."""

import numpy as np
import pytest

from tests.algorithms.star_field import add_gaussian, detections, grid_places, observe
from ztfluigi.algorithms.psf import build_psf
from ztfluigi.model.config.photometry import PsfConfig
from ztfluigi.model.errors import TooFewCalibrators
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel

SIZE = 256


def field(sigma_of, *, seed=1, step=22, flux=30000.0):
    rng = np.random.default_rng(seed)
    x, y = grid_places(SIZE, step, rng)
    fluxes = flux * rng.uniform(0.5, 1.5, len(x))
    scene = np.zeros((SIZE, SIZE))
    for place in zip(x, y, fluxes, strict=True):
        add_gaussian(scene, *place, sigma_of(place[0], place[1]))
    return rng, x, y, fluxes, scene


def truth(fwhm):
    return PsfModel.gaussian(fwhm, (SIZE, SIZE)).render(128, 128)


@pytest.mark.parametrize("fwhm", [1.2, 2.0, 3.5])
def test_truth_is_recovered(fwhm):
    rng, x, y, flux, scene = field(lambda _x, _y: fwhm / 2.3548)
    psf, metrics = build_psf(*observe(scene, rng), detections(x, y, flux, rng))
    stamp = psf.render(128, 128)
    assert np.abs(stamp - truth(fwhm)).max() < 0.012 * truth(fwhm).max()
    assert stamp.sum() == pytest.approx(1.0, abs=0.01)
    assert metrics["fwhm_pix"] == pytest.approx(fwhm, rel=0.03)
    assert metrics["n_psf_stars"] > 60
    assert metrics["ellipticity"] < 0.02


@pytest.mark.parametrize("phase", [(0.0, 0.0), (0.5, 0.5), (-0.3, 0.1)])
def test_undersampled_flux_does_not_depend_on_the_phase(phase):
    rng, x, y, flux, scene = field(lambda _x, _y: 1.2 / 2.3548)
    psf, _ = build_psf(*observe(scene, rng), detections(x, y, flux, rng))
    assert psf.render(128, 128, dx=phase[0], dy=phase[1]).sum() == pytest.approx(1.0, abs=0.004)


def test_variation_over_the_quadrant_is_followed():
    rng, x, y, flux, scene = field(lambda x, _y: 0.85 + 0.15 * x / SIZE)
    psf, metrics = build_psf(*observe(scene, rng), detections(x, y, flux, rng))
    assert metrics["psf_degree"] >= 2
    for place in (30, 128, 226):
        expected = PsfModel.gaussian(2.3548 * (0.85 + 0.15 * place / SIZE), (SIZE, SIZE)).fwhm()
        assert psf.fwhm(place, 128) == pytest.approx(expected, rel=0.015)


def test_galaxies_cosmic_rays_and_neighbours_do_not_matter():
    rng, x, y, flux, scene = field(lambda _x, _y: 0.85)
    galaxy = rng.random(len(x)) < 0.15
    for gx, gy, gf in zip(x[galaxy], y[galaxy], flux[galaxy], strict=True):
        add_gaussian(scene, gx, gy, gf, 2.5)
    near_x, near_y = x[::6] + 7, y[::6] + 1
    for nx, ny in zip(near_x, near_y, strict=True):
        add_gaussian(scene, nx, ny, 8000, 0.85)
    data, sigma, mask = observe(scene, rng)
    for hit in rng.integers(5, SIZE - 5, (60, 2)):
        data[tuple(hit)] += 2000
    listed = detections(np.r_[x, near_x], np.r_[y, near_y], np.r_[flux, np.full(len(near_x), 8000.0)], rng)
    psf, metrics = build_psf(data, sigma, mask, listed)
    assert metrics["fwhm_pix"] == pytest.approx(2.0, rel=0.03)
    assert np.abs(psf.render(128, 128) - truth(2.0)).max() < 0.02 * truth(2.0).max()


def test_wings_are_free_of_the_noise_of_single_stars():
    """A star a hundred times brighter than those of the PSF must not be surrounded by what their noise left in the table."""
    rng, x, y, flux, scene = field(lambda _x, _y: 0.85)
    psf, _ = build_psf(*observe(scene, rng), detections(x, y, flux, rng))
    offset = np.arange(-12, 13)
    wings = psf.render(128, 128)[np.hypot(offset[:, None], offset) > 6]
    assert np.abs(wings).max() < 1.5e-5


def test_few_stars_give_a_constant_psf_and_fewer_none():
    rng, x, y, flux, scene = field(lambda _x, _y: 0.85, step=60)
    observed = observe(scene, rng)
    psf, metrics = build_psf(*observed, detections(x, y, flux))
    assert psf.degree == 0 and metrics["n_psf_stars"] <= 9
    with pytest.raises(TooFewCalibrators) as caught:
        build_psf(*observed, detections(x[:4], y[:4], flux[:4]))
    assert caught.value.infobits == 1 << 20
    assert caught.value.numbers["found"] == 4


def test_no_detections_raise():
    rng = np.random.default_rng(0)
    with pytest.raises(TooFewCalibrators):
        build_psf(*observe(np.zeros((64, 64)), rng), detections(np.empty(0), np.empty(0), np.empty(0)))


def test_saturated_stars_are_left_out():
    rng, x, y, flux, scene = field(lambda _x, _y: 0.85)
    data, sigma, mask = observe(scene, rng)
    bright = flux > np.median(flux)
    for cx, cy in zip(np.round(x[bright]).astype(int), np.round(y[bright]).astype(int), strict=True):
        data[cy, cx] = 3000
        mask[cy, cx] = int(Mask.SATURATED)
    _, metrics = build_psf(data, sigma, mask, detections(x, y, flux, rng), config=PsfConfig(max_stars=500))
    assert metrics["n_psf_stars"] <= np.count_nonzero(~bright)
    assert metrics["fwhm_pix"] == pytest.approx(2.0, rel=0.04)


@pytest.mark.real
def test_real_undersampled_image(real_ztf):
    """ZTF header: SEEING 1.241 pixels; ours is 1.15 without and 1.34 with the pixel, so this cannot tell which of the two ZTF means."""
    assert real_ztf["metrics"]["fwhm_pix"] == pytest.approx(1.241, abs=0.1)
    assert real_ztf["psf"].render(1500, 1500).sum() == pytest.approx(1.0, abs=0.005)
