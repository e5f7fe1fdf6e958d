"""Tables: source catalogues and calibrators. HDU 0 carries the keywords, HDU 1 the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from targets.codecs import fits
from ztfluigi.model.columns import GAIA, PS1, PSFCAT, Column, dtype_of
from ztfluigi.model.errors import BadInput
from ztfluigi.model.header import Card, Header
from ztfluigi.model.sexcat import SEXCAT

Cards = Iterable[Card] | Mapping


def write_table(path: Path, table: np.ndarray, cards: Cards = (), *, columns: Sequence[Column] = (), extname: str = "",
                table_cards: Cards = ()) -> None:
    """A structured array as a FITS table with `cards` in HDU 0 and `table_cards` in HDU 1; units from `columns` of the same names."""
    fits.write(path, [fits.empty_hdu(cards), fits.table_hdu(table, table_cards, columns=columns, extname=extname or None)])


def read_table(path: Path, columns: Sequence[Column] | None = None, *, optional: Iterable[str] = ()) -> tuple[np.ndarray, Header]:
    """(structured array, native byte order; cards of HDU 0 then HDU 1) of the first table.

    With `columns`, exactly these come back in their own types: BadInput names one that is missing, unless it is in `optional`
    (then it is zero, or NaN when it is a float); other columns of the file are left out.
    """
    name = Path(path).name
    found = fits.scan(path)
    number = next((n for n, hdu in enumerate(found) if hdu.is_table), None)
    if number is None:
        raise BadInput(f"{name} has no table, expected one in HDU 1")
    raw, = fits.read_data(path, number)
    header = fits.joined(found[0].header, found[number].header)
    if columns is None:
        return raw, header
    table = np.zeros(len(raw), dtype_of(tuple(columns)))
    for column in columns:
        if column.name in raw.dtype.names:
            found_shape, shape = raw[column.name].shape[1:], table[column.name].shape[1:]
            if found_shape != shape:
                raise BadInput(f"{name}: column {column.name} has shape {found_shape}, expected {shape}")
            table[column.name] = raw[column.name]
        elif column.name not in optional:
            raise BadInput(f"{name} has no column {column.name}, expected {', '.join(c.name for c in columns)}")
        elif table[column.name].dtype.kind == "f":
            table[column.name] = np.nan
    return table, header


def write_psfcat(path: Path, table: np.ndarray, cards: Cards) -> None:
    """psfcat.fits and refpsfcat.fits."""
    write_table(path, _typed(table, PSFCAT), cards, columns=PSFCAT, extname="PSF_CATALOG")


def read_psfcat(path: Path) -> tuple[np.ndarray, Header]:
    """(rows of `columns.PSFCAT`, cards). Early ZTF catalogues have no flags: they read as 0."""
    return read_table(path, PSFCAT, optional=("flags",))


def write_sexcat(path: Path, table: np.ndarray, cards: Cards) -> None:
    """sexcat.fits and refsexcat.fits."""
    write_table(path, _typed(table, SEXCAT), cards, columns=SEXCAT, extname="SEX_CATALOG")


def read_sexcat(path: Path) -> tuple[np.ndarray, Header]:
    """(all columns the file has, cards)."""
    return read_table(path)


def write_gaia(path: Path, table: np.ndarray, cards: Cards = ()) -> None:
    """Astrometric calibrators of a field quadrant; `cards` (FIELDID CCDID QID CATNAME CATDR) stand in HDU 1."""
    write_table(path, _typed(table, GAIA), columns=GAIA, extname="GAIA", table_cards=cards)


def read_gaia(path: Path) -> tuple[np.ndarray, Header]:
    """(rows of `columns.GAIA`, cards); columns a query left out besides the position are NaN."""
    required = ("source_id", "ra", "dec", "ref_epoch", "phot_g_mean_mag")
    return read_table(path, GAIA, optional=[c.name for c in GAIA if c.name not in required])


def write_ps1(path: Path, table: np.ndarray, cards: Cards = ()) -> None:
    """Photometric calibrators of a field quadrant; `cards` stand in HDU 1."""
    write_table(path, _typed(table, PS1), columns=PS1, extname="PS1", table_cards=cards)


def read_ps1(path: Path) -> tuple[np.ndarray, Header]:
    """(rows of `columns.PS1`, cards); the missing values of the survey (-999) come as NaN, as do magnitudes a query left out."""
    table, header = read_table(path, PS1, optional=[c.name for c in PS1 if "Mag" in c.name or c.name == "sgscore"])
    for column in PS1:
        if table[column.name].dtype.kind == "f":
            table[column.name][table[column.name] <= -999.0] = np.nan
    return table, header


def _typed(table: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """The rows in the catalogue's own columns, order and types; ValueError names a column that is missing."""
    dtype = dtype_of(tuple(columns))
    missing = [name for name in dtype.names if name not in table.dtype.names]
    if missing:
        raise ValueError(f"the catalogue lacks columns {', '.join(missing)}")
    typed = np.zeros(len(table), dtype)
    for name in dtype.names:
        typed[name] = table[name]
    return typed
