"""MPCORB.DAT, the Minor Planet Center's orbit file: fixed columns, one line an orbit, read a million lines at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ztfluigi.model.errors import BadInput
from ztfluigi.model.orbits import BASE62, ELEMENT

WIDTH = 103
"""Columns that say the orbit; what follows (arc, residuals, readable name) is not needed."""
SLOPE = 0.15
"""G where the file has none."""

_FIELDS = {"h": (8, 13), "slope": (14, 19), "mean_anomaly": (26, 35), "peri": (37, 46), "node": (48, 57), "inclination": (59, 68),
           "e": (70, 79), "a": (92, 103)}
"""First column (from 0) and the one after the last."""
_RANGES = {"h": (-5.0, 40.0), "slope": (-1.0, 1.5), "mean_anomaly": (0.0, 360.0), "peri": (0.0, 360.0), "node": (0.0, 360.0),
           "inclination": (0.0, 180.0), "e": (0.0, 0.99999999), "a": (0.05, 1e5)}
_TITLES = {"h": "H", "slope": "G", "mean_anomaly": "mean anomaly", "peri": "argument of perihelion", "node": "node", "e": "eccentricity",
           "a": "semi-major axis"}
_OPTIONAL = ("h", "slope")
_DIGIT_OF = np.full(256, -1, np.int16)
_DIGIT_OF[np.frombuffer(BASE62.encode(), np.uint8)] = np.arange(62)


@dataclass(frozen=True)
class BadLine:
    """A line that is no orbit: its number in the file, from 1, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


def read_mpcorb(path: Path) -> tuple[np.ndarray, list[BadLine]]:
    """(rows of `orbits.ELEMENT`, lines left out).

    Everything up to a line of dashes is header (a file without one begins at once); blank lines are separators. H may be blank (NaN), G too
    (0.15). BadInput when the file cannot be read or has no orbit at all.
    """
    name = Path(path).name
    try:
        text = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}") from error
    starts, lengths = _lines(text)
    first = _header_lines(text, starts, lengths)
    orbits, bad = [], []
    for begin in range(first, len(starts), 100_000):  # in pieces, so that memory stays small
        part = slice(begin, begin + 100_000)
        rows, wrong = _parse(_cut(text, starts[part], np.minimum(lengths[part], WIDTH)), lengths[part], begin + 1)
        orbits.append(rows)
        bad += wrong
    found = np.concatenate(orbits) if orbits else np.zeros(0, ELEMENT)
    if not len(found):
        raise BadInput(f"{name} has no orbit in the Minor Planet Center's columns ({str(bad[0]) if bad else 'no line after the header'})")
    return found, bad


def _lines(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start, length) of every line, without line ends and trailing carriage returns."""
    ends = np.flatnonzero(text == ord("\n"))
    if len(text) and (not len(ends) or ends[-1] != len(text) - 1):
        ends = np.append(ends, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(0, int)
    lengths = ends - starts
    full = lengths > 0
    lengths[full] -= text[starts[full] + lengths[full] - 1] == ord("\r")
    return starts, lengths


def _header_lines(text: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> int:
    for n in range(min(len(starts), 200)):
        if text[starts[n]:starts[n] + lengths[n]].tobytes().startswith(b"-----"):
            return n + 1
    return 0


def _cut(text: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(n, WIDTH) characters of the lines, blank beyond their ends."""
    columns = np.arange(WIDTH)
    index = starts[:, None] + columns
    inside = columns < lengths[:, None]
    return np.where(inside, text[np.minimum(index, len(text) - 1)], np.uint8(ord(" ")))


def _parse(chars: np.ndarray, lengths: np.ndarray, number: int) -> tuple[np.ndarray, list[BadLine]]:
    """(orbits, bad lines) of characters (n, WIDTH) whose first line has this number."""
    rows, reasons = np.zeros(len(chars), ELEMENT), np.full(len(chars), "", object)
    blank = (chars == ord(" ")).all(axis=1)

    def complain(where: np.ndarray, say) -> None:
        for n in np.flatnonzero(where & ~blank & (reasons == "")):
            reasons[n] = say(n)

    complain(lengths < WIDTH, lambda n: f"has {lengths[n]} characters, expected at least {WIDTH}")
    rows["designation"] = _strings(chars[:, :7])
    complain(rows["designation"] == b"", lambda n: "has no designation in columns 1-7")
    rows["epoch"], good = _epochs(chars[:, 20:25])
    complain(~good, lambda n: f"epoch {_shown(chars[n, 20:25])} is not a packed date")
    for field, (begin, end) in _FIELDS.items():
        value, good, empty = _numbers(chars[:, begin:end])
        low, high = _RANGES[field]
        title, columns = _TITLES.get(field, field), f"columns {begin + 1}-{end}"
        if field in _OPTIONAL:
            good |= empty
            value[empty] = np.nan if field == "h" else SLOPE
        complain(~good, lambda n: f"{title} {_shown(chars[n, begin:end])} in {columns} is not a number")
        complain((value < low) | (value > high), lambda n: f"{title} {value[n]:g} in {columns} is outside {low:g}..{high:g}")
        rows[field] = value
    wrong = np.flatnonzero(reasons != "")
    return rows[~blank & (reasons == "")], [BadLine(number + int(n), reasons[n]) for n in wrong]


def _strings(chars: np.ndarray) -> np.ndarray:
    return np.char.strip(np.ascontiguousarray(chars).view(f"S{chars.shape[1]}")[:, 0])


def _shown(chars: np.ndarray) -> str:
    return repr(chars.tobytes().decode("ascii", "backslashreplace"))


def _numbers(chars: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(value, whether it is a plain decimal number, whether it is blank) of right- or left-adjusted fields (n, width)."""
    n = len(chars)
    value, decimals = np.zeros(n, np.int64), np.zeros(n, np.int64)
    negative, begun, over, point = (np.zeros(n, bool) for _ in range(4))
    good, digits = np.ones(n, bool), np.zeros(n, np.int64)
    for column in chars.T:
        blank, digit = column == ord(" "), (column >= ord("0")) & (column <= ord("9"))
        sign, dot = (column == ord("-")) | (column == ord("+")), column == ord(".")
        good &= (blank | digit | sign | dot) & ~(over & ~blank) & ~(sign & begun) & ~(dot & point)
        over |= blank & begun
        value = np.where(digit, 10 * value + (column.astype(np.int64) - ord("0")), value)
        decimals += digit & point
        digits += digit
        negative |= column == ord("-")
        point |= dot
        begun |= ~blank
    number = np.where(negative, -1.0, 1.0) * value / 10.0**decimals
    return number, good & (digits > 0), ~begun


def _epochs(chars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(JD, validity) of packed dates such as K18B6 (n, 5): century letter, year, month, day, the latter two in base 62."""
    century, tens, ones, month, day = (_DIGIT_OF[column].astype(np.int64) for column in chars.T)
    good = (century >= 10) & (century <= 30) & (tens >= 0) & (tens <= 9) & (ones >= 0) & (ones <= 9)
    good &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    months = 12 * (100 * century + 10 * tens + ones) + month - 1
    start = np.where(good, months - 12 * 1970, 0).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    good &= start + day - 1 < np.where(good, months + 1 - 12 * 1970, 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return start + day - 1 + 2440587.5, good
