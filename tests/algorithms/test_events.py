"""Events: completeness, photometry, features, both signs, light filter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import fftconvolve

from tests.algorithms import pairs
from tests.algorithms.pairs import SHAPE, make_pair
from ztfluigi.algorithms import features
from ztfluigi.algorithms.events import extract, find_peaks, light_filter, peak_heights
from ztfluigi.algorithms.resample import kernel_table
from ztfluigi.model.columns import dtype_of
from ztfluigi.model.config.difference import EventFilterConfig
from ztfluigi.model.event_columns import EVENT
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel

RNG = np.random.default_rng(21)
PLACES = [(22 + 24 * (k % 9) + RNG.uniform(-3, 3), 22 + 24 * (k // 9) + RNG.uniform(-3, 3), 10 ** RNG.uniform(2.7, 3.7)) for k in range(81)]


@pytest.fixture(scope="module")
def pair():
    return make_pair(22, n_stars=30, transients=PLACES)


@pytest.fixture(scope="module")
def difference(pair):
    return pair.subtract()


@pytest.fixture(scope="module")
def events(pair, difference):
    return extract(difference, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)


@pytest.fixture(scope="module")
def matched(events):
    """(event, truth) of each transient."""
    out = []
    for x, y, flux in PLACES:
        distance = np.hypot(events["xpos"] - 1 - x, events["ypos"] - 1 - y)
        if distance.min() < 1.0:
            out.append((events[distance.argmin()], (x, y, flux)))
    return out


def test_bright_transients_are_all_found_and_little_else(events, matched, difference):
    limit = 10 ** (0.4 * (difference.magzp - difference.diffmaglim))
    bright = sum(flux > 1.5 * limit for _, _, flux in PLACES)
    assert sum(truth[2] > 1.5 * limit for _, truth in matched) == bright > 50
    assert len(events) - len(matched) <= 2
    assert (events["isdiffpos"] == "t").sum() >= len(matched)


def test_photometry_and_place_are_unbiased_with_honest_errors(matched):
    pull = np.array([(e["flux"] - t[2]) / e["sigflux"] for e, t in matched])
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull)) and 0.75 < pull.std() < 1.3
    dx = np.array([e["xpos"] - 1 - t[0] for e, t in matched])
    dy = np.array([e["ypos"] - 1 - t[1] for e, t in matched])
    assert np.abs([dx.mean(), dy.mean()]).max() < 0.05 and max(dx.std(), dy.std()) < 0.25
    chi = np.array([e["chipsf"] for e, _ in matched])
    assert np.median(chi) == pytest.approx(1.0, abs=0.15)


def test_score_and_magnitudes_agree_with_the_flux(matched, difference):
    for e, _ in matched:
        assert e["magpsf"] == pytest.approx(pairs.SCIENCE_ZP - 2.5 * np.log10(e["flux"]), abs=1e-3)
        assert e["magdiff"] == pytest.approx(e["magap"] - e["magpsf"], abs=1e-4)
        assert e["magfromlim"] == pytest.approx(difference.diffmaglim - e["magap"], abs=1e-3)
        assert e["dsdiff"] == pytest.approx(e["dsnrms"] - e["ssnrms"], abs=1e-2)
    ratio = [e["scorr"] / (e["flux"] / e["sigflux"]) for e, _ in matched]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)


def test_point_sources_look_like_points(matched):
    strong = [e for e, _ in matched if e["scorr"] > 25]
    assert len(strong) > 10
    assert np.median([e["seeratio"] for e in strong]) == pytest.approx(1.0, abs=0.1)
    assert min(e["classtar"] for e in strong) > 0.8 and max(e["elong"] for e in strong) < 1.5
    assert min(e["sumrat"] for e in strong) > 0.9 and max(e["nneg"] for e in strong) <= 8
    for e in strong:
        assert e["aimagerat"] == pytest.approx(e["aimage"] / e["fwhm"]) and e["elong"] == pytest.approx(e["aimage"] / e["bimage"], rel=1e-5)


def test_coordinates_and_edges(events):
    x, y = pairs.SCIENCE_WCS.pixel(events["ra"], events["dec"])
    np.testing.assert_allclose(x + 1, events["xpos"], atol=1e-3)
    np.testing.assert_allclose(y + 1, events["ypos"], atol=1e-3)
    edge = np.minimum(np.minimum(events["xpos"], events["ypos"]) - 0.5,
                      np.minimum(SHAPE[1] + 0.5 - events["xpos"], SHAPE[0] + 0.5 - events["ypos"]))
    np.testing.assert_allclose(events["mindtoedge"], edge, atol=1e-3)


def test_nearest_reference_source(pair, events):
    places = np.column_stack(pairs.SCIENCE_WCS.pixel(pair.psfcat_ref["ra"], pair.psfcat_ref["dec"]))
    for e in events[:10]:
        distance = np.hypot(*(places - [e["xpos"] - 1, e["ypos"] - 1]).T)
        near = pair.psfcat_ref[distance.argmin()]
        assert e["distnr"] == pytest.approx(distance.min(), rel=0.01)
        assert (e["ranr"], e["decnr"]) == (near["ra"], near["dec"])
        assert e["magnr"] == pytest.approx(near["mag"] + pairs.REFERENCE_ZP, abs=1e-4)


def test_without_reference_sources_there_is_no_neighbour(pair, difference):
    out = extract(difference, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref[:0], reference_magzp=pairs.REFERENCE_ZP)
    assert np.isnan(out["distnr"]).all() and np.isnan(out["ranr"]).all()


def test_vanished_stars_are_negative_events_with_the_same_features(pair, difference, events):
    mirrored = replace(difference, data=-difference.data, score=-difference.score, scorr=-difference.scorr)
    out = extract(mirrored, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)
    positive, negative = events[events["isdiffpos"] == "t"], out[out["isdiffpos"] == "f"]
    assert len(positive) == len(negative)
    for name in events.dtype.names:
        if name not in ("isdiffpos",):
            np.testing.assert_array_equal(positive[name], negative[name])


def test_dipole_of_a_moved_star_gives_both_signs_and_no_packets_from_them():
    """One bright star that moved by 1.2 pix between the epochs while its neighbours stayed."""
    pair = make_pair(50, n_stars=40)
    star = int(np.argmin(np.hypot(pair.x - 120, pair.y - 128) + 50 * (pair.flux < 3e3)))
    before, after = np.zeros(SHAPE), np.zeros(SHAPE)
    pairs.add_stars(before, pair.science_psf, [pair.x[star]], [pair.y[star]], [pair.flux[star]])
    pairs.add_stars(after, pair.science_psf, [pair.x[star] + 1.2], [pair.y[star]], [pair.flux[star]])
    pair.science.data += (after - before).astype(np.float32)
    out = pair.subtract()
    found = extract(out, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)
    near = found[np.hypot(found["xpos"] - 1 - pair.x[star] - 0.6, found["ypos"] - 1 - pair.y[star]) < 5]
    assert {"t", "f"} == set(near["isdiffpos"])
    positive, negative = near[near["isdiffpos"] == "t"], near[near["isdiffpos"] == "f"]
    assert positive["xpos"].mean() > negative["xpos"].mean()
    assert (light_filter(near) != "").any()


def test_tables_are_numbered_per_sign_and_seeratio_is_clipped(events):
    for sign in "tf":
        rows = events["tblid"][events["isdiffpos"] == sign]
        np.testing.assert_array_equal(rows, np.arange(len(rows)))
    assert events["seeratio"].max() <= 2.0


def test_masked_events_are_counted_bad_and_filtered(pair):
    science = replace(pair.science, mask=pair.science.mask.copy())
    x, y, _ = max(PLACES, key=lambda p: p[2])
    science.mask[round(y) + 1, round(x) + 2] |= np.uint16(Mask.SPIKE)
    out = replace(pair, science=science).subtract()
    found = extract(out, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)
    k = np.hypot(found["xpos"] - 1 - x, found["ypos"] - 1 - y).argmin()
    assert found["nbad"][k] >= 1 and light_filter(found)[k].startswith("nbad")


def test_light_filter_names_the_cut_and_the_limit(events, matched):
    fate = light_filter(events)
    assert np.mean(fate == "") > 0.8
    spoiled = events[fate == ""].copy()
    spoiled["elong"][0], spoiled["magdiff"][1], spoiled["sumrat"][2] = 3.0, np.nan, 0.1
    fate = light_filter(spoiled)
    assert fate[0] == "elong 3 above 2" and fate[1] == "|magdiff| undefined" and fate[2] == "sumrat 0.1 below 0.4"
    capped = light_filter(events, config=EventFilterConfig(max_events=5))
    assert np.count_nonzero(capped == "") == 5
    assert (capped == "over the limit of 5 events").any()
    assert events["scorr"][capped == ""].min() >= events["scorr"][capped == "over the limit of 5 events"].max()


def test_no_events_give_an_empty_table(pair, difference):
    quiet = replace(difference, scorr=np.zeros_like(difference.scorr))
    out = extract(quiet, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)
    assert out.dtype == dtype_of(EVENT) and len(out) == 0 and len(light_filter(out)) == 0


def test_peaks_are_highest_in_their_box_once():
    score = np.zeros((40, 40), np.float32)
    score[10, 10], score[11, 11], score[10, 20], score[10, 21], score[30, 5] = 9, 8, 7, 7, -6
    x, y, sign = find_peaks(score, 5.0, 2)
    assert list(zip(x, y, sign, strict=True)) == [(10, 10, 1.0), (20, 10, 1.0), (5, 30, -1.0)]


def test_height_of_a_peak_does_not_depend_on_its_place_between_pixels():
    psf = pairs.moffat(2.3, SHAPE).render(50, 50, 25)
    for dx, dy in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (-0.2, 0.4)):
        moved = pairs.moffat(2.3, SHAPE).render(50, 50, 25, dx, dy)
        score = fftconvolve(moved, psf, mode="same") / np.sum(psf**2) * 8.0
        y, x = (int(v) for v in np.unravel_index(score.argmax(), score.shape))
        assert peak_heights(score, np.array([x]), np.array([y]), np.ones(1))[0] == pytest.approx(8.0, rel=0.01)
        assert peak_heights(-score, np.array([x]), np.array([y]), -np.ones(1))[0] == pytest.approx(8.0, rel=0.01)


def test_hits_stand_out_of_the_psf_fit_and_stars_do_not(pair, matched):
    assert max(e["hitsnr"] for e, _ in matched) < 4.5 and np.median([e["hitsnr"] for e, _ in matched]) < 2.5
    science = replace(pair.science, data=pair.science.data.copy())
    hits = [(x + 12, y + 12, length) for (x, y, _), length in zip(PLACES[:60:4], [1, 2, 3] * 5, strict=True)
            if max(x, y) < 210 and np.hypot(pair.x - x - 12, pair.y - y - 12).min() > 8]
    assert len(hits) > 5
    for x, y, length in hits:
        science.data[round(y), round(x):round(x) + length] += np.float32(16.0 * pair.science.sigma[round(y), round(x)] / length**0.5)
    found = extract(replace(pair, science=science).subtract(), wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)
    for x, y, length in hits:
        k = np.hypot(found["xpos"] - 1 - x - (length - 1) / 2, found["ypos"] - 1 - y).argmin()
        assert found["hitsnr"][k] > 4.5 and light_filter(found)[k] != ""


def test_psf_shift_is_exact_enough():
    psf = PsfModel.gaussian(2.4, SHAPE)
    out = np.empty((11, 11))
    features.shifted(psf.render(50, 50, 25), 0.37, -0.81, kernel_table(4), out)
    np.testing.assert_allclose(out, psf.render(50, 50, 11, 0.37, -0.81), atol=8e-3 * out.max())


def test_apertures_of_a_flat_image_are_their_area():
    flat = np.ones((60, 60), np.float32)
    total, error = features.apertures(flat, flat, np.array([30.3]), np.array([29.8]), np.ones(1), 7.0)
    assert total[0] == pytest.approx(np.pi * 49, rel=0.01) and error[0] == pytest.approx(np.sqrt(np.pi) * 7, rel=0.01)


def test_fwhm_of_a_gaussian():
    stamp = PsfModel.gaussian(3.0, SHAPE).render(100, 100, 25)
    # The pixel's own width adds in quadrature: 2.355^2 / 12.
    assert features.fwhm_of_stamp(stamp) == pytest.approx(np.sqrt(9 + 2.355**2 / 12), rel=0.02)
