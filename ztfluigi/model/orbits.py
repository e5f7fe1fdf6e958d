"""Orbits and states of known solar-system objects: columns, and the Minor Planet Center's packed designations and dates."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ztfluigi.model.columns import Column, dtype_of

ELEMENTS = (
    Column("designation", "S7", "", "packed designation"),
    Column("h", "f4", "mag", "absolute magnitude H, NaN where unknown"),
    Column("slope", "f4", "", "slope parameter G"),
    Column("epoch", "f8", "d", "epoch of osculation, JD (TT)"),
    Column("mean_anomaly", "f8", "deg", "mean anomaly"),
    Column("peri", "f8", "deg", "argument of perihelion, J2000 ecliptic"),
    Column("node", "f8", "deg", "longitude of the ascending node, J2000 ecliptic"),
    Column("inclination", "f8", "deg", "inclination, J2000 ecliptic"),
    Column("e", "f8", "", "eccentricity, below 1"),
    Column("a", "f8", "AU", "semi-major axis"),
)
"""Heliocentric osculating elements, as MPCORB.DAT gives them."""

MOTION = (
    Column("jd", "f8", "d", "time of the state, JD (TDB)"),
    Column("x", "f8", "AU", "heliocentric position, ICRS axes"),
    Column("y", "f8", "AU", "heliocentric position, ICRS axes"),
    Column("z", "f8", "AU", "heliocentric position, ICRS axes"),
    Column("vx", "f8", "AU/d", "heliocentric velocity, ICRS axes"),
    Column("vy", "f8", "AU/d", "heliocentric velocity, ICRS axes"),
    Column("vz", "f8", "AU/d", "heliocentric velocity, ICRS axes"),
)
"""A heliocentric state."""

STATES = (*ELEMENTS[:3], *MOTION)
"""States of known objects."""

ELEMENT, STATE, BODY_STATE = dtype_of(ELEMENTS), dtype_of(STATES), dtype_of(MOTION)

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NUMBER = re.compile(r"([0-9A-Za-z])(\d{4})")
_BIG_NUMBER = re.compile(r"~([0-9A-Za-z]{4})")
_PROVISIONAL = re.compile(r"([A-Z])(\d\d)([A-Z])([0-9A-Za-z])(\d)([A-Z])")
_CROWDED = re.compile(r"_([0-9A-Za-z])([A-Z])([0-9A-Za-z]{4})")
_SURVEY = re.compile(r"(PL|T1|T2|T3)S(\d{4})")
_ORDER = "ABCDEFGHJKLMNOPQRSTUVWXYZ"
"""Letters of the order within a half-month (no I)."""


def object_name(packed: str | bytes) -> str:
    """Name of a packed designation as ZTF's packets write it: `110778`, `2018VA00` (cycle of at least two digits), `2040P-L`.

    A form that the Minor Planet Center does not document is returned as it stands.
    """
    text = packed.decode() if isinstance(packed, bytes) else packed
    text = text.strip()
    if match := _NUMBER.fullmatch(text):
        return str(BASE62.index(match[1]) * 10000 + int(match[2]))
    if match := _BIG_NUMBER.fullmatch(text):
        return str(620000 + _base62(match[1]))
    if match := _PROVISIONAL.fullmatch(text):
        century, year, half, tens, ones, order = match.groups()
        return f"{BASE62.index(century)}{year}{half}{order}{BASE62.index(tens) * 10 + int(ones):02d}"
    if match := _CROWDED.fullmatch(text):  # more than 619 cycles in a half-month
        cycle, order = divmod(15500 + _base62(match[3]), 25)
        return f"{2000 + BASE62.index(match[1])}{match[2]}{_ORDER[order]}{cycle:02d}"
    if match := _SURVEY.fullmatch(text):
        return f"{match[2]}{match[1][0]}-{match[1][1]}"
    return text


def _base62(digits: str) -> int:
    value = 0
    for digit in digits:
        value = 62 * value + BASE62.index(digit)
    return value


@dataclass(frozen=True)
class NightStates:
    """Where every known object is in one night, from an N-body integration.

    states : (n,) rows of STATE at the middle of the night, from which two-body motion serves.
    close : (k,) rows of STATE of objects near the Earth, each at all times of `earth`; they are not in `states`.
    earth : (m,) rows of BODY_STATE of the Earth's centre, at even steps through the night's UT date.
    """

    states: np.ndarray
    close: np.ndarray
    earth: np.ndarray
