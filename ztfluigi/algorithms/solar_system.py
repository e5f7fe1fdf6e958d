"""Known solar-system objects at the time of an exposure: two-body motion from the night's states, light time, topocentric parallax, V
magnitude, and the nearest one to each candidate (paper 4.1; astcheck's role).

Positions are astrometric (ICRS, light time, no aberration), as catalogue stars calibrate them. The deflection of light by the Sun (0.02 arcsec
at 45 degrees from it) is left out, and UT1 is taken as UTC (0.4 km on the ground).
"""

from __future__ import annotations

import erfa
import numpy as np

from ztfluigi.algorithms.sky_index import SkyIndex
from ztfluigi.model.alert_schema import MISSING
from ztfluigi.model.errors import BadInput
from ztfluigi.model.orbits import NightStates, object_name

GM_SUN = 2.959122082841196e-4
"""[AU^3/d^2], DE440."""
LIGHT_AU_PER_DAY = 173.14463267424034
AU_M = 149597870700.0
CLOSE_AU = 0.1
"""Objects that come nearer to the Earth than this within the night stay on the N-body integration."""
NEIGHBOUR_ARCSEC = 30.0
NODES_PER_DAY = 48
"""Times at which the Earth and close objects are sealed."""

PLACE = np.dtype([("designation", "S7"), ("ra", "f8"), ("dec", "f8"), ("v_mag", "f8"), ("distance", "f8"), ("sun_distance", "f8")])
"""An object as seen: (ra, dec) [deg], V magnitude (NaN where H is unknown), distances to observer and Sun [AU]."""

_PIECE = 65536
_SLACK_RAD = np.radians(1.0 / 60.0)


def night_times(night_jd: float, longitude_deg: float) -> tuple[float, np.ndarray]:
    """(local midnight, the nodes) of the UT date that begins at `night_jd`; all in the scale of the argument, longitude positive east."""
    return night_jd + (-longitude_deg / 360.0) % 1.0, night_jd + np.arange(NODES_PER_DAY + 1) / NODES_PER_DAY


def dynamical_time(jd_utc: float) -> float:
    """TT of a UTC Julian date, which serves as TDB (they differ by less than 2 ms)."""
    return float(np.sum(erfa.taitt(*erfa.utctai(jd_utc, 0.0))))


def site_position(longitude_deg: float, latitude_deg: float, altitude_m: float, jd_utc: float) -> np.ndarray:
    """Geocentric place of an observatory on ICRS axes [AU], (3,). Geodetic WGS84 coordinates."""
    terrestrial = erfa.gd2gc(1, np.radians(longitude_deg), np.radians(latitude_deg), altitude_m)
    return erfa.c2t06a(dynamical_time(jd_utc), 0.0, jd_utc, 0.0, 0.0, 0.0).T @ terrestrial / AU_M


def is_close(states: np.ndarray, earth: np.ndarray) -> np.ndarray:
    """Which objects may come within CLOSE_AU of the Earth in the night. states : rows of STATE at one time; earth : `NightStates.earth`."""
    here = body_at(earth, float(states["jd"][0])) if len(states) else np.zeros(6)
    position, velocity = _vectors(states)
    gap = np.sqrt(((position - here[:3]) ** 2).sum(axis=1))
    speed = np.sqrt(((velocity - here[3:]) ** 2).sum(axis=1))
    return gap - speed < CLOSE_AU


def body_at(track: np.ndarray, jd: float) -> np.ndarray:
    """Position and velocity (6,) of a body [AU, AU/d] between the nodes of its track (rows of BODY_STATE), by cubic Hermite interpolation.

    BadInput outside the track.
    """
    times = track["jd"]
    if not times[0] - 1e-6 <= jd <= times[-1] + 1e-6:
        raise BadInput(f"the time JD {jd:.5f} is outside the night of the known orbits, JD {times[0]:.5f} to {times[-1]:.5f}")
    n = min(int(np.searchsorted(times, jd, side="right")) - 1, len(times) - 2)
    n, step = max(n, 0), times[1] - times[0]
    s = (jd - times[n]) / step
    (p0, p1), (v0, v1) = (np.stack([track[name][n:n + 2] for name in names], axis=1) for names in ("xyz", ("vx", "vy", "vz")))
    chord, start, end = p1 - p0, v0 * step, v1 * step
    square, cube = 3.0 * chord - 2.0 * start - end, start + end - 2.0 * chord
    return np.concatenate([p0 + s * (start + s * (square + s * cube)), (start + s * (2.0 * square + s * 3.0 * cube)) / step])


def predict(night: NightStates, *, jd_utc: float, site: tuple[float, float, float], ra: float, dec: float, radius_deg: float,
            faintest: float = np.inf) -> np.ndarray:
    """Every known object in a cone of the sky at one time.

    Parameters
    ----------
    night : of the exposure's UT date. jd_utc : middle of the exposure. site : longitude (east) [deg], latitude [deg], altitude [m].
    ra, dec, radius_deg : the cone. faintest : V magnitude; an object of unknown H is kept.

    Returns
    -------
    Rows of PLACE. BadInput when the exposure has no time or no coordinates, or is not of this night.
    """
    if not np.isfinite([jd_utc, ra, dec, radius_deg]).all():
        raise BadInput(f"an exposure at JD {jd_utc}, ra {ra}, dec {dec}, radius {radius_deg} has no known objects: expected finite numbers")
    jd = dynamical_time(jd_utc)
    observer = body_at(night.earth, jd)[:3] + site_position(*site, jd_utc)
    alpha, delta = np.radians([ra, dec])
    centre = np.array([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)])
    radius = np.radians(radius_deg)
    rows = night.states[_near(night.states, jd, observer, centre, radius)]
    if len(night.close):
        times = np.unique(night.close["jd"])
        rows = np.concatenate([rows, night.close[night.close["jd"] == times[np.abs(times - jd).argmin()]]])
    places, direction = _see(rows, jd, observer)
    inside = direction @ centre >= np.cos(min(radius, np.pi))
    return places[inside & ~(places["v_mag"] > faintest)]


def nearest_known(ra, dec, places: np.ndarray, *, radius_arcsec: float = NEIGHBOUR_ARCSEC) -> dict[str, np.ndarray]:
    """The nearest known object of every candidate.

    ra, dec : (n,) [deg]. places : rows of PLACE. Returns arrays (n,): ssdistnr [arcsec], ssmagnr (predicted V, not the filter's magnitude),
    ssnamenr; -999 and the word `null` where there is none.
    """
    index, distance, _ = SkyIndex(places["ra"], places["dec"]).nearest(ra, dec, 1, radius_arcsec)
    index, there = index[:, 0], index[:, 0] >= 0
    magnitude = np.append(places["v_mag"], np.nan)[index]  # index -1 is the NaN
    return {"ssdistnr": np.where(there, distance[:, 0], MISSING), "ssmagnr": np.where(there & np.isfinite(magnitude), magnitude, MISSING),
            "ssnamenr": np.array([object_name(places["designation"][n]) if n >= 0 else "null" for n in index], object)}


def cone_around(ra, dec) -> tuple[float, float, float]:
    """(ra, dec, radius) [deg] of a cone about positions (n,), with NEIGHBOUR_ARCSEC to spare."""
    alpha, delta = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    points = np.stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=-1)
    centre = points.mean(axis=0)
    centre /= np.linalg.norm(centre)
    radius = np.degrees(2.0 * np.arcsin(0.5 * np.sqrt(((points - centre) ** 2).sum(axis=1).max())))
    return (float(np.degrees(np.arctan2(centre[1], centre[0])) % 360.0), float(np.degrees(np.arcsin(centre[2]))),
            float(radius) + NEIGHBOUR_ARCSEC / 3600.0)


def two_body(position: np.ndarray, velocity: np.ndarray, dt) -> np.ndarray:
    """Heliocentric positions (n, 3) [AU] after `dt` (n,) [d] of Keplerian motion, any eccentricity (universal variable).

    For steps short against the period: sqrt(GM) |dt| / r^1.5 below 1.
    """
    dt = np.broadcast_to(np.asarray(dt, float), len(position))
    r0 = np.sqrt((position**2).sum(axis=1))
    sigma = (position * velocity).sum(axis=1) / np.sqrt(GM_SUN)
    alpha = 2.0 / r0 - (velocity**2).sum(axis=1) / GM_SUN
    target = np.sqrt(GM_SUN) * dt
    chi = target / r0
    for _ in range(8):
        c2, c3 = _stumpff(alpha * chi * chi)
        square = chi * chi
        time = sigma * square * c2 + (1.0 - alpha * r0) * square * chi * c3 + r0 * chi
        radius = square * c2 + sigma * chi * (1.0 - alpha * square * c3) + r0 * (1.0 - alpha * square * c2)
        step = (target - time) / radius
        chi = chi + step
        if not (np.abs(step) > 1e-14).any():
            break
    c2, c3 = _stumpff(alpha * chi * chi)
    f, g = 1.0 - chi * chi * c2 / r0, dt - chi**3 * c3 / np.sqrt(GM_SUN)
    return f[:, None] * position + g[:, None] * velocity


def dimming(body: np.ndarray, line: np.ndarray, slope) -> np.ndarray:
    """V - H (n,) of the H, G system (Bowell et al. 1989): heliocentric places (n, 3), lines of sight (n, 3) [AU], G (n,)."""
    r, delta = np.sqrt((body**2).sum(axis=1)), np.sqrt((line**2).sum(axis=1))
    half = np.tan(0.5 * np.arccos(np.clip((body * line).sum(axis=1) / (r * delta), -1.0, 1.0)))
    phase = (1.0 - slope) * np.exp(-3.33 * half**0.63) + slope * np.exp(-1.87 * half**1.22)
    return 5.0 * np.log10(r * delta) - 2.5 * np.log10(np.maximum(phase, 1e-30))


def _vectors(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.stack([states[name] for name in names], axis=-1) for names in ("xyz", ("vx", "vy", "vz")))


def _near(states: np.ndarray, jd: float, observer: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Indices of the objects that straight motion puts into the cone, widened by what the curvature of the path can be."""
    found = []
    for begin in range(0, len(states), _PIECE):  # pieces stay in the processor's cache
        rows = states[begin:begin + _PIECE]
        dt = jd - rows["jd"]
        body = [rows[axis] for axis in "xyz"]
        speed = [rows[axis] for axis in ("vx", "vy", "vz")]
        line = [p + v * dt - o for p, v, o in zip(body, speed, observer, strict=True)]
        span = np.abs(dt) + np.sqrt(line[0] ** 2 + line[1] ** 2 + line[2] ** 2) / LIGHT_AU_PER_DAY
        delay = span - np.abs(dt)
        line = [x - v * delay for x, v in zip(line, speed, strict=True)]
        distance = np.sqrt(line[0] ** 2 + line[1] ** 2 + line[2] ** 2)
        pull = GM_SUN / (body[0] ** 2 + body[1] ** 2 + body[2] ** 2)
        reach = np.minimum(radius + _SLACK_RAD + pull * span**2 / distance, np.pi)
        along = line[0] * centre[0] + line[1] * centre[1] + line[2] * centre[2]
        found.append(begin + np.flatnonzero(along >= distance * np.cos(reach)))
    return np.concatenate(found) if found else np.zeros(0, int)


def _see(states: np.ndarray, jd: float, observer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows of PLACE, unit directions (n, 3)) with light time."""
    position, velocity = _vectors(states)
    body, delay = position, np.zeros(len(states))
    for _ in range(4):
        body = two_body(position, velocity, jd - delay - states["jd"])
        line = body - observer
        distance = np.sqrt((line**2).sum(axis=1))
        delay = distance / LIGHT_AU_PER_DAY
    direction = line / distance[:, None]
    places = np.zeros(len(states), PLACE)
    places["designation"], places["distance"], places["sun_distance"] = states["designation"], distance, np.sqrt((body**2).sum(axis=1))
    places["ra"] = np.degrees(np.arctan2(direction[:, 1], direction[:, 0])) % 360.0
    places["dec"] = np.degrees(np.arcsin(np.clip(direction[:, 2], -1.0, 1.0)))
    places["v_mag"] = states["h"] + dimming(body, line, states["slope"].astype(float))
    return places, direction


def _stumpff(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c2 and c3 by their series, for |z| up to a few."""
    c2, c3 = np.zeros_like(z), np.zeros_like(z)
    for k in range(10, 0, -1):
        c2 = (1.0 - z * c2) / ((2 * k) * (2 * k - 1))
        c3 = (1.0 - z * c3) / ((2 * k + 1) * (2 * k))
    return c2, c3
