"""Verdicts: bits follow the thresholds, sentences are ZTF's own, fatal bits alone make an image unusable."""

from __future__ import annotations

import json
import re

import pytest

from ztfluigi.algorithms import quality
from ztfluigi.algorithms.quality import DIFFERENCE_THRESHOLDS, REFERENCE_THRESHOLDS, SCIENCE_THRESHOLDS, Threshold, fatal_bits
from ztfluigi.model import infobits

GOOD = {"background_dn": 200.0, "noise_dn": 8.0, "saturated_percent": 0.01, "fwhm_pix": 2.0, "maglim": 20.5, "maglim_theory": 20.6,
        "n_psf_sources": 4000, "n_sex_sources": 4500, "nmatches": 600, "magzprms": 0.03, "ASTROMN": 1200, "astrom_ref_percent": 90.0,
        "astrom_grid_min": 60, "pixel_scale_percent": 0.01, "astrom_chi2_change_percent": -80.0, "ASTCHI2": 5.0,
        "astrom_grid_residual_arcsec": 0.06, "astrom_detected_percent": 92.0}


def test_a_good_image_has_no_bits():
    assert quality.judge_science(GOOD) == (0, 1)


@pytest.mark.parametrize("row", SCIENCE_THRESHOLDS, ids=lambda row: f"{row.bit}-{row.metric}")
def test_each_science_row_sets_its_bit(row):
    for limit, step in ((row.above, 1.0), (row.below, -1.0)):
        if limit is None:
            continue
        bits, status = quality.judge_science({**GOOD, row.metric: limit + step})
        assert bits >> row.bit & 1
        assert status == (0 if bits & fatal_bits(SCIENCE_THRESHOLDS) else 1)
        assert not quality.judge_science({**GOOD, row.metric: limit})[0] >> row.bit & 1


def test_fatal_bits():
    assert fatal_bits(SCIENCE_THRESHOLDS) == sum(1 << bit for bit in (0, 1, 2, 3, 4, 8, 12, 20))
    assert quality.judge_science({**GOOD, "ASTROMN": 30, "nmatches": 20}) == ((1 << 14) | (1 << 9), 1)
    assert quality.judge_science(GOOD, infobits=1 << 12) == (1 << 12, 0)


def test_absent_is_not_judged_and_nan_sets_the_bit():
    assert quality.judge_science({}) == (0, 1)
    assert quality.judge_science({**GOOD, "maglim": None}) == (0, 1)
    assert quality.judge_science({**GOOD, "maglim": float("nan")}) == (1 << 4, 0)


def test_thresholds_by_filter(monkeypatch):
    rows = (Threshold(3, "depth", below={"zg": 20.0, "zr": 19.0}),)
    monkeypatch.setattr(quality, "SCIENCE_THRESHOLDS", rows)
    assert quality.judge_science({"depth": 19.5}, filter_code="zg")[0] == 8
    assert quality.judge_science({"depth": 19.5}, filter_code="zr")[0] == 0


@pytest.mark.parametrize("product, rows", [("science", SCIENCE_THRESHOLDS), ("difference", DIFFERENCE_THRESHOLDS),
                                           ("reference", REFERENCE_THRESHOLDS)])
def test_every_bit_has_a_sentence_and_a_row_that_agree(product, rows):
    sentences = infobits.PRODUCTS[product]
    assert {row.bit for row in rows} == set(sentences)
    for row in rows:
        numbers = [float(text) for text in re.findall(r"(?<![\w.])-?\d+\.?\d*", sentences[row.bit].replace("0.8-1.25", "0.8 1.25"))]
        for limit in (row.below, row.above):
            if limit is not None and "NOT POSSIBLE" not in sentences[row.bit]:
                assert limit in numbers
    assert all(len(sentence) <= 52 for sentence in sentences.values())


def test_difference_and_reference_verdicts():
    good = {"noise": 9.0, "noise_expected": 8.5, "score_width": 1.02, "score_mean": 0.01, "n_match": 300, "dx_rms": 0.05, "dy_rms": 0.06,
            "dx_mean": 0.1, "dy_mean": -0.1, "masked_percent": 1.0, "fwhm_difference": 2.4, "diffmaglim": 20.4, "flux_ratio_scatter": 0.02}
    assert quality.judge_difference(good) == (0, 1)
    assert quality.judge_difference({**good, "noise": 30.0}) == (1 << 1, 0)
    assert quality.judge_difference({**good, "score_width": 1.4}) == (1 << 2, 1)
    assert quality.judge_difference({**good, "n_events": 2500})[1] == 0
    assert quality.judge_reference({"nframes": 20, "cov5percent": 99.0}) == (0, 1)
    assert quality.judge_reference({"nframes": 9, "cov5percent": 99.0}) == (1 << 1, 1)


def test_explanations():
    assert infobits.explain("science", 0) == []
    assert infobits.explain("science", (1 << 12) | 1) == [infobits.SCIENCE[0], infobits.SCIENCE[12]]
    assert infobits.explain("science", 1 << 25) == ["PHOTOMETRIC CONDITIONS ARE BAD"]
    assert infobits.explain("reference", 1 << 30) == ["UNKNOWN BIT 30"]


def test_cloud_rule():
    clear = {"magzp": 26.2, "magzprms": 0.03, "nmatches": 500}
    assert quality.cloud_bit(clear, filter_code="zr", airmass=1.2) == 0
    for change in ({"magzprms": 0.07}, {"nmatches": 50}, {"magzp": 26.9}):
        assert quality.cloud_bit({**clear, **change}, filter_code="zr", airmass=1.2) == 2**25
    assert quality.cloud_bit({**clear, "nmatches": 50}, filter_code="zr", airmass=1.2, area_fraction=0.0625) == 0
    assert quality.cloud_bit(clear, filter_code="zr", airmass=1.2, faintest_zero_point=26.5) == 2**25


@pytest.mark.real
def test_sentences_are_those_of_a_real_header(shared_spec):
    cards = {key: (value, comment) for key, value, comment in json.loads((shared_spec / "data" / "sciimg_header_2017.json").read_text())["cards"]}
    for key, value, sentence in infobits.bit_cards("science"):
        assert cards[key] == (value, sentence)
    assert len(infobits.bit_cards("science")) == sum(bool(re.fullmatch(r"BIT\d\d", key)) for key in cards)
