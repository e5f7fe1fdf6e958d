"""Matchfiles: HDF5 tables of one field, filter and quadrant (`.pytable`), as PyTables lays them out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ztfluigi.model.columns import dtype_of
from ztfluigi.model.errors import BadInput
from ztfluigi.model.matchfile_columns import GROUP, TABLES

_OWN = re.compile(r"CLASS|VERSION|TITLE|NROWS|FILTERS|FLAVOR|AUTO_INDEX|PYTABLES_.*|FIELD_\d+_(NAME|FILL)|INDEXPROPS")
"""Attributes by which PyTables describes its own storage."""


@dataclass(frozen=True)
class Matchfile:
    """Content of a matchfile.

    tables : structured arrays by name (`matchfile_columns.TABLES`). attributes : of the group. table_attributes : of each table that has
    any; those of `sourcedata` are the coefficients A, B, C, D of the error model.
    """

    tables: dict[str, np.ndarray]
    attributes: dict[str, object]
    table_attributes: dict[str, dict[str, object]]


def read_matchfile(path: Path) -> Matchfile:
    """Read all tables; BadInput when the file is no matchfile, or a table or column of the format is missing or of another type."""
    name = Path(path).name
    try:
        with h5py.File(path, "r") as file:
            if GROUP not in file:
                raise BadInput(f"{name} has no group /{GROUP}, expected a matchfile")
            group = file[GROUP]
            missing = [table for table in TABLES if table not in group]
            if missing:
                raise BadInput(f"{name} has no table {missing[0]}, expected {', '.join(TABLES)}")
            tables = {table: group[table][:] for table in TABLES}
            attributes, of_tables = _attributes(group), {table: _attributes(group[table]) for table in TABLES}
    except OSError as error:
        raise BadInput(f"{name} is not an HDF5 file that can be read: {error}") from error
    for table, columns in TABLES.items():
        expected, found = dtype_of(columns), tables[table].dtype
        for column in expected.names:
            if column not in found.names or found[column] != expected[column]:
                kind = found[column] if column in found.names else "missing"
                raise BadInput(f"{name}: column {column} of {table} is {kind}, expected {expected[column]}")
    return Matchfile(tables, attributes, {table: found for table, found in of_tables.items() if found})


def _attributes(node) -> dict[str, object]:
    return {key: _plain(value) for key, value in node.attrs.items() if not _OWN.fullmatch(key)}


def _plain(value):
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
