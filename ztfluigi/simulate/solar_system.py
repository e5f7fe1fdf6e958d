"""Asteroids: two-body orbits that cross the field, where and how bright they are, and the orbit file that lists the known ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.coordinates import EarthLocation, get_body_barycentric
from astropy.time import Time
from astropy.utils import iers

from ztfluigi.model.camera import Camera

GM_SUN = 0.01720209895**2
"""[AU^3/day^2]"""
LIGHT_AU_PER_DAY = 173.1446326846693
OBLIQUITY_RAD = np.radians(84381.448 / 3600.0)
V_MINUS_R = 0.20
V_MINUS_G = -0.25
"""PS1 colours of a moderately red asteroid."""

ORBIT = np.dtype([("id", "i8"), ("packed", "S7"), ("readable", "S28"), ("known", "?"), ("h", "f8"), ("slope", "f8"), ("epoch_jd", "f8"),
                  ("mean_anomaly", "f8"),
                  ("peri", "f8"), ("node", "f8"), ("inclination", "f8"), ("e", "f8"), ("a", "f8")])
"""Osculating elements: J2000 ecliptic, degrees, AU; epoch JD (TT). Ids are negative, so that they cannot be those of stars."""


@dataclass(frozen=True)
class Place:
    """An asteroid as seen at one time: astrometric ICRS (ra, dec) [deg], distances to observer and Sun [AU], V magnitude."""

    ra: float
    dec: float
    distance: float
    sun_distance: float
    v_mag: float

    def mag(self, filter: str) -> float:
        """PS1 magnitude in g or r (i is taken as r - 0.1)."""
        return self.v_mag - {"zg": V_MINUS_G, "zr": V_MINUS_R, "zi": V_MINUS_R + 0.1}[filter]


def observer(camera: Camera, mjd_utc) -> tuple[np.ndarray, np.ndarray]:
    """(heliocentric ICRS position of the observatory [AU] (..., 3), JD in TDB) at times, from astropy's built-in ephemeris."""
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        time = Time(mjd_utc, format="mjd", scale="utc")
        earth, sun = (get_body_barycentric(name, time, ephemeris="builtin").xyz.to_value("au") for name in ("earth", "sun"))
        site = EarthLocation.from_geodetic(camera.longitude_deg, camera.latitude_deg, camera.altitude_m)
        return (earth - sun + site.get_gcrs_posvel(time)[0].xyz.to_value("au")).T, time.tdb.jd


def see(orbit: np.void, place: np.ndarray, jd_tdb: float) -> Place:
    """Where an orbit is seen from a heliocentric place at a time, light time taken into account."""
    delay = 0.0
    for _ in range(4):
        body = position(orbit, jd_tdb - delay)
        line = body - place
        distance = float(np.linalg.norm(line))
        delay = distance / LIGHT_AU_PER_DAY
    r = float(np.linalg.norm(body))
    ra, dec = np.degrees(np.arctan2(line[1], line[0])) % 360.0, np.degrees(np.arcsin(line[2] / distance))
    return Place(float(ra), float(dec), distance, r, float(orbit["h"] + _dimming(body, line, orbit["slope"])))


def _dimming(body, line, slope: float) -> float:
    """V - H of the H, G system (Bowell et al. 1989)."""
    r, distance = np.linalg.norm(body), np.linalg.norm(line)
    half = np.tan(0.5 * np.arccos(np.clip(body @ line / (r * distance), -1.0, 1.0)))
    phase = (1 - slope) * np.exp(-3.33 * half**0.63) + slope * np.exp(-1.87 * half**1.22)
    return 5.0 * np.log10(r * distance) - 2.5 * np.log10(phase)


def position(orbit: np.void, jd_tdb: float) -> np.ndarray:
    """Heliocentric ICRS position [AU] by Kepler's equation."""
    e, a = orbit["e"], orbit["a"]
    mean = np.radians(orbit["mean_anomaly"]) + np.sqrt(GM_SUN / a**3) * (jd_tdb - orbit["epoch_jd"])
    anomaly = mean + e * np.sin(mean)
    for _ in range(30):
        step = (anomaly - e * np.sin(anomaly) - mean) / (1.0 - e * np.cos(anomaly))
        anomaly -= step
        if abs(step) < 1e-14:
            break
    x, y = a * (np.cos(anomaly) - e), a * np.sqrt(1.0 - e * e) * np.sin(anomaly)
    peri, node, tilt = np.radians([orbit["peri"], orbit["node"], orbit["inclination"]])
    plane = _turn_z(node) @ _turn_x(tilt) @ _turn_z(peri) @ np.array([x, y, 0.0])
    return _turn_x(OBLIQUITY_RAD) @ plane


def _turn_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _turn_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def make_orbit(number: int, ra: float, dec: float, v_mag: float, known: bool, place: np.ndarray, jd: float, rng) -> np.ndarray:
    """One ORBIT row (shape (1,)): a main-belt asteroid that an observer (`place`, `jd` as `observer` gives them) sees at (ra, dec) [deg]
    with V magnitude `v_mag`.

    Elements are rounded to the digits of the orbit file, so that the file is the exact truth.
    """
    ra, dec = np.radians([ra, dec])
    towards = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    distance = rng.uniform(1.1, 1.9)
    body = _turn_x(-OBLIQUITY_RAD) @ (place + distance * towards)
    r = np.linalg.norm(body)
    pole = np.array([rng.normal(0.0, 0.1), rng.normal(0.0, 0.1), 1.0])
    along = np.cross(pole, body)
    along /= np.linalg.norm(along)
    velocity = np.sqrt(GM_SUN / r) * (rng.uniform(0.94, 1.06) * along + rng.normal(0.0, 0.05) * body / r)
    jd_then = jd - distance / LIGHT_AU_PER_DAY
    orbit = np.zeros(1, ORBIT)
    orbit[0] = _elements(body, velocity, jd_then)
    orbit["id"], orbit["known"], orbit["slope"] = -1 - number, known, 0.15
    serial = 100000 + 37 * number
    orbit["packed"], orbit["readable"] = (f"{_pack_number(serial)}", f"({serial})")
    if not known:
        orbit["packed"], orbit["readable"] = f"K18V{number % 100:02d}A", f"2018 VA{number % 100}"
    epoch = np.floor(jd) + 0.5
    motion = np.degrees(np.sqrt(GM_SUN / orbit["a"] ** 3))
    orbit["mean_anomaly"] = np.mod(orbit["mean_anomaly"] + motion * (epoch - jd_then), 360.0).round(5)
    orbit["epoch_jd"] = epoch
    orbit["h"] = np.round(v_mag - _dimming(_turn_x(OBLIQUITY_RAD) @ body, distance * towards, 0.15), 2)
    for name, digits in (("peri", 5), ("node", 5), ("inclination", 5), ("e", 7), ("a", 7)):
        orbit[name] = orbit[name].round(digits)
    return orbit


def _elements(body: np.ndarray, velocity: np.ndarray, jd: float) -> np.void:
    """Osculating elements of a heliocentric ecliptic state."""
    momentum = np.cross(body, velocity)
    r = np.linalg.norm(body)
    eccentricity = np.cross(velocity, momentum) / GM_SUN - body / r
    e = np.linalg.norm(eccentricity)
    a = 1.0 / (2.0 / r - velocity @ velocity / GM_SUN)
    node = np.arctan2(momentum[0], -momentum[1])
    tilt = np.arccos(momentum[2] / np.linalg.norm(momentum))
    unturn = _turn_x(-tilt) @ _turn_z(-node)
    flat, axis = unturn @ body, unturn @ eccentricity
    peri = np.arctan2(axis[1], axis[0])
    true = np.arctan2(flat[1], flat[0]) - peri
    eccentric = 2.0 * np.arctan(np.sqrt((1 - e) / (1 + e)) * np.tan(0.5 * true))
    row = np.zeros(1, ORBIT)[0]
    angles = np.degrees(np.mod([eccentric - e * np.sin(eccentric), peri, node, tilt], 2 * np.pi))
    row["mean_anomaly"], row["peri"], row["node"], row["inclination"] = angles
    row["e"], row["a"], row["epoch_jd"] = e, a, jd
    return row


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _pack_number(number: int) -> str:
    """Packed permanent designation: five characters, the first of base 62 from 100000."""
    return f"{_BASE62[number // 10000]}{number % 10000:04d}"


def pack_epoch(jd_tt: float) -> str:
    """Packed date of the orbit file, such as K18B6 for 2018 Nov. 6.0 TT."""
    year, month, day = map(int, Time(jd_tt, format="jd", scale="tt").strftime("%Y %m %d").split())
    return f"{_BASE62[year // 100]}{year % 100:02d}{_BASE62[month]}{_BASE62[day]}"


def mpcorb_line(orbit: np.void) -> str:
    """One line of MPCORB.DAT in the Minor Planet Center's fixed columns (202 characters)."""
    motion = np.degrees(np.sqrt(GM_SUN / orbit["a"] ** 3))
    return (f"{orbit['packed'].decode():7s} {orbit['h']:5.2f} {orbit['slope']:5.2f} {pack_epoch(orbit['epoch_jd']):5s} "
            f"{orbit['mean_anomaly']:9.5f}  {orbit['peri']:9.5f}  {orbit['node']:9.5f}  {orbit['inclination']:9.5f}  "
            f"{orbit['e']:9.7f} {motion:11.8f} {orbit['a']:11.7f}  "
            f"0 {'MPO000000':9s}  {100:4d}  {8:2d} {'2008-2018':9s} {0.50:4.2f} {'M-v':3s} {'3Ek':3s} {'MPC':10s} {'0000':4s} "
            f"{orbit['readable'].decode():28s}{'20181031':8s}")


def write_mpcorb(path: Path, orbits: Iterable[np.void]) -> None:
    """The known orbits as MPCORB.DAT: a header that ends with a line of dashes, then one line an orbit."""
    titles = ("Des'n     H     G   Epoch     M        Peri.      Node       Incl.       e            n           a        "
              "Reference #Obs #Opp    Arc    rms  Perts   Computer")
    lines = ["MINOR PLANET CENTER ORBIT DATABASE (MPCORB)", "", "Simulated orbits in the format of MPCORB.DAT.", "", titles, "-" * 160]
    path.write_text("\n".join([*lines, *(mpcorb_line(orbit) for orbit in orbits)]) + "\n")
