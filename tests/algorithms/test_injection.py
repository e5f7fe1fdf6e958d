"""Synthetic sources: places, light, and what the difference gives back."""

from __future__ import annotations

import numpy as np
import pytest

from targets.codecs import catalog
from tests.algorithms import pairs
from tests.algorithms.pairs import make_pair
from ztfluigi.algorithms import features, injection
from ztfluigi.algorithms.events import extract, light_filter
from ztfluigi.algorithms.resample import kernel_table
from ztfluigi.model.config.injection import InjectionConfig
from ztfluigi.model.errors import NoWork
from ztfluigi.model.maskbits import Mask

CONFIG = InjectionConfig(number=300, min_snr=4.0, max_snr=60.0, separation_pix=16.0)


@pytest.fixture(scope="module")
def pair():
    made = make_pair(41, n_stars=50, depth=400)
    made.science.mask[:, 100:104] |= np.uint16(Mask.DEAD)
    return made


@pytest.fixture(scope="module")
def placed(pair):
    noise_mag = pairs.SCIENCE_ZP - 2.5 * np.log10(np.median(pair.science.sigma) * 5.0)
    return injection.place(pair.science, pair.science_psf, pairs.SCIENCE_ZP, noise_mag, pair.psfcat_ref, pairs.REFERENCE_ZP, seed=3, config=CONFIG)


@pytest.fixture(scope="module")
def recovered(pair, placed):
    image = injection.add(pair.science, pair.science_psf, placed, seed=3)
    pair.science, kept = image, pair.science
    difference = pair.subtract()
    pair.science = kept
    events = extract(difference, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)
    passed = light_filter(events) == ""
    return injection.recover(placed, pair.science_psf, difference, events, passed, np.where(passed, 0.9, np.nan), np.where(passed, 0.8, np.nan))


def test_places_are_what_they_are_called(pair, placed):
    assert set(placed["place"]) == {"blank", "star"}
    x, y = placed["xpos"] - 1, placed["ypos"] - 1
    seen = pair.flux > 300.0
    distance = np.array([np.hypot(pair.x[seen] - px, pair.y[seen] - py).min() for px, py in zip(x, y, strict=True)])
    assert (distance[placed["place"] == "star"] < 1.5).all() and (distance[placed["place"] == "blank"] > 7.0).all()
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e3 * np.eye(len(x))
    assert apart.min() >= CONFIG.separation_pix
    assert not ((x > 97.6) & (x < 105.4)).any()


def test_sources_keep_away_from_what_the_plain_difference_shows(pair, placed):
    noise_mag = pairs.SCIENCE_ZP - 2.5 * np.log10(np.median(pair.science.sigma) * 5.0)
    shown = np.column_stack([placed["xpos"], placed["ypos"]])[::3] - 1.0
    again = injection.place(pair.science, pair.science_psf, pairs.SCIENCE_ZP, noise_mag, pair.psfcat_ref, pairs.REFERENCE_ZP, seed=3, events=shown,
                            config=CONFIG)
    distance = np.hypot(again["xpos"][:, None] - 1 - shown[:, 0], again["ypos"][:, None] - 1 - shown[:, 1])
    assert len(again) >= 20 and distance.min() > injection.EVENT_PIX - 1.0


@pytest.mark.parametrize("dx, dy", [(0, 0), (2, 0), (-1, 2), (-2, -2)])
def test_a_source_is_fitted_at_its_place_though_the_score_peaks_beside_it(pair, dx, dy):
    # on a bright star the corrected score is highest at the rim of the core, where less noise is allowed for
    psf, noise = pair.science_psf.render(40, 40, 25), 0.01
    image = (np.pad(psf, 20) + np.random.default_rng(4).normal(0, noise * np.sqrt(np.sum(psf**2)), (65, 65))).astype(np.float32)
    sigma = np.full(image.shape, noise, np.float32)
    flux, error, _, x, y = features.fit_psf(image, sigma, np.zeros(image.shape, bool), psf[None], np.zeros(1, int), np.array([32 + dx]),
                                            np.array([32 + dy]), np.ones(1), 4.5, 1.5, kernel_table(4))
    assert flux[0] == pytest.approx(1.0, abs=0.05) and np.hypot(x[0] - 32, y[0] - 32) < 0.1


def test_the_light_is_that_of_the_psf_with_poisson_noise(pair, placed):
    images = [injection.add(pair.science, pair.science_psf, placed, seed=s).data - pair.science.data for s in range(10)]
    mean = np.mean(images, axis=0)
    assert mean.sum() == pytest.approx(placed["flux"].sum(), rel=0.02)
    bright = mean > 5.0
    ratio = np.var(images, axis=0, ddof=1)[bright] * pair.science.gain / mean[bright]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.1)


def test_what_was_put_in_is_found(recovered):
    numbers = injection.summarise(recovered, 1.0125)
    rows = recovered[recovered["place"] == "blank"]
    assert len(rows) >= 25
    assert rows["found"][rows["snr"] > 7].mean() >= 0.95
    pull = ((rows["fitflux"] - rows["flux"]) / rows["sigflux"])[rows["found"] & (rows["snr"] > 7)]
    assert abs(np.median(pull)) < 0.6 and 0.6 < np.std(pull) < 1.5
    bright = rows[rows["found"] & (rows["snr"] > 20)]
    assert np.abs(np.concatenate([bright["dx"], bright["dy"]])).max() < 0.3
    assert numbers["blank_n"] == len(rows) and sum(numbers["blank_in_bin"]) <= len(rows)
    assert numbers["host_n"] == 0 and numbers["host_pull_width"] is None and set(numbers["host_complete"]) == {None}
    assert numbers["blank_rb_kept"] == 1.0


def test_saturated_light_is_capped_and_masked(pair):
    source = np.zeros(1, injection.dtype_of(injection.SOURCE))
    source["xpos"], source["ypos"], source["flux"] = 60.0, 60.0, 1e7
    image = injection.add(pair.science, pair.science_psf, source, seed=1)
    assert image.data.max() == np.float32(pair.science.saturate)
    assert image.mask[59, 59] & Mask.SATURATED and not pair.science.mask[59, 59] & Mask.SATURATED


def test_the_same_seed_gives_the_same_sources(pair, placed):
    again = injection.add(pair.science, pair.science_psf, placed, seed=9), injection.add(pair.science, pair.science_psf, placed, seed=9)
    assert np.array_equal(again[0].data, again[1].data)


def test_no_room_is_nothing_to_do(pair):
    image = injection.add(pair.science, pair.science_psf, np.zeros(0, injection.dtype_of(injection.SOURCE)), seed=1)
    image.mask[:] = np.uint16(Mask.DEAD)
    with pytest.raises(NoWork, match="no usable pixels"):
        injection.place(image, pair.science_psf, 26.0, 22.0, pair.psfcat_ref, 26.0, seed=1, config=CONFIG)


def test_sources_are_written_and_read_whole(placed, tmp_path):
    catalog.write_table(tmp_path / "injection.fits", placed, [("PROVID", "0" * 24, "product id")], columns=injection.SOURCE, extname="INJECTION")
    table, header = catalog.read_table(tmp_path / "injection.fits", injection.SOURCE)
    assert header["PROVID"] == "0" * 24
    for name in ("place", "xpos", "flux", "snr", "found"):
        np.testing.assert_array_equal(table[name], placed[name])
