"""Raw CCD files: what is accepted, what is refused and in which words, and that pixels come back."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from targets.codecs import fits, raw
from tests.codecs.helpers import CAMERA, NAME, make_raw
from ztfluigi.model.errors import BadInput


def test_a_good_file_passes_and_is_summarised(tmp_path):
    path, _, _ = make_raw(tmp_path)
    summary = raw.verify_raw(path, CAMERA)
    assert (summary.obsjd, summary.field, summary.fid, summary.programid) == (2459116.9317708, 655, 2, 1)
    assert summary.numbers["airmass"] == 1.018 and summary.numbers["imgtype"] == "object"


def test_every_hdu_passes_an_independent_checksum(tmp_path):
    path, _, _ = make_raw(tmp_path)
    with astropy_fits.open(path, checksum=True) as hdus:  # a wrong sum is a warning, and warnings are errors
        hdus.verify("exception")
        assert len(hdus) == 9


def test_same_input_gives_the_same_bytes(tmp_path):
    (tmp_path / "again").mkdir()
    first, _, _ = make_raw(tmp_path)
    second, _, _ = make_raw(tmp_path / "again")
    assert first.read_bytes() == second.read_bytes()


def test_integer_pixels_are_lossless(tmp_path):
    path, images, overscans = make_raw(tmp_path)
    for qid in raw.QUADRANTS:
        image, overscan, header = raw.read_quadrant(path, qid)
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image, images[qid - 1])
        np.testing.assert_array_equal(overscan, overscans[qid - 1])
        assert header["AMP_ID"] == qid - 1


def test_float_pixels_come_back_within_the_quantum(tmp_path):
    path, images, _ = make_raw(tmp_path, kind="f4")
    raw.verify_raw(path, CAMERA)
    image, overscan, _ = raw.read_quadrant(path, 3)
    assert image.dtype == np.float32 and overscan.dtype == np.float32
    assert np.abs(image - images[2]).max() <= 1 / 16


def test_header_is_primary_then_quadrant_without_storage_cards(tmp_path):
    path, _, _ = make_raw(tmp_path)
    keys = [key for key, _, _ in raw.read_quadrant(path, 2)[2].cards]
    assert keys[0] == "ORIGIN" and keys.index("NFRAMES") < keys.index("EXTNAME") < keys.index("GAIN")
    assert not [key for key in keys if key.startswith("Z") or key in ("BZERO", "NAXIS1", "CHECKSUM")]


@pytest.mark.parametrize("changes, words", [
    ({"SHUTOPEN": "2020-09-24T10:21:58.646", "SHUTCLSD": "2020-09-24T10:22:28.646"}, "SHUTOPEN, expected within 2 s"),
    ({"OBSMJD": 59116.5}, "expected them equal"),
    ({"AIRMASS": None}, "no value of required keyword AIRMASS"),
    ({"AIRMASS": 0.2}, "AIRMASS = 0.2, expected 0.99 to 40.0"),
    ({"OBSJD": "soon"}, "expected a number"),
    ({"FIELDID": 656}, "FIELDID = 656, expected 655"),
    ({"FILTERID": 1}, "FILTERID = 1, expected 2"),
    ({"FILENAME": "other.fits"}, "FILENAME = 'other.fits'"),
    ({"SHUTCLSD": "2020-09-24T10:21:47.0"}, "expected EXPTIME"),
    ({"SHUTOPEN": "later"}, "expected an ISO date"),
])
def test_wrong_primary_keywords_are_named(tmp_path, changes, words):
    path, _, _ = make_raw(tmp_path, primary_changes=changes)
    with pytest.raises(BadInput, match=words) as problem:
        raw.verify_raw(path, CAMERA)
    assert path.name in problem.value.reason


@pytest.mark.parametrize("changes, words", [
    ({"GAIN": None}, "keyword GAIN"), ({"CRVAL1": None}, "keyword CRVAL1"), ({"CCD_ID": 4}, "CCD_ID = 4"), ({"AMP_ID": 0}, "AMP_ID = 0 in HDU 2")])
def test_wrong_quadrant_keywords_are_named(tmp_path, changes, words):
    path, _, _ = make_raw(tmp_path, quadrant_changes=changes)
    with pytest.raises(BadInput, match=words):
        raw.verify_raw(path, CAMERA)


def test_a_missing_sensor_is_no_reason(tmp_path):
    path, _, _ = make_raw(tmp_path, primary_changes={"HUMIDITY": -9999.0})
    raw.verify_raw(path, CAMERA)


def test_a_bias_needs_no_target(tmp_path):
    name = NAME.replace("_zr_", "_bi_").replace("_o.", "_b.").replace("_000655_", "_000000_")
    path, _, _ = make_raw(tmp_path, name, primary_changes={
        "IMGTYPE": "bias", "FILENAME": name.removesuffix(".fz"), "FIELDID": 0, "EXPTIME": 0.0, "OBJRAD": None, "OBJDECD": None,
        "AIRMASS": None, "SHUTCLSD": "2020-09-24T10:21:45.646"})
    assert raw.verify_raw(path, CAMERA).imgtype == "bias"


def test_wrong_shapes_are_named(tmp_path):
    path, _, _ = make_raw(tmp_path, shape=(40, 62))
    with pytest.raises(BadInput, match=r"HDU 1 has shape \(40, 62\), expected \(40, 64\)"):
        raw.verify_raw(path, CAMERA)
    path, _, _ = make_raw(tmp_path, overscan=28)
    with pytest.raises(BadInput, match="HDU 5 has shape"):
        raw.verify_raw(path, CAMERA)


def test_other_names_and_ccds_are_refused(tmp_path):
    for name, words in (("frame.fits", "not the name of a raw file"), (NAME.replace("_c01_", "_c09_"), "is of ccd 09")):
        with pytest.raises(BadInput, match=words):
            raw.verify_raw(tmp_path / name, CAMERA)


def test_every_damaged_byte_of_an_hdu_is_seen(tmp_path):
    path, _, _ = make_raw(tmp_path)
    whole = path.read_bytes()
    for hdu in fits.scan(path)[1:]:
        for place in (hdu.data_start, hdu.data_start + hdu.data_size // 2, hdu.data_start + hdu.data_size - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
            with pytest.raises(BadInput, match="damaged"):
                raw.verify_raw(path, CAMERA)


def test_no_damaged_byte_passes_or_raises_anything_else(tmp_path):
    path, _, _ = make_raw(tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(11)
    headers = [n for hdu in fits.scan(path) for n in rng.integers(hdu.header_start, hdu.data_start, 2)]
    for place in [*headers, *rng.integers(0, len(whole), 6)]:
        for flip in (1, 0x10, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1:])
            with pytest.raises(BadInput):
                raw.verify_raw(path, CAMERA)


def test_a_missing_checksum_and_bytes_after_the_end_are_named(tmp_path):
    path, _, _ = make_raw(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"DATASUM = ", b"DATASUN = ", 1))
    with pytest.raises(BadInput, match="damaged: HDU 0 has no DATASUM"):
        raw.verify_raw(path, CAMERA)
    path.write_bytes(whole + bytes(2880))
    with pytest.raises(BadInput, match=f"no header at byte {len(whole)}"):
        raw.verify_raw(path, CAMERA)
    path.write_bytes(whole[:-2880])
    with pytest.raises(BadInput, match="cut short: HDU 8 ends at byte"):
        raw.verify_raw(path, CAMERA)


@pytest.mark.parametrize("keep", [0, 1000, 2880, 20000, -1])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    path, _, _ = make_raw(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput):
        raw.verify_raw(path, CAMERA)


def test_a_missing_file_and_a_wrong_quadrant_are_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        raw.verify_raw(tmp_path / NAME, CAMERA)
    path, _, _ = make_raw(tmp_path)
    with pytest.raises(BadInput, match="quadrant 5"):
        raw.read_quadrant(path, 5)
