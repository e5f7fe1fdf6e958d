"""Astrometry: a displaced, turned and scaled pointing is recovered, a wrong field is refused, and the metrics mean what they say."""

from __future__ import annotations

import io
import tarfile
import warnings
from dataclasses import replace

import numpy as np
import pytest

from tests.algorithms.star_lists import DISTORTION, JD, MINI, frame_error_mas, lists, prior_wcs, true_wcs
from ztfluigi.algorithms.astrometry import NOT_POSSIBLE, carry_to_epoch, solve
from ztfluigi.algorithms.detection import DETECTION
from ztfluigi.algorithms.pattern_match import match_pattern
from ztfluigi.algorithms.tpv_fit import fit_linear, fit_tpv
from ztfluigi.model.columns import GAIA, dtype_of
from ztfluigi.model.config.astrometry import AstrometryConfig
from ztfluigi.model.errors import NoSolution, TooFewCalibrators
from ztfluigi.model.wcs import TpvWcs, separation_arcsec

FULL = (3080, 3072)


def pointing(seed, n=100, shape=MINI, crval=(150.0, 30.0), reach=180.0, **keywords):
    """(detections, gaia, prior, truth) of one bad pointing."""
    rng = np.random.default_rng(seed)
    prior = prior_wcs(shape, crval)
    angle, radius = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform())
    truth = true_wcs(prior, offset_arcsec=(radius * np.cos(angle), radius * np.sin(angle)), rotation_deg=rng.uniform(-0.5, 0.5),
                     scale=rng.uniform(0.992, 1.008), distortion=DISTORTION)
    return *lists(rng, truth, prior, shape=shape, n=n, **keywords), prior, truth


@pytest.mark.parametrize("n, limit_mas", [(70, 80), (300, 25), (2000, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_bad_pointings_are_solved(seed, n, limit_mas):
    detections, gaia, prior, truth = pointing(seed, n)
    solution = solve(detections, gaia, prior=prior, jd=JD, shape=MINI)
    assert np.median(frame_error_mas(solution.wcs, truth)) < limit_mas
    assert solution.metrics["astrom_detected_percent"] > 50


def test_a_whole_quadrant_and_its_distortion():
    detections, gaia, prior, truth = pointing(5, 1500, FULL)
    solution = solve(detections, gaia, prior=prior, jd=JD, shape=FULL)
    error = frame_error_mas(solution.wcs, truth, FULL)
    assert np.median(error) < 12
    assert error.max() < 80
    assert solution.metrics["astrom_order"] == 4
    assert solution.metrics["astrom_chi2_change_percent"] < 0


@pytest.mark.parametrize("crval", [(0.01, 10.0), (359.99, -25.0), (200.0, 84.0), (20.0, 88.9)])
def test_meridian_and_pole(crval):
    detections, gaia, prior, truth = pointing(1, 150, crval=crval)
    solution = solve(detections, gaia, prior=prior, jd=JD, shape=MINI)
    assert np.median(frame_error_mas(solution.wcs, truth)) < 60
    assert np.abs(solution.residuals["dra_mas"]).max() < 1000


@pytest.mark.parametrize("n", [50, 300, 1500])
@pytest.mark.parametrize("seed", range(4))
def test_another_field_is_refused(seed, n):
    detections, _, prior, _ = pointing(seed, n)
    _, other, *_ = pointing(seed + 1000, n)
    with pytest.raises((NoSolution, TooFewCalibrators)) as caught:
        solve(detections, other, prior=prior, jd=JD, shape=MINI)
    assert caught.value.infobits == NOT_POSSIBLE == 1 << 12


def test_a_pointing_beyond_the_search_is_refused():
    rng = np.random.default_rng(3)
    prior = prior_wcs()
    truth = true_wcs(prior, offset_arcsec=(500.0, 300.0))
    detections, gaia = lists(rng, truth, prior, n=200, margin_arcsec=900.0)
    with pytest.raises(NoSolution):
        solve(detections, gaia, prior=prior, jd=JD, shape=MINI)


def test_nothing_to_match_is_too_few():
    detections, gaia, prior, _ = pointing(2)
    for few in ((detections[:3], gaia), (detections, gaia[:4]), (detections[:0], gaia)):
        with pytest.raises(TooFewCalibrators) as caught:
            solve(*few, prior=prior, jd=JD, shape=MINI)
        assert caught.value.infobits == NOT_POSSIBLE
        assert caught.value.numbers["needed"] == 8


def test_order_of_the_lists_does_not_matter():
    detections, gaia, prior, _ = pointing(4)
    rng = np.random.default_rng(0)
    one = solve(detections, gaia, prior=prior, jd=JD, shape=MINI)
    two = solve(rng.permutation(detections), rng.permutation(gaia), prior=prior, jd=JD, shape=MINI)
    assert frame_error_mas(one.wcs, two.wcs).max() < 1e-3
    assert one.metrics["ASTROMN"] == two.metrics["ASTROMN"]


def test_masked_and_truncated_detections_are_left_out():
    detections, gaia, prior, _ = pointing(6, 200)
    spoilt = detections.copy()
    spoilt["x"][:15] += 1.0
    spoilt["mask_bits"][:10] |= 1 << 8
    spoilt["flags"][10:15] |= 2
    clean = solve(detections[15:], gaia, prior=prior, jd=JD, shape=MINI)
    assert frame_error_mas(solve(spoilt, gaia, prior=prior, jd=JD, shape=MINI).wcs, clean.wcs).max() < 1e-3


def test_metrics_and_residuals():
    detections, gaia, prior, truth = pointing(8, 400)
    solution = solve(detections, gaia, prior=prior, jd=JD, shape=MINI)
    metrics, rows = solution.metrics, solution.residuals
    assert metrics["ASTROMN"] == rows.size
    assert 15e-3 < metrics["ASTRRMS1"] * 3600 < 60e-3
    assert metrics["pixel_scale_percent"] == pytest.approx(100 * (truth.pixel_scale_arcsec / prior.pixel_scale_arcsec - 1), abs=0.02)
    moved = separation_arcsec(*truth.sky(383.5, 384.5), *prior.sky(383.5, 384.5))
    assert metrics["pointing_offset_arcsec"] == pytest.approx(moved, abs=0.1)
    assert abs(np.mean(rows["dra_mas"])) < 10 and abs(np.mean(rows["ddec_mas"])) < 10
    assert set(rows["source_id"]) <= set(gaia["source_id"])
    assert rows["g_mag"].min() >= 12 and rows["g_mag"].max() <= 18
    assert all(np.isscalar(v) and np.isfinite(v) for v in metrics.values())


def test_proper_motion_is_carried():
    gaia = np.zeros(4, dtype_of(GAIA))
    gaia["ra"], gaia["dec"] = [0.0001, 359.9999, 120.0, 10.0], [0.0, 60.0, 89.9, -30.0]
    gaia["pmra"], gaia["pmdec"] = [-1000.0, 1000.0, 1000.0, np.nan], [500.0, 0.0, 0.0, np.nan]
    gaia["ref_epoch"] = 2015.5
    jd = 2451545.0 + 25.5 * 365.25
    ra, dec = carry_to_epoch(gaia, jd)
    assert np.all((ra >= 0) & (ra < 360))
    moved = separation_arcsec(ra, dec, gaia["ra"], gaia["dec"])
    assert moved == pytest.approx([10 * np.hypot(1, 0.5), 10.0, 10.0, 0.0], abs=1e-5)
    assert dec[0] == pytest.approx(5.0 / 3600)
    assert ra[0] == pytest.approx(0.0001 - 10 / 3600 + 360)


def test_neglecting_proper_motion_costs():
    later = JD + 15 * 365.25
    detections, gaia, prior, _ = pointing(9, 600, jd=later)
    still = gaia.copy()
    still["pmra"] = still["pmdec"] = 0.0
    moving, fixed = (solve(detections, table, prior=prior, jd=later, shape=MINI).metrics["ASTRRMS1"] for table in (gaia, still))
    assert moving < 0.6 * fixed


def test_pattern_match_of_a_known_transformation():
    rng = np.random.default_rng(0)
    ref = rng.uniform(0, 1000, (80, 2))
    angle = np.radians(0.3)
    turn = 1.004 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    xy = (ref - (40.0, -25.0)) @ np.linalg.inv(turn).T
    settings = dict(shape=(1000, 1000), search_radius=100.0, pair_radius=2.0, max_rotation_deg=0.5, max_scale_change=0.01)
    found = match_pattern(*xy.T, *ref.T, **settings)
    assert found.matrix == pytest.approx(turn, abs=1e-9)
    assert found.offset == pytest.approx([40.0, -25.0], abs=1e-6)
    assert found.pairs == 80
    assert match_pattern(*rng.uniform(0, 1000, (2, 80)), *ref.T, **settings) is None


def test_tpv_fit_returns_what_made_the_stars():
    truth = true_wcs(prior_wcs(FULL), distortion=DISTORTION)
    y, x = (v.ravel() for v in np.mgrid[0:3080:25j, 0:3072:25j])
    start = prior_wcs(FULL, crval=(150.01, 29.99))
    linear = fit_linear(x, y, *truth.sky(x, y), start=start)
    assert frame_error_mas(linear, truth, FULL).max() < 3000
    fitted = fit_tpv(x, y, *truth.sky(x, y), 1e-16, start=linear, prior=start, order=4, tolerance=1.0)
    assert frame_error_mas(fitted, truth, FULL).max() < 0.01
    assert fitted.pv1[1] == pytest.approx(1.0, abs=1e-7) and fitted.pv2[0] == pytest.approx(0.0, abs=1e-9)


def test_prior_holds_where_there_are_no_stars():
    rng = np.random.default_rng(1)
    truth = true_wcs(prior_wcs(FULL), distortion=DISTORTION)
    x, y = rng.uniform(0, 1200, 60), rng.uniform(0, 3080, 60)
    noisy = x + rng.normal(0, 0.05, 60), y + rng.normal(0, 0.05, 60)
    errors = []
    for tolerance in (5e-5, 10.0):
        fitted = fit_tpv(*noisy, *truth.sky(x, y), (0.05 / 3600) ** 2, start=replace(truth), prior=truth, order=4, tolerance=tolerance)
        errors.append(frame_error_mas(fitted, truth, FULL).max())
    assert errors[0] < 500 < errors[1]


@pytest.mark.real
def test_real_header_is_reproduced_by_a_refit(shared_data):
    text = (shared_data / "ztf-sciimg" / "ztf_20200924431759_000655_zr_c13_o_q3_sciimg.header.txt").read_text()
    cards = {}
    for line in text.splitlines():
        key, _, rest = line.partition("=")
        value = rest.split("/")[0].strip()
        if key.strip().startswith(("CRPIX", "CRVAL", "CD", "PV")) and value:
            try:
                cards[key.strip()] = float(value)
            except ValueError:
                continue
    truth = TpvWcs.from_cards(cards)
    y, x = (v.ravel() for v in np.mgrid[0:3080:20j, 0:3072:20j])
    tan = replace(truth, pv1={1: 1.0}, pv2={1: 1.0})
    fitted = fit_tpv(x, y, *truth.sky(x, y), 1e-16, start=tan, prior=tan, order=4, tolerance=1.0)
    assert frame_error_mas(fitted, truth, FULL, 31).max() < 1.0


@pytest.mark.real
def test_real_wide_field_exposure(shared_data):
    """Chips of a Subaru exposure from their rough WCS to Gaia DR3."""
    parquet = pytest.importorskip("pyarrow.parquet")
    from astropy.io import fits
    from astropy.wcs import WCS, FITSFixedWarning

    folder = shared_data / "astrom-hsc-gaia"
    table = parquet.read_table(folder / "gaia_dr3_refcat.parquet")
    column = {name: table[name].to_numpy() for name in ("id", "coord_ra", "coord_dec", "coord_raErr", "coord_decErr", "pm_ra", "pm_dec",
                                                        "epoch", "phot_g_mean_flux")}
    known = np.isfinite(column["coord_ra"])
    gaia = np.zeros(known.sum(), dtype_of(GAIA))
    mas = np.degrees(1) * 3.6e6
    for name, source, factor in (("source_id", "id", 1), ("ra", "coord_ra", np.degrees(1)), ("dec", "coord_dec", np.degrees(1)),
                                 ("ra_error", "coord_raErr", mas), ("dec_error", "coord_decErr", mas), ("pmra", "pm_ra", mas),
                                 ("pmdec", "pm_dec", mas)):
        gaia[name] = column[source][known] * factor
    gaia["ref_epoch"] = 2000 + (column["epoch"][known] + 2400000.5 - 2451545) / 365.25
    gaia["phot_g_mean_mag"] = -2.5 * np.log10(column["phot_g_mean_flux"][known] * 1e-9 / 3631)
    # This prior lacks the telescope's strong distortion, and the stars are fainter than a 1.2-m telescope's.
    config = AstrometryConfig(faint_limit=21.5, search_radius_arcsec=30.0, distortion_tolerance=1e-2)
    shape, rows = (4176, 2048), []
    with tarfile.open(folder / "hsc_visit1180_even_detectors.tar.gz") as tar:
        for name in [f"1180_{k}.fits" for k in (0, 10, 22, 42, 58, 76, 90, 98)]:
            header, stars = (lambda hdus: (hdus[0].header, hdus[1].data))(fits.open(io.BytesIO(tar.extractfile(name).read())))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FITSFixedWarning)
                rough = WCS(header)
            y, x = (v.ravel() for v in np.mgrid[0:shape[0]:15j, 0:shape[1]:15j])
            centre = rough.all_pix2world([[shape[1] / 2, shape[0] / 2]], 0)[0]
            crpix = shape[1] / 2 + 1, shape[0] / 2 + 1
            tan = TpvWcs(crpix, tuple(map(float, centre)), tuple(map(tuple, rough.pixel_scale_matrix.tolist())))
            prior = fit_tpv(x, y, *rough.all_pix2world(x, y, 0), 1e-16, start=tan, prior=tan, order=4, tolerance=1.0)
            detections = np.zeros(len(stars), dtype_of(DETECTION))
            for ours, theirs in (("x", "x"), ("y", "y"), ("x_err", "xErr"), ("y_err", "yErr")):
                detections[ours] = stars[theirs]
            detections["flux"], detections["fluxerr"] = 1.5 / np.hypot(stars["xErr"], stars["yErr"]), 1.0
            rows.append(solve(detections, gaia, prior=prior, jd=header["MJD"] + 2400000.5, shape=shape, config=config).residuals)
    rows = np.concatenate(rows)
    assert rows.size > 120
    assert 1.4826 * np.median(np.abs(rows["dra_mas"])) < 25
    assert 1.4826 * np.median(np.abs(rows["ddec_mas"])) < 25
