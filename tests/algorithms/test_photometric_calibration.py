"""Zero point: recovered without bias, with honest errors, in the face of outliers, galaxies and the faint end."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms.photometric_calibration import BANDS, fit_zero_point
from ztfluigi.model.columns import PS1, PSFCAT, dtype_of
from ztfluigi.model.config.zero_point import ZeroPointConfig
from ztfluigi.model.errors import TooFewCalibrators

SHAPE = (3080, 3072)
TRUTH = {"zg": (26.325, -0.055), "zr": (26.275, 0.085), "zi": (25.66, 0.185)}


def night(seed, n=1500, code="zr", *, scatter=0.01, outliers=0.03, galaxies=0.3, faintest=21.5):
    """(psfcat, ps1) of one quadrant with a known zero point and colour term."""
    rng = np.random.default_rng(seed)
    zero, slope = TRUTH[code]
    r = faintest - np.minimum(rng.exponential(1.8, n), 8.5)
    gr = np.clip(rng.normal(0.6, 0.35, n), -0.3, 1.6)
    true = {"g": r + gr, "r": r, "i": r - 0.4 * gr + rng.normal(0, 0.03, n), "z": r - 0.6 * gr}
    ps1 = np.zeros(n, dtype_of(PS1))
    ps1["raMean"], ps1["decMean"] = 150 + rng.uniform(0, 0.86, n) / np.cos(np.radians(30.4)), 30 + rng.uniform(0, 0.86, n)
    ps1["sgscore"] = np.where(rng.uniform(size=n) < galaxies, 0.1, 0.95)
    for band, mag in true.items():
        error = np.hypot(0.004, 0.05 * 10 ** (0.4 * (mag - 21.5)))
        ps1[f"{band}MeanPSFMag"], ps1[f"{band}MeanPSFMagErr"] = mag + rng.normal(0, 1, n) * error, error
    band = BANDS[code]
    flux = 10 ** (-0.4 * (true[band.band] - zero - slope * (true[band.blue] - true[band.red]) + rng.normal(0, scatter, n)))
    noise = np.sqrt(45.0**2 + flux / 6.2)
    measured = flux + rng.normal(0, 1, n) * noise
    wild = rng.uniform(size=n) < outliers
    measured[wild] *= 10 ** (0.4 * rng.uniform(-0.3, 0.9, wild.sum()))
    seen = measured > 4 * noise
    psfcat = np.zeros(seen.sum(), dtype_of(PSFCAT))
    for name, values in (("ra", ps1["raMean"]), ("dec", ps1["decMean"]), ("flux", measured), ("sigflux", noise)):
        psfcat[name] = values[seen]
    psfcat["ra"] += rng.normal(0, 0.1, seen.sum()) / 3600
    psfcat["mag"], psfcat["snr"] = -2.5 * np.log10(psfcat["flux"]), psfcat["flux"] / psfcat["sigflux"]
    psfcat["sigmag"] = 1.0857 / psfcat["snr"]
    psfcat["xpos"], psfcat["ypos"] = rng.uniform(1, SHAPE[1], seen.sum()), rng.uniform(1, SHAPE[0], seen.sum())
    psfcat["chi"], psfcat["sharp"] = rng.normal(1, 0.05, seen.sum()), rng.normal(0, 0.05, seen.sum())
    return psfcat, ps1


@pytest.mark.parametrize("code", ["zg", "zr", "zi"])
def test_zero_point_and_colour_term(code):
    fits = [fit_zero_point(*night(seed, code=code), filter_code=code, shape=SHAPE) for seed in range(30)]
    zero, slope = TRUTH[code]
    assert np.mean([fit.magzp for fit in fits]) == pytest.approx(zero, abs=0.003)
    assert np.mean([fit.clrcoeff for fit in fits]) == pytest.approx(slope, abs=0.0025)
    pulls = [(fit.magzp - zero) / fit.magzpunc for fit in fits] + [(fit.clrcoeff - slope) / fit.clrcounc for fit in fits]
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.5
    assert all(fit.zpclrcov < 0 for fit in fits if fit.clrmed > 0)
    assert {fit.pcolor for fit in fits} == {BANDS[code].text}


@pytest.mark.parametrize("n", [400, 10000])
def test_few_and_many_calibrators(n):
    errors = [fit_zero_point(*night(seed, n), filter_code="zr", shape=SHAPE).magzp - TRUTH["zr"][0] for seed in range(8)]
    assert np.sqrt(np.mean(np.square(errors))) < 0.4 / np.sqrt(n)


def test_residuals_do_not_follow_brightness():
    rows = np.concatenate([fit_zero_point(*night(seed, 4000), filter_code="zr", shape=SHAPE).residuals for seed in range(6)])
    rows = rows[rows["used"]]
    for low in np.arange(15.0, rows["mag_ps1"].max() - 0.5, 1.0):
        inside = (rows["mag_ps1"] >= low) & (rows["mag_ps1"] < low + 1)
        error = np.std(rows["residual"][inside]) / np.sqrt(inside.sum())
        assert abs(np.mean(rows["residual"][inside])) < 4 * error + 5e-4


def test_outliers_hardly_matter():
    clean, wild = (fit_zero_point(*night(3, outliers=share), filter_code="zr", shape=SHAPE) for share in (0.0, 0.15))
    assert wild.magzp == pytest.approx(clean.magzp, abs=0.006)
    assert wild.magzprms < 0.06
    assert wild.zprmsall > wild.magzprms


def test_order_does_not_matter():
    psfcat, ps1 = night(5)
    rng = np.random.default_rng(0)
    one = fit_zero_point(psfcat, ps1, filter_code="zg", shape=SHAPE)
    two = fit_zero_point(rng.permutation(psfcat), rng.permutation(ps1), filter_code="zg", shape=SHAPE)
    assert two.magzp == pytest.approx(one.magzp, abs=1e-9)
    assert two.nmatches == one.nmatches


def test_a_brighter_camera_moves_the_zero_point_alone():
    psfcat, ps1 = night(6)
    one = fit_zero_point(psfcat, ps1, filter_code="zr", shape=SHAPE)
    brighter = psfcat.copy()
    brighter["mag"] -= 1.0
    brighter["flux"] *= 10**0.4
    brighter["sigflux"] *= 10**0.4
    two = fit_zero_point(brighter, ps1, filter_code="zr", shape=SHAPE)
    assert two.magzp - one.magzp == pytest.approx(1.0, abs=1e-5)
    assert two.clrcoeff == pytest.approx(one.clrcoeff, abs=1e-5)


def test_unusable_stars_and_calibrators_are_left_out():
    psfcat, ps1 = night(7)
    bright = np.argsort(psfcat["mag"])[:40]
    psfcat["flags"][bright[:20]] = 1 << 8
    psfcat["xpos"][bright[20:]] = 3.0
    fit = fit_zero_point(psfcat, ps1, filter_code="zr", shape=SHAPE)
    assert not np.isin(psfcat["mag"][bright], fit.residuals["mag_inst"]).any()
    source = psfcat.copy()
    source["flags"] |= (1 << 1) | (1 << 11)
    assert fit_zero_point(source, ps1, filter_code="zr", shape=SHAPE).nmatches > fit.nmatches // 2
    unknown = ps1.copy()
    unknown["gMeanPSFMag"] = -999.0
    with pytest.raises(TooFewCalibrators):
        fit_zero_point(psfcat, unknown, filter_code="zr", shape=SHAPE)


def test_crowded_calibrators_are_left_out():
    psfcat, ps1 = night(8)
    twin = ps1.copy()
    twin["decMean"] += 2.5 / 3600
    with pytest.raises(TooFewCalibrators):
        fit_zero_point(psfcat, np.concatenate([ps1, twin]), filter_code="zr", shape=SHAPE)
    loose = ZeroPointConfig(isolation_arcsec=0.0)
    assert fit_zero_point(psfcat, np.concatenate([ps1, twin]), filter_code="zr", shape=SHAPE, config=loose).nmatches > 100


def test_too_few_says_how_many():
    psfcat, ps1 = night(9)
    for few in ((psfcat[:0], ps1), (psfcat, ps1[:0]), (psfcat[:4], ps1)):
        with pytest.raises(TooFewCalibrators) as caught:
            fit_zero_point(*few, filter_code="zr", shape=SHAPE)
        assert caught.value.infobits >> 8 & 0b111 == 0b111
        assert caught.value.numbers["found"] < caught.value.numbers["needed"]


def test_cards_are_those_of_the_header():
    cards = fit_zero_point(*night(10), filter_code="zi", shape=SHAPE).cards()
    assert set(cards) == {"NMATCHES", "MAGZP", "MAGZPUNC", "MAGZPRMS", "CLRCOEFF", "CLRCOUNC", "ZPCLRCOV", "PCOLOR", "ZPMED", "ZPAVG",
                          "ZPRMSALL", "CLRMED", "CLRAVG", "CLRRMS"}
    assert cards["PCOLOR"] == "R - i"


@pytest.mark.real
def test_real_image_against_pan_starrs(shared_data):
    """One i-band image of a 1-m telescope; its makers expect 23.1 +- 0.1, a plain clipped fit gave 23.091 + 0.027 (r - i)."""
    from astropy.io import fits

    with fits.open(shared_data / "refcat-phot" / "cpt1m012-fa06-20200113-0102-matched-cat.fits.gz") as hdus:
        table = np.array(hdus[1].data)
    psfcat = np.zeros(table.size, dtype_of(PSFCAT))
    for ours, theirs in (("xpos", "x"), ("ypos", "y"), ("ra", "ra"), ("dec", "dec")):
        psfcat[ours] = table[theirs]
    good = table["flux"] > 0
    psfcat["flux"], psfcat["sigflux"] = table["flux"] / 250.032, table["fluxerr"] / 250.032
    psfcat["mag"][good] = -2.5 * np.log10(psfcat["flux"][good])
    psfcat["sigmag"][good] = 1.0857 * psfcat["sigflux"][good] / psfcat["flux"][good]
    psfcat["chi"] = psfcat["sharp"] = np.nan
    psfcat["flags"] = np.where(table["flag"] > 0, 1 << 8, 0)
    ps1 = np.zeros(table.size, dtype_of(PS1))
    ps1["raMean"], ps1["decMean"], ps1["sgscore"] = table["ra"], table["dec"], 1.0
    for band in "griz":
        ps1[f"{band}MeanPSFMag"], ps1[f"{band}MeanPSFMagErr"] = table[f"{band}mag"], table[f"{band}magerr"]
    fit = fit_zero_point(psfcat, ps1, filter_code="zi", shape=(4096, 4096))
    assert fit.magzp + fit.clrcoeff * fit.clrmed == pytest.approx(23.091 + 0.027 * fit.clrmed, abs=0.03)
    assert abs(fit.clrcoeff) < 0.06
    assert fit.magzprms < 0.06
