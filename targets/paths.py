"""The one home of path templates: identity to ZTF file name, relative to the data root (fact sheet naming.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ztfluigi.model.ids import Quadrant, SkyCell, check_exposure, night_code, rcid

_RAW = re.compile(r"^ztf_(?P<exposure>\d{14})_(?P<field>\d{6})_(?P<filter>zg|zr|zi|bi)_c(?P<ccdid>\d{2})_(?P<type>[a-z])\.fits\.fz$")
_SCIENCE = re.compile(r"^ztf_(?P<exposure>\d{14})_(?P<field>\d{6})_(?P<filter>zg|zr|zi)_c(?P<ccdid>\d{2})_o_q(?P<qid>[1-4])_(?P<suffix>.+)$")

PROGRAMMES = {0: "engineering", 1: "public", 2: "partnership", 3: "caltech"}
"""Words for the programmes in names of nightly tarballs."""


@dataclass(frozen=True, order=True)
class RawName:
    """What the name of a raw CCD file says."""

    exposure: str
    field: int
    filter: str
    ccdid: int
    type: str

    @property
    def filename(self) -> str:
        return f"ztf_{self.exposure}_{self.field:06d}_{self.filter}_c{self.ccdid:02d}_{self.type}.fits.fz"

    @property
    def incoming(self) -> PurePosixPath:
        return PurePosixPath("incoming", self.exposure[:8], self.filename)

    @property
    def archived(self) -> PurePosixPath:
        return PurePosixPath("archive/raw", _exposure_folder(self.exposure), self.filename)

    @property
    def quarantined(self) -> PurePosixPath:
        return PurePosixPath("quarantine", self.exposure[:8], self.filename)

    @property
    def stem(self) -> str:
        """Name up to the image type, as science products continue it."""
        return self.filename.removesuffix(".fits.fz")

    @classmethod
    def parse(cls, filename: str) -> RawName | None:
        """The parts of a raw file name, or None when it is none."""
        match = _RAW.match(filename)
        if not match:
            return None
        return cls(match["exposure"], int(match["field"]), match["filter"], int(match["ccdid"]), match["type"])


@dataclass(frozen=True)
class ScienceName:
    """What the name of a science product file says."""

    exposure: str
    field: int
    filter: str
    ccdid: int
    qid: int
    suffix: str

    @property
    def raw(self) -> RawName:
        return RawName(self.exposure, self.field, self.filter, self.ccdid, "o")

    @property
    def quadrant(self) -> Quadrant:
        return Quadrant(self.exposure, self.ccdid, self.qid)

    @classmethod
    def parse(cls, filename: str) -> ScienceName | None:
        """The parts of a science product's file name, or None when it is none."""
        match = _SCIENCE.match(filename)
        if not match:
            return None
        return cls(match["exposure"], int(match["field"]), match["filter"], int(match["ccdid"]), int(match["qid"]), match["suffix"])


def _exposure_folder(exposure: str) -> PurePosixPath:
    check_exposure(exposure)
    return PurePosixPath(exposure[:4], exposure[4:8], exposure[8:])


def science(raw: RawName, qid: int, suffix: str, variant: str = "") -> PurePosixPath:
    """`archive/sci/YYYY/MMDD/ffffff/ztf_..._o_q<Q>_<suffix>`; a variant (of a reference of one's own) has a folder of its name below."""
    return PurePosixPath("archive/sci", _exposure_folder(raw.exposure), variant, f"{raw.stem}_q{qid}_{suffix}")


def operations(raw: RawName, qid: int, suffix: str, variant: str = "") -> PurePosixPath:
    """`ops/sci/...`: intermediate, removable files of one quadrant; an empty suffix is the split quadrant itself."""
    name = f"{raw.stem}_q{qid}" + (f"_{suffix}" if suffix else ".fits")
    return PurePosixPath("ops/sci", _exposure_folder(raw.exposure), variant, name)


def quadrant_figure(raw: RawName, qid: int) -> PurePosixPath:
    """`depot/YYYYMMDD/ztf_..._o_q<Q>_qa.png`: the QA figure of one quadrant."""
    return PurePosixPath("depot", raw.exposure[:8], f"{raw.stem}_q{qid}_qa.png")


def calibration(night: str, caltype: str, filter: str, ccdid: int, qid: int, extension: str) -> PurePosixPath:
    """`archive/cal/YYYY/MMDD/<caltype>/<fc>/ccd<CC>/q<Q>/...<caltype><extension>`; caltype `bias` or `hifreqflat`, fc `bi` for bias."""
    code = night_code(night)
    return PurePosixPath("archive/cal", code[:4], code[4:], caltype, filter, f"ccd{ccdid:02d}", f"q{qid}",
                         f"ztf_{code}_{filter}_c{ccdid:02d}_q{qid}_{caltype}{extension}")


def reference(cell: SkyCell, suffix: str, variant: str = "") -> PurePosixPath:
    """`archive/ref/FFF/field<6>/<fc>/ccd<CC>/q<Q>/ztf_<6>_<fc>_c<CC>_q<Q>_<suffix>`; a variant has a folder of its name below q<Q>."""
    field = f"{cell.field:06d}"
    return PurePosixPath("archive/ref", field[:3], f"field{field}", cell.filter, f"ccd{cell.ccdid:02d}", f"q{cell.qid}",
                         variant, f"ztf_{field}_{cell.filter}_c{cell.ccdid:02d}_q{cell.qid}_{suffix}")


def matchfile(cell: SkyCell) -> PurePosixPath:
    """`archive/srcmatch/rc<RR>/fr<N>-<N>/..._match.pytable`; field ranges in blocks of 50."""
    first = (cell.field - 1) // 50 * 50 + 1
    return PurePosixPath("archive/srcmatch", f"rc{cell.rcid:02d}", f"fr{first:06d}-{first + 49:06d}",
                         f"ztf_{cell.field:06d}_{cell.filter}_c{cell.ccdid:02d}_q{cell.qid}_match.pytable")


def alert_archive(night: str, programid: int) -> PurePosixPath:
    """`depot/<YYYYMMDD>/ztf_public_<YYYYMMDD>.tar.gz`: every alert packet of a night and programme."""
    code = night_code(night)
    return PurePosixPath("depot", code, f"ztf_{PROGRAMMES.get(programid, f'programid{programid}')}_{code}.tar.gz")


def gaia(field: int, ccdid: int, qid: int) -> PurePosixPath:
    """Astrometric calibrators of one field quadrant."""
    return PurePosixPath(f"ops/static/rc{rcid(ccdid, qid):02d}/astrom/gaia_{field:06d}_c{ccdid:02d}_q{qid}.fits")


def ps1(field: int, ccdid: int, qid: int) -> PurePosixPath:
    """Photometric calibrators of one field quadrant."""
    return PurePosixPath(f"ops/static/rc{rcid(ccdid, qid):02d}/photom/ps1_{field:06d}_c{ccdid:02d}_q{qid}.fits")


def pixel_mask(ccdid: int, qid: int) -> PurePosixPath:
    """Prior bad-pixel mask of a quadrant, when the camera's owner has one."""
    return PurePosixPath(f"ops/static/rc{rcid(ccdid, qid):02d}/calimg/ztf_c{ccdid:02d}_q{qid}_pmask.fits")


def known_orbits(night: str) -> PurePosixPath:
    """States of the known solar-system objects in one night; removable, rebuilt on request."""
    code = night_code(night)
    return PurePosixPath("ops/sso", code[:4], code[4:], f"ztf_{code}_knownorbits.fits")


def low_flat(night: str, filter: str, ccdid: int, qid: int, extension: str = ".fits") -> PurePosixPath:
    """Low-frequency flat of a quadrant and filter, made of exposures up to a night."""
    return PurePosixPath(f"ops/static/rc{rcid(ccdid, qid):02d}/calimg/ztf_{night_code(night)}_{filter}_c{ccdid:02d}_q{qid}_lownuflat{extension}")


MPCORB = PurePosixPath("ops/static/sso/MPCORB.DAT")
TRUTH = PurePosixPath("truth")
