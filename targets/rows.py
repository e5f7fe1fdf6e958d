"""Rows of the registry: what is known of a product and of a raw file, and the filter of a selection."""

from __future__ import annotations

import dataclasses
import datetime
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ztfluigi.services import healpix


@dataclass
class ProductRow:
    """One row of the registry. Units: deg, JD, s, MiB; `files` are dicts path (relative to the root), size, sha256.

    ra, dec is the centre of an image and ra1, dec1 ... ra4, dec4 its corners, in order around. `run`, `vbest`, `attempts`,
    `hpx`, `cells`, `id` and `created` are filled by the registry.
    """

    kind: str
    key: str
    provid: str
    state: str = "sealed"
    reason: str | None = None
    infobits: int = 0
    numbers: dict = dataclasses.field(default_factory=dict)
    night: str | None = None
    exposure: str | None = None
    field: int | None = None
    filter: str | None = None
    fid: int | None = None
    ccdid: int | None = None
    qid: int | None = None
    rcid: int | None = None
    nid: int | None = None
    expid: int | None = None
    rid: int | None = None
    pid: int | None = None
    jd: float | None = None
    ra: float | None = None
    dec: float | None = None
    hpx: int | None = None
    ra1: float | None = None
    dec1: float | None = None
    ra2: float | None = None
    dec2: float | None = None
    ra3: float | None = None
    dec3: float | None = None
    ra4: float | None = None
    dec4: float | None = None
    cells: list[int] | None = None
    files: list = dataclasses.field(default_factory=list)
    version: str | None = None
    config: dict = dataclasses.field(default_factory=dict)
    attempts: int = 1
    is_bad: bool = False
    replaced_by: str | None = None
    good_after: str | None = None
    good_until: str | None = None
    started: datetime.datetime | None = None
    seconds: float | None = None
    cpu_s: float | None = None
    peak_mib: float | None = None
    host: str | None = None
    pilot: str | None = None
    code_version: str | None = None
    run: str | None = None
    vbest: int = 1
    id: int | None = None
    created: datetime.datetime | None = None


@dataclass
class RawFile:
    """What became of one raw CCD file. `night` is that of its incoming folder; `path` is relative to the root."""

    filename: str
    night: str
    state: str
    exposure: str | None = None
    ccdid: int | None = None
    imgtype: str | None = None
    reason: str | None = None
    infobits: int = 0
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    attempts: int = 1
    arrived: datetime.datetime | None = None


@dataclass
class ExposureRow:
    """What the primary header of the first of its raw files says of an exposure; `ra`, `dec` [deg]: telescope pointing."""

    exposure: str
    night: str
    imgtype: str
    nid: int | None = None
    expid: int | None = None
    jd: float | None = None
    field: int | None = None
    filter: str | None = None
    fid: int | None = None
    exptime: float | None = None
    ra: float | None = None
    dec: float | None = None
    programid: int | None = None
    programpi: str | None = None
    header: dict = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Between:
    """Filter of `select`: low <= value <= high; None leaves a side open."""

    low: object = None
    high: object = None


COLUMNS = tuple(f.name for f in dataclasses.fields(ProductRow))
JSON_COLUMNS = ("numbers", "files", "config")


def completed(row: ProductRow, run: str) -> ProductRow:
    """A copy of a row as the registry keeps it: Python's own scalars, run, host and place filled in."""
    values = {name: plain(getattr(row, name)) if name in JSON_COLUMNS else getattr(row, name) for name in COLUMNS}
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    if values["hpx"] is None and values["ra"] is not None and values["dec"] is not None:
        values["hpx"] = int(healpix.index(values["ra"], values["dec"]))
    corners = [(values[f"ra{i}"], values[f"dec{i}"]) for i in (1, 2, 3, 4)]
    if values["cells"] is None and None not in {c for corner in corners for c in corner}:
        values["cells"] = healpix.polygon_cells(*zip(*corners)).tolist()
    return ProductRow(**values | {"run": run, "vbest": 1, "host": row.host or socket.gethostname()})


def plain(value):
    """A value as JSON can hold it: numpy scalars become Python's, NaN and infinity become null, other things their string."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
