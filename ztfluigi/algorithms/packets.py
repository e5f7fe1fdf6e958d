"""Alert packets as records: fields in schema order, plain types; and the nearest PS1 and Gaia sources (paper 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ztfluigi.algorithms.sky_index import SkyIndex
from ztfluigi.model import alert_schema
from ztfluigi.model.alert_schema import MISSING, Field
from ztfluigi.model.columns import PS1, dtype_of
from ztfluigi.model.errors import BadInput

PS1_RADIUS_ARCSEC = 30.0
GAIA_RADIUS_ARCSEC = 90.0
GAIA_BRIGHT_MAG = 14.0

_NO_REFERENCE = {"ranr": MISSING, "decnr": MISSING}
_LIMIT_FIELDS = tuple(field for field in alert_schema.PRV_CANDIDATE if field.name in (
    "jd", "fid", "pid", "diffmaglim", "pdiffimfilename", "programpi", "programid", "nid", "rcid", "field", "magzpsci", "magzpsciunc",
    "magzpscirms", "clrcoeff", "clrcounc", "rbversion"))
_BLANK = dict.fromkeys(field.name for field in alert_schema.PRV_CANDIDATE)
_NAMES = {"science": "candid{candid}_pid{pid}_targ_sci.fits.gz", "template": "candid{candid}_ref.fits.gz",
          "difference": "candid{candid}_pid{pid}_targ_{sign}.fits.gz"}


def build_packet(candidate: Mapping, history: Sequence[Mapping], limits: Sequence[Mapping], cutouts: Mapping[str, bytes | None],
                 context: Mapping, *, forced: Sequence[Mapping] = (), version: str = alert_schema.VERSIONS[0],
                 publisher: str = alert_schema.PUBLISHER) -> dict:
    """One packet as a record of the schema, ready for the codec.

    Parameters
    ----------
    candidate : values of `candidate` fields by name, and `objectId` (or `objectid`); other keys are ignored.
    history, limits : earlier detections and non-detections, mappings with `prv_candidates` fields. A non-detection keeps only what
        describes its image; one whose image also gave a detection is dropped.
    cutouts : encoded stamps by `science`, `template`, `difference`; None or absent gives null.
    context : values every candidate of the image shares; they stand where the candidate has none.
    forced : forced photometry (`fp_hists` fields); left out in 3.3.

    NaN, infinity and None are missing values and become null (ranr and decnr, which may not be null, -999: no reference source). That a
    neighbour was looked for and is not there is said by who looked. As in ZTF's packets earlier detections come oldest first,
    forced photometry newest first; an empty history is null. Raises BadInput naming a field that may not be null and has no value.
    """
    alert_schema.check_version(version)
    shown = _record(alert_schema.CANDIDATE, candidate, context, _NO_REFERENCE)
    name = candidate.get("objectId") or candidate.get("objectid") or context.get("objectId")
    if not name:
        raise BadInput(f"candidate {shown['candid']} has no objectId")
    packet = {"schemavsn": version, "publisher": publisher, "objectId": str(name), "candid": shown["candid"], "candidate": shown,
              "prv_candidates": _history(history, limits, context)}
    if version.startswith("4"):
        forced = sorted(forced, key=lambda row: row["jd"], reverse=True)
        packet["fp_hists"] = [_record(alert_schema.FP_HIST, row, {}, {"ranr": MISSING, "decnr": MISSING}) for row in forced] or None
    sign = "scimref" if shown["isdiffpos"] in ("t", "1") else "refmsci"
    for field, word in alert_schema.CUTOUTS.items():
        data = cutouts.get(word)
        file_name = _NAMES[word].format(candid=shown["candid"], pid=shown["pid"], sign=sign)
        packet[field] = None if data is None else {"fileName": file_name, "stampData": bytes(data)}
    return packet


def rows(columns: Mapping[str, Sequence] | np.ndarray) -> list[dict]:
    """A structured array, or arrays by name, as one dict of plain Python values a row."""
    names = columns.dtype.names if isinstance(columns, np.ndarray) else list(columns)
    values = [np.asarray(columns[name]).tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def nearest_ps1(ra, dec, ps1: np.ndarray, index: SkyIndex | None = None, *, radius_arcsec: float = PS1_RADIUS_ARCSEC) -> dict[str, np.ndarray]:
    """The three nearest PS1 sources of every candidate.

    Parameters
    ----------
    ra, dec : (n,) [deg]. ps1 : rows of `columns.PS1`, NaN where unknown. index : of their positions, made here when it is not given.

    Returns
    -------
    Arrays (n,) by packet field: objectidps1..3, s[griz]mag1..3 [mag], sgscore1..3, distpsnr1..3 [arcsec], nmtchps. -999 where there is
    no such source or value.
    """
    index, distance, count = (index or SkyIndex(ps1["raMean"], ps1["decMean"])).nearest(ra, dec, 3, radius_arcsec)
    found = {"nmtchps": count}
    for n in range(3):
        there = index[:, n] >= 0
        found[f"objectidps{n + 1}"] = np.where(there, _take(ps1["objID"], index[:, n]), int(MISSING))
        found[f"distpsnr{n + 1}"] = np.where(there, distance[:, n], MISSING)
        for field, column in (*((f"s{band}mag{n + 1}", f"{band}MeanPSFMag") for band in "griz"), (f"sgscore{n + 1}", "sgscore")):
            value = _take(ps1[column], index[:, n])
            found[field] = np.where(there & (value > MISSING), value, MISSING)
    return found


def unknown_ps1(n: int) -> dict[str, list]:
    """The same fields when no catalogue could be asked: null; nmtchps, which may not be null, -999."""
    names = nearest_ps1([], [], np.zeros(0, dtype_of(PS1)))
    return {name: [int(MISSING) if name == "nmtchps" else None] * n for name in names}


def nearest_gaia(ra, dec, gaia: np.ndarray, *, radius_arcsec: float = GAIA_RADIUS_ARCSEC) -> dict[str, np.ndarray]:
    """The nearest Gaia source of every candidate, and the nearest brighter than G = 14.

    ra, dec : (n,) [deg]. gaia : rows of `columns.GAIA`; positions as they stand. Returns arrays (n,) neargaia, neargaiabright [arcsec],
    maggaia, maggaiabright [mag], -999 where there is none.
    """
    found = {}
    for suffix, table in (("", gaia), ("bright", gaia[gaia["phot_g_mean_mag"] < GAIA_BRIGHT_MAG])):
        index, distance, _ = SkyIndex(table["ra"], table["dec"]).nearest(ra, dec, 1, radius_arcsec)
        magnitude = _take(table["phot_g_mean_mag"], index[:, 0])
        found[f"neargaia{suffix}"] = np.where(index[:, 0] >= 0, distance[:, 0], MISSING)
        found[f"maggaia{suffix}"] = np.where((index[:, 0] >= 0) & np.isfinite(magnitude), magnitude, MISSING)
    return found


def _take(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`values[index]`, anything where the index is -1 or there are no values."""
    return values[np.maximum(index, 0)] if len(values) else np.zeros(len(index), values.dtype)


def _history(detections: Sequence[Mapping], limits: Sequence[Mapping], context: Mapping) -> list[dict] | None:
    versions = {"rbversion": context.get("rbversion")}
    seen = {row["pid"] for row in detections}
    made = [_record(alert_schema.PRV_CANDIDATE, row, versions, {}) for row in detections]
    made += [_BLANK | _record(_LIMIT_FIELDS, row, versions, {}) for row in limits if row["pid"] not in seen]
    return sorted(made, key=lambda row: row["jd"]) or None


def _record(fields: Iterable[Field], values: Mapping, shared: Mapping, sentinels: Mapping) -> dict:
    """Values by schema field, in order, as plain Python types."""
    record = {}
    for field in fields:
        name = field.name
        value = values.get(name)
        if value is None or value != value:
            value = shared.get(name)
        if value is not None:
            kind, convert = _CONVERT[field.type]
            if type(value) is not kind or (kind is float and value - value != 0.0):  # most values are as they should be already
                value = convert(value)
        if value is None:
            value = sentinels.get(name)
            if value is None and not field.nullable:
                raise BadInput(f"alert field {name} has no value, expected {field.type} ({field.doc})")
        record[name] = value
    return record


def _number(value) -> float | None:
    value = float(value)
    return value if -np.inf < value < np.inf else None


def _integer(value) -> int | None:
    return int(value) if value == value else None


def _text(value) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "t" if value else "f"
    return value.decode() if isinstance(value, bytes) else str(value)


_CONVERT = {"double": (float, _number), "float": (float, _number), "int": (int, _integer), "long": (int, _integer), "string": (str, _text)}
