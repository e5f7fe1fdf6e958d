"""Identity to file name and back, for every product of the paper's Table 2 that has a file name."""

from __future__ import annotations

import pytest

from targets import paths
from ztfluigi.model.ids import Quadrant, SkyCell

RAW = paths.RawName("20180501227454", 633, "zr", 7, "o")
CELL = SkyCell(633, "zr", 7, 4)


@pytest.mark.parametrize("made, expected", [
    (RAW.archived, "archive/raw/2018/0501/227454/ztf_20180501227454_000633_zr_c07_o.fits.fz"),
    (RAW.incoming, "incoming/20180501/ztf_20180501227454_000633_zr_c07_o.fits.fz"),
    (RAW.quarantined, "quarantine/20180501/ztf_20180501227454_000633_zr_c07_o.fits.fz"),
    (paths.science(RAW, 4, "sciimg.fits"), "archive/sci/2018/0501/227454/ztf_20180501227454_000633_zr_c07_o_q4_sciimg.fits"),
    (paths.science(RAW, 4, "scimrefdiffimg.fits.fz"), "archive/sci/2018/0501/227454/ztf_20180501227454_000633_zr_c07_o_q4_scimrefdiffimg.fits.fz"),
    (paths.science(RAW, 4, "alerts.tar.gz"), "archive/sci/2018/0501/227454/ztf_20180501227454_000633_zr_c07_o_q4_alerts.tar.gz"),
    (paths.operations(RAW, 4, ""), "ops/sci/2018/0501/227454/ztf_20180501227454_000633_zr_c07_o_q4.fits"),
    (paths.calibration("2018-05-01", "bias", "bi", 7, 4, ".fits"), "archive/cal/2018/0501/bias/bi/ccd07/q4/ztf_20180501_bi_c07_q4_bias.fits"),
    (paths.calibration("2018-05-01", "hifreqflat", "zr", 7, 4, "unc.fits"),
     "archive/cal/2018/0501/hifreqflat/zr/ccd07/q4/ztf_20180501_zr_c07_q4_hifreqflatunc.fits"),
    (paths.reference(CELL, "refimg.fits"), "archive/ref/000/field000633/zr/ccd07/q4/ztf_000633_zr_c07_q4_refimg.fits"),
    (paths.matchfile(SkyCell(245, "zr", 10, 1)), "archive/srcmatch/rc36/fr000201-000250/ztf_000245_zr_c10_q1_match.pytable"),
    (paths.gaia(651, 3, 1), "ops/static/rc08/astrom/gaia_000651_c03_q1.fits"),
    (paths.ps1(651, 3, 1), "ops/static/rc08/photom/ps1_000651_c03_q1.fits"),
])
def test_names_are_ztf_s(made, expected):
    assert str(made) == expected


def test_raw_and_science_names_are_read_back():
    assert paths.RawName.parse(RAW.filename) == RAW
    name = paths.ScienceName.parse(paths.science(RAW, 4, "mskimg.fits").name)
    assert (name.raw, name.quadrant, name.suffix) == (RAW, Quadrant("20180501227454", 7, 4), "mskimg.fits")
    assert paths.RawName.parse("notes.txt") is None and paths.ScienceName.parse(RAW.filename) is None


@pytest.mark.parametrize("name, kind", [(RAW.archived.name, "raw"), (paths.science(RAW, 1, "sciimg.fits").name, "sci"),
                                        (paths.calibration("2018-05-01", "bias", "bi", 7, 4, ".fits").name, "cal"),
                                        (paths.calibration("2018-05-01", "hifreqflat", "zr", 7, 4, "cmask.fits").name, "cal")])
def test_clients_tell_the_kind_from_the_shape_of_the_name(name, kind):
    parts = name.split("_")
    guessed = ("cal" if "_hifreq" in name or "_bias" in name else "raw") if len(parts) == 6 else "sci"
    assert guessed == kind
