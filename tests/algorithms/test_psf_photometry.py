"""Properties of PSF photometry: unbiased fluxes, honest errors, deblending, new sources, masks, forced photometry."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tests.algorithms.star_field import add_gaussian, detections, grid_places, observe
from ztfluigi.algorithms.psf_photometry import fit_catalogue, fit_fixed
from ztfluigi.model.columns import PSFCAT, dtype_of
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

SIZE, FWHM = 256, 2.0
PSF = PsfModel.gaussian(FWHM, (SIZE, SIZE))
SIGMA = FWHM / 2.3548


def scene_of(x, y, flux):
    scene = np.zeros((SIZE, SIZE))
    for place in zip(x, y, flux, strict=True):
        add_gaussian(scene, *place, SIGMA)
    return scene


def matched(catalogue, x, y, radius=1.0):
    """Rows of the catalogue nearest to the places, and which are within the radius."""
    distance, index = cKDTree(np.column_stack([catalogue["xpos"] - 1, catalogue["ypos"] - 1])).query(np.column_stack([x, y]))
    return catalogue[index], distance < radius


@pytest.fixture(scope="module")
def many():
    """Isolated stars of all brightnesses in several noise realisations: (flux, x, y, rows of the catalogue)."""
    rng = np.random.default_rng(5)
    collected = []
    for _ in range(4):
        x, y = grid_places(SIZE, 16, rng)
        flux = 10 ** rng.uniform(2.3, 4.8, len(x))
        catalogue, _ = fit_catalogue(*observe(scene_of(x, y, flux), rng), detections(x, y, flux, rng), PSF, None)
        rows, found = matched(catalogue, x, y)
        collected.append((flux[found], x[found], y[found], rows[found]))
    return [np.concatenate(parts) for parts in zip(*collected, strict=True)]


@pytest.mark.parametrize("low, high", [(10, 30), (30, 100), (100, 1000)])
def test_fluxes_are_unbiased_and_errors_honest(many, low, high):
    flux, _, _, rows = many
    use = (flux / rows["sigflux"] > low) & (flux / rows["sigflux"] < high)
    pull = (rows["flux"] - flux)[use] / rows["sigflux"][use]
    assert use.sum() > 100
    assert abs(np.mean(pull)) < 0.25
    assert 0.85 < np.std(pull) < 1.15


def test_positions_reach_the_bound(many):
    """Within 15 % (and sampling error) of the Cramer-Rao bound for a pixel-integrated Gaussian."""
    flux, x, _, rows = many
    stamp = PSF.render(128, 128, 25, 0.25, 0.25)
    slope = (PSF.render(128, 128, 25, 0.27, 0.25) - PSF.render(128, 128, 25, 0.23, 0.25)) / 0.04
    use = flux > 1500
    bound = np.array([1 / np.sqrt(np.sum((f * slope) ** 2 / (100 / 6 + 2.25 + f * np.clip(stamp, 0, None) / 6))) for f in flux[use]])
    assert np.std((rows["xpos"] - 1 - x)[use] / bound) < 1.15 * 1.1


def test_good_fits_have_chi_one_and_no_sharpness(many):
    flux, _, _, rows = many
    bright = flux > 3000
    assert np.median(rows["chi"][bright]) == pytest.approx(1.0, abs=0.1)
    assert np.median(rows["sharp"][bright]) == pytest.approx(0.0, abs=0.02)


def test_catalogue_columns():
    rng = np.random.default_rng(2)
    x, y = grid_places(SIZE, 40, rng)
    data, sigma, mask = observe(scene_of(x, y, np.full(len(x), 5000.0)), rng)
    mask[round(y[0]) + 2, round(x[0])] = int(Mask.NOISY)
    wcs = TpvWcs((128.5, 128.5), (150.0, 20.0), ((-2.8e-4, 0.0), (0.0, 2.8e-4)))
    catalogue, _ = fit_catalogue(data, sigma, mask, detections(x, y, np.full(len(x), 5000.0)), PSF, wcs)
    rows, found = matched(catalogue, x, y)
    assert catalogue.dtype == dtype_of(PSFCAT) and found.all()
    assert (np.diff(catalogue["flux"]) <= 0).all() and (catalogue["sourceid"] == np.arange(len(catalogue))).all()
    assert rows["flags"][0] == int(Mask.NOISY) and not rows["flags"][1:].any()
    assert catalogue["mag"] == pytest.approx(-2.5 * np.log10(catalogue["flux"]), abs=1e-4)
    ra, dec = wcs.sky(catalogue["xpos"] - 1.0, catalogue["ypos"] - 1.0)
    assert catalogue["ra"] == pytest.approx(ra, abs=1e-7) and catalogue["dec"] == pytest.approx(dec, abs=1e-7)


@pytest.mark.parametrize("separation", [2.0, 3.0, 5.0])
def test_blends_are_parted(separation):
    rng = np.random.default_rng(7)
    x, y = grid_places(SIZE, 25, rng)
    angle = rng.uniform(0, 2 * np.pi, len(x))
    x2, y2 = x + separation * np.cos(angle), y + separation * np.sin(angle)
    all_x, all_y = np.r_[x, x2], np.r_[y, y2]
    flux = np.r_[np.full(len(x), 6000.0), np.full(len(x), 3000.0)]
    catalogue, _ = fit_catalogue(*observe(scene_of(all_x, all_y, flux), rng), detections(all_x, all_y, flux, rng, 0.2), PSF, None)
    rows, found = matched(catalogue, all_x, all_y, 0.7)
    assert found.mean() > 0.97
    pull = (rows["flux"] - flux)[found] / rows["sigflux"][found]
    assert abs(np.median(pull)) < 0.3
    assert 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.4


def test_companions_missing_from_the_list_are_found_in_the_residual():
    rng = np.random.default_rng(8)
    x, y = grid_places(SIZE, 25, rng)
    x2, y2 = x + 4.5, y + 1.0
    flux, faint = np.full(len(x), 6000.0), np.full(len(x), 800.0)
    scene = scene_of(np.r_[x, x2], np.r_[y, y2], np.r_[flux, faint])
    catalogue, _ = fit_catalogue(*observe(scene, rng), detections(x, y, flux, rng), PSF, None)
    rows, found = matched(catalogue, x2, y2)
    assert found.mean() > 0.95
    assert np.median(rows["flux"][found]) == pytest.approx(800, rel=0.05)


def test_a_smooth_excess_of_sky_is_taken_out():
    rng = np.random.default_rng(4)
    x, y = grid_places(SIZE, 25, rng)
    flux = np.full(len(x), 2000.0)
    data, sigma, mask = observe(scene_of(x, y, flux), rng)
    catalogue, _ = fit_catalogue(data + np.linspace(-3, 3, SIZE, dtype=np.float32), sigma, mask, detections(x, y, flux, rng), PSF, None)
    rows, found = matched(catalogue, x, y)
    assert np.mean(rows["flux"][found]) == pytest.approx(2000, rel=0.01)


def test_empty_noise_gives_few_sources_and_an_equal_residual():
    rng = np.random.default_rng(9)
    data, sigma, mask = observe(np.zeros((SIZE, SIZE)), rng)
    catalogue, residual = fit_catalogue(data, sigma, mask, detections(np.empty(0), np.empty(0), np.empty(0)), PSF, None)
    assert len(catalogue) <= 3
    assert np.std(residual) == pytest.approx(np.std(data), rel=0.03)


def test_residual_holds_noise_only():
    rng = np.random.default_rng(10)
    x, y = grid_places(SIZE, 20, rng)
    flux = 10 ** rng.uniform(2.5, 4.5, len(x))
    data, sigma, mask = observe(scene_of(x, y, flux), rng)
    _, residual = fit_catalogue(data, sigma, mask, detections(x, y, flux, rng), PSF, None)
    assert np.std(residual / sigma) == pytest.approx(1.0, abs=0.05)


def test_order_of_the_list_does_not_matter():
    rng = np.random.default_rng(11)
    x, y = rng.uniform(10, 245, (2, 300))
    flux = 10 ** rng.uniform(2.5, 4.5, 300)
    observed = observe(scene_of(x, y, flux), rng)
    listed = detections(x, y, flux, rng)
    first, _ = fit_catalogue(*observed, listed, PSF, None)
    second, _ = fit_catalogue(*observed, listed[::-1], PSF, None)
    rows, found = matched(second, first["xpos"] - 1, first["ypos"] - 1, 0.1)
    assert found.mean() > 0.98
    assert np.median(np.abs(rows["flux"] - first["flux"])[found] / first["sigflux"][found]) < 0.05


def test_saturated_cores_are_not_fitted():
    rng = np.random.default_rng(12)
    x, y = grid_places(SIZE, 50, rng)
    flux = np.full(len(x), 200000.0)
    data, sigma, mask = observe(scene_of(x, y, flux), rng)
    full = data > 20000
    data[full] = 20000
    mask[full] = int(Mask.SATURATED)
    catalogue, _ = fit_catalogue(data, sigma, mask, detections(x, y, 0.5 * flux, rng), PSF, None)
    rows, found = matched(catalogue, x, y)
    assert found.all() and (rows["flags"] & int(Mask.SATURATED)).all()
    assert np.median(rows["flux"] / flux) == pytest.approx(1.0, abs=0.03)


def test_forced_photometry_of_blank_sky_is_noise():
    rng = np.random.default_rng(13)
    data, sigma, mask = observe(np.zeros((SIZE, SIZE)), rng)
    x, y = grid_places(SIZE, 14, rng)
    flux, sigflux, chi = fit_fixed(data, sigma, mask, PSF, x, y)
    assert np.mean(flux / sigflux) == pytest.approx(0.0, abs=4 / np.sqrt(len(x)))
    assert np.std(flux / sigflux) == pytest.approx(1.0, abs=0.12)
    assert np.median(chi) == pytest.approx(1.0, abs=0.05)


def test_forced_photometry_recovers_either_sign_and_says_nan_off_the_image():
    rng = np.random.default_rng(14)
    data, sigma, mask = observe(scene_of([100.3, 103.1], [80.2, 81.0], [5000, 3000]) - scene_of([60.0], [60.4], [90]), rng)
    mask[140:170, 140:170] = int(Mask.DEAD)
    flux, sigflux, chi = fit_fixed(data, sigma, mask, PSF, [100.3, 103.1, 60.0, -40.0, np.nan, 155.0], [80.2, 81.0, 60.4, 10.0, 5.0, 155.0])
    assert np.abs(flux[:3] - [5000, 3000, -90]).max() < 5 * sigflux[:3].max()
    assert np.isnan(flux[3:]).all() and np.isnan(sigflux[3:]).all() and np.isnan(chi[3:]).all()


@pytest.mark.real
def test_real_image_against_the_archive(real_ztf):
    """Mask bit 11 marks the sources of ZTF's own PSF catalogue: those at S/N >= 8 in our measure are in ours.

    ZTF's MAGLIM is 21.73, ours 21.56, so the tolerance is 0.2 and not 0.1. Sky noise alone and a star centred on its pixel (noise area
    6.1 pixels) would give 21.73 with our PSF; with the star's photon noise and over all sub-pixel phases an ideal fit reaches 21.69 to
    21.54. How ZTF computes its sigflux is not known.
    """
    from ztfluigi.algorithms.limits import limiting_magnitude

    catalogue, y, x = real_ztf["psfcat"], *np.nonzero(real_ztf["mask"] & int(Mask.PSF_SOURCE))
    _, found = matched(catalogue, x, y, 1.5)
    images = (real_ztf[name] for name in ("residual", "sigma", "mask", "psf"))
    flux, sigflux, _ = fit_fixed(*images, x[~found], y[~found])
    rows, _ = matched(catalogue, x[found], y[found], 1.5)
    bright_found, bright_lost = np.count_nonzero(rows["snr"] >= 8), np.count_nonzero(flux >= 8 * sigflux)
    assert bright_found / (bright_found + bright_lost) > 0.97
    assert limiting_magnitude(catalogue, 26.285139) == pytest.approx(21.73, abs=0.2)
