"""States of the known solar-system objects of one night: three tables in one FITS file."""

from __future__ import annotations

from pathlib import Path

from targets.codecs import fits
from targets.codecs.catalog import Cards
from ztfluigi.model.errors import BadInput
from ztfluigi.model.orbits import BODY_STATE, MOTION, STATE, STATES, NightStates

_TABLES = (("STATES", STATES, STATE), ("CLOSE", STATES, STATE), ("EARTH", MOTION, BODY_STATE))


def write_night_states(path: Path, night: NightStates, cards: Cards = ()) -> None:
    """HDU 1 STATES, HDU 2 CLOSE, HDU 3 EARTH; `cards` in HDU 0."""
    tables = (night.states, night.close, night.earth)
    fits.write(path, [fits.empty_hdu(cards), *(fits.table_hdu(table, columns=columns, extname=name)
                                               for table, (name, columns, _) in zip(tables, _TABLES, strict=True))])


def read_night_states(path: Path) -> NightStates:
    """What `write_night_states` wrote; BadInput when the file is something else."""
    tables = fits.read_data(path, 1, 2, 3)
    for table, (name, _, dtype) in zip(tables, _TABLES, strict=True):
        if table.dtype.names != dtype.names:
            raise BadInput(f"{path.name}: table {name} has columns {', '.join(table.dtype.names or ())}, expected {', '.join(dtype.names)}")
    return NightStates(*tables)
