"""Header tables against the real headers, and the rules of composing one."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from ztfluigi.model import header_cards
from ztfluigi.model.header import Header

RAW = {spec.keyword for spec in header_cards.RAW_PRIMARY + header_cards.RAW_QUADRANT + header_cards.WCS}
STRUCTURE = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2")


def real_header(shared_spec, year):
    cards = json.loads((shared_spec / "data" / f"sciimg_header_{year}.json").read_text())["cards"]
    return [tuple(card) for card in cards if card[0] not in (*STRUCTURE, "PCOUNT", "GCOUNT")]


def is_bit(card):
    return card[0].startswith("BIT") and card[0][3:].isdigit()


@pytest.mark.real
def test_a_science_header_has_the_real_order_types_and_comments(shared_spec):
    real = real_header(shared_spec, 2017)
    raw = [card for card in real if card[0] in RAW]
    raw = [(k, 0.0 if k.startswith(("CRVAL", "CD1", "CD2")) else v, c) for k, v, c in raw]  # the raw WCS is nominal
    values = {key: value for key, value, _ in real if key not in RAW or key.startswith(("CRVAL", "CD1", "CD2"))}
    fixed = {spec.keyword: spec.fixed for spec in header_cards.SCIENCE if spec.fixed is not None}
    values = {key: value for key, value in values.items() if not is_bit((key,)) and key not in fixed}
    made = header_cards.science_cards(raw, values, bits=[card for card in real if is_bit(card)])
    assert [card for card in made if card[0] != "FLXSCALE"] == real  # FLXSCALE came with a later SCAMP


@pytest.mark.real
def test_every_later_keyword_is_in_a_table(shared_spec):
    known = RAW | {spec.keyword for spec in header_cards.SCIENCE + header_cards.DATABASE}
    comments = {spec.keyword: spec.comment for spec in header_cards.SCIENCE + header_cards.DATABASE}
    for key, _, comment in real_header(shared_spec, 2020):
        assert key in known or is_bit((key,)) or key in ("BUNIT", "CDS0", "CDS1", "CDS2", "CDS3", "HISTORY", "COMMENT", ""), key
        if key in comments:
            assert comments[key] == comment, key


@pytest.mark.real
def test_raw_tables_are_in_the_real_order(shared_spec):
    keys = [key for key, _, _ in real_header(shared_spec, 2017) if key in RAW]
    assert keys == [spec.keyword for spec in header_cards.RAW_PRIMARY + header_cards.RAW_QUADRANT + header_cards.WCS]


def test_unknown_raw_cards_pass_and_unmeasured_values_are_left_out():
    made = header_cards.science_cards([("FUTURE", 3, "new card"), ("METRICS", "{}", ""), ("EXTNAME", "1", "")],
                                      {"MAGZP": np.nan, "SEEING": np.float32(1.943), "OURS": (5, "why")}, bits=[("BIT00", 0, "first")])
    keys = [key for key, _, _ in made]
    assert keys[:3] == ["BUNIT", "FUTURE", "EXTNAME"] and keys[-1] == "OURS" and ("OURS", 5, "why") in made
    assert "MAGZP" not in keys and "METRICS" not in keys and ("SEEING", 1.943, "seeing FWHM [pixels]") in made
    assert keys.index("SEEING") < keys.index("BIT00") < keys.index("DBPIPEID")


def test_no_keyword_is_twice_in_a_table():
    for table in ((*header_cards.WCS, *header_cards.SCIENCE, *header_cards.DATABASE), header_cards.REFERENCE, header_cards.CATALOG,
                  (*header_cards.RAW_PRIMARY, *header_cards.RAW_QUADRANT)):
        assert max(Counter(spec.keyword for spec in table).values()) == 1
        assert all(len(spec.keyword) <= 8 for spec in table)


def test_a_difference_header_keeps_the_science_and_replaces_bits_and_verdict():
    science = header_cards.science_cards([("EXPTIME", 30.0, "")], {"MAGZP": 26.2, "STATUS": 1, "INFOBITS": 0, "DBPID": 5},
                                         bits=[("BIT00", 0, "science"), ("BIT21", 21, "science")])
    made = header_cards.difference_cards(science, {"STATUS": 0, "INFOBITS": 4, "DIFFLIM": 20.5}, bits=[("BIT00", 0, "difference")])
    head = Header(made)
    assert (head["MAGZP"], head["STATUS"], head["INFOBITS"], head["DBPID"], head["DIFFLIM"]) == (26.2, 0, 4, 5, 20.5)
    assert head.comment("BIT00") == "difference" and "BIT21" not in head
    assert len({key for key, _, _ in made}) == len(made)


def test_a_catalogue_takes_what_it_knows_from_an_image_header():
    science = Header(header_cards.science_cards([("OBSMJD", 59116.4, "MJD")], {"MAGZP": 26.2, "FIELDID": 655, "CCDID": 3}))
    made = header_cards.catalog_cards({**science, "NSOURCES": 10})
    assert made == [("NSOURCES", 10, "Total number of sources"), ("OBSMJD", 59116.4, "MJD corresponds to UTC-OBS (day)"),
                    ("MAGZP", 26.2, "Magnitude zero point [mag]"), ("FIXAPERS", "2,3,4,6,10,14", "fixed aperture diameters used [pixels]"),
                    ("FIELDID", 655, "Field identifier"), ("CCDID", 3, "CCD identifier [1..16]")]


def test_a_reference_header_has_its_identity_first():
    made = header_cards.reference_cards({"MAGZP": 26.275, "DBRFID": 633120227, "FIELDID": 633, "NFRAMES": 15})
    assert [key for key, _, _ in made] == ["BUNIT", "FIELDID", "NFRAMES", "MAGZP", "FIXAPERS", "DBRFID"]
