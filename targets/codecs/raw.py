"""Raw CCD files (fact sheet raw.md): one fpack file per CCD and exposure, a primary header, four quadrants and four overscans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from targets.codecs import fits
from targets.paths import RawName
from ztfluigi.model.camera import Camera
from ztfluigi.model.errors import BadInput, ConfigError
from ztfluigi.model.header import Card, Header
from ztfluigi.model.ids import FILTERS, IMAGE_TYPES

QUADRANTS = (1, 2, 3, 4)
SHUTTER_TOLERANCE_S = 2.0
"""OBSJD may differ from SHUTOPEN by this much; the shutter time from EXPTIME too."""
NAME_LEAD_S = (-10.0, 600.0)
"""The time in the file name is that of the request: so much may pass until the exposure starts."""
MISSING_SENSOR = -9999.0

ALWAYS = ("FILENAME", "IMGTYPE", "EXPTIME", "FIELDID", "PROGRMID", "FILTERID", "FILTER", "OBSJD", "OBSMJD", "SHUTOPEN", "SHUTCLSD",
          "NFRAMES")
"""Primary keywords every raw file must carry with a value."""
OF_OBJECTS = ("PROGRMPI", "OBJRAD", "OBJDECD", "TELRAD", "TELDECD", "AZIMUTH", "ELVATION", "AIRMASS", "MOONILLF", "MOONESB", "MOONALT",
              "MOONRA", "MOONDEC", "HUMIDITY")
"""Primary keywords of an exposure of the sky; a bias or flat has no target."""
OF_QUADRANTS = ("CCD_ID", "AMP_ID", "GAIN", "READNOI")
NOMINAL_WCS = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD2_2")
"""What a quadrant of a sky exposure carries besides: where it should look."""
RANGES = {"EXPTIME": (0.0, 3600.0), "PROGRMID": (0, 3), "OBSJD": (2457388.5, 2488069.5), "OBJRAD": (0.0, 360.0), "OBJDECD": (-90.0, 90.0),
          "TELRAD": (0.0, 360.0), "TELDECD": (-90.0, 90.0), "AZIMUTH": (-360.0, 360.0), "ELVATION": (0.0, 90.0), "AIRMASS": (0.99, 40.0),
          "MOONILLF": (0.0, 1.0), "MOONALT": (-90.0, 90.0), "MOONRA": (0.0, 360.0), "MOONDEC": (-30.0, 30.0), "HUMIDITY": (0.0, 100.0),
          "GAIN": (0.1, 100.0), "READNOI": (0.0, 1000.0), "FIELDID": (0, 999999)}


@dataclass(frozen=True)
class RawFile:
    """A raw file that passed every check. `numbers` are scalars for the registry, `header` is the primary's."""

    name: RawName
    obsjd: float
    exptime: float
    imgtype: str
    field: int
    fid: int
    programid: int
    numbers: dict
    header: Header


def verify_raw(path: Path, camera: Camera) -> RawFile:
    """Check a raw file completely without decompressing it.

    HDUs and shapes, CHECKSUM and DATASUM of every HDU, required keywords, their ranges, name against header, start of exposure against the
    shutter. Raises BadInput with the first problem in one sentence.
    """
    path = Path(path)
    name = RawName.parse(path.name)
    if name is None:
        raise BadInput(f"{path.name} is not the name of a raw file, expected ztf_<filefracday>_<field>_<filter>_c<CC>_<type>.fits.fz")
    _require(name.ccdid in camera.ccds, path, f"is of ccd {name.ccdid:02d}, expected one of camera {camera.name}")
    hdus = fits.scan(path)
    _require(len(hdus) == 9, path, f"has {len(hdus)} HDUs, expected 9 (primary, 4 quadrants, 4 overscans)")
    problem = fits.checksum_problem(path, hdus)
    _require(problem is None, path, f"is damaged: {problem}")
    _check_layout(path, hdus, camera)
    primary = hdus[0].header
    _check_primary(path, primary, name)
    for qid in QUADRANTS:
        _check_quadrant(path, hdus[qid].header, name, qid, camera)
    _check_times(path, primary, name)
    numbers = {"obsjd": float(primary["OBSJD"]), "exptime": float(primary["EXPTIME"]), "imgtype": primary["IMGTYPE"],
               "programid": int(primary["PROGRMID"]), "filterid": int(primary["FILTERID"])}
    numbers |= {key.lower(): float(primary[key]) for key in OF_OBJECTS if isinstance(primary.get(key), (int, float))}
    return RawFile(name, numbers["obsjd"], numbers["exptime"], numbers["imgtype"], name.field, numbers["filterid"], numbers["programid"],
                   numbers, primary)


def read_quadrant(path: Path, qid: int) -> tuple[np.ndarray, np.ndarray, Header]:
    """(pixels, overscan, header) of a quadrant: uint16 or float32 (ny, nx) and (ny, columns) [DN] as the file has them.

    The header is the primary's cards followed by the quadrant's, as a science header lists them.
    """
    hdus = fits.scan(path)
    if qid not in QUADRANTS or len(hdus) != 9:
        raise BadInput(f"{Path(path).name} has {len(hdus)} HDUs and quadrant {qid} was asked, expected 9 HDUs and a quadrant 1 to 4")
    return *fits.read_data(path, qid, qid + 4), fits.joined(hdus[0].header, hdus[qid].header)


def write_raw(path: Path, primary: Iterable[Card] | Mapping, images: Sequence[np.ndarray], overscans: Sequence[np.ndarray],
              quadrants: Sequence[Iterable[Card] | Mapping]) -> None:
    """Write a raw file of four quadrants: uint16 pixels losslessly; float32 ones quantised to 1/16 DN, as the archive keeps them."""
    hdus = [fits.empty_hdu(primary)]
    for qid, (image, cards) in enumerate(zip(images, quadrants, strict=True), 1):
        hdus.append(fits.compressed_hdu(image, cards, extname=str(qid), step=1 / 16))
    for qid, overscan in enumerate(overscans, 1):
        hdus.append(fits.compressed_hdu(overscan, extname=str(qid + 4), step=1 / 16))
    fits.write(path, hdus)


def _require(condition: bool, path: Path, otherwise: str) -> None:
    if not condition:
        raise BadInput(f"{path.name} {otherwise}")


def _check_layout(path: Path, hdus: Sequence[fits.Extension], camera: Camera) -> None:
    _require(hdus[0].data_size == 0, path, "has data in its primary HDU, expected a header only")
    for qid in QUADRANTS:
        for hdu, shape in ((qid, tuple(camera.shape)), (qid + 4, (camera.shape[0], camera.overscan_columns))):
            found = hdus[hdu].image_shape
            _require(found == shape, path, f"HDU {hdu} has shape {found}, expected {shape} of camera {camera.name}")
        extname = str(hdus[qid].header.get("EXTNAME", "")).strip()
        _require(extname == str(qid), path, f"HDU {qid} has EXTNAME {extname!r}, expected {qid}")


def _check_values(path: Path, header: Header, keys: Iterable[str], where: str) -> None:
    for key in keys:
        value = header.get(key)
        _require(value is not None and value != "", path, f"has no value of required keyword {key} in {where}")
        if key in RANGES:
            _require(isinstance(value, (int, float)) and not isinstance(value, bool), path, f"has {key} = {value!r}, expected a number")
            low, high = RANGES[key]
            absent = key == "HUMIDITY" and value == MISSING_SENSOR
            _require(absent or low <= value <= high, path, f"has {key} = {value}, expected {low} to {high}")


def _check_primary(path: Path, header: Header, name: RawName) -> None:
    _check_values(path, header, ALWAYS, "the primary header")
    if name.type == "o":
        _check_values(path, header, OF_OBJECTS, "the primary header")
    expected = {"FILENAME": path.name.removesuffix(".fz"), "NFRAMES": 8}
    if name.type in ("o", "f"):
        expected["FILTERID"] = FILTERS[name.filter]
    if name.type == "o":
        expected["FIELDID"] = name.field
    if name.type in ("o", "b"):  # the long words of the other types are not confirmed
        expected["IMGTYPE"] = IMAGE_TYPES[name.type]
    for key, value in expected.items():
        found = header[key].strip() if isinstance(header[key], str) else header[key]
        _require(found == value, path, f"has {key} = {found!r}, expected {value!r} from its name and layout")


def _check_quadrant(path: Path, header: Header, name: RawName, qid: int, camera: Camera) -> None:
    try:
        camera.amplifier(name.ccdid, qid)
    except ConfigError as error:
        raise BadInput(f"{path.name}: {error.reason}") from error
    _check_values(path, header, OF_QUADRANTS + (NOMINAL_WCS if name.type == "o" else ()), f"HDU {qid}")
    for key, value in (("CCD_ID", name.ccdid), ("AMP_ID", qid - 1)):
        _require(header[key] == value, path, f"has {key} = {header[key]} in HDU {qid}, expected {value}")


def _check_times(path: Path, header: Header, name: RawName) -> None:
    obsjd = header["OBSJD"]
    _require(isinstance(header["OBSMJD"], (int, float)), path, f"has OBSMJD = {header['OBSMJD']!r}, expected a number")
    difference = (header["OBSMJD"] - (obsjd - 2400000.5)) * 86400
    _require(abs(difference) < 0.1, path, f"has OBSMJD {difference:+.2f} s from OBSJD - 2400000.5, expected them equal")
    opened, closed = (_julian_day(path, key, header[key]) for key in ("SHUTOPEN", "SHUTCLSD"))
    delay = (obsjd - opened) * 86400
    _require(abs(delay) <= SHUTTER_TOLERANCE_S, path,
             f"has an observation start (OBSJD) {delay:+.2f} s from SHUTOPEN, expected within {SHUTTER_TOLERANCE_S:g} s")
    shutter = (closed - opened) * 86400
    if name.type == "o":
        _require(abs(shutter - header["EXPTIME"]) <= SHUTTER_TOLERANCE_S, path,
                 f"had its shutter open for {shutter:.2f} s, expected EXPTIME = {header['EXPTIME']} s")
    else:
        _require(shutter >= 0, path, f"has SHUTCLSD {-shutter:.2f} s before SHUTOPEN")
    day = _julian_day(path, "its name", f"{name.exposure[:4]}-{name.exposure[4:6]}-{name.exposure[6:8]}T00:00:00")
    lead = (obsjd - day - int(name.exposure[8:]) / 1e6) * 86400
    _require(NAME_LEAD_S[0] <= lead <= NAME_LEAD_S[1], path,
             f"started {lead:+.0f} s after the time in its name, expected {NAME_LEAD_S[0]:g} to {NAME_LEAD_S[1]:g} s")


def _julian_day(path: Path, key: str, text: str) -> float:
    try:
        moment = datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    except ValueError as error:
        raise BadInput(f"{path.name} has {key} = {text!r}, expected an ISO date and time") from error
    return moment.timestamp() / 86400 + 2440587.5
