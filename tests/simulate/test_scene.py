"""The simulated quadrant keeps its word: what the truth says is what the pixels hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ztfluigi.model.camera import load_camera
from ztfluigi.model.wcs import separation_arcsec
from ztfluigi.simulate import detector, kernels, scene
from ztfluigi.simulate.exposure import GALAXY, TRANSIENT

CAMERA = replace(load_camera("ztf-mini"), shape=(256, 240))


@pytest.fixture(scope="module")
def quadrant():
    return scene.simulate_quadrant(CAMERA, seed=5, trails=1, boost=6.0, cosmic_rays=10)


@pytest.fixture(scope="module")
def lonely():
    """A few bright transients on an almost empty sky."""
    empty = scene.simulate_quadrant(CAMERA, seed=6, boost=0.01, cosmic_rays=0)
    points = scene.transient_points(empty, np.full(12, 14.0), seed=3)
    x, y = empty.true_wcs.pixel(points["ra"], points["dec"])
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
    return scene.simulate_quadrant(CAMERA, seed=6, boost=0.01, cosmic_rays=0, points=points[apart.min(axis=1) > 30])


def test_same_seed_gives_the_same_pixels(quadrant):
    again = scene.simulate_quadrant(CAMERA, seed=5, trails=1, boost=6.0, cosmic_rays=10)
    np.testing.assert_array_equal(again.raw, quadrant.raw)
    np.testing.assert_array_equal(again.overscan, quadrant.overscan)
    assert np.any(scene.simulate_quadrant(CAMERA, seed=5, trails=1, boost=6.0, number=1).raw != quadrant.raw)


def test_a_step_left_out_does_not_change_the_others(quadrant):
    plain = scene.simulate_quadrant(CAMERA, seed=5, trails=1, boost=6.0, cosmic_rays=0)
    changed = plain.raw != quadrant.raw
    assert quadrant.cosmic_ray_mask.any() and changed[quadrant.cosmic_ray_mask].mean() > 0.95
    assert not changed[quadrant.cosmic_dn == 0].any()


def test_an_epoch_sees_the_same_sky_elsewhere_on_the_chip(quadrant):
    other = scene.simulate_quadrant(CAMERA, seed=5, boost=6.0, number=7, pointing_error_arcsec=(20.0, -10.0))
    common, first, second = np.intersect1d(quadrant.objects["id"], other.objects["id"], return_indices=True)
    assert len(common) > 0.5 * len(quadrant.objects)
    a, b = quadrant.objects[first], other.objects[second]
    assert separation_arcsec(a["ra"], a["dec"], b["ra"], b["dec"]).max() < 0.01
    assert np.hypot(a["x"] - b["x"], a["y"] - b["y"]).min() > 5.0


def test_flux_follows_zero_point_and_place_follows_wcs(lonely):
    data = lonely.linear()
    rows = lonely.objects[lonely.objects["kind"] == TRANSIENT]
    rows = rows[(np.abs(rows["x"] - 120) < 100) & (np.abs(rows["y"] - 128) < 108)]
    assert len(rows) >= 4
    yy, xx = np.mgrid[:256, :240]
    for row in rows:
        r = np.hypot(xx - row["x"], yy - row["y"])
        inside = (r < 12.0) & np.isfinite(data)
        light = data - np.nanmedian(data[(r > 15) & (r < 25)])
        magnitude = lonely.zero_point - 2.5 * np.log10(light[inside].sum() / lonely.aperture_fraction)
        assert abs(magnitude - row["mag"]) < 0.01
        core = (r < 4.5) & np.isfinite(data)
        x, y = np.average(xx[core], weights=light[core]), np.average(yy[core], weights=light[core])
        assert np.hypot(x - row["x"], y - row["y"]) < 0.03
        ra, dec = lonely.true_wcs.sky(row["x"], row["y"])
        assert separation_arcsec(ra, dec, row["ra"], row["dec"]) < 1e-4


def test_psf_has_unit_light_and_the_stated_width(quadrant):
    stamp = quadrant.psf.render(100.0, 120.0, 201)
    assert abs(stamp.sum() - 1.0) < 1e-4
    shifted = quadrant.psf.render(100.0, 120.0, 51, 0.3, -0.4)
    offset = np.arange(51) - 25
    # The far wings, cut by the square, draw the mean back a little.
    assert abs((shifted.sum(axis=0) * offset).sum() / shifted.sum() - 0.3) < 2e-3
    assert abs((shifted.sum(axis=1) * offset).sum() / shifted.sum() + 0.4) < 2e-3
    width = quadrant.psf.fwhm(100.0, 120.0)
    assert width < quadrant.psf.effective_fwhm(100.0, 120.0) < np.hypot(width, 1.0)


def test_nonlinearity_has_its_inverse():
    amplifier = CAMERA.amplifier(1, 3)
    true = np.array([0.0, 1.0, 300.0, 20000.0, 60000.0])
    np.testing.assert_allclose(detector.linear_dn(detector.measured_dn(true, amplifier), amplifier), true, rtol=1e-12, atol=1e-12)
    assert abs(detector.measured_dn(60000.0, amplifier) / 60000.0 - 1.0) > 1e-3


def test_saturated_pixels_read_at_least_the_saturation_level():
    bright = scene.transient_points(scene.simulate_quadrant(CAMERA, seed=6, boost=0.01), [9.5], seed=4)
    made = scene.simulate_quadrant(CAMERA, seed=6, boost=0.01, points=bright, cosmic_rays=0)
    level = np.median(made.overscan[:, detector.TRAILING_COLUMNS:])
    measured = made.raw[made.saturated & ~made.dead] - level
    assert len(measured) > 30 and measured.min() > made.saturation_dn - 30.0 and measured.max() < made.saturation_dn * 1.025
    rows, columns = np.nonzero(made.saturated)
    assert np.ptp(rows) > 2 * np.ptp(columns)  # it bleeds along y


def test_bleeding_keeps_the_charge():
    charge = np.full((60, 5), 10.0, np.float32)
    charge[28:31, 2] = 500.0
    well = np.full_like(charge, 100.0)
    total = charge.sum()
    mask = kernels.bleed(charge, well)
    assert charge.sum() == pytest.approx(total) and charge.max() <= 100.0
    assert mask[:, 2].sum() == pytest.approx((3 * 490.0) // 90.0, abs=1) and not mask[:, [0, 1, 3, 4]].any()


def test_galaxies_are_wider_than_stars_and_keep_their_light():
    number = np.array([4000])
    x, y = np.empty(4000), np.empty(4000)
    kernels.galaxy_points(np.array([5.0]), np.array([1.0]), np.array([0.3]), np.array([0.0]), number, x, y)
    assert abs(np.mean(np.hypot(x, y) < 5.0) - 0.5) < 0.01  # half the light within the half-light radius


def test_calibrators_are_near_their_objects(quadrant):
    stars = quadrant.stars
    gaia = quadrant.gaia[np.isfinite(quadrant.gaia["pmra"])]
    ids, first, second = np.intersect1d(gaia["source_id"] - 10**15, stars["id"], return_indices=True)
    assert len(ids) > 30
    years = quadrant.conditions.year - gaia["ref_epoch"][first]
    moved = gaia["ra"][first] + gaia["pmra"][first] * years / 3.6e6 / np.cos(np.radians(gaia["dec"][first]))
    assert np.median(separation_arcsec(moved, gaia["dec"][first] + gaia["pmdec"][first] * years / 3.6e6,
                                       stars["ra"][second], stars["dec"][second])) < 0.002
    ids, first, second = np.intersect1d(quadrant.ps1["objID"] - 10**16, stars["id"], return_indices=True)
    pull = (quadrant.ps1["rMeanPSFMag"][first] - stars["mag"][second]) / quadrant.ps1["rMeanPSFMagErr"][first]
    assert 0.7 < np.subtract(*np.percentile(pull, [84, 16])) / 2 < 1.3


def test_a_mini_quadrant_holds_enough_calibrators():
    mini = load_camera("ztf-mini")
    for ccdid, qid in mini.quadrants:
        gaia, ps1 = scene.calibrators(mini, ccdid, qid, mini.fields()[505], scene.sky.Sky(1, boost=scene.boost_of(mini)))
        assert np.sum((gaia["phot_g_mean_mag"] >= 12) & (gaia["phot_g_mean_mag"] <= 18)) >= 130  # margin included
        assert np.sum((ps1["sgscore"] > 0.5) & (ps1["rMeanPSFMag"] > 14) & (ps1["rMeanPSFMag"] < 20)) >= 150


@pytest.mark.parametrize("density, number", [("high-lat", 5000), ("plane", 40000)])
def test_densities_are_those_promised(density, number):
    """Sources brighter than 21 in a full quadrant (0.7456 square degrees), from a small patch."""
    patch = scene.sky.Sky(3, density).around(100.0, 20.0, 0.15)
    seen = patch[patch["r"] < 21.0]
    assert abs(len(seen) * 0.7456 / 0.09 / number - 1.0) < 0.15
    if density == "high-lat":
        assert abs(seen["galaxy"].mean() - 0.4) < 0.1


def test_bias_and_flat_show_what_they_should(quadrant):
    bias, overscan = scene.simulate_bias(CAMERA, 1, seed=5)
    level = overscan[:, detector.TRAILING_COLUMNS:].mean()
    assert abs(np.median(bias) - level) < 2.0 and 100 < level < 150
    assert 60 < overscan[:, 0].mean() + 40 - level < 180  # trailing charge in the first column
    flat, overscan = scene.simulate_flat(CAMERA, 1, seed=5)
    signal = detector.linear_dn(flat - overscan[:, detector.TRAILING_COLUMNS:].mean(), CAMERA.amplifier(quadrant.ccdid, quadrant.qid))
    good = ~quadrant.dead & ~quadrant.noisy
    ratio = (signal / quadrant.response.clip(0.1))[good]
    assert np.std(ratio) / np.mean(ratio) < 0.008 and np.std(signal[good]) / np.mean(signal) > 0.009


def test_hosts_are_galaxies(quadrant):
    points = scene.transient_points(quadrant, np.full(5, 19.0), in_hosts=True)
    galaxies = quadrant.objects[quadrant.objects["kind"] == GALAXY]
    for point in points:
        assert separation_arcsec(point["ra"], point["dec"], galaxies["ra"], galaxies["dec"]).min() < 5.0
