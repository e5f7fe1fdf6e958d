"""Image products come back as written, with valid checksums, the same bytes each time."""

from __future__ import annotations

from types import SimpleNamespace

import fitsio
import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from targets.codecs import fits, image, stamps
from ztfluigi.algorithms import cutouts
from ztfluigi.model import maskbits
from ztfluigi.model.errors import BadInput
from ztfluigi.model.header import Header
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.wcs import TpvWcs

WCS = TpvWcs((32.5, 20.5), (55.1, 33.3), ((-2.8e-4, 1e-6), (-1e-6, -2.8e-4)), {1: 1.0, 4: 2e-4}, {1: 1.0, 13: -1e-4})


@pytest.fixture
def data():
    return np.random.default_rng(3).normal(150, 6, (40, 64)).astype(np.float32)


def check(path):
    """An independent reader finds nothing wrong (a bad checksum is a warning, hence an error)."""
    with astropy_fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
    assert fits.checksum_problem(path, fits.scan(path)) is None


def test_science_image_keeps_pixels_and_cards(tmp_path, data):
    data[3, 4] = np.nan
    cards = [("BUNIT", "Data Value", ""), ("PROGRMPI", "O'Neil", "Queue program PI"), ("MAGZP", 26.285139, "zero point"),
             ("PHOTLINK", False, "T?")]
    image.write_science(tmp_path / "sciimg.fits", data, cards)
    check(tmp_path / "sciimg.fits")
    back, header = image.read_image(tmp_path / "sciimg.fits")
    np.testing.assert_array_equal(back, data)
    assert header.cards == cards and back.dtype.isnative


def test_numbers_keep_their_value_and_unmeasured_ones_are_left_out(tmp_path, data):
    values = {"A": np.float32(1.943), "B": 2459116.9317708, "C": -2.812466181043e-04, "D": np.int64(136243177), "E": np.nan, "F": None}
    image.write_image(tmp_path / "a.fits", data, values)
    _, header = image.read_image(tmp_path / "a.fits")
    assert dict(header) == {"A": 1.943, "B": 2459116.9317708, "C": -2.812466181043e-04, "D": 136243177}


def test_mask_is_int16_on_disk_and_uint16_inside(tmp_path):
    mask = np.arange(40 * 64, dtype=np.uint16).reshape(40, 64) * 26
    image.write_mask(tmp_path / "mskimg.fits", mask, {"MAGZP": 26.0, "BIT00": (0, "another registry")})
    check(tmp_path / "mskimg.fits")
    back, header = image.read_mask(tmp_path / "mskimg.fits")
    np.testing.assert_array_equal(back, mask)
    assert fitsio.read(tmp_path / "mskimg.fits").dtype == np.int16
    assert header.comment("BIT00") == "AIRCRAFT/SATELLITE TRACK" and header["BIT15"] == 15


def test_difference_is_compressed_in_hdu_1_within_a_quarter_sigma(tmp_path, data):
    data[0, 0] = np.nan
    data[20, 30] = 50000.0
    image.write_difference(tmp_path / "scimrefdiffimg.fits.fz", data, {"MAGZP": 26.0})
    check(tmp_path / "scimrefdiffimg.fits.fz")
    back, header = image.read_image(tmp_path / "scimrefdiffimg.fits.fz", 1)
    assert header["MAGZP"] == 26.0 and np.isnan(back[0, 0]) and np.isfinite(back).sum() == data.size - 1
    assert np.nanmax(np.abs(back - data)) < 6 / 4 + 0.01


def test_cards_that_do_not_fit_are_written_without_a_warning(tmp_path, data):
    cards = [("SHORT", 1.5, "a comment " * 12), ("LONGKEYWORD", 3, ""), ("TEXT", "word " * 40 + "end", ""), ("HISTORY", "line", ""),
             ("HISTORY", "line", "")]
    image.write_science(tmp_path / "a.fits", data, cards)
    image.write_difference(tmp_path / "b.fits.fz", data, cards)
    for path in (tmp_path / "a.fits", tmp_path / "b.fits.fz"):
        _, header = image.read_image(path)
        assert (header["SHORT"], header["LONGKEYWORD"], header["TEXT"]) == (1.5, 3, cards[2][1])
        assert header.comment("SHORT").startswith("a comment") and [key for key, _, _ in header.cards].count("HISTORY") == 2


def test_writing_does_not_touch_the_callers_array(tmp_path, data):
    for array in (data, data.astype(np.uint16), data.astype(np.int16)):
        before = array.copy()
        array.setflags(write=False)
        image.write_image(tmp_path / "a.fits", array)
        np.testing.assert_array_equal(array, before)
        np.testing.assert_array_equal(image.read_pixels(tmp_path / "a.fits")[0], before)


def test_writing_twice_gives_the_same_bytes(tmp_path, data):
    for name in ("a", "b"):
        image.write_difference(tmp_path / name, data, {"MAGZP": 26.0})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_calibrated_quadrant_round_trip(tmp_path, data):
    mask = np.full(data.shape, 0x8101, np.uint16)
    made = Calibrated(data, data / 20, mask, 6.2, 9.6, 48000.5, WCS, {"seeing": np.float32(1.9), "n": 3, "none": np.nan})
    image.write_calibrated(tmp_path / "cal.fits", made, Header({"OBSJD": 2459116.9, "GAIN": 6.0, "PV1_7": 5.0}))
    check(tmp_path / "cal.fits")
    back, header = image.read_calibrated(tmp_path / "cal.fits")
    for name in ("data", "sigma", "mask"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    assert (back.gain, back.read_noise, back.saturate, header["GAIN"]) == (6.2, 9.6, 48000.5, 6.0)
    assert back.metrics == {"seeing": 1.9, "n": 3, "none": None}
    np.testing.assert_allclose(back.wcs.sky(10.0, 50.0), WCS.sky(10.0, 50.0), rtol=0, atol=1e-11)


def test_split_rows_are_read_by_band(tmp_path, data):
    paths = []
    for n in range(3):
        paths.append(tmp_path / f"{n}.fits")
        image.write_split(paths[-1], data + n, {"OBSJD": 1.0}, {"level": 120.0})
    read_rows = image.row_reader(paths)
    np.testing.assert_array_equal(read_rows(2, 5, 9), (data + 2)[5:9])
    assert read_rows(0, 36, 99).shape == (4, 64)
    image.write_split(tmp_path / "other.fits", data[:30], {}, {})
    with pytest.raises(BadInput, match="shape"):
        image.row_reader([*paths, tmp_path / "other.fits"])


def test_master_goes_to_four_files(tmp_path, data):
    stack = SimpleNamespace(mean=data, std_clipped=data / 2, std_raw=data / 3, uncertainty=data / 4, depth=np.full(data.shape, 20))
    master = SimpleNamespace(stack=stack, image=data, mask=np.full(data.shape, 4, np.uint16), metrics={})
    stage = {role: tmp_path / f"{role}.fits" for role in ("image", "uncertainty", "statistics", "mask")}
    image.write_master(stage, master, {"NFRAMES": 20})
    for path in stage.values():
        check(path)
    np.testing.assert_array_equal(image.read_image(stage["uncertainty"])[0], data / 4)
    np.testing.assert_array_equal(image.read_image(stage["statistics"], 1)[0], data / 3)
    assert image.read_image(stage["statistics"], 2)[0].min() == 20
    assert (image.read_mask(stage["mask"])[0] == 4).all() and image.read_image(stage["image"])[1]["NFRAMES"] == 20


def test_reference_round_trip(tmp_path, data):
    data[0] = np.nan
    depth = np.full(data.shape, 15, np.int16)
    wcs = TpvWcs((20.5, 20.5), (55.0, 33.0), ((-2.8e-4, 0.0), (0.0, 2.8e-4)))
    made = Coadd(data, data / 9, depth, np.full(data.shape, 1024, np.uint16), wcs, 26.275, 90.0, 50000.0, 1.4, None, {"nframes": 15})
    stage = {role: tmp_path / f"{role}.fits" for role in ("refimg", "refcov", "refunc")}
    image.write_reference(stage, made, {"FIELDID": 633})
    back, header = image.read_reference(stage)
    for name in ("data", "sigma", "depth", "mask"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    assert (back.magzp, back.gain, back.saturate, back.noise_correlation) == (26.275, 90.0, 50000.0, 1.4)
    assert header["FIELDID"] == 633 and back.metrics == {"nframes": 15} and not back.wcs.distorted


def test_stamp_is_odd_square_and_of_unit_sum(tmp_path, data):
    image.write_stamp(tmp_path / "diffimgpsf.fits", data[:25, :25])
    back, _ = image.read_image(tmp_path / "diffimgpsf.fits", 0)
    assert back.shape == (25, 25) and back.sum(dtype=float) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match="odd"):
        image.write_stamp(tmp_path / "x.fits", data[:24, :24])


def test_bad_files_are_named(tmp_path, data):
    (tmp_path / "text.fits").write_text("not FITS")
    with pytest.raises(BadInput, match=r"text.fits .*FITS"):
        image.read_image(tmp_path / "text.fits")
    image.write_image(tmp_path / "a.fits", data)
    with pytest.raises(BadInput, match="expected one in 3"):
        image.read_image(tmp_path / "a.fits", 3)
    with pytest.raises(BadInput, match="mask"):
        image.read_mask(tmp_path / "a.fits")
    with pytest.raises(BadInput, match="EFFGAIN"):
        fits.write(tmp_path / "b.fits", [fits.image_hdu(data), fits.image_hdu(data), fits.image_hdu(np.zeros((4, 4), np.uint16))])
        image.read_calibrated(tmp_path / "b.fits")


@pytest.mark.real
def test_the_real_science_image_and_mask_read(shared_data):
    stem = shared_data / "ztf-sciimg" / "ztf_20200924431759_000655_zr_c13_o_q3_"
    data, header = image.read_image(f"{stem}sciimg.fits.fz")
    assert data.shape == (3080, 3072) and header["MAGZP"] == 26.285139 and np.median(data) == pytest.approx(157, abs=2)
    mask, bits = image.read_mask(f"{stem}mskimg.fits.fz")
    assert np.count_nonzero(mask & 256) == 1794 and bits.comment("BIT08") == "SATURATED"
    assert [card for card in bits.cards if card[0].startswith("BIT") and card[0][3:].isdigit()] == maskbits.bit_cards()


def test_psfs_of_tiles_beside_the_one_at_the_centre(tmp_path):
    grid = np.random.default_rng(2).uniform(0.1, 1.0, (2, 3, 25, 25))
    image.write_difference_psf(tmp_path / "diffimgpsf.fits", grid[1, 1], grid)
    image.write_stamp(tmp_path / "one.fits", grid[0, 0])
    np.testing.assert_allclose(image.read_difference_psf(tmp_path / "diffimgpsf.fits"), grid / grid.sum(axis=(2, 3), keepdims=True), rtol=1e-6)
    centre, _ = image.read_image(tmp_path / "diffimgpsf.fits", 0)
    np.testing.assert_allclose(centre, grid[1, 1] / grid[1, 1].sum(), rtol=1e-6)
    assert image.read_difference_psf(tmp_path / "one.fits").shape == (1, 1, 25, 25)
    with pytest.raises(BadInput, match="none.fits"):
        image.read_difference_psf(tmp_path / "none.fits")


@pytest.mark.parametrize("count", [1, 60])  # few rows are read by themselves, many with the whole image
def test_stamps_are_those_of_the_whole_image(tmp_path, count):
    pixels = np.random.default_rng(3).normal(0, 10, (300, 200)).astype(np.float32)
    pixels[40:50, 60:70] = np.nan
    image.write_difference(tmp_path / "d.fits.fz", pixels, {"GAIN": 6.2}, noise=10.0)
    back, _ = image.read_image(tmp_path / "d.fits.fz", 1)
    x, y = np.random.default_rng(4).uniform(0, 199, count), np.random.default_rng(5).uniform(0, 299, count)
    found = stamps.read_stamps(tmp_path / "d.fits.fz", [*x, -0.6, np.nan, 10.0], [*y, 5.0, 5.0, 299.6], 12, hdu=1)
    assert found[count:] == [None] * 3
    np.testing.assert_array_equal(np.stack(found[:count]), cutouts.cut(back, x, y, 25))
    with pytest.raises(BadInput, match="d.fits.fz has no usable WCS"):
        stamps.read_wcs(tmp_path / "d.fits.fz", hdu=1)
