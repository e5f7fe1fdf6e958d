"""Identities follow from time and place as in real ZTF headers, alerts and file names."""

from __future__ import annotations

import pytest

from ztfluigi.model import ids


def test_channels():
    assert [ids.rcid(c, q) for c, q in ((1, 1), (3, 1), (13, 3), (16, 4))] == [0, 8, 50, 63]
    assert all(ids.rcid(*ids.ccd_and_quadrant(n)) == n for n in range(64))


@pytest.mark.parametrize("obsjd, nid, expid", [(2458116.8738079, 362, 36237380), (2457754.5, 0, 0), (2457755.49999, 0, 99999)])
def test_night_and_exposure(obsjd, nid, expid):
    assert ids.night_id(obsjd) == nid
    assert ids.exposure_id(obsjd) == expid


def test_a_time_printed_to_seven_decimals_floors_as_printed():
    assert ids.exposure_id(2458000.1) == 24560000
    assert ids.exposure_id(float("2458300.7500000")) == 54625000


def test_ids_nest():
    pid = ids.processing_id(2458116.8738079, 3, 1)
    assert pid == 362373800815
    assert ids.raw_id(2458116.8738079, 3, 1) == pid // 100
    candid = ids.candidate_id(pid, 17, True)
    assert candid == pid * 10**6 + 15017
    with pytest.raises(ValueError):
        ids.candidate_id(pid, 5000, False)


def test_reference_and_calibration_ids():
    assert ids.reference_id(651, 2, 8) == 651120208
    assert ids.calibration_id(362, 8, 0, "bias") == 36208002
    assert ids.calibration_id(362, 8, 1, "hifreqflat") == 36208014
    assert ids.calibration_id(0, 8, 1, "lofreqflat") == 8015


def test_object_names_count_in_base_26():
    assert [ids.object_name(2018, n) for n in (0, 1, 25, 26, 26**7 - 1)] == ["ZTF18aaaaaaa", "ZTF18aaaaaab", "ZTF18aaaaaaz", "ZTF18aaaaaba",
                                                                            "ZTF18zzzzzzz"]
    with pytest.raises(ValueError):
        ids.object_name(2018, 26**7)


def test_nights():
    assert ids.night_of("20180601250000") == "2018-06-01"
    assert ids.night_code("2018-06-01") == "20180601"
    assert ids.night_nid("2017-12-28") == 361
    for wrong in ("2018060125000", "2018-06-01", ""):
        with pytest.raises(ValueError, match="14-digit"):
            ids.check_exposure(wrong)
    with pytest.raises(ValueError):
        ids.night_code("2018-13-01")


def test_quadrants_and_cells():
    quadrant = ids.Quadrant("20180601250000", 3, 1)
    assert (quadrant.rcid, quadrant.night, str(quadrant)) == (8, "2018-06-01", "20180601250000/c03q1")
    cell = ids.SkyCell(651, "zr", 3, 1)
    assert (cell.rcid, cell.fid, str(cell)) == (8, 2, "000651/zr/c03q1")
    assert {quadrant: 1}[ids.Quadrant("20180601250000", 3, 1)] == 1
