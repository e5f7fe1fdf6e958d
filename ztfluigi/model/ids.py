"""Identities: every number and name by which ZTF knows a thing (fact sheet naming.md 3 and 4).

All numeric ids follow from OBSJD, the start of the exposure; file paths follow from the `filefracday` of the request.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from fractions import Fraction

JD_NIGHT_ZERO = 2457754.5
"""JD of 2017-01-01 0h UTC, the first night id."""
PIPELINE_SCIENCE = 15
PIPELINE_REFERENCE = 12
PROCESSING_VERSION = 1
TBLID_END = 5000
"""Rows of one sign in a difference catalogue that a candid can number."""

FILTERS = {"zg": 1, "zr": 2, "zi": 3}
FILTER_CODES = {fid: code for code, fid in FILTERS.items()}
FILTER_NAMES = {"zg": "ZTF_g", "zr": "ZTF_r", "zi": "ZTF_i"}
IMAGE_TYPES = {"o": "object", "b": "bias", "d": "dark", "f": "flat"}

_EXPOSURE = re.compile(r"^\d{14}$")


def rcid(ccdid: int, qid: int) -> int:
    """Readout channel 0..63 of CCD 1..16, quadrant 1..4."""
    return 4 * (ccdid - 1) + (qid - 1)


def ccd_and_quadrant(channel: int) -> tuple[int, int]:
    """Inverse of `rcid`."""
    return channel // 4 + 1, channel % 4 + 1


def _day_units(obsjd: float, units: int) -> int:
    # A JD near 2.46e6 is good to 4.7e-10 day; 5e-9 day is added so that a value written to 7 decimals floors as printed.
    days = Fraction(obsjd) - Fraction(JD_NIGHT_ZERO) + Fraction(5, 10**9)
    return int(days * units // 1)


def night_id(obsjd: float) -> int:
    """nid: whole UT days since 2017-01-01."""
    return _day_units(obsjd, 1)


def exposure_id(obsjd: float) -> int:
    """expid: nid followed by five digits of the UT day fraction."""
    return _day_units(obsjd, 100000)


def raw_id(obsjd: float, ccdid: int, qid: int) -> int:
    """rid of a raw quadrant."""
    return exposure_id(obsjd) * 100 + rcid(ccdid, qid)


def processing_id(obsjd: float, ccdid: int, qid: int, pipeline: int = PIPELINE_SCIENCE) -> int:
    """pid of a processed quadrant image."""
    return raw_id(obsjd, ccdid, qid) * 100 + pipeline


def candidate_id(pid: int, tblid: int, positive: bool, version: int = PROCESSING_VERSION) -> int:
    """candid of row `tblid` (from 0, below TBLID_END) of a difference catalogue."""
    if not 0 <= tblid < TBLID_END:
        raise ValueError(f"tblid {tblid} outside 0..{TBLID_END - 1}")
    return pid * 10**6 + version * 10**4 + (TBLID_END if positive else 0) + tblid


def event_number(candid):
    """(tblid, positive) of candids, numbers or arrays: inverse of `candidate_id`."""
    rest = candid % (2 * TBLID_END)
    return rest % TBLID_END, rest >= TBLID_END


def reference_id(field: int, fid: int, channel: int) -> int:
    """rfid as alerts carry it."""
    return field * 10**6 + PIPELINE_REFERENCE * 10**4 + fid * 100 + channel


def calibration_id(nid: int, channel: int, fid: int, kind: str) -> int:
    """CIDBIAS, CIDHIFLT, ...: kind is `pmask`, `bias`, `hifreqflat` or `lofreqflat`; nid 0 for static products."""
    return nid * 100000 + channel * 1000 + fid * 10 + {"pmask": 1, "bias": 2, "hifreqflat": 4, "lofreqflat": 5}[kind]


def object_name(year: int, sequence: int) -> str:
    """objectId number `sequence` (from 0) of a year: ZTF, two digits, seven letters counting in base 26."""
    letters = []
    for _ in range(7):
        sequence, digit = divmod(sequence, 26)
        letters.append(chr(ord("a") + digit))
    if sequence:
        raise ValueError("more than 26^7 objects in one year")
    return f"ZTF{year % 100:02d}" + "".join(reversed(letters))


def check_exposure(exposure: str) -> str:
    """Return the 14-digit filefracday, or raise ValueError with one sentence."""
    if not _EXPOSURE.match(exposure):
        raise ValueError(f"exposure {exposure!r} is not a 14-digit filefracday YYYYMMDDffffff")
    return exposure


def night_of(exposure: str) -> str:
    """`YYYY-MM-DD` of an exposure: the UT date in its name."""
    check_exposure(exposure)
    return f"{exposure[:4]}-{exposure[4:6]}-{exposure[6:8]}"


def night_code(night: str) -> str:
    """`YYYYMMDD` of a night `YYYY-MM-DD`; ValueError when it is no date."""
    return datetime.date.fromisoformat(night).strftime("%Y%m%d")


def night_nid(night: str) -> int:
    """nid of a night `YYYY-MM-DD`."""
    return (datetime.date.fromisoformat(night) - datetime.date(2017, 1, 1)).days


def night_jd(night: str) -> float:
    """JD of the beginning of a night `YYYY-MM-DD`, which is a UT date."""
    return 2457754.5 + night_nid(night)


@dataclass(frozen=True, order=True)
class Quadrant:
    """One quadrant of one exposure."""

    exposure: str
    ccdid: int
    qid: int

    @property
    def rcid(self) -> int:
        return rcid(self.ccdid, self.qid)

    @property
    def night(self) -> str:
        return night_of(self.exposure)

    def __str__(self) -> str:
        return f"{self.exposure}/c{self.ccdid:02d}q{self.qid}"


@dataclass(frozen=True, order=True)
class SkyCell:
    """One field, filter and quadrant: the footprint of a reference."""

    field: int
    filter: str
    ccdid: int
    qid: int

    @property
    def rcid(self) -> int:
        return rcid(self.ccdid, self.qid)

    @property
    def fid(self) -> int:
        return FILTERS[self.filter]

    def __str__(self) -> str:
        return f"{self.field:06d}/{self.filter}/c{self.ccdid:02d}q{self.qid}"
