"""Which cards a header carries, in which order and with which comment: taken from real ZTF headers (fact sheets raw.md, science.md 1).

A product header is made from values by keyword; the tables here give place, comment and fixed values. A value that is None or NaN
(not measured) gives no card. Keywords in no table follow at the end, in the order given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ztfluigi.model.columns import FIXED_APERTURES_PIX
from ztfluigi.model.header import Card, Header
from ztfluigi.model.wcs import TPV_TERMS


@dataclass(frozen=True)
class CardSpec:
    """One keyword of a header table; `fixed` is its value when none is given."""

    keyword: str
    comment: str
    section: str
    fixed: object = None


def _table(section: str, text: str) -> tuple[CardSpec, ...]:
    """Specs from lines `KEYWORD comment`."""
    return tuple(CardSpec(*(line.strip().split(maxsplit=1) + [""])[:2], section) for line in text.strip().splitlines())


RAW_PRIMARY = _table("exposure", """
    ORIGIN Data origin
    OBSERVER Observer
    ROBOSOFT Robotic software version
    FITSSOFT FITS software version
    INSTRUME Instrument name
    DETECTOR Detector controller
    DETSOFT Detector software version
    DETFIRM Detector firmware version
    IMGTYPE Image type
    EXPOSURE Total Exposure Time (s)
    EXPTIME Requested Exposure Time (s)
    MODE_NUM Mode identifying key
    CCDSUM CCD binning
    PIXSCALE Pixel scale, in arcsec per pixel
    FILENAME File name
    ORIGNAME Original file name
    FRAMENUM Detector frame number
    HEADTEMP Cryo cooler cold head temp (K)
    DEWPRESS Dewar pressure (milli-torr)
    DETHEAT Detector focal plane heater power (%)
""") + tuple(CardSpec(f"CCDTMP{n:02d}", f"CCD temperature{n:02d} (K)", "exposure") for n in range(1, 17)) + _table("exposure", """
    INST_X Hexapod X (RA) axis position (mm)
    INST_Y Hexapod Y (Dec) axis position (mm)
    FOCUSPOS Hexapod Z (Focus) axis position (mm)
    THETA_X Hexapod rotation about INST_X (deg)
    THETA_Y Hexapod rotation about INST_Y (deg)
    INST_ROT Hexapod rotation about Z axis (deg)
    FIELDID ZTF field ID number
    OBJRA Queue object right ascension
    OBJDEC Queue object declination
    OBJRAD Object right ascension (deg)
    OBJDECD Object declination (deg)
    EQUINOX Equinox
    RA_RATE RA tracking rate ("/hr)
    DEC_RATE Dec tracking rate ("/hr)
    PROGRMPI Queue program PI
    REQUSTID Queue request ID
    QCOMMENT Queue comment
    TEMPTURE Outside air temperature (C)
    WINDSPD Outside wind speed
    WINDDIR Outside wind direction (deg)
    DEWPOINT Dewpoint (C)
    WETNESS Wetness sensor reading
    HUMIDITY Humidity
    PRESSURE Atmospheric pressure, millibars
    CLOUDS Cloud sensor reading
    SUNAZ Sun azimuth (deg)
    SUNALT Sun altitude (deg)
    MOONRA Moon J2000.0 R.A. (deg)
    MOONDEC Moon J2000.0 Dec. (deg)
    MOONALT Moon altitude (deg)
    MOONILLF Moon illuminated fraction (frac)
    MOONPHAS Moon phase angle (deg)
    MOONESB Moon excess in sky brightness V-band
    PROGRMID Queue program ID
    FILTERID Filter ID code
    FILTER Filter name
    FILTPOS Filter position
    OBSJD Julian day corresponds to UTC-OBS (day)
    OBSMJD MJD corresponds to UTC-OBS (day)
    HJD Heliocentric Julian Day (days)
    OBLST Local Sidereal Time
    HOURANG Hour angle
    HOURANGD Hour angle (deg)
    RA Requested right ascension
    DEC Requested declination
    RAD Requested right ascension (deg)
    DECD Requested declination (deg)
    TELRA Telescope right ascension
    TELDEC Telescope declination
    TELRAD Telescope right ascension (deg)
    TELDECD Telescope declination (deg)
    AZIMUTH Telescope azimuth (deg)
    ELVATION Telescope elevation (deg)
    TRACKRA TCS RA non-sidereal tracking rate ("/hr)
    TRACKDEC TCS Dec non-sidereal tracking rate ("/hr)
    AIRMASS Airmass (Hardie)
    DOME_AZ Dome azimuth (deg)
    WINDSCAL Windscreen elevation (deg)
    OBSERVAT Observatory
    TELESCOP Observatory telescope
    OBSLON Observatory longitude (deg)
    OBSLAT Observatory latitude (deg E)
    OBSALT Observatory altitude (m)
    DOMESTAT Dome status at beginning of exposure
    SHUTOPEN Shutter open time
    SHUTCLSD Shutter close time
    PIXSCALX Pixel scale in X
    PIXSCALY Pixel scale in Y
    NFRAMES number of frames in FITS file
""")
"""Primary header of a raw file. Lamp exposures also carry ILUM_LED, ILUMWAVE, ILUMPOWR."""

RAW_QUADRANT = _table("quadrant", """
    EXTNAME
    HDUVERS
    CCD_ID ID value of CCD detector
    CCDNAME Detector name or serial number
    AMP_ID ID value of CCD amplifier
    AMP_NAME Name of CCD amplifier
    GAIN Gain e-/adu
    READNOI Read noise e-
    DARKCUR Dark current e-/s @ 150 K
""")

WCS = _table("wcs", """
    WCSVERS WCS version number
    WCSAXES Number of WCS axes
    WCSNAME Name of the WCS coordinate system
    RADESYS Coordinate reference system
    CTYPE1 Name of coord X axis
    CTYPE2 Name of coord Y axis
    CRPIX1 Coord system X ref pixel
    CRPIX2 Coord system Y ref pixel
    CRVAL1 Coord system value at CRPIX1
    CRVAL2 Coord system value at CRPIX2
    CUNIT1 Coordinate units for X axis
    CUNIT2 Coordinate units for Y axis
    CD1_1 WCS matrix
    CD1_2 WCS matrix
    CD2_1 WCS matrix
    CD2_2 WCS matrix
    CCD_ROT CCD rotation angle
""")
"""Nominal in a raw quadrant, solved in a science image."""

DISTORTION = tuple(CardSpec(f"PV{axis}_{n}", "Projection distortion parameter", "wcs") for axis in (1, 2) for n in TPV_TERMS)

ASTROMETRY = (
    CardSpec("FGROUPNO", "SCAMP field group label", "astrometry", 1),
    CardSpec("ASTIRMS1", "Astrom. dispersion RMS (intern., high S/N)", "astrometry", 0.0),
    CardSpec("ASTIRMS2", "Astrom. dispersion RMS (intern., high S/N)", "astrometry", 0.0),
    CardSpec("ASTRRMS1", "Astrom. dispersion RMS (ref., high S/N)", "astrometry"),
    CardSpec("ASTRRMS2", "Astrom. dispersion RMS (ref., high S/N)", "astrometry"),
    CardSpec("ASTINST", "SCAMP astrometric instrument label", "astrometry", 1),
    CardSpec("FLXSCALE", "SCAMP relative flux scale", "astrometry", 0.0),
    CardSpec("MAGZEROP", "SCAMP zero-point", "astrometry", 0.0),
    CardSpec("PHOTIRMS", "mag dispersion RMS (internal, high S/N)", "astrometry", 0.0),
    CardSpec("PHOTINST", "SCAMP photometric instrument label", "astrometry", 1),
    CardSpec("PHOTLINK", "True if linked to a photometric field", "astrometry", False),
    CardSpec("ASTROMN", "", "astrometry"),
    CardSpec("ASTCHI2", "", "astrometry"),
    CardSpec("SCAMPFIL", "", "astrometry"),
    CardSpec("SCAMPPTH", "", "astrometry"),
)

PHOTOMETRY = (
    CardSpec("CALNOTE1", "", "photometry", "*** photometric-calibration keywords below are from PSF-fitting:"),
    CardSpec("CALNOTE2", "", "photometry", "*** will also be applicable to aperture measurements on point"),
    CardSpec("CALNOTE3", "", "photometry", "*** sources using psf_mag-aper_mag corrections below (if available)"),
    *_table("photometry", """
    NMATCHES Number of photometric calibrators used
    MAGZP Magnitude zero point for PSF-photometry [mag]
    MAGZPUNC Magnitude zero point uncertainty [mag]
    MAGZPRMS Magnitude zero point RMS deviation [mag]
    CLRCOEFF Color coefficient from linear fit
    CLRCOUNC Color coefficient uncertainty from linear fit
    ZPCLRCOV Covariance in MAGZP and CLRCOEFF [mag^2]
    PCOLOR Calibrator color used for PSF-fit calibration
    SATURATE Saturation value in final science image [DN]
    ZPMED Mag zero point from median of mag diffs [mag]
    ZPAVG Mag zero point from average of mag diffs [mag]
    ZPRMSALL Mag zero point RMS from all mag diffs [mag]
    CLRMED Median calibrator color [mag]
    CLRAVG Average calibrator color [mag]
    CLRRMS RMS in calibrator color [mag]
    """),
    CardSpec("FIXAPERS", "fixed aperture diameters used [pixels]", "photometry", ",".join(f"{d:g}" for d in FIXED_APERTURES_PIX)),
    *(spec for n, diameter in enumerate(FIXED_APERTURES_PIX, 1) for spec in (
        CardSpec(f"APCOR{n}", f"PSF_mag - AP_mag for AP.diam={diameter:4.1f} pix.", "photometry"),
        CardSpec(f"APCORUN{n}", f"Uncertainty in APCOR{n} [mag]", "photometry"))),
)

QUALITY = _table("identity", """
    CCDID
    QID
    RCID
    EXPID
""") + _table("quality", """
    INFOBITS infoBits string; bit(s) = null
    SEEING seeing FWHM [pixels]
    CIDPMASK calibration DB ID for pmask image input
    CIDBIAS calibration DB ID for bias image input
    CIDHIFLT calibration DB ID for hi-nu flat image input
    CIDLOFLT calibration DB ID for low-nu flat image input
    MAGLIM 5-sigma mag-limit in PSF-fit catalog [mag]
""")

DATABASE = _table("database", """
    STATUS overall processing flag: 0 = bad; 1 = usable
    CREATED File creation date/time (Pacific Time)
    DBPID Database processed-image ID
    PROCVSN Processing version
    DBFIELD Database field
    DBNID Database night ID
    DBEXPID Database exposure ID
    DBRID Database raw-image ID
    DBRCID Database readout-channel ID
    DBFID Database filter ID
""") + (CardSpec("DBPIPEID", "Database pipeline ID", "database", 15),
        CardSpec("PROVID", "product id of this survey's registry", "database"))

DIFFERENCE = _table("difference", """
    REFFILE reference image subtracted
    DBRFID Database reference-image ID
    NFRAMREF number of inputs of the reference image
    JDSTREF start of the reference epochs [JD]
    JDENDREF end of the reference epochs [JD]
    REFMAGZP zero point of the reference image [mag]
    FLXRATIO flux scale between reference and science image
    SCISIGPX robust noise of the science image [DN]
    DIFSIGPX robust noise of the difference image [DN]
    DIFFWHM FWHM of the difference-image PSF [pixels]
    DIFFLIM 5-sigma mag-limit of the difference image [mag]
    NEVENTS events extracted, both signs
""")

REFERENCE = _table("identity", """
    FIELDID Field identifier
    CCDID CCD identifier [1..16]
    QID Quadrant image identifier [1..4]
    RCID Readout-channel identifier [0..63]
    FILTERID Filter identifier
    FILTER Filter name
""") + WCS + _table("reference", """
    NFRAMES number of epochs co-added
    JDSTART start of the first epoch [JD]
    JDEND start of the last epoch [JD]
    GAIN Gain e-/adu
    NOISECOR noise of large sums over that of independent pixels
""") + tuple(spec for spec in PHOTOMETRY if not spec.keyword.startswith("CALNOTE")) + _table("quality", """
    INFOBITS Processing status bits: see image header
    SEEING seeing FWHM [pixels]
    MAGLIM 5-sigma mag-limit in PSF-fit catalog [mag]
    STATUS overall processing flag: 0 = bad; 1 = usable
    CREATED File creation date/time (Pacific Time)
    DBRFID Database reference-image ID
    PROCVSN Processing version
    PROVID product id of this survey's registry
""")

CATALOG = _table("run", """
    PSFRUNSW Name of PSF-fitting script/software
    PSFRUNVN Version of PSF-fitting script/software
    RUNDATE Date this file was generated
    RUNTIME Time this file was generated
    INPUTIMG Input image file used
    INPUTPSF Input PSF file used
    NSOURCES Total number of sources
    OBSMJD MJD corresponds to UTC-OBS (day)
    OBSJD Julian day corresponds to UTC-OBS (day)
    EXPTIME Requested Exposure Time (s)
    AIRMASS Airmass (Hardie)
""") + _table("photometry", """
    MAGZP Magnitude zero point [mag]
    NMATCHES Number of photometric calibrators used
    MAGZPUNC Magnitude zero point uncertainty [mag]
    MAGZPRMS Magnitude zero point RMS deviation [mag]
    CLRCOEFF Color coefficient from linear fit
    CLRCOUNC Color coefficient uncertainty from linear fit
    PCOLOR Calibrator color used for calibration
""") + tuple(spec for spec in PHOTOMETRY if spec.keyword.startswith(("ZP", "CLR", "SATURATE", "APCOR", "FIXAPERS"))
             and spec.keyword not in ("CLRCOEFF", "CLRCOUNC")) + REFERENCE[:5] + _table("quality", """
    EXPID Exposure identifier
    RFID Reference image identifier
    INFOBITS Processing status bits: see image header
    SEEING seeing FWHM [pixels]
    MAGLIM 5-sigma mag-limit in PSF-fit catalog [mag]
    STATUS overall processing flag: 0 = bad; 1 = usable
    PROVID product id of this survey's registry
""")
"""HDU 0 of psfcat, sexcat and the reference catalogues."""

SCIENCE = DISTORTION + ASTROMETRY + PHOTOMETRY + QUALITY
OWN_OPERATIONS = ("METRICS", "EFFGAIN", "EFFRN")
"""Cards of intermediate files that do not belong in products."""


def science_cards(raw_cards: Header | Iterable[Card], values: Mapping, *, bits: Iterable[Card] = ()) -> list[Card]:
    """Cards of sciimg.fits (and, with the mask's bits, of mskimg.fits) in ZTF's order.

    Parameters
    ----------
    raw_cards : header of the raw quadrant as `codecs.raw.read_quadrant` gives it; all its cards pass through, unknown ones too.
    values : keyword -> value, or (value, comment). Keywords of the raw header (the solved WCS) are replaced in place.
    bits : BITnn cards that define INFOBITS.
    """
    return _product(raw_cards, values, (*WCS, *SCIENCE), bits, DATABASE)


def difference_cards(science: Header | Iterable[Card], values: Mapping, *, bits: Iterable[Card] = ()) -> list[Card]:
    """Cards of scimrefdiffimg.fits: those of the science image, with the difference's own values, keywords and INFOBITS definitions."""
    head = Header(science)
    place = {spec.keyword for spec in DATABASE}
    stale = [key for key in head if key.startswith("BIT") and key[3:].isdigit()]
    carried = {key: (head[key], head.comment(key)) for key in head if key in place}
    return _product(head.without([*stale, *place]), {**carried, **values}, DIFFERENCE, bits, DATABASE)


def reference_cards(values: Mapping, *, bits: Iterable[Card] = ()) -> list[Card]:
    """Cards of refimg.fits and its companions."""
    return _product((), values, REFERENCE, bits, ())


def catalog_cards(values: Mapping) -> list[Card]:
    """Cards of HDU 0 of a source catalogue; keywords outside the table are left out, so a whole image header may be given."""
    known = {spec.keyword for spec in CATALOG}
    return _product((), {key: value for key, value in values.items() if key in known}, CATALOG, (), (), with_fixed=False)[1:]


def _product(base, values: Mapping, before: tuple[CardSpec, ...], bits: Iterable[Card], after: tuple[CardSpec, ...], *,
             with_fixed: bool = True) -> list[Card]:
    given = Header(values)
    head = Header(base).without([*OWN_OPERATIONS, "BUNIT"])
    comments = {spec.keyword: spec.comment for spec in (*before, *after)}
    cards: list[Card] = [("BUNIT", "Data Value", "")]
    for key, value, comment in head.cards:
        if key in given:
            value, comment = given[key], given.comment(key) or comment
        cards.append((key, value, comment or comments.get(key, "")))
    placed = set(head)
    for spec in before:
        _place(cards, spec, given, placed, with_fixed)
    bits = list(bits)
    cards += bits
    placed |= {key for key, _, _ in bits}
    for spec in after:
        _place(cards, spec, given, placed, with_fixed)
    cards += [card for card in given.cards if card[0] not in placed and card[0] != "BUNIT"]
    return [card for card in cards if card[1] is not None]


def _place(cards: list[Card], spec: CardSpec, given: Header, placed: set[str], with_fixed: bool) -> None:
    if spec.keyword in placed:
        return
    value = given.get(spec.keyword, spec.fixed if with_fixed else None)
    cards.append((spec.keyword, value, (given.comment(spec.keyword) if spec.keyword in given else "") or spec.comment))
    placed.add(spec.keyword)
