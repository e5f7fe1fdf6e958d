"""Tables: ours against the real reference catalogue, and round trips."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from targets.codecs import catalog, fits
from ztfluigi.model.columns import GAIA, PS1, PSFCAT, dtype_of
from ztfluigi.model.errors import BadInput
from ztfluigi.model.sexcat import SEXCAT


def filled(columns, n=7):
    rng = np.random.default_rng(2)
    table = np.zeros(n, dtype_of(columns))
    for name in table.dtype.names:
        table[name] = rng.integers(0, 100, table[name].shape)
    return table


def test_psfcat_round_trip(tmp_path):
    table = filled(PSFCAT)
    table["mag"][2] = np.nan
    catalog.write_psfcat(tmp_path / "psfcat.fits", table, {"MAGZP": (26.2, "Magnitude zero point [mag]"), "INFOBITS": 0})
    with astropy_fits.open(tmp_path / "psfcat.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert hdus[0].header["MAGZP"] == 26.2 and hdus[1].name == "PSF_CATALOG" and hdus[1].columns["xpos"].unit == "pix"
    back, header = catalog.read_psfcat(tmp_path / "psfcat.fits")
    assert back.dtype == table.dtype and header["INFOBITS"] == 0
    assert back.tobytes() == table.tobytes()


def test_sexcat_round_trip(tmp_path):
    table = filled(SEXCAT)
    table["CLASS_STAR"], table["MAG_APER"][1, 2] = np.nan, 99.0
    catalog.write_sexcat(tmp_path / "sexcat.fits", table, {"MAGZP": (26.2, "Magnitude zero point [mag]")})
    with astropy_fits.open(tmp_path / "sexcat.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert [unit or "" for unit in hdus[1].columns.units] == [column.unit for column in SEXCAT]
        assert hdus[1].name == "SEX_CATALOG" and hdus[1].columns["FLUX_APER"].format == "6E"
    back, header = catalog.read_sexcat(tmp_path / "sexcat.fits")
    assert back.dtype == table.dtype and back.tobytes() == table.tobytes() and header["MAGZP"] == 26.2
    catalog.write_sexcat(tmp_path / "again.fits", table, {"MAGZP": (26.2, "Magnitude zero point [mag]")})
    assert (tmp_path / "again.fits").read_bytes() == (tmp_path / "sexcat.fits").read_bytes()


def test_an_empty_catalogue_is_a_catalogue(tmp_path):
    catalog.write_psfcat(tmp_path / "psfcat.fits", filled(PSFCAT, 0), {})
    assert len(catalog.read_psfcat(tmp_path / "psfcat.fits")[0]) == 0


def test_vector_and_text_columns(tmp_path):
    table = np.zeros(3, [("NUMBER", "i4"), ("MAG_APER", "f4", (6,)), ("name", "S8"), ("ok", "?"), ("sign", "U1"), ("bits", "u2"),
                         ("id", "u4")])
    table["MAG_APER"] = np.arange(18).reshape(3, 6)
    table["name"] = [b"a", b"bb", b"ccc"]
    table["ok"], table["sign"] = [True, False, True], ["t", "f", "t"]
    table["bits"], table["id"] = [0, 32768, 65535], [0, 5, 2**32 - 1]
    catalog.write_table(tmp_path / "t.fits", table, extname="T")
    with astropy_fits.open(tmp_path / "t.fits", checksum=True) as hdus:
        np.testing.assert_array_equal(hdus[1].data["MAG_APER"], table["MAG_APER"])
        assert list(hdus[1].data["ok"]) == [True, False, True] and list(hdus[1].data["name"]) == ["a", "bb", "ccc"]
        assert list(hdus[1].data["sign"]) == ["t", "f", "t"]
    back, _ = catalog.read_table(tmp_path / "t.fits")
    np.testing.assert_array_equal(back["MAG_APER"], table["MAG_APER"])
    for name in ("ok", "sign", "bits", "id"):
        assert back[name].tolist() == table[name].tolist() and back.dtype[name].kind == table.dtype[name].kind


def test_gaia_and_ps1_round_trip(tmp_path):
    gaia, ps1 = filled(GAIA), filled(PS1)
    gaia["source_id"][0] = 4611686018427387905
    ps1["gMeanPSFMag"][0], ps1["sgscore"][1] = -999.0, np.nan
    catalog.write_gaia(tmp_path / "gaia.fits", gaia, {"FIELDID": 651, "CATNAME": "GaiaSource"})
    catalog.write_ps1(tmp_path / "ps1.fits", ps1, {"FIELDID": 651})
    back, header = catalog.read_gaia(tmp_path / "gaia.fits")
    assert back.tobytes() == gaia.tobytes()
    assert fits.read_header(tmp_path / "gaia.fits", 1)["FIELDID"] == header["FIELDID"] == 651
    back, _ = catalog.read_ps1(tmp_path / "ps1.fits")
    assert np.isnan(back["gMeanPSFMag"][0]) and back["objID"].tolist() == ps1["objID"].tolist()


def test_a_gaia_query_result_may_lack_colours_but_not_positions(tmp_path):
    some = filled(GAIA)[["source_id", "ra", "dec", "ref_epoch", "phot_g_mean_mag", "pmra"]]
    plain = np.zeros(len(some), [(name, some.dtype[name]) for name in some.dtype.names])
    for name in plain.dtype.names:
        plain[name] = some[name]
    catalog.write_table(tmp_path / "g.fits", plain)
    assert np.isnan(catalog.read_gaia(tmp_path / "g.fits")[0]["phot_bp_mean_mag"]).all()
    catalog.write_table(tmp_path / "h.fits", plain[["source_id", "ra"]].astype([("source_id", "i8"), ("ra", "f8")]))
    with pytest.raises(BadInput, match="h.fits has no column dec"):
        catalog.read_gaia(tmp_path / "h.fits")


def test_a_file_without_table_is_refused(tmp_path):
    fits.write(tmp_path / "i.fits", [fits.image_hdu(np.zeros((4, 4), np.float32))])
    with pytest.raises(BadInput, match="no table"):
        catalog.read_psfcat(tmp_path / "i.fits")
    with pytest.raises(ValueError, match="lacks columns"):
        catalog.write_psfcat(tmp_path / "p.fits", np.zeros(2, [("ra", "f8")]), {})


@pytest.mark.real
def test_our_columns_are_those_of_the_real_catalogue(shared_data, tmp_path):
    real = tmp_path / "refpsfcat.fits"
    with gzip.open(shared_data / "ztf-refcat-lc" / "ztf_000633_zr_c07_q4_refpsfcat.fits.gz") as source, open(real, "wb") as target:
        shutil.copyfileobj(source, target)
    rows, header = catalog.read_psfcat(real)
    assert len(rows) == header["NSOURCES"] == 38261 and header["MAGZP"] == 26.275
    catalog.write_psfcat(tmp_path / "ours.fits", rows, header)
    with astropy_fits.open(real) as theirs, astropy_fits.open(tmp_path / "ours.fits") as ours:
        assert ours[1].columns.names == theirs[1].columns.names
        assert ours[1].columns.units == theirs[1].columns.units
        assert [f.lstrip("1") for f in ours[1].columns.formats] == [f.lstrip("1") for f in theirs[1].columns.formats]
        assert ours[1].name == theirs[1].name
        np.testing.assert_array_equal(ours[1].data, theirs[1].data)
        user = [card.keyword for card in theirs[0].header.cards[4:] if card.keyword != "COMMENT"]
        assert [card.keyword for card in ours[0].header.cards if card.keyword in user] == user
