"""The alert packet as a table: every field with type, nullability and meaning, and the Avro schema made from it (difference-alerts.md).

Version 4.02 is written by default; 3.3 (no forced-photometry history, union members the other way round) on request.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ztfluigi.model.errors import ConfigError

VERSIONS = ("4.02", "3.3")
PUBLISHER = "ZTF (www.ztf.caltech.edu)"
MISSING = -999.0
"""In float fields: there is no such PS1, Gaia or solar-system neighbour. PS1 object ids say -999, names say the word `null`."""
FORCED_FAILED = -99999.0

_TYPES = {"d": "double", "f": "float", "i": "int", "l": "long", "s": "string"}


@dataclass(frozen=True)
class Field:
    """One field: Avro type, whether it may be null, its meaning with unit. `default` False: a nullable field without default."""

    name: str
    type: str
    nullable: bool
    doc: str
    default: bool = True


def _fields(text: str) -> tuple[tuple[Field, str], ...]:
    """(field, history mark) from lines `name type history meaning`; history: P as here, N nullable there, - absent there."""
    rows = []
    for line in text.strip().splitlines():
        name, kind, history, doc = line.split(maxsplit=3)
        rows.append((Field(name, _TYPES[kind[0]], kind.endswith("?"), doc), history))
    return tuple(rows)


def _neighbour(n: int) -> str:
    which = ("", "nearest", "second nearest", "third nearest")[n]
    lines = [f"s{band}mag{n} f? - {band} PSF magnitude of the {which} PS1 source within 30 arcsec, -999 if none [mag]" for band in "griz"]
    lines += [f"sgscore{n} f? - star (1) to galaxy (0) score of the {which} PS1 source within 30 arcsec, -999 if none",
              f"distpsnr{n} f? - distance to the {which} PS1 source within 30 arcsec, -999 if none [arcsec]"]
    return "\n".join(lines)


_CANDIDATE = _fields(f"""
jd d P start of the exposure, Julian date UTC [day]
fid i P filter: 1 g, 2 r, 3 i
pid l P id of the processed science image
diffmaglim f? P 5-sigma limit expected from the noise of the difference image [mag]
pdiffimfilename s? P file of the positive (science minus reference) difference image
programpi s? P principal investigator of the programme
programid i P programme: 0 engineering, 1 public, 2 partnership, 3 Caltech
candid l N id of the candidate
isdiffpos s N t or 1: found in science minus reference; f or 0: found in reference minus science
tblid l? P row in the extraction table of the difference image
nid i? P night: days since 2017-01-01 UTC
rcid i? P readout channel, 0 to 63
field i? P field of the survey grid
xpos f? P x position in the image [pixels]
ypos f? P y position in the image [pixels]
ra d N right ascension, J2000 [deg]
dec d N declination, J2000 [deg]
magpsf f N PSF-fit magnitude of the difference [mag]
sigmapsf f N 1-sigma uncertainty of magpsf [mag]
chipsf f? P reduced chi-square of the PSF fit
magap f? P magnitude in an aperture of 14 pixels diameter [mag]
sigmagap f? P 1-sigma uncertainty of magap [mag]
distnr f? P distance to the nearest source of the reference PSF catalogue [pixels]
magnr f? P magnitude of that reference source [mag]
sigmagnr f? P 1-sigma uncertainty of magnr [mag]
chinr f? P chi of that reference source
sharpnr f? P sharp of that reference source
sky f? P local background [DN]
magdiff f? P magap - magpsf [mag]
fwhm f? P full width at half maximum, Gaussian core [pixels]
classtar f? P star (1) to galaxy (0) score from the image
mindtoedge f? P distance to the nearest image edge [pixels]
magfromlim f? P diffmaglim - magap [mag]
seeratio f? P FWHM of the difference image over fwhm
aimage f? P windowed RMS along the major axis [pixels]
bimage f? P windowed RMS along the minor axis [pixels]
aimagerat f? P aimage / fwhm
bimagerat f? P bimage / fwhm
elong f? P aimage / bimage
nneg i? P negative pixels in a 5 x 5 stamp
nbad i? P pixels masked beforehand in a 5 x 5 stamp
rb f? P real-bogus score of the classic classifier, 0 to 1 (real)
ssdistnr f? P distance to the nearest known solar-system object within 30 arcsec, -999 if none [arcsec]
ssmagnr f? P predicted magnitude of that object, mostly V, -999 if none [mag]
ssnamenr s? P name of that object, the word null if none
sumrat f? P sum of pixels over sum of absolute pixels in a median-filtered 5 x 5 stamp
magapbig f? P magnitude in an aperture of 18 pixels diameter [mag]
sigmagapbig f? P 1-sigma uncertainty of magapbig [mag]
ranr d N right ascension of the nearest reference source, J2000 [deg]
decnr d N declination of the nearest reference source, J2000 [deg]
{_neighbour(1)}
ndethist i - detections within 1.5 arcsec in the same field and readout channel since the survey began, S/N 3 and up, this one included
ncovhist i - times the position was covered by any field and readout channel since the survey began
jdstarthist d? - earliest epoch of ndethist, Julian date [day]
jdendhist d? - latest epoch of ndethist, Julian date [day]
scorr d? P peak signal-to-noise in the matched-filter detection image
tooflag i? - 1 if the exposure was a target of opportunity, else 0
objectidps1 l? - PS1 id of the nearest source within 30 arcsec, -999 if none
objectidps2 l? - PS1 id of the second nearest source within 30 arcsec, -999 if none
{_neighbour(2)}
objectidps3 l? - PS1 id of the third nearest source within 30 arcsec, -999 if none
{_neighbour(3)}
nmtchps i - PS1 sources within 30 arcsec
rfid l - id of the reference image
jdstartref d - earliest epoch in the reference image, Julian date [day]
jdendref d - latest epoch in the reference image, Julian date [day]
nframesref i - epochs in the reference image
rbversion s - version of the classifier behind rb
dsnrms f? - D / std(D) at the event, D the difference image
ssnrms f? - S / std(S) at the event, S the difference convolved with its PSF
dsdiff f? - dsnrms - ssnrms
magzpsci f? P zero point of the science image [mag]
magzpsciunc f? P uncertainty of magzpsci [mag]
magzpscirms f? P RMS of the calibrators about the photometric calibration [mag]
nmatches i - PS1 calibrators used
clrcoeff f? P linear colour coefficient of the photometric calibration
clrcounc f? P uncertainty of clrcoeff
zpclrcov f? - covariance of magzpsci and clrcoeff [mag^2]
zpmed f? - median zero point without colour term [mag]
clrmed f? - median PS1 colour of the calibrators: g-r, g-r, r-i for filter 1, 2, 3 [mag]
clrrms f? - RMS of that colour [mag]
neargaia f? - distance to the nearest Gaia source within 90 arcsec, -999 if none [arcsec]
neargaiabright f? - distance to the nearest Gaia source brighter than 14 within 90 arcsec, -999 if none [arcsec]
maggaia f? - G magnitude of the nearest Gaia source within 90 arcsec, -999 if none [mag]
maggaiabright f? - G magnitude of the nearest Gaia source brighter than 14 within 90 arcsec, -999 if none [mag]
exptime f? - exposure time [s]
drb f? - real-bogus score of the deep-learning classifier, 0 to 1 (real)
drbversion s - version of the classifier behind drb
""")

CANDIDATE = tuple(field for field, _ in _CANDIDATE)
"""Fields of `candidate`, in order."""

_in_history = [Field(f.name, f.type, True, f.doc, default=False) if mark == "N" else f for f, mark in _CANDIDATE if mark in "PN"]
PRV_CANDIDATE = (*_in_history, next(f for f in CANDIDATE if f.name == "rbversion"))
"""Fields of `prv_candidates`: earlier detections and, mostly null, non-detections."""

FP_HIST = tuple(field for field, _ in _fields("""
field i? - field of the survey grid
rcid i? - readout channel, 0 to 63
fid i - filter: 1 g, 2 r, 3 i
pid l - id of the processed science image
rfid l - id of the reference image
sciinpseeing f? - FWHM of the science image [pixels]
scibckgnd f? - background of the science image [DN]
scisigpix f? - robust noise of the science image [DN]
magzpsci f? - zero point of the science image [mag]
magzpsciunc f? - uncertainty of magzpsci [mag]
magzpscirms f? - RMS of the calibrators about the photometric calibration [mag]
clrcoeff f? - linear colour coefficient of the photometric calibration
clrcounc f? - uncertainty of clrcoeff
exptime f? - exposure time [s]
adpctdif1 f? - astrometric RMS along right ascension against Gaia [arcsec]
adpctdif2 f? - astrometric RMS along declination against Gaia [arcsec]
diffmaglim f? - 5-sigma limit expected from the noise of the difference image [mag]
programid i - programme: 0 engineering, 1 public, 2 partnership, 3 Caltech
jd d - start of the exposure, Julian date UTC [day]
forcediffimflux f? - forced PSF-fit flux in the difference image, -99999 if it failed [DN]
forcediffimfluxunc f? - 1-sigma uncertainty of forcediffimflux [DN]
procstatus s? - status codes of the forced photometry, 0 without warning
distnr f? - distance to the nearest source of the reference PSF catalogue [arcsec]
ranr d - right ascension of that reference source, J2000 [deg]
decnr d - declination of that reference source, J2000 [deg]
magnr f? - magnitude of that reference source [mag]
sigmagnr f? - 1-sigma uncertainty of magnr [mag]
chinr f? - chi of that reference source
sharpnr f? - sharp of that reference source
"""))
"""Fields of `fp_hists`: forced photometry at the candidate's position in the images of the last 30 days (4.x only)."""

CUTOUTS = {"cutoutScience": "science", "cutoutTemplate": "template", "cutoutDifference": "difference"}
"""Cutout fields of the packet and the words used here for them."""


def check_version(version: str) -> str:
    """The version itself, or ConfigError when packets of it cannot be written."""
    if version not in VERSIONS:
        raise ConfigError(f"alert schema {version!r} cannot be written, expected one of {', '.join(VERSIONS)}")
    return version


@lru_cache
def schema(version: str = VERSIONS[0]) -> dict:
    """The Avro schema of `ztf.alert` as a dict, all named types expanded where they first occur."""
    check_version(version)
    recent = version.startswith("4")

    def union(kind):
        return ["null", kind] if recent else [kind, "null"]

    def nullable(name: str, kind) -> dict:
        return {"name": name, "type": union(kind), "default": None}

    def one(field: Field) -> dict:
        made: dict = {"name": field.name, "type": union(field.type) if field.nullable else field.type, "doc": field.doc}
        if field.nullable and field.default:
            made["default"] = 0 if field.name == "tooflag" and not recent else None
        return made

    def record(name: str, fields: list[dict]) -> dict:
        return {"type": "record", "name": name, "doc": "ZTF alert", "version": version, "fields": fields}

    def array(name: str, fields: tuple[Field, ...]) -> dict:
        return {"type": "array", "items": record(f"ztf.alert.{name}", [one(field) for field in fields])}

    cutout = record("ztf.alert.cutout", [{"name": "fileName", "type": "string"},
                                         {"name": "stampData", "type": "bytes", "doc": "gzip-compressed FITS image"}])
    return record("ztf.alert", [
        {"name": "schemavsn", "type": "string", "doc": "version of this schema"},
        {"name": "publisher", "type": "string", "doc": "who made the packet"},
        {"name": "objectId", "type": "string", "doc": "name of the object"},
        {"name": "candid", "type": "long"},
        {"name": "candidate", "type": record("ztf.alert.candidate", [one(field) for field in CANDIDATE])},
        nullable("prv_candidates", array("prv_candidate", PRV_CANDIDATE)),
        *([nullable("fp_hists", array("fp_hist", FP_HIST))] if recent else []),
        nullable("cutoutScience", cutout),
        *(nullable(name, "ztf.alert.cutout") for name in CUTOUTS if name != "cutoutScience")])
