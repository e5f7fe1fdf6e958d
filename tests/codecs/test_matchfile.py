"""Matchfiles: our table of columns against the real file, and refusals."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from targets.codecs import matchfile
from ztfluigi.model import matchfile_columns
from ztfluigi.model.columns import dtype_of
from ztfluigi.model.errors import BadInput


def make(path, leave_out=None, change=None):
    with h5py.File(path, "w") as file:
        group = file.create_group("matches")
        group.attrs["fieldID"] = np.int64(245)
        group.attrs["TITLE"] = "Matched Sources"
        for name, columns in matchfile_columns.TABLES.items():
            if name != leave_out:
                dtype = dtype_of(columns)
                if change == name:
                    dtype = np.dtype([(n, "f8" if n == "mag" else dtype[n]) for n in dtype.names])
                group.create_dataset(name, data=np.zeros(2, dtype))
        if "sourcedata" in group:
            group["sourcedata"].attrs["A"] = 0.02


def test_a_small_file_reads(tmp_path):
    make(tmp_path / "a.pytable")
    read = matchfile.read_matchfile(tmp_path / "a.pytable")
    assert read.attributes == {"fieldID": 245} and read.table_attributes == {"sourcedata": {"A": 0.02}}
    assert {name: len(table) for name, table in read.tables.items()} == dict.fromkeys(matchfile_columns.TABLES, 2)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "t.pytable").write_text("no HDF5")
    with h5py.File(tmp_path / "e.pytable", "w"):
        pass
    make(tmp_path / "n.pytable", leave_out="transients")
    make(tmp_path / "m.pytable", change="sourcedata")
    for name, words in (("t", "not an HDF5 file"), ("e", "no group /matches"), ("n", "no table transients"),
                        ("m", "column mag of sourcedata is float64, expected float32")):
        with pytest.raises(BadInput, match=words):
            matchfile.read_matchfile(tmp_path / f"{name}.pytable")


def test_columns_are_in_alphabetical_order():
    for columns in matchfile_columns.TABLES.values():
        names = [column.name for column in columns]
        assert names == sorted(names)


@pytest.mark.real
def test_the_real_matchfile_has_our_columns(shared_data):
    read = matchfile.read_matchfile(shared_data / "ztf-matchfiles" / "ztf_000245_zr_c10_q1_match.pytable")
    for name, columns in matchfile_columns.TABLES.items():
        assert read.tables[name].dtype == dtype_of(columns), name
    assert tuple(sorted(read.attributes)) == matchfile_columns.GROUP_ATTRIBUTES
    assert read.attributes["referenceImageID"] == 2450236 and read.attributes["datetimeCalibrated"] == ""
    assert {name: tuple(sorted(found)) for name, found in read.table_attributes.items()} == matchfile_columns.TABLE_ATTRIBUTES
    data, model = read.tables["sourcedata"], read.table_attributes["sourcedata"]
    assert [len(read.tables[name]) for name in ("exposures", "sources", "sourcedata")] == [5, 10, 336]
    mag = data["mag"].astype(float)
    expected = model["A"] + model["B"] * mag + model["C"] * 10 ** (0.4 * mag) + model["D"] * 10 ** (0.8 * mag)
    assert np.mean(np.abs(data["magerr"] - expected) < 2e-3) > 0.9
