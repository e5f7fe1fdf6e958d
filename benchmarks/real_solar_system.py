"""Known asteroids on real ZTF detections: predicted minus observed.

Orbits are JPL's of August 2022, detections of March 2021: the integration runs back over 17 months. ZTF's own error is about 0.1 arcsec.
"""

from __future__ import annotations

import datetime
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from benchmarks.meter import figure
from ztfluigi.algorithms import solar_system
from ztfluigi.model.camera import load_camera
from ztfluigi.model.ids import JD_NIGHT_ZERO
from ztfluigi.model.orbits import BASE62, ELEMENT, NightStates, object_name
from ztfluigi.tasks.known_orbits import carry

HALF_EXPOSURE_D = 15.0 / 86400.0
V_MINUS = {1: -0.25, 2: 0.20}
"""V minus g and r of a common asteroid."""


def measure(data: Path) -> None:
    """Separation, its parts along and across the motion, V magnitudes, and how often our nearest known object is the one ZTF named."""
    elements, rows = orbits(data / "ztf-sso/jpl_sbdb_asteroids_7099.json.gz"), detections(data / "ztf-sso/ztf_sso_alerts_202103.parquet")
    rows = rows[np.isin(rows["name"], elements["designation"])]
    elements = elements[np.isin(elements["designation"], rows["name"])]
    found = np.concatenate([compare(rows[rows["nid"] == nid], elements) for nid in np.unique(rows["nid"])])
    n, separation = len(found), np.hypot(found["along"], found["across"])
    for name, value in (("median", np.median(separation)), ("p95", np.percentile(separation, 95)), ("worst", separation.max()),
                        ("along", np.median(found["along"])), ("across", np.median(found["across"]))):
        figure(f"real.movers_{name}_arcsec", value, "arcsec", n, None)
    figure("real.movers_beyond", (separation > 0.5).mean(), "fraction beyond 0.5 arcsec", n, None)
    figure("real.movers_named", found["named"].mean(), "fraction", n, None)
    figure("real.movers_mag", np.median(found["mag"]), "mag", n, None)
    figure("real.movers_mag_width", 0.5 * np.diff(np.percentile(found["mag"], [16, 84]))[0], "mag", n, None)


def orbits(path: Path) -> np.ndarray:
    """Numbered asteroids with closed orbits, rows of ELEMENT."""
    table = json.load(gzip.open(path))
    rows = [dict(zip(table["fields"], row, strict=True)) for row in table["data"]]
    rows = [row | {"number": int(match[1])} for row in rows if (match := re.match(r"\s*(\d+) ", row["full_name"])) and float(row["e"]) < 1]
    elements = np.zeros(len(rows), ELEMENT)
    elements["designation"] = [f"{BASE62[row['number'] // 10000]}{row['number'] % 10000:04d}" for row in rows]
    for column, field in (("h", "H"), ("slope", "G"), ("mean_anomaly", "ma"), ("peri", "w"), ("node", "om"), ("inclination", "i"), ("e", "e"),
                          ("a", "a"), ("epoch", "epoch_mjd")):
        elements[column] = [float(row[field] or "nan") for row in rows]
    elements["epoch"] += 2400000.5
    elements["slope"][np.isnan(elements["slope"])] = 0.15
    return elements


def detections(path: Path) -> np.ndarray:
    """Detections of numbered objects: packed name, night, start of the exposure (JD), place, filter and magnitude."""
    table = parquet.read_table(path)
    values = {name: np.asarray(table[name]) for name in ("jd", "fid", "ra", "dec", "magpsf")}
    numbers = np.array([int(name) if name.isdigit() else -1 for name in table["ssnamenr"].to_pylist()])
    keep = (numbers > 0) & (numbers < 620_000)
    rows = np.zeros(keep.sum(), [("name", "S7"), ("nid", "i8"), ("jd", "f8"), ("fid", "i8"), ("ra", "f8"), ("dec", "f8"), ("magpsf", "f8")])
    rows["name"] = [f"{BASE62[number // 10000]}{number % 10000:04d}" for number in numbers[keep]]
    for name, column in values.items():
        rows[name] = column[keep]
    rows["nid"] = np.floor(rows["jd"] - JD_NIGHT_ZERO)
    return rows


def compare(rows: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """Of one night: observed minus predicted along and across the motion [arcsec], magnitude minus its prediction, whether we name the same."""
    camera = load_camera("ztf")
    night = carry(elements, str(datetime.date(2017, 1, 1) + datetime.timedelta(days=int(rows["nid"][0]))), camera.longitude_deg)
    out = np.zeros(len(rows), [("along", "f8"), ("across", "f8"), ("mag", "f8"), ("named", "?")])
    for jd in np.unique(rows["jd"]):
        these = np.flatnonzero(rows["jd"] == jd)
        seen = rows[these]
        now, later = (_places(night, jd + HALF_EXPOSURE_D + wait, camera.site) for wait in (0.0, 1.0 / 1440.0))
        index = {name: n for n, name in enumerate(now["designation"].tolist())}
        at = np.array([index[name] for name in seen["name"].tolist()])
        scale = np.cos(np.radians(seen["dec"]))
        east, north = _step(now[at], seen["ra"], seen["dec"], scale)
        motion = np.stack(_step(now[at], later["ra"][at], later["dec"][at], scale))
        motion /= np.hypot(*motion)
        out["along"][these], out["across"][these] = east * motion[0] + north * motion[1], north * motion[0] - east * motion[1]
        out["mag"][these] = seen["magpsf"] + np.array([V_MINUS[fid] for fid in seen["fid"]]) - now["v_mag"][at]
        named = solar_system.nearest_known(seen["ra"], seen["dec"], now)["ssnamenr"]
        out["named"][these] = [ours == object_name(theirs) for ours, theirs in zip(named, seen["name"], strict=True)]
    return out


def _places(night: NightStates, jd_utc: float, site: tuple[float, float, float]) -> np.ndarray:
    return solar_system.predict(night, jd_utc=jd_utc, site=site, ra=0.0, dec=0.0, radius_deg=180.0)


def _step(places: np.ndarray, ra, dec, scale) -> tuple[np.ndarray, np.ndarray]:
    return 3600.0 * ((ra - places["ra"] + 180.0) % 360.0 - 180.0) * scale, 3600.0 * (dec - places["dec"])
