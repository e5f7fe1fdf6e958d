"""What stands around the candidates of one quadrant: one function for each source of knowledge, joined by `gather` (paper 4.1).

A source answers for all candidates at once. In a packet -999 (the word `null` for a name) means that it was looked for and is not there;
null means that nobody could look, and then the source says why in a note, which the ledger keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from targets import paths
from targets.codecs import catalog as catalog_codec
from ztfluigi.algorithms import packets, solar_system
from ztfluigi.algorithms.sky_index import SkyIndex
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import SkyCell
from ztfluigi.services import candidates, coverage
from ztfluigi.tasks.known_orbits import KnownOrbits
from ztfluigi.tasks.settings import camera, configuration, root


@dataclass(frozen=True)
class Candidates:
    """The candidates of one difference image, as sources take them. jd: start of the exposure, UTC; exptime [s]; arrays (n,), [deg]."""

    exposure: str
    cell: SkyCell
    pid: int
    jd: float
    exptime: float
    candid: np.ndarray
    ra: np.ndarray
    dec: np.ndarray


@dataclass(frozen=True)
class Around:
    """Packet fields (n,) by name, and why some are null."""

    columns: Mapping[str, Sequence]
    note: str = ""


def counts(seen: Candidates) -> Around:
    """Past detections of the same field and readout channel, and coverages by any."""
    past = candidates.detection_counts(seen.candid, seen.ra, seen.dec, seen.jd, field=seen.cell.field, rcid=seen.cell.rcid)
    ndethist, first, last = zip(*past, strict=True)
    return Around({"ndethist": ndethist, "ncovhist": coverage.coverage_counts(seen.ra, seen.dec, seen.jd), "jdstarthist": first,
                   "jdendhist": last})


def ps1(seen: Candidates) -> Around:
    """The three nearest Pan-STARRS sources."""
    path = root() / paths.ps1(seen.cell.field, seen.cell.ccdid, seen.cell.qid)
    try:
        return Around(packets.nearest_ps1(seen.ra, seen.dec, *_ps1_table(path, _stamp(path))))
    except BadInput as error:
        return Around(packets.unknown_ps1(len(seen.ra)), f"no Pan-STARRS neighbours: {error.reason}")


def gaia(seen: Candidates) -> Around:
    """The nearest Gaia source, and the nearest bright one."""
    path = root() / paths.gaia(seen.cell.field, seen.cell.ccdid, seen.cell.qid)
    try:
        return Around(packets.nearest_gaia(seen.ra, seen.dec, _gaia_table(path, _stamp(path))))
    except BadInput as error:
        return Around({}, f"no Gaia neighbours: {error.reason}")


def known_objects(seen: Candidates) -> Around:
    """The nearest known solar-system object at the middle of the exposure."""
    config = configuration("known_orbits")
    try:
        if not config.use:
            raise BadInput("[known_orbits] use is false")
        ra, dec, radius = solar_system.cone_around(seen.ra, seen.dec)
        places = solar_system.predict(KnownOrbits.of_exposure(seen.exposure).states(), jd_utc=seen.jd + 0.5 * seen.exptime / 86400.0,
                                      site=camera().site, ra=ra, dec=dec, radius_deg=radius, faintest=config.faintest_mag)
        return Around(solar_system.nearest_known(seen.ra, seen.dec, places))
    except BadInput as error:
        return Around({}, f"no solar-system neighbours: {error.reason}")


SOURCES = (counts, ps1, gaia, known_objects)
"""Every source of context, in the order of their notes."""


def gather(seen: Candidates) -> tuple[list[dict], str]:
    """(fields by name for each candidate, notes of all sources on what could not be looked for)."""
    said = [source(seen) for source in SOURCES]
    columns = {name: values for one in said for name, values in one.columns.items()}
    return packets.rows(columns), "; ".join(one.note for one in said if one.note)


def _stamp(path: Path) -> int:
    """Time of change of a catalogue, by which a process knows that the one it has read is still the one on disk."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError as error:
        raise BadInput(f"{path.name} is missing") from error


@lru_cache(maxsize=8)
def _ps1_table(path: Path, stamp: int) -> tuple[np.ndarray, SkyIndex]:
    table = catalog_codec.read_ps1(path)[0]
    return table, SkyIndex(table["raMean"], table["decMean"])


@lru_cache(maxsize=8)
def _gaia_table(path: Path, stamp: int) -> np.ndarray:
    return catalog_codec.read_gaia(path)[0]
