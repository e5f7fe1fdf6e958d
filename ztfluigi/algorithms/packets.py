"""Alert packets as records: fields in schema order, plain types, sentinels; and the nearest PS1 and Gaia sources (paper 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.spatial import cKDTree

from ztfluigi.model import alert_schema
from ztfluigi.model.alert_schema import MISSING, Field
from ztfluigi.model.errors import BadInput
from ztfluigi.model.wcs import separation_arcsec

PS1_RADIUS_ARCSEC = 30.0
GAIA_RADIUS_ARCSEC = 90.0
GAIA_BRIGHT_MAG = 14.0

_NEIGHBOUR_NUMBERS = ("ssdistnr", "ssmagnr", "neargaia", "neargaiabright", "maggaia", "maggaiabright", "ranr", "decnr",
                      *(f"s{band}mag{n}" for n in (1, 2, 3) for band in "griz"),
                      *(f"{name}{n}" for n in (1, 2, 3) for name in ("sgscore", "distpsnr")))
_SENTINELS = {**dict.fromkeys(_NEIGHBOUR_NUMBERS, MISSING), "ssnamenr": "null", **{f"objectidps{n}": int(MISSING) for n in (1, 2, 3)}}
_OF_LIMITS = frozenset(("jd", "fid", "pid", "diffmaglim", "pdiffimfilename", "programpi", "programid", "nid", "rcid", "field", "magzpsci",
                        "magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc", "rbversion"))
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

    NaN, infinity and None are missing values: in the candidate -999 (the word `null` for names) for PS1, Gaia, solar-system and reference
    neighbours, else null. As in ZTF's packets earlier detections come oldest first, forced photometry newest first; an empty history is
    null. Raises BadInput naming a field that may not be null and has no value.
    """
    alert_schema.check_version(version)
    shown = _record(alert_schema.CANDIDATE, candidate, context, _SENTINELS)
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


def nearest_ps1(ra, dec, ps1: np.ndarray, *, radius_arcsec: float = PS1_RADIUS_ARCSEC) -> dict[str, np.ndarray]:
    """The three nearest PS1 sources of every candidate.

    Parameters
    ----------
    ra, dec : (n,) [deg]. ps1 : rows of `columns.PS1`, NaN where unknown.

    Returns
    -------
    Arrays (n,) by packet field: objectidps1..3, s[griz]mag1..3 [mag], sgscore1..3, distpsnr1..3 [arcsec], nmtchps. -999 where there is
    no such source or value.
    """
    ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    index, distance, count = _nearest(ra, dec, ps1["raMean"], ps1["decMean"], 3, radius_arcsec)
    found = {"nmtchps": count}
    for n in range(3):
        there = index[:, n] >= 0
        found[f"objectidps{n + 1}"] = np.where(there, _take(ps1["objID"], index[:, n]), int(MISSING))
        found[f"distpsnr{n + 1}"] = np.where(there, distance[:, n], MISSING)
        for field, column in (*((f"s{band}mag{n + 1}", f"{band}MeanPSFMag") for band in "griz"), (f"sgscore{n + 1}", "sgscore")):
            value = _take(ps1[column], index[:, n])
            found[field] = np.where(there & (value > MISSING), value, MISSING)
    return found


def nearest_gaia(ra, dec, gaia: np.ndarray, *, radius_arcsec: float = GAIA_RADIUS_ARCSEC) -> dict[str, np.ndarray]:
    """The nearest Gaia source of every candidate, and the nearest brighter than G = 14.

    ra, dec : (n,) [deg]. gaia : rows of `columns.GAIA`; positions as they stand. Returns arrays (n,) neargaia, neargaiabright [arcsec],
    maggaia, maggaiabright [mag], -999 where there is none.
    """
    ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    found = {}
    for suffix, table in (("", gaia), ("bright", gaia[gaia["phot_g_mean_mag"] < GAIA_BRIGHT_MAG])):
        index, distance, _ = _nearest(ra, dec, table["ra"], table["dec"], 1, radius_arcsec)
        magnitude = _take(table["phot_g_mean_mag"], index[:, 0])
        found[f"neargaia{suffix}"] = np.where(index[:, 0] >= 0, distance[:, 0], MISSING)
        found[f"maggaia{suffix}"] = np.where((index[:, 0] >= 0) & np.isfinite(magnitude), magnitude, MISSING)
    return found


def _take(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`values[index]`, anything where the index is -1 or there are no values."""
    return values[np.maximum(index, 0)] if len(values) else np.zeros(len(index), values.dtype)


def _nearest(ra, dec, ra_there, dec_there, k: int, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index (n, k), -1 beyond the radius; distance (n, k) [arcsec]; number inside (n,)) of the neighbours nearest in angle."""
    n = len(ra)
    if not n or not len(ra_there):
        return np.full((n, k), -1), np.full((n, k), np.inf), np.zeros(n, int)
    chord = 2.0 * np.sin(np.radians(radius_arcsec / 3600.0) / 2.0)
    tree, points = cKDTree(_unit(ra_there, dec_there)), _unit(ra, dec)
    _, index = tree.query(points, k=list(range(1, k + 1)), distance_upper_bound=np.nextafter(chord, 1.0))
    there = index < len(ra_there)
    safe = np.where(there, index, 0)
    distance = separation_arcsec(ra[:, None], dec[:, None], np.asarray(ra_there)[safe], np.asarray(dec_there)[safe])
    count = np.asarray(tree.query_ball_point(points, chord, return_length=True), int)
    return np.where(there, index, -1), np.where(there, distance, np.inf), count


def _unit(ra, dec) -> np.ndarray:
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _history(detections: Sequence[Mapping], limits: Sequence[Mapping], context: Mapping) -> list[dict] | None:
    versions = {"rbversion": context.get("rbversion")}
    seen = {row["pid"] for row in detections}
    made = [_record(alert_schema.PRV_CANDIDATE, row, versions, {}) for row in detections]
    made += [_record(alert_schema.PRV_CANDIDATE, {name: row[name] for name in _OF_LIMITS & row.keys()}, versions, {})
             for row in limits if row["pid"] not in seen]
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
            value = _CONVERT[field.type](value)
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


_CONVERT = {"double": _number, "float": _number, "int": _integer, "long": _integer, "string": _text}
